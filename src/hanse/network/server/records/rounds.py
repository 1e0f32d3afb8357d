"""Facts of a run for people: the report of each round, the standing of the run, and its end."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from hanse.core import PartyId

__all__ = ["NAMED", "RoundReport", "RunEnd", "RunStanding", "describe_party", "order_parties"]

NAMED = 10
"""The number of clients that a line names at most."""


@dataclass(frozen=True)
class RoundReport:
    """The report of a round that has ended.

    Args:
      run: its id.
      metrics: as the program committed them.
      bytes_up, bytes_down: of the messages of this round.
      seconds: that it took.
      abandoned: why it did not close; None: it did.
      num_counted: the clients that were counted; None: the round asked nobody.
      missed: why each of the other clients was not counted.
      late: the clients that answered after enough others, or after the deadline.
    """

    run: str
    round: int
    metrics: Mapping[str, float]
    bytes_up: int
    bytes_down: int
    seconds: float
    abandoned: str | None = None
    num_counted: int | None = None
    missed: Mapping[PartyId, str] = field(default_factory=dict)
    late: frozenset[PartyId] = frozenset()

    @property
    def refused(self) -> list[PartyId]:
        """The clients whose message was refused."""
        return [party for party, why in self.missed.items() if why.startswith("refused")]

    @property
    def missing(self) -> dict[PartyId, str]:
        """Why each client was not counted that was neither late nor refused."""
        others = {*self.late, *self.refused}
        return {party: why for party, why in self.missed.items() if party not in others}

    def describe_counts(self) -> str:
        """Describes in words who was counted, and why others were not; empty: the round asked nobody."""
        if self.num_counted is None:
            return ""
        total = self.num_counted + len(self.missed)
        missed = order_parties(self.missed)
        whys = [f"{describe_party(p)}: {self.missed[p]}" for p in missed[:NAMED]]
        more = [f"and {len(missed) - NAMED} more"] if len(missed) > NAMED else []
        spare = order_parties(self.late - set(self.missed))  # enough others were there
        late = [f"late: {describe_some(spare)}"] if spare else []
        return "; ".join([f"counted {self.num_counted} of {total} clients", *whys, *more, *late])


@dataclass(frozen=True)
class RunStanding:
    """The standing of a run at a moment.

    Args:
      run: its id.
      status: "running", or how it ended.
      round: the last one that has ended; `num_rounds`: those that the settings ask for; None: unknown.
      doing: what the server does, in words.
      metrics: the last ones.
      round_s: the seconds since the last round ended, or since the run began.
      bytes_up, bytes_down: of the messages of all rounds so far.
      num_joined: the members that may take part.
      present: those of them that were heard lately.
      awaited: those whose answer is awaited.
      metric: the name of the one that the run watches; empty: none.
    """

    run: str
    status: str
    round: int
    num_rounds: int | None
    doing: str
    metrics: Mapping[str, float]
    round_s: float
    bytes_up: int
    bytes_down: int
    num_joined: int
    present: tuple[PartyId, ...]
    awaited: tuple[PartyId, ...]
    metric: str = ""

    def describe_members(self) -> str:
        """Describes in words who is present, and who is awaited.

        >>> RunStanding("a", "running", 1, 2, "", {}, 0.5, 0, 0, 3, (0, 1), (1,)).describe_members()
        '2 of 3 present: client 0, client 1; awaited: client 1'
        """
        return "; ".join(self._describe_members())

    def _describe_members(self) -> Iterator[str]:
        here = f": {describe_some(self.present)}" if self.present else ""
        yield f"{len(self.present)} of {self.num_joined} present{here}"
        if self.awaited:
            yield f"awaited: {describe_some(self.awaited)}"


@dataclass(frozen=True)
class RunEnd:
    """The end of a run, or of its serving.

    Args:
      run: its id.
      status: how it ended; `reason`: in words.
      result: that is kept; empty: there is none.
      settings: that are kept with the run.
      counted: in how many rounds each party was counted, and asked.
      is_over: whether it does not go on if it is served again.
    """

    run: str
    status: str
    reason: str
    result: Mapping[str, Any]
    settings: Mapping[str, Any]
    counted: Mapping[PartyId, tuple[int, int]]
    is_over: bool

    def describe(self, party: PartyId) -> str:
        """Describes a member in words."""
        return describe_party(party)


def describe_some(parties: "tuple[PartyId, ...] | list[PartyId]") -> str:
    """Names a few members, and says how many more there are.

    >>> describe_some([1, "key_holder"]), describe_some(list(range(12)))[-26:]
    ('client 1, key_holder', 'client 8, client 9, 2 more')
    """
    more = [f"{len(parties) - NAMED} more"] if len(parties) > NAMED else []
    return ", ".join([*map(describe_party, parties[:NAMED]), *more])


def describe_party(party: PartyId) -> str:
    """Describes a member in words.

    >>> describe_party(3), describe_party("hospital")
    ('client 3', 'hospital')
    """
    return f"client {party}" if isinstance(party, int) else party


def order_parties(parties: Iterable[PartyId]) -> list[PartyId]:
    """Orders parties: clients by number, then the others by name.

    >>> order_parties(["key_holder", 10, 9])
    [9, 10, 'key_holder']
    """
    return sorted(parties, key=lambda party: (isinstance(party, str), party))
