"""Findings that a reader of a result has to know before trusting it, such as abandoned rounds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from hanse.core.exchange import NOT_EVALUATED, Record

__all__ = ["ENDED", "NOT_REPEATABLE", "Finding", "find_problems", "has_trained", "judge_status", "sentences"]

ENDED = ("completed", "incomplete")
"""The statuses of runs that came to their end, so that resuming them does nothing more."""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a run, or seems to be.

    Args:
      code: "untrained", "rounds_abandoned", "client_uncounted", "worse_than_start" or "not_repeatable".
      text: what was found.
      cure: what to do about it.
      is_presence: whether the run lacks rounds or clients that it should have had, and so is incomplete.
    """

    code: str
    text: str
    cure: str
    _: KW_ONLY
    is_presence: bool = True

    def to_json(self) -> dict[str, str]:
        """Returns the finding as plain data."""
        return {"code": self.code, "text": self.text, "cure": self.cure}


NOT_REPEATABLE = Finding(
    "not_repeatable",
    "the training function does not repeat itself: called twice with the same arguments, it gave other bits, "
    "so that two runs with one seed may differ",
    "draw from its key, or from PyTorch's own generator, and from nothing else",
    is_presence=False,
)
"""The finding that a user's own training function draws from something else than its key."""


def find_problems(records: Sequence[Record], uncounted: Sequence[Any] = ()) -> tuple[Finding, ...]:
    """Looks for problems of a run.

    Args:
      records: its rounds.
      uncounted: the clients, by `who`, `asked`, `counted` and `why`, that were not counted as they should
        have been, where a runtime knows that.
    """
    return (*_about_rounds(records), *map(_about_client, uncounted), *_about_metrics(records))


def has_trained(records: Sequence[Record]) -> bool:
    """Returns whether at least one round was closed with contributions."""
    return any(_is_trained(record) for record in records)


def judge_status(status: str, found: Sequence[Finding]) -> str:
    """Returns the status of a run, given how its program ended and what was found."""
    lacking = any(finding.is_presence for finding in found)
    return "incomplete" if status == "completed" and lacking else status


def _is_trained(record: Record) -> bool:
    is_closed = record.abandoned is None or record.abandoned.startswith(NOT_EVALUATED)
    return record.round > 0 and is_closed and record.usage.counted > 0


def _about_rounds(records: Sequence[Record]) -> Iterator[Finding]:
    rounds = {record.round: record for record in records if record.round > 0}.values()  # the last attempts
    abandoned = [record for record in rounds if record.abandoned is not None]
    if not abandoned:
        return
    last = abandoned[-1]
    why = f"the last of them, round {last.round}, because {last.abandoned}"
    if not has_trained(records):
        yield Finding(
            "untrained",
            f"no round closed, so the model is the one that the run began with; {why}",
            "find out why contributions were not counted, mend that, and run again",
        )
    yield Finding(
        "rounds_abandoned",
        f"{len(abandoned)} of {len(rounds)} rounds were abandoned; {why}",
        "let more clients take part, or let rounds close with fewer: close.minimum_fraction",
    )


def _about_client(one: Any) -> Finding:
    how_often = f"in {one.counted} of {one.asked} rounds" if one.counted else "in no round"
    return Finding(
        "client_uncounted",
        f"{one.who} was counted {how_often}: {one.why}",
        "look at its client.log and at hanse events; then serve anew with --fresh, or revoke that client",
    )


def _about_metrics(records: Sequence[Record]) -> Iterator[Finding]:
    losses = [record.metrics["loss"] for record in records if "loss" in record.metrics]
    if len(losses) > 1 and not losses[-1] <= losses[0]:
        yield Finding(
            "worse_than_start",
            f"the loss was {losses[0]:.4g} before the first round and is {losses[-1]:.4g} after the last",
            "try a smaller step size, or fewer local epochs",
            is_presence=False,
        )


def sentences(found: Sequence[Mapping[str, str]]) -> list[str]:
    """Returns a sentence for each finding, in plain data."""
    return [f"{finding['text']}; {finding['cure']}" for finding in found]
