"""One machine plays all parties: research on a laptop, on a simulated clock."""

from hanse.simulation.chosen import AdaptiveClients
from hanse.simulation.devices import Devices, heavy_tailed, ideal, unstable
from hanse.simulation.peers import drive_together
from hanse.simulation.simulation import Clients, Simulation
from hanse.simulation.ways import Execution, auto, batched, sequential
from hanse.simulation.workers import Workers, WorkersFailed

__all__ = [
    "AdaptiveClients",
    "Clients",
    "Devices",
    "Execution",
    "Simulation",
    "Workers",
    "WorkersFailed",
    "auto",
    "batched",
    "drive_together",
    "heavy_tailed",
    "ideal",
    "sequential",
    "unstable",
]
