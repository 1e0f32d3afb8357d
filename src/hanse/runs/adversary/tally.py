"""The tally of lies: the number of the round, and what liars do in it."""

from typing import Any, TypeVar

from hanse.core import Program
from hanse.core.exchange import Command, Commit, Event

__all__ = ["Tally"]

T = TypeVar("T")


class Tally:
    """The number of the round that a program performs, which no ticket says, and what liars did in it.

    It is kept by this process alone, so a run that was resumed knows only of the rounds since then.
    """

    def __init__(self) -> None:
        self.current = 1
        self.alone = set[int]()
        """The rounds in which a liar that knows only its own messages had nobody to agree with."""
        self.is_whole = True
        """Whether it has seen all rounds of the run."""
        self.has_effect = False
        """Whether a liar has trained on or sent anything else than an honest client would have."""

    def begin(self, done: int) -> None:
        """Begins after the last round that is done."""
        self.current, self.is_whole = done + 1, done == 0

    def watch(self, program: Program[T]) -> Program[T]:
        """Performs a program, and counts its rounds."""
        try:
            command: Command[Any] = next(program)
            while True:
                event: Event = yield command
                if isinstance(command, Commit):
                    self.current = command.round + (0 if command.again else 1)
                command = program.send(event)
        except StopIteration as end:
            found: T = end.value
            return found
        finally:
            program.close()

    def note_alone(self) -> None:
        """Takes down that a liar was alone in this round."""
        self.alone.add(self.current)
