"""The tally of lies: the number of the round, what liars do in it, and what came of it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import field, replace

from hanse.attacks import Adversary
from hanse.core import PartyId, value
from hanse.core.exchange import Collected, Commit, Committed

__all__ = ["LieCount", "Lies"]

OTHER_REASONS = ("it was too late", "it dropped out", "it was built on", "the round was abandoned")
"""The beginnings of the reasons why a ticket is dropped that have nothing to do with its message."""


@value
class Lies:
    """The lies of a run so far, as far as they are known. It is kept with the run, for when it is resumed.

    Args:
      round: the number of the round that is performed.
      taken, refused: the liars whose lies the server took in it, and those whose lies it refused.
      is_alone: whether a liar that knows only its own messages had nobody to agree with in it.
      num_left_out, num_right, num_lies: of the rounds before in which the server took lies: the clients that
        the rule left out, those of them who lied, and the lies.
      refusals: by liar, the rounds before in which the server refused its lie.
      num_alone: the rounds before in which a liar was alone.
      has_effect: whether a liar has trained on or sent anything else than an honest client would have.
      is_whole: whether these are all rounds of the run.
    """

    round: int = 1
    taken: tuple[PartyId, ...] = ()
    refused: tuple[PartyId, ...] = ()
    is_alone: bool = False
    num_left_out: int = 0
    num_right: int = 0
    num_lies: int = 0
    refusals: Mapping[PartyId, int] = field(default_factory=dict)
    num_alone: int = 0
    has_effect: bool = False
    is_whole: bool = True

    def close(self, command: Commit, event: Committed) -> "Lies":
        """Returns what is known after the end of a round, or of an attempt at it that is made again."""
        if command.again:
            return replace(self, round=command.round, taken=())
        lied, left_out = set(self.taken), event.usage.left_out
        if not lied or not command.is_closed:
            lied, left_out = set(), ()
        return replace(
            self,
            round=command.round + 1,
            taken=(),
            refused=(),
            is_alone=False,
            num_left_out=self.num_left_out + len(left_out),
            num_right=self.num_right + len(lied.intersection(left_out)),
            num_lies=self.num_lies + len(lied),
            refusals=dict(Counter(self.refusals) + Counter(self.refused)),
            num_alone=self.num_alone + self.is_alone,
        )


class LieCount:
    """Takes down what liars do. Their backend tells what they answer, and their runtime what became of it.

    Args:
      adversary: what the liars do.
    """

    def __init__(self, adversary: Adversary) -> None:
        self._adversary = adversary
        self.lies = Lies()
        self._lied = set[int]()
        """The tickets of this exchange to which a liar has answered with a lie."""

    def begin(self, done: int) -> None:
        """Begins after the last round that is done, of which nothing is known."""
        self.lies = Lies(round=done + 1, is_whole=done == 0)

    @property
    def current(self) -> int:
        """The number of the round that is performed, which no ticket says."""
        return self.lies.round

    def note_lie(self, ticket: int) -> None:
        """Takes down that a liar has answered to a ticket with a lie."""
        self._lied.add(ticket)

    def note_alone(self) -> None:
        """Takes down that a liar was alone in this round, if its attack needs several messages."""
        if any(a.needs_company and a.is_active(self.current) for a in self._adversary.attacks):
            self.lies = replace(self.lies, is_alone=True)

    def note_effect(self) -> None:
        """Takes down that a liar did something else than an honest client."""
        self.lies = replace(self.lies, has_effect=True)

    def end_exchange(self, event: Collected) -> None:
        """Takes down which lies the server took in an exchange, and which it refused."""
        taken = {party for n, party in zip(event.counted, event.parties, strict=True) if n in self._lied}
        refused = {
            drop.party
            for drop in event.dropped
            if drop.ticket in self._lied and not drop.reason.startswith(OTHER_REASONS)
        }
        self.lies = replace(
            self.lies,
            taken=tuple(dict.fromkeys((*self.lies.taken, *sorted(taken, key=str)))),
            refused=tuple(dict.fromkeys((*self.lies.refused, *sorted(refused, key=str)))),
        )
        self._lied.clear()  # whoever was not collected answers anew

    def end_round(self, command: Commit, event: Committed) -> None:
        """Judges a round, or an attempt at it, and begins the next one."""
        self.lies = self.lies.close(command, event)
