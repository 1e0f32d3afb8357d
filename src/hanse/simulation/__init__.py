"""One machine plays all parties: research on a laptop, on a simulated clock."""

from hanse.simulation.automatic import Automatic
from hanse.simulation.backend import BLOCK_HEIGHT, Answer, ClientBackend, Job, Make, MemoryAt, WrappedBackend
from hanse.simulation.blocks import Folding, Place
from hanse.simulation.devices import Devices, heavy_tailed, ideal, unstable
from hanse.simulation.execution import Execution, auto, batched, num_processors, sequential
from hanse.simulation.in_process import InProcess
from hanse.simulation.peers import drive_together
from hanse.simulation.simulation import Simulation, SimulationChanges, Snapshot
from hanse.simulation.workers import WorkerPool, WorkersFailed

__all__ = [
    "BLOCK_HEIGHT",
    "Answer",
    "Automatic",
    "ClientBackend",
    "Devices",
    "Execution",
    "Folding",
    "InProcess",
    "Job",
    "Make",
    "MemoryAt",
    "Place",
    "Simulation",
    "SimulationChanges",
    "Snapshot",
    "WorkerPool",
    "WorkersFailed",
    "WrappedBackend",
    "auto",
    "batched",
    "drive_together",
    "heavy_tailed",
    "ideal",
    "num_processors",
    "sequential",
    "unstable",
]
