"""Starts commands fast, in processes of their own: they are forked from one that has imported what they need.

    process = python("-m", "hanse", "run", "mine.toml", cwd=folder, stdout=PIPE)

stands for `subprocess.Popen([sys.executable, "-m", ...], text=True)`. The process has its own arguments,
folder, environment, standard streams, signals and exit status, and its `sys.path` is that of an interpreter
which starts. Only the imports were made before, so a few tests start the interpreter itself.
"""

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT
from typing import IO, Any, Self

__all__ = ["DEVNULL", "PIPE", "STDOUT", "Forked", "python"]

FORGE = Path(__file__).with_name("forge.py")
ENVIRONMENT = dict(os.environ)
"""The variables before any test has changed them."""


@cache
def forge() -> socket.socket:
    """Start the process from which others are forked, and return the socket on which it is asked."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, str(FORGE), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=DEVNULL,
            env=ENVIRONMENT,
        )

    def close() -> None:
        ours.close()
        process.wait()

    atexit.register(close)
    return ours


class Forked:
    """A process that was forked; it is used as `subprocess.Popen` is.

    Args:
      program: perhaps -u or -W error, then -m MODULE, -c CODE or a file, and words.
      cwd: its folder; None: that of this process.
      env: its variables; None: those of this process.
      stdin, stdout, stderr: a file, its number, PIPE, DEVNULL or STDOUT; None: those of this process.
      umask: its mask of permissions; None: that of this process.
      start_new_session: whether it leads a session of its own.
    """

    def __init__(
        self,
        *program: object,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        stdin: int | IO[Any] | None = None,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
        umask: int | None = None,
        start_new_session: bool = False,
    ) -> None:
        words = list(map(str, program))
        flags = []
        while words[0] in ("-u", "-W"):
            flags.append(words.pop(0) if words[0] == "-u" else f"{words.pop(0)} {words.pop(0)}")
        how = words.pop(0) if words[0] in ("-m", "-c") else ""
        if umask is None:
            os.umask(umask := os.umask(0))
        request = {
            "flags": flags,
            "program": [how, words.pop(0)],
            "words": words,
            "cwd": os.fspath(cwd or os.getcwd()),
            "env": dict(os.environ if env is None else env),
            "umask": umask,
            "new_session": start_new_session,
        }
        self.returncode: int | None = None
        self._report, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        passed = [theirs.fileno()]
        opened: list[int] = [theirs.detach()]
        self.stdin, self.stdout, self.stderr = (
            self._end(number, given, passed, opened) for number, given in enumerate((stdin, stdout, stderr))
        )
        socket.send_fds(forge(), [json.dumps(request).encode()], passed)
        for number in opened:
            os.close(number)
        self.pid = int(self._report.recv(100))

    @staticmethod
    def _end(number: int, given: int | IO[Any] | None, passed: list[int], opened: list[int]) -> Any:
        """Choose a standard stream of the process. Return our end of it, if it is a pipe."""
        ours: IO[str] | None = None
        if given is None:
            passed.append(number)
        elif given == STDOUT:
            passed.append(passed[2])
        elif given == DEVNULL:
            opened.append(os.open(os.devnull, os.O_RDWR))
            passed.append(opened[-1])
        elif given == PIPE:
            read, write = os.pipe()
            ours = os.fdopen(write, "w") if number == 0 else os.fdopen(read)
            opened.append(read if number == 0 else write)
            passed.append(opened[-1])
        else:
            passed.append(given if isinstance(given, int) else given.fileno())
        return ours

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self._report.settimeout(timeout)
            try:
                self.returncode = int(self._report.recv(100))
            except (BlockingIOError, TimeoutError):
                raise subprocess.TimeoutExpired("python", timeout or 0.0) from None
            self._report.close()
        return self.returncode

    def poll(self) -> int | None:
        try:
            return self.wait(0.0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def communicate(self, timeout: float | None = None) -> tuple[Any, Any]:
        """Read both pipes to their ends, and wait for the process."""
        said: dict[int, str] = {}

        def read(number: int, pipe: IO[str]) -> None:
            with pipe:
                said[number] = pipe.read()

        if self.stdin is not None:
            self.stdin.close()
        pipes = [(n, pipe) for n, pipe in ((1, self.stdout), (2, self.stderr)) if pipe is not None]
        readers = [threading.Thread(target=read, args=each, daemon=True) for each in pipes]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(timeout)
            if reader.is_alive():
                raise subprocess.TimeoutExpired("python", timeout or 0.0)
        self.wait(timeout)
        return said.get(1), said.get(2)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for pipe in (self.stdin, self.stdout, self.stderr):
            if pipe is not None:
                pipe.close()
        self.wait()


def python(*program: object, **options: Any) -> "Forked | subprocess.Popen[str]":
    """Start a process; where it can't be forked, the interpreter is started."""
    if sys.platform == "linux":
        return Forked(*program, **options)
    return subprocess.Popen([sys.executable, *map(str, program)], text=True, **options)
