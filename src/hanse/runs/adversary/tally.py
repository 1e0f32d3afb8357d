"""The tally of lies: the number of the round, and what liars do in it."""

from typing import Any, TypeVar

from hanse.core import PartyId, Program
from hanse.core.exchange import Collected, Command, Commit, Event

__all__ = ["LieCount"]

T = TypeVar("T")

OTHER_REASONS = ("it was too late", "it dropped out", "it was built on", "the round was abandoned")
"""The beginnings of the reasons why a ticket is dropped that have nothing to do with its message."""


class LieCount:
    """The number of the round that a program performs, which no ticket says, and what liars did in it.

    It is kept by this process alone, so a run that was resumed knows only of the rounds since then.
    """

    def __init__(self) -> None:
        self.current = 1
        self.alone = set[int]()
        """The rounds in which a liar that knows only its own messages had nobody to agree with."""
        self.first = 1
        """The first round that this process knows."""
        self.lied = set[int]()
        """The open tickets to which a liar has answered with a lie."""
        self.counted: dict[int, set[PartyId]] = {}
        """By round, the liars whose lies the server took."""
        self.refused: dict[int, set[PartyId]] = {}
        """By round, the liars whose lies the server refused, such as those over a bound."""
        self.is_whole = True
        """Whether it has seen all rounds of the run."""
        self.has_effect = False
        """Whether a liar has trained on or sent anything else than an honest client would have."""

    def begin(self, done: int) -> None:
        """Begins after the last round that is done."""
        self.current, self.first, self.is_whole = done + 1, done + 1, done == 0

    def watch(self, program: Program[T]) -> Program[T]:
        """Performs a program, and counts its rounds."""
        try:
            command: Command[Any] = next(program)
            while True:
                event: Event = yield command
                if isinstance(event, Collected):
                    self._take_down(event)
                if isinstance(command, Commit):
                    self.current = command.round + (0 if command.again else 1)
                command = program.send(event)
        except StopIteration as end:
            found: T = end.value
            return found
        finally:
            program.close()

    def _take_down(self, event: Collected) -> None:
        """Takes down which lies the server took, and which it refused."""
        taken = {party for n, party in zip(event.counted, event.parties, strict=True) if n in self.lied}
        refused = {
            drop.party
            for drop in event.dropped
            if drop.ticket in self.lied and not drop.reason.startswith(OTHER_REASONS)
        }
        self.counted.setdefault(self.current, set()).update(taken)
        self.refused.setdefault(self.current, set()).update(refused)
        self.lied -= {*event.counted, *(drop.ticket for drop in event.dropped)}

    def note_alone(self) -> None:
        """Takes down that a liar was alone in this round."""
        self.alone.add(self.current)
