"""One machine plays all parties: research on a laptop, on a simulated clock."""

from typing import TYPE_CHECKING, Any

from hanse.simulation.chosen import Chosen
from hanse.simulation.devices import Devices, heavy_tailed, ideal, unstable
from hanse.simulation.peers import drive_together
from hanse.simulation.simulation import Clients, Simulation
from hanse.simulation.ways import Way, auto, cohort, plain
from hanse.simulation.workers import Workers, WorkersFailed

if TYPE_CHECKING:
    from hanse.simulation.concurrent import ClientTasks, ConcurrentSimulation

__all__ = [
    "Chosen",
    "ClientTasks",
    "Clients",
    "ConcurrentSimulation",
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


def __getattr__(name: str) -> Any:
    if name not in ("ClientTasks", "ConcurrentSimulation"):
        raise AttributeError(f"module 'hanse.simulation' has no attribute {name!r}")
    from hanse.simulation import concurrent  # few need asyncio, which takes long to import

    return getattr(concurrent, name)
