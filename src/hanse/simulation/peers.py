"""Programs that peers perform, each for itself, run together in one process."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from hanse.core import HanseError, PartyId, Program
from hanse.core.exchange import Led, NotReady, Runtime, Store

__all__ = ["drive_together"]

T = TypeVar("T")


def drive_together(
    programs: Mapping[PartyId, Program[T]],
    runtimes: Mapping[PartyId, Runtime],
    stores: Mapping[PartyId, Store] | None = None,
    on_command: Callable[[], None] = lambda: None,
) -> dict[PartyId, T]:
    """Runs several programs in turn, each to its end. One that asks a peer too early waits for its turn.

    Args:
      programs: by the party that performs them.
      runtimes: one for each.
      stores: one for each, or none.
      on_command: called before each turn.

    Raises: HanseError: if all wait for each other.
    """
    led = {
        party: Led(program, runtimes[party], stores[party] if stores else None)
        for party, program in programs.items()
    }
    waiting: dict[PartyId, Led[Any]] = dict(led)
    while waiting:
        moved = False
        for party, one in list(waiting.items()):
            try:
                while not one.done:
                    on_command()
                    one.step()
                    moved = True
                del waiting[party]
            except NotReady:
                continue
        if waiting and not moved:
            raise HanseError(f"the peers {sorted(map(str, waiting))} wait for each other")
    return {party: one.result for party, one in led.items()}
