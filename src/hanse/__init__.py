"""Hanse trains one model over data that many parties keep to themselves.

    import hanse
    from hanse.algorithms import fed_avg
    from hanse.data import digits, dirichlet

    result = hanse.run(data=digits(), partition=dirichlet(100, alpha=0.5), algorithm=fed_avg(lr=0.5))

Everything is loaded when it is first used, so importing the package costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hanse import algorithms, core, data, learners, simulation, store, transforms
    from hanse.apps.experiment import Experiment
    from hanse.apps.reading import read
    from hanse.apps.result import Interrupted, Result, RunDiverged
    from hanse.apps.running import perform, resume, run
    from hanse.apps.sweep import sweep
    from hanse.core.algorithm import Stop
    from hanse.core.errors import (
        CompositionError,
        Diverged,
        HanseError,
        InvalidInput,
        MessageError,
        NotReady,
        ReplayError,
        RoundAbandoned,
        StoreError,
    )

__all__ = [
    "CompositionError",
    "Diverged",
    "Experiment",
    "HanseError",
    "Interrupted",
    "InvalidInput",
    "MessageError",
    "NotReady",
    "ReplayError",
    "Result",
    "RoundAbandoned",
    "RunDiverged",
    "Stop",
    "StoreError",
    "__version__",
    "algorithms",
    "core",
    "data",
    "learners",
    "perform",
    "read",
    "resume",
    "run",
    "simulation",
    "store",
    "sweep",
    "transforms",
]

__version__ = "0.1.0"

_MODULES = {
    "hanse.apps.experiment": ("Experiment",),
    "hanse.apps.reading": ("read",),
    "hanse.apps.result": ("Interrupted", "Result", "RunDiverged"),
    "hanse.apps.running": ("perform", "resume", "run"),
    "hanse.apps.sweep": ("sweep",),
    "hanse.core.algorithm": ("Stop",),
    "hanse.core.errors": (
        "CompositionError",
        "Diverged",
        "HanseError",
        "InvalidInput",
        "MessageError",
        "NotReady",
        "ReplayError",
        "RoundAbandoned",
        "StoreError",
    ),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        found = getattr(import_module(_HOMES[name]), name)
    elif name in __all__:
        found = import_module(f"hanse.{name}")
    else:
        raise AttributeError(f"module 'hanse' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
