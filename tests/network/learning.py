"""Learners of the tests, in a module that child processes of clients import quickly; some go wrong."""

import ctypes
import hashlib
import json
import mmap
import os
import signal
import socket
import subprocess
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


class Hostile:
    """A learner that attacks the machine which it is trained on, and says what came of it.

    Args:
      about: the port of a server on this machine, the client home, a file of the owner's data, and a number
        of bytes that is more than a process may use.
    """

    def __init__(self, about: dict[str, Any]) -> None:
        self._about = about

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(learner(), name)

    def local_sgd(self, *given: Any, **more: Any) -> Any:
        about = self._about
        home, data, many = Path(about["home"]), Path(about["data"]), about["bytes"]
        print("an order to the terminal", flush=True)
        tries = {
            "reach the server": lambda: socket.create_connection(("127.0.0.1", about["port"]), 1.0),
            "reach a socket on the disk": lambda: socket.socket(socket.AF_UNIX).connect(str(home / "socket")),
            "reach the world": lambda: socket.create_connection(("203.0.113.5", 443), 1.0),
            "read the key": lambda: (home / "key.pem").read_bytes(),
            "read the data": data.read_bytes,
            "write the data": lambda: os.truncate(data, 0),
            "write in its run": lambda: (home / "runs" / "run" / "message").write_bytes(b"another message"),
            "write beside it": lambda: (home / "approved.json").write_bytes(b"{}"),
            "write a library": lambda: Path(np.__file__).with_name("more.py").write_bytes(b""),
            "write in the root": lambda: Path("/more").write_bytes(b""),
            "fork": os.fork,
            "start a program": lambda: subprocess.run(["/bin/true"]),
            "eat memory": lambda: np.empty(many, np.uint8),
            "eat shared memory": lambda: mmap.mmap(-1, many),
            "fill the scratch folder": lambda: os.truncate(_scratch(), 1 << 30),
            "open many files": lambda: [open("/dev/null") for _ in range(5000)],  # noqa: SIM115
            "make a name space": lambda: _unshare(),
            "read the environment": lambda: os.environ["HANSE_TEST_SECRET"],
            "stop the client": lambda: os.kill(about["pid"], 0),
        }
        found = {name: _try(attack) for name, attack in tries.items()}
        found["files of the home"] = sorted(os.listdir(home)) if home.is_dir() else []
        raise RuntimeError(json.dumps(found))


def _scratch() -> str:
    Path("/tmp/mine").write_bytes(b"what is written here is gone with the process")
    return "/tmp/mine"


def _unshare() -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(0x10000000):
        raise OSError(ctypes.get_errno(), "unshare")


def _try(attack: Any) -> str:
    try:
        attack()
    except Exception as error:
        return type(error).__name__
    return "succeeded"


def attacks(plan: Any) -> Any:
    return Hostile(json.loads(plan.settings)["about"])


class _Curious(Hostile):
    def local_sgd(self, *given: Any, **more: Any) -> Any:
        home = Path(self._about["home"])
        tries = {
            "read the key": lambda: (home / "key.pem").read_bytes(),
            "write": lambda: (home / "approved.json").write_bytes(b"{}"),
            "start a program": lambda: subprocess.run(["/bin/true"]),
            "stop the client": lambda: os.kill(self._about["pid"], 0),
        }
        raise RuntimeError(json.dumps({name: _try(attack) for name, attack in tries.items()}))


def attacks_a_little(plan: Any) -> Any:
    return _Curious(json.loads(plan.settings)["about"])
