"""A party's own half of a run: its learner, its data, its secret and its forks of memory."""

import threading
from collections.abc import Mapping
from typing import Any

from hanse.core import Key, Memory
from hanse.core.exchange import Fork, Forks, Message, Payload, Task, compute

__all__ = ["Party"]


class Party:
    """Computes the tickets of one party and keeps its memory.

    Args:
      learner: the model, on this party's engine.
      data: its own.
      secret: its own. The number of each ticket is folded in, so a ticket done twice gives the same bytes.
      committed: its memory.
    """

    def __init__(self, learner: Any, data: Any, secret: Key, committed: Memory | None = None) -> None:
        self._learner, self._data, self._secret = learner, data, secret
        self.forks = Forks(committed)
        self.lock = threading.RLock()
        """Held by whoever reads or writes the forks."""

    def compute(self, task: Task, payload: Payload) -> Message:
        """Computes a ticket, and keeps the fork of memory that it leads to."""
        with self.lock:
            before = self.forks.at(task.after)
        message, memory = compute(
            task, payload, self._learner, self._data, before, self._secret.fold_in(task.ticket)
        )
        with self.lock:
            self.forks.keep(task.ticket, Fork.between(task.after, before, memory))
        return message

    def forks_of(self, tickets: Mapping[int, Any]) -> dict[int, Fork]:
        """Returns the forks of the given tickets that were computed and are not settled yet."""
        return {ticket: fork for ticket, fork in self.forks.forks.items() if ticket in tickets}
