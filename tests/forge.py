"""A process of one thread that has imported what commands need, and forks one for each request.

Run by `forked.py`, with the number of the socket on which it is asked. It ends when that socket is closed.
"""

import gc
import importlib
import io
import json
import multiprocessing.process
import os
import runpy
import socket
import sys
import types
import warnings
from contextlib import suppress
from typing import Any

IMPORTS = (
    "hanse.algorithms",
    "hanse.attacks",
    "hanse.cli.commands",
    "hanse.cli.consoles",
    "hanse.cli.contract",
    "hanse.cli.serving.screens",
    "hanse.cli.views",
    "hanse.config",
    "hanse.data",
    "hanse.evaluation",
    "hanse.imports",
    "hanse.learners.linear",
    "hanse.network.client",
    "hanse.network.server.api",
    "hanse.preprocessing",
    "hanse.privacy",
    "hanse.robust",
    "hanse.runs",
    "hanse.simulation",
    "hanse.sweeps",
    "hanse.transforms",
    "hanse.network.server.https",
    "hanse.network.client.isolation",
    "hanse.privacy.encryption",
    "hanse.runs.preparation",
    "hanse.runs.protection",
    "httpcore",
    "numpy.ma",
    "safetensors.numpy",
    "uvicorn.lifespan.off",
    "uvicorn.loops.auto",
    "anyio._backends._asyncio",
    "certifi",
    "cryptography.hazmat.backends.openssl.backend",
    "encodings.idna",
    "h11",
    "sqlalchemy.dialects.sqlite",
    "tomllib",
    "uvicorn.protocols.http.httptools_impl",
)


def import_all(name: str) -> None:
    """Import a module, and what our faces import only where it is used."""
    with suppress(ImportError):  # an extra is not installed
        module = importlib.import_module(name)
        for shown in getattr(module, "__all__", ()) if name.startswith("hanse.") else ():
            with suppress(ImportError):
                getattr(module, shown)


def serve(asked: socket.socket) -> Any:
    """Fork a process for each request. Return the request in that process, and None at the end."""
    while True:
        text, received, _, _ = socket.recv_fds(asked, 1 << 20, 4)
        if not text:
            return None
        reap()
        if os.fork() == 0:
            asked.close()
            return begin(json.loads(text), *received)
        for number in received:
            os.close(number)


def reap() -> None:
    """Forget the processes that have ended."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def begin(request: Any, report: int, *ends: int) -> Any:
    """Fork the process that was asked for, and return the request in it; here, report how it ends."""
    if (pid := os.fork()) == 0:
        os.close(report)
        for number, end in enumerate(ends):
            os.dup2(end, number)
        for end in ends:
            os.close(end)
        return request
    for end in ends:
        os.close(end)
    os.write(report, b"%d" % pid)
    _, status = os.waitpid(pid, 0)
    with suppress(BrokenPipeError):  # nobody waits for it
        os.write(report, b"%d" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def open_again(number: int, mode: str, before: Any, hurried: bool) -> Any:
    """Open a standard stream, with the encoding that the interpreter has chosen."""
    buffer = os.fdopen(number, f"{mode}b", 0 if mode == "w" and hurried else -1)
    return io.TextIOWrapper(
        buffer,
        encoding=before.encoding,
        errors=before.errors,
        line_buffering=number == 2 or os.isatty(number),
        write_through=mode == "w" and hurried,
    )


def take_over(request: Any, installed: list[str]) -> None:
    """Give this process all that an interpreter finds when it starts."""
    if request["new_session"]:
        os.setsid()
    if request["umask"] is not None:
        os.umask(request["umask"])
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    flags = set(request["flags"])
    if os.environ.get("PYTHONWARNINGS", "error") != "error" or not flags <= {"-u", "-W error"}:
        raise ValueError(f"a forked process knows -u and -W error, not {flags}")
    if "-W error" in flags or "PYTHONWARNINGS" in os.environ:
        warnings.simplefilter("error")
        sys.warnoptions.append("error")
    hurried = "-u" in flags or bool(os.environ.get("PYTHONUNBUFFERED"))
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        stream = open_again(number, mode, getattr(sys, name), hurried)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    multiprocessing.process.ORIGINAL_DIR = os.getcwd()  # type: ignore[attr-defined]
    given = [os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [os.getcwd(), *given, *installed]


def perform(how: str, what: str, words: list[str]) -> None:
    """Run what follows the name of the interpreter."""
    sys.argv[:] = [what, *words]
    if how == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    elif how == "-c":
        sys.argv[0], sys.path[0] = "-c", ""
        sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(what, "<string>", "exec"), vars(sys.modules["__main__"]))
    else:
        sys.path[0] = os.path.dirname(what)
        runpy.run_path(what, run_name="__main__")


if __name__ == "__main__":
    given = [os.path.abspath(p) for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    installed = [path for path in sys.path[1:] if path not in given]
    asked = socket.socket(fileno=int(sys.argv[1]))
    for name in IMPORTS:
        import_all(name)
    gc.freeze()  # what is shared stays shared
    if (request := serve(asked)) is not None:
        take_over(request, installed)
        perform(*request["program"], request["words"])
