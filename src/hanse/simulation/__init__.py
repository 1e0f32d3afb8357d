"""One machine plays all parties: research on a laptop, on a simulated clock."""

from hanse.simulation.concurrent import ClientTasks, ConcurrentSimulation
from hanse.simulation.devices import Devices, heavy_tailed, ideal, unstable
from hanse.simulation.peers import drive_together
from hanse.simulation.simulation import Clients, Simulation
from hanse.simulation.workers import Workers

__all__ = [
    "ClientTasks",
    "Clients",
    "ConcurrentSimulation",
    "Devices",
    "Simulation",
    "Workers",
    "drive_together",
    "heavy_tailed",
    "ideal",
    "unstable",
]
