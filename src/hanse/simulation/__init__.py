"""One machine plays all parties: research on a laptop, on a simulated clock."""

from hanse.simulation.chosen import Chosen
from hanse.simulation.devices import Devices, heavy_tailed, ideal, unstable
from hanse.simulation.peers import drive_together
from hanse.simulation.simulation import Clients, Simulation
from hanse.simulation.ways import Way, auto, cohort, plain
from hanse.simulation.workers import Workers, WorkersFailed

__all__ = [
    "Chosen",
    "Clients",
    "Devices",
    "Simulation",
    "Way",
    "Workers",
    "WorkersFailed",
    "auto",
    "cohort",
    "drive_together",
    "heavy_tailed",
    "ideal",
    "plain",
    "unstable",
]
