"""Every error that Hanse raises on purpose.

    HanseError
    |-- InvalidInput            an input that can't be used (settings, data, hyper-parameters)
    |-- CompositionError        parts that can't stand together; raised when they are bound
    |-- MessageError            bytes or tensors that are not what was announced
    |-- RoundAbandoned          a round that couldn't close; the run goes on without it
    |-- Stalled                 a run that can't go on without a party; it is kept, and can be resumed
    |-- Diverged                training reached numbers that are not finite, or nearly
    |-- Declined                a party will not answer: it has promised not to, for example
    |-- NotReady                a peer asked too early; ask again within a bounded wait
    |-- ReplayError             a journal that doesn't fit the program that is replayed
    `-- StoreError              an unknown run, a run that another process performs, a broken store

An error says what was given, what is needed and what to write instead.
"""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "CompositionError",
    "Declined",
    "Diverged",
    "HanseError",
    "InvalidInput",
    "MessageError",
    "NotReady",
    "ReplayError",
    "RoundAbandoned",
    "Stalled",
    "StoreError",
    "nearest",
]


class HanseError(Exception):
    """The root of the tree: `except HanseError` catches whatever Hanse raises on purpose."""


class InvalidInput(HanseError, ValueError):
    """An input can't be used: settings, data or hyper-parameters."""


class CompositionError(HanseError):
    """Transforms, reducers and works that can't stand together. Raised when they are bound."""


class MessageError(HanseError):
    """Received bytes or tensors are not what was announced."""


class RoundAbandoned(HanseError):
    """Too few contributions arrived for the round to close. State and memory stay as they were.

    Args:
      reason: the error's message.
      dropped: why each contribution was not counted, where that is known.
      waits: whether the exchange waits for its parties (`Close.wait_s`): the round is attempted again.
      convicted: the parties that broke a protocol, as evidence shows: no later round of the run samples them.
    """

    def __init__(
        self,
        reason: str,
        dropped: tuple[str, ...] = (),
        *,
        waits: bool = False,
        convicted: tuple[int | str, ...] = (),
    ) -> None:
        super().__init__(reason)
        self.dropped, self.waits, self.convicted = dropped, waits, convicted


class Stalled(HanseError):
    """A run can't go on for now: a party is away for too long, or its round failed again and again."""


class Diverged(HanseError):
    """Training reached numbers that are not finite, or is about to."""


class Declined(HanseError):
    """A work will not answer, for example because of a promise. Its ticket is dropped; the round goes on."""


class NotReady(HanseError):
    """A result does not exist yet: whoever needs it waits, within a bound, and asks again."""


class ReplayError(HanseError):
    """A replayed program asks for something other than its journal records."""


class StoreError(HanseError):
    """An unknown run, a run that another process performs, or a store that can't be read."""


def nearest(given: str, known: Iterable[str]) -> str:
    """Returns half a sentence for error messages: the nearest known word, or all of them."""
    known = sorted(known)
    close = get_close_matches(given, known, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(known)}" if known else "none is known"
