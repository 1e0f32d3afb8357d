"""One machine plays all parties: research on a laptop, on a simulated clock."""

from hanse.simulation.adaptive import AdaptiveClients
from hanse.simulation.blocks import Place
from hanse.simulation.clients import Clients, ClientSide, Settled
from hanse.simulation.devices import Devices, heavy_tailed, ideal, unstable
from hanse.simulation.execution import Execution, auto, batched, num_processors, sequential
from hanse.simulation.peers import drive_together
from hanse.simulation.simulation import Simulation, Snapshot
from hanse.simulation.workers import ONE_THREAD, Recall, Workers, WorkersFailed

__all__ = [
    "ONE_THREAD",
    "AdaptiveClients",
    "ClientSide",
    "Clients",
    "Devices",
    "Execution",
    "Place",
    "Recall",
    "Settled",
    "Simulation",
    "Snapshot",
    "Workers",
    "WorkersFailed",
    "auto",
    "batched",
    "drive_together",
    "heavy_tailed",
    "ideal",
    "num_processors",
    "sequential",
    "unstable",
]
