"""Participation: clients rest for as long as correlated noise needs, or the run stops."""

from collections.abc import Mapping
from typing import Any, TypeVar

from hanse.core import CompositionError, PartyId, Program
from hanse.core.exchange import Collect, Collected, Command, Dispatch, Event
from hanse.privacy.correlated import SEPARATION

__all__ = ["find_separation", "keep_separation"]

T = TypeVar("T")


def find_separation(dispatch: Dispatch) -> int | None:
    """Returns the rounds that a client has to rest for the noise of a dispatch; None: it need not."""
    needed = [
        int(release.parameters[SEPARATION])
        for part in dispatch.uplink.values()
        for release in part.chain().releases
        if SEPARATION in release.parameters
    ]
    return max(needed, default=None)


def keep_separation(program: Program[T], last_rounds: Mapping[PartyId, int], number: int) -> Program[T]:
    """Performs a program as long as clients rest between totals with correlated noise.

    Args:
      last_rounds: the round that each client last took part in, of those that still rest, as the program's
        state has kept it.
      number: of the next such round, from 0.

    Raises: CompositionError: before a client is asked too early.
    """
    last, needed = dict(last_rounds), None
    try:
        command: Command[Any] = next(program)
        while True:
            if isinstance(command, Dispatch) and (found := find_separation(command)) is not None:
                needed = found
                for party in command.cohort:
                    if party in last and number - last[party] < needed:
                        raise CompositionError(
                            f"client {party} took part {number - last[party]} rounds ago, and the noise "
                            f"hides clients that rest for {needed}; write separation = {needed}, and ask "
                            "the clients that the algorithm draws"
                        )
            event: Event = yield command
            if isinstance(command, Collect) and isinstance(event, Collected) and needed and event.totals:
                last |= dict.fromkeys(event.parties, number)
                number, needed = number + 1, None
            command = program.send(event)
    except StopIteration as end:
        found_state: T = end.value
        return found_state
    finally:
        program.close()
