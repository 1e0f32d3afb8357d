"""Exposures: totals of a program that are noised, and parts of clients' messages that are not."""

from collections.abc import Iterator
from itertools import count

from hanse.core import PartyId
from hanse.core.exchange import Dispatch, ReleaseRecord, Sample, Sampled, digest, find_test_client

__all__ = ["Exposures"]


class Exposures:
    """Follows the commands of a program, and says what each of its dispatches is going to reveal.

    It counts as the runtime does when totals are decoded: a total gains from sampling only if it went to
    exactly the clients of the last Poisson sample, and the program used the one before.
    """

    def __init__(self) -> None:
        self._numbers, self._number = count(1), 0
        self._rate, self._cohort, self._is_used = 1.0, "", True

    def see_sample(self, command: Sample, event: Sampled) -> None:
        """Notes the cohort that a Sample led to."""
        if command.rate is None:
            return
        self._rate = command.rate if self._is_used else 1.0
        self._number, self._cohort, self._is_used = next(self._numbers), digest(event.cohort), False

    def find_releases(self, dispatch: Dispatch) -> tuple[ReleaseRecord, ...]:
        """Returns the noised totals that will be decoded of a dispatch."""
        rate, number = 1.0, next(self._numbers)
        if self._number and digest(dispatch.cohort) == self._cohort:
            rate, number, self._is_used = self._rate, self._number, True
        return tuple(
            ReleaseRecord(name, release, rate, number)
            for name, part in dispatch.uplink.items()
            for release in part.chain().releases
        )

    def find_open(self, dispatch: Dispatch) -> Iterator[str]:
        """Yields the names of the parts that clients send and no noise protects."""
        if dispatch.cohort and not any(map(_is_client, dispatch.cohort)):
            return
        for name, part in dispatch.uplink.items():
            if not part.chain().releases:
                yield name


def _is_client(party: PartyId) -> bool:
    return isinstance(party, int) or find_test_client(party) is not None
