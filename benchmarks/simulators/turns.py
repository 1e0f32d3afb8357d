"""A tool's side of taking turns: it waits for its turn, performs a round, and reports how long that took."""

import os
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Client

from workloads import WORKLOADS, Workload

ADDRESS = "HANSE_BENCHMARK_ADDRESS"


class Turns:
    """The connection of a tool to `run.py`. `workload` and `num_rounds` are its task.

    The clock runs from when a tool may begin a round until it calls `done`. After the first round a tool may
    warm up for as long as it needs, and then calls `warm`.
    """

    def __init__(self) -> None:
        self.workload: Workload = WORKLOADS[sys.argv[1]]
        self.num_rounds = int(sys.argv[2])
        self.choices = tuple(sys.argv[3:])
        self._led = Client(os.environ[ADDRESS])
        self._number = 0
        self._began = time.perf_counter()

    def done(self, checksum: Callable[[], float] | None = None) -> None:
        """End a round, and return when the next one may begin.

        Args:
          checksum: the norm of the parameters, which is needed after the first round.
        """
        self.first(checksum) if self._number == 0 else self._next()

    def first(self, checksum: Callable[[], float] | None = None, *, warm: bool = True) -> None:
        """End the first round. A tool that is not warm yet continues at once, and calls `warm` later."""
        self.say("round", time.perf_counter() - self._began)
        if checksum is not None:
            self.say("checksum", checksum())
        if warm:
            self.warm()

    def warm(self) -> None:
        """End the warm-up, and return when the next round may begin."""
        self.say("warm", True)
        self._wait()

    def _next(self) -> None:
        self.say("round", time.perf_counter() - self._began)
        self._wait()

    def _wait(self) -> None:
        self._number += 1
        self._led.recv()  # after the last round, too, so that the rest disturbs nobody
        self._began = time.perf_counter()

    @property
    def over(self) -> bool:
        """Return whether all rounds are done."""
        return self._number >= self.num_rounds

    def say(self, what: str, value: object) -> None:
        """Report something that is not a round."""
        self._led.send((what, value))
