"""Limits of a client's computing time: a bound on each ticket, and a sum of each day in a file."""

import ctypes
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

__all__ = ["Computation", "Day", "TimeLimitExceeded"]

T = TypeVar("T")


class TimeLimitExceeded(Exception):
    """A computation took longer than it may, and was stopped."""


class _Stop(BaseException):
    """Stops the thread of a computation. It is no Exception, so that works don't catch it by accident."""


class Computation(Generic[T]):
    """A function in a thread of its own, which is stopped if it takes too long.

    It stops between two steps of Python. A long call into a library (a compiled epoch) is abandoned:
    `still_runs` is true until the call returns, and its result is not used.
    """

    def __init__(self, act: Callable[[], T]) -> None:
        self._act = act
        self._result: list[T] = []
        self._error: BaseException | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="computation", daemon=True)

    def _run(self) -> None:
        try:
            self._result.append(self._act())
        except BaseException as error:
            self._error = error
        finally:
            self._ended.set()

    def result(self, limit_s: float) -> T:
        """Runs the function. Raises: TimeLimitExceeded: if it takes longer; and what the function raises."""
        self._thread.start()
        if not self._ended.wait(limit_s):
            ident = ctypes.c_ulong(self._thread.ident or 0)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(_Stop))
            raise TimeLimitExceeded(f"stopped after {limit_s:g} s")
        if self._error is not None:
            raise self._error
        return self._result.pop()

    def still_runs(self, wait_s: float = 0.0) -> bool:
        """Returns whether the function still runs after this wait."""
        self._thread.join(wait_s)
        return self._thread.is_alive()


class Day:
    """The seconds of computation of the current day, in a file."""

    def __init__(self, path: Path, today: Callable[[], str] = lambda: time.strftime("%Y-%m-%d")) -> None:
        self._path, self._today = path, today

    @property
    def seconds(self) -> float:
        """The seconds so far; 0 if the file is of another day, or can't be read."""
        try:
            said = json.loads(self._path.read_text())
            return float(said["seconds"]) if said["day"] == self._today() else 0.0
        except (OSError, ValueError, KeyError, TypeError):
            return 0.0

    def add(self, seconds: float) -> None:
        """Adds seconds to the sum."""
        whole = self._path.with_name(f"{self._path.name}.part")
        whole.write_text(json.dumps({"day": self._today(), "seconds": round(self.seconds + seconds, 3)}))
        whole.replace(self._path)
