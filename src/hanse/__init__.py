"""Hanse trains one model over data that many parties keep to themselves.

    import hanse
    from hanse.algorithms import fed_avg
    from hanse.data import digits, dirichlet

    result = hanse.run(data=digits(), partition=dirichlet(100, alpha=0.5), algorithm=fed_avg(lr=0.5))

Everything is loaded when it is first used, so importing the package costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hanse.lazy import load_from
from hanse.version import __version__

if TYPE_CHECKING:
    from hanse import (
        algorithms,
        attacks,
        config,
        core,
        data,
        evaluation,
        learners,
        network,
        preprocessing,
        privacy,
        release,
        report,
        robust,
        runs,
        simulation,
        store,
        sweeps,
        transforms,
    )
    from hanse.config import Experiment, read
    from hanse.core import (
        CompositionError,
        Declined,
        Diverged,
        Examples,
        HanseError,
        InvalidInput,
        MessageError,
        RoundAbandoned,
        Stalled,
        Stop,
        StoreError,
    )
    from hanse.core.exchange import NotReady, ReplayError
    from hanse.release import predict
    from hanse.runs import (
        Interrupted,
        Result,
        Round,
        Rounds,
        RunDiverged,
        TensorBoard,
        load,
        perform,
        resume,
        rounds,
        run,
    )
    from hanse.sweeps import sweep

__all__ = [
    "CompositionError",
    "Declined",
    "Diverged",
    "Examples",
    "Experiment",
    "HanseError",
    "Interrupted",
    "InvalidInput",
    "MessageError",
    "NotReady",
    "ReplayError",
    "Result",
    "Round",
    "RoundAbandoned",
    "Rounds",
    "RunDiverged",
    "Stalled",
    "Stop",
    "StoreError",
    "TensorBoard",
    "__version__",
    "algorithms",
    "attacks",
    "config",
    "core",
    "data",
    "evaluation",
    "learners",
    "load",
    "network",
    "perform",
    "predict",
    "preprocessing",
    "privacy",
    "read",
    "release",
    "report",
    "resume",
    "robust",
    "rounds",
    "run",
    "runs",
    "simulation",
    "store",
    "sweep",
    "sweeps",
    "transforms",
]

_ROOMS = (
    "algorithms",
    "attacks",
    "config",
    "core",
    "data",
    "evaluation",
    "learners",
    "network",
    "preprocessing",
    "privacy",
    "release",
    "report",
    "robust",
    "runs",
    "simulation",
    "store",
    "sweeps",
    "transforms",
)

_load = load_from(
    __name__,
    {
        "hanse.config": ("Experiment", "read"),
        "hanse.core": (
            "CompositionError",
            "Declined",
            "Diverged",
            "Examples",
            "HanseError",
            "InvalidInput",
            "MessageError",
            "RoundAbandoned",
            "Stalled",
            "Stop",
            "StoreError",
        ),
        "hanse.core.exchange": ("NotReady", "ReplayError"),
        "hanse.release": ("predict",),
        "hanse.runs": (
            "Interrupted",
            "Result",
            "Round",
            "Rounds",
            "RunDiverged",
            "TensorBoard",
            "load",
            "perform",
            "resume",
            "rounds",
            "run",
        ),
        "hanse.sweeps": ("sweep",),
    },
)


def __getattr__(name: str) -> Any:
    return import_module(f"hanse.{name}") if name in _ROOMS else _load(name)


def __dir__() -> list[str]:
    return __all__
