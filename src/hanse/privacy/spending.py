"""The budget of a run: what has been spent, and how far a program may still go."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from hanse.core import CompositionError, Program, Stalled
from hanse.core.exchange import (
    Command,
    Commit,
    Committed,
    Dispatch,
    Event,
    Record,
    ReleaseRecord,
    Sample,
    Sampled,
)
from hanse.privacy.accounting import Tally, compute_epsilon, read_books, read_round
from hanse.privacy.exposure import Exposures
from hanse.privacy.models import Privacy, central, local

__all__ = ["BudgetSpent", "Spending", "refuse_open"]

T = TypeVar("T")


class BudgetSpent(Stalled):
    """A run stops before an exchange that would pass its budget of privacy."""


def refuse_open(names: Iterable[str], privacy: Privacy, work: str) -> None:
    """Refuses parts that clients would send un-noised, unless the settings name them."""
    for name in names:
        if name not in privacy.open:
            raise CompositionError(
                f"clients would send {name!r} of {work} beside what is protected, and no noise protects it, "
                "so that epsilon would not say what is lost; leave it out (measure the model on a test set "
                "of the server, or write evaluate_every = 0), or let the claim name it: "
                f'privacy.open = ["{name}"]'
            )


class Spending:
    """The spending of a run, by the books of its rounds. Totals of an abandoned round count, too.

    Args:
      privacy: the budget.
      planned: the releases of a round, by which messages of earlier, abandoned rounds are counted.
    """

    def __init__(self, privacy: central | local, planned: Sequence[ReleaseRecord] = ()) -> None:
        self._privacy, self._planned = privacy, planned
        self._tally = Tally()

    @property
    def epsilon(self) -> float:
        """The epsilon of what has been spent, by Rényi divergences."""
        return compute_epsilon(self._tally.spent, self._privacy.delta)

    def recall(self, records: Iterable[Record]) -> None:
        """Counts what a run spent before it goes on, in place of what was counted so far."""
        self._tally = Tally()
        for record in records:
            self._tally.add(read_books([record], self._planned))

    def guard(self, program: Program[T]) -> Program[T]:
        """Performs a program as far as the budget allows.

        Raises: BudgetSpent: before a dispatch whose totals would pass the budget.
          CompositionError: before one in which clients send un-noised what the settings do not name.
        """
        exposures, pending = Exposures(), list[ReleaseRecord]()
        try:
            command: Command[Any] = next(program)
            while True:
                if isinstance(command, Dispatch):
                    pending += exposures.find_releases(command)
                    self._check(pending)
                    refuse_open(exposures.find_open(command), self._privacy, type(command.work).__name__)
                event: Event = yield command
                if isinstance(command, Sample) and isinstance(event, Sampled):
                    exposures.see_sample(command, event)
                elif isinstance(event, Committed):
                    closed = isinstance(command, Commit) and command.is_closed
                    self._tally.add(read_round(event.usage, pending, is_closed=closed))
                    pending = []
                command = program.send(event)
        except StopIteration as end:
            found: T = end.value
            return found
        finally:
            program.close()

    def _check(self, more: Iterable[ReleaseRecord]) -> None:
        if not more:
            return
        tally = Tally(self._tally)
        tally.add(more)
        then = compute_epsilon(tally.spent, self._privacy.delta)
        if then > self._privacy.epsilon:
            raise BudgetSpent(
                f"the budget of privacy is spent: epsilon is {self.epsilon:.4f} of {self._privacy.epsilon:g} "
                f"for delta = {self._privacy.delta:g}, and would be {then:.4f} after the next round"
            )
