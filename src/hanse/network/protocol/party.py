"""A role that the server plays: its learner, its data and its secret. `PartyMemory` keeps its memory."""

from dataclasses import dataclass
from typing import Any

from hanse.core import Key, Memory
from hanse.core.exchange import Fork, Message, Payload, Task, compute

__all__ = ["Party"]


@dataclass(frozen=True)
class Party:
    """Computes the tickets of one party.

    Args:
      learner: the model, on this party's engine.
      data: its own.
      secret: its own. The number of each ticket is folded in, so a ticket done twice gives the same bytes.
    """

    learner: Any
    data: Any
    secret: Key

    def compute(self, task: Task, payload: Payload, memory: Memory) -> tuple[Message, Fork]:
        """Computes a ticket; returns the message, and the fork of memory that it leads to."""
        return compute(task, payload, self.learner, self.data, memory, self.secret.fold_in(task.ticket))
