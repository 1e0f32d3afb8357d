"""One machine plays all parties: research on a laptop, on a simulated clock."""

from typing import TYPE_CHECKING

from hanse.lazy import load_from

if TYPE_CHECKING:
    from hanse.simulation.automatic import Automatic
    from hanse.simulation.availability import Availability, all_of, always, at_random, daily
    from hanse.simulation.backend import (
        BLOCK_HEIGHT,
        Answer,
        ClientBackend,
        Job,
        Make,
        MemoryAt,
        WrappedBackend,
    )
    from hanse.simulation.blocks import Folding, Place
    from hanse.simulation.clock import Clock
    from hanse.simulation.devices import Devices, heavy_tailed, ideal, unstable
    from hanse.simulation.execution import Execution, auto, batched, sequential
    from hanse.simulation.in_process import InProcess
    from hanse.simulation.peers import drive_together
    from hanse.simulation.simulation import Simulation, SimulationChanges, Snapshot
    from hanse.simulation.timed import (
        Link,
        Speed,
        constant_speed,
        data_centre,
        hospital_wan,
        log_normal_speed,
        pareto_speed,
        phone_on_wifi,
        timed,
        volunteers,
    )
    from hanse.simulation.workers import WorkerPool, WorkersFailed
else:
    __getattr__ = load_from(
        __name__,
        {
            "hanse.simulation.automatic": ("Automatic",),
            "hanse.simulation.availability": ("Availability", "all_of", "always", "at_random", "daily"),
            "hanse.simulation.backend": (
                "BLOCK_HEIGHT",
                "Answer",
                "ClientBackend",
                "Job",
                "Make",
                "MemoryAt",
                "WrappedBackend",
            ),
            "hanse.simulation.blocks": ("Folding", "Place"),
            "hanse.simulation.clock": ("Clock",),
            "hanse.simulation.devices": ("Devices", "heavy_tailed", "ideal", "unstable"),
            "hanse.simulation.execution": ("Execution", "auto", "batched", "sequential"),
            "hanse.simulation.in_process": ("InProcess",),
            "hanse.simulation.peers": ("drive_together",),
            "hanse.simulation.simulation": ("Simulation", "SimulationChanges", "Snapshot"),
            "hanse.simulation.timed": (
                "Link",
                "Speed",
                "constant_speed",
                "data_centre",
                "hospital_wan",
                "log_normal_speed",
                "pareto_speed",
                "phone_on_wifi",
                "timed",
                "volunteers",
            ),
            "hanse.simulation.workers": ("WorkerPool", "WorkersFailed"),
        },
        registers={
            "hanse.simulation.clock": ("ClockState",),
        },
    )

__all__ = [
    "BLOCK_HEIGHT",
    "Answer",
    "Automatic",
    "Availability",
    "ClientBackend",
    "Clock",
    "Devices",
    "Execution",
    "Folding",
    "InProcess",
    "Job",
    "Link",
    "Make",
    "MemoryAt",
    "Place",
    "Simulation",
    "SimulationChanges",
    "Snapshot",
    "Speed",
    "WorkerPool",
    "WorkersFailed",
    "WrappedBackend",
    "all_of",
    "always",
    "at_random",
    "auto",
    "batched",
    "constant_speed",
    "daily",
    "data_centre",
    "drive_together",
    "heavy_tailed",
    "hospital_wan",
    "ideal",
    "log_normal_speed",
    "pareto_speed",
    "phone_on_wifi",
    "sequential",
    "timed",
    "unstable",
    "volunteers",
]
