"""Learners of the tests, in a module that child processes of clients import quickly; some go wrong."""

import ctypes
import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

from hanse.core import InvalidInput, OwnLearners, Part, Work, value
from hanse.learners import softmax

SOFTMAX = softmax()
SHAPE = (64,)


def bound(model: Any) -> Any:
    return model.bind(SHAPE, 10)


def learner(plan: Any = None) -> Any:
    return bound(SOFTMAX) if plan is None else plan.model.bind(plan.feature_shape, plan.num_classes)


def nothing(plan: Any = None) -> None:
    """Binds no learner, for works that need none."""


class Wrong:
    """A learner whose local training goes wrong in a given way."""

    def __init__(self, how: str) -> None:
        self._how = how

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(learner(), name)

    def local_sgd(self, *given: Any, **more: Any) -> Any:
        match self._how:
            case "spins":  # in one call into a library, which no signal of Python's interrupts
                print("spinning", os.getpid(), flush=True)
                hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
            case "loops":
                while True:
                    pass
            case "is killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "crashes":
                ctypes.string_at(0)
            case "exits":
                os._exit(3)
            case "lacks memory":
                raise MemoryError("a table of 7 patients does not fit")
            case _:
                raise ValueError(f"patient 7 {self._how}")


def spins(plan: Any) -> Any:
    return Wrong("spins")


def loops(plan: Any) -> Any:
    return Wrong("loops")


def is_killed(plan: Any) -> Any:
    return Wrong("is killed")


def crashes(plan: Any) -> Any:
    return Wrong("crashes")


def exits(plan: Any) -> Any:
    return Wrong("exits")


def lacks_memory(plan: Any) -> Any:
    return Wrong("lacks memory")


def raises(plan: Any) -> Any:
    return Wrong("is too tall")


@value
class count_up(Work[Any, Any]):
    """Counts in memory, beside a table; says what it found. It may write to the table, though it must not."""

    writes: bool = False

    def run(self, learner: Any, shared: Any, data: Any, memory: Any, keys: Any) -> Any:
        if self.writes:
            memory["table"]["w"][0] = 9.0
        memory["table"]["seen"] = True  # a dictionary of its own
        names = np.frombuffer(" ".join(memory).encode().ljust(20), np.uint8)
        found = {"n": np.asarray(memory.get("steps", 0.0) + memory["table"]["w"][0]), "names": names}
        return {"found": Part(found)}, {"table": memory["table"], "steps": memory.get("steps", 0.0) + 1}


def fits_own_data(plan: Any) -> OwnLearners:
    return OwnLearners(_fit)


def _fit(party: Any, data: Any) -> Any:
    if party != "test/3":
        raise InvalidInput(f"{party!r} holds {data.x.shape[1]} columns")
    return bound(SOFTMAX)


def refuses(plan: Any) -> Any:
    raise InvalidInput("64 features do not suit it")


def shows_itself(plan: Any) -> Any:
    """Fails, and says which files it has open and how many threads compute."""
    import numpy as np  # its products have threads

    np.ones((9, 9)) @ np.ones((9, 9))
    files = [
        str(path.readlink())
        for path in Path("/proc/self/fd").iterdir()
        if int(path.name) > 2 and path.exists()
    ]
    raise RuntimeError(json.dumps({"files": files, "threads": [i["num_threads"] for i in threadpool_info()]}))
