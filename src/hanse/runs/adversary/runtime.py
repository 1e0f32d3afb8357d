"""The runtime of a simulation in which clients lie: it keeps who lied with the state of the run."""

from collections.abc import Sequence
from typing import Any

from hanse.core import value
from hanse.core.exchange import Changes, Collected, Command, Commit, Committed, Event, Runtime
from hanse.runs.adversary.tally import LieCount, Lies

__all__ = ["LyingChanges", "LyingRuntime", "LyingSnapshot"]


@value
class LyingSnapshot:
    """The snapshot of a simulation, and what is known of the lies in it."""

    inner: Any
    lies: Lies


@value
class LyingChanges(Changes):
    """The changes of a simulation, and what is known of the lies in it after them."""

    inner: Any
    lies: Lies


class LyingRuntime(Runtime):
    """Performs what another runtime does, and takes down what became of lies.

    Args:
      inner: performs the commands.
      tally: takes down. The backend of the other runtime tells it what liars answer.
    """

    def __init__(self, inner: Runtime, tally: LieCount) -> None:
        self._inner, self._tally = inner, tally

    def snapshot(self) -> LyingSnapshot:
        return LyingSnapshot(self._inner.snapshot(), self._tally.lies)

    def changes(self) -> LyingChanges:
        return LyingChanges(self._inner.changes(), self._tally.lies)

    def restore(self, snapshot: Any, changes: Sequence[Any] = ()) -> None:
        kept = [one for one in (snapshot, *changes) if isinstance(one, LyingSnapshot | LyingChanges)]
        if kept:
            self._tally.lies = kept[-1].lies
        self._inner.restore(_strip(snapshot), [_strip(one) for one in changes])

    def recall(self, event: Event) -> None:
        self._inner.recall(event)

    def perform(self, command: Command[Any]) -> Event:
        event = self._inner.perform(command)
        if isinstance(event, Collected):
            self._tally.end_exchange(event)
        if isinstance(command, Commit) and isinstance(event, Committed):
            self._tally.end_round(command, event)
        return event


def _strip(kept: Any) -> Any:
    """Returns what the inner runtime has kept."""
    return kept.inner if isinstance(kept, LyingSnapshot | LyingChanges) else kept
