"""Findings that a reader of a result has to know before trusting it, such as abandoned rounds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from hanse.algorithms import OBJECTIVE
from hanse.core import Algorithm
from hanse.core.exchange import Record

__all__ = [
    "CHOSEN_ON_TEST",
    "DEVICE_NOT_REPEATABLE",
    "ENDED",
    "LED_BY_TEST",
    "LED_BY_VALIDATION",
    "NOT_REPEATABLE",
    "UNKNOWN_SUCCESS",
    "WITHOUT_EFFECT",
    "Finding",
    "find_problems",
    "find_unread",
    "has_trained",
    "judge_status",
    "sentences",
]

ENDED = ("completed", "incomplete")
"""The statuses of runs that came to their end, so that resuming them does nothing more."""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a run, or seems to be.

    Args:
      code: "untrained", "rounds_abandoned", "client_uncounted", "worse_than_start", "peaked", "unsolved",
        "not_repeatable", "config_unread", "chosen_on_test", "led_by_test",
        "attack_without_effect", "attack_not_measured" or, where parties were real, "weight_bounded".
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

DEVICE_NOT_REPEATABLE = Finding(
    "not_repeatable",
    "the GPU adds up in an order of its own, so that two runs with one seed may differ in their last bits",
    "compute on a processor; with JAX, let Hanse start it, or set XLA_FLAGS=--xla_gpu_deterministic_ops=true "
    "before it starts",
    is_presence=False,
)
"""The finding that a model computes on a GPU by operations that do not repeat their bits."""


CHOSEN_ON_TEST = Finding(
    "chosen_on_test",
    "the last round was chosen on the test examples, by stop.target or stop.patience, so that the metrics on "
    "them are better than on examples that nobody has seen",
    "hold out examples to choose by: data.validation_fraction = 0.1",
    is_presence=False,
)
"""The finding that the run ended where its metric on the test examples was good."""

LED_BY_VALIDATION = Finding(
    "led_by_validation",
    "the server judged the clients by the validation examples (algorithm.trusted), so that the metrics on "
    "them are better than on examples that nobody has seen",
    "read the metrics on the test examples, by which the run is stopped and compared with others",
    is_presence=False,
)
"""The finding that an algorithm whose server holds trusted examples took the validation examples for them."""

LED_BY_TEST = Finding(
    "led_by_test",
    "the server judged the clients by the test examples (algorithm.trusted), so that the metrics on them are "
    "better than on examples that nobody has seen",
    'hold out examples for the server, data.validation_fraction = 0.1, and write trusted = "validation"',
    is_presence=False,
)
"""The finding that an algorithm whose server holds trusted examples took the test set for them."""


WITHOUT_EFFECT = Finding(
    "attack_without_effect",
    "no liar trained on or sent anything else than an honest client would have, so the result is that of a "
    "run in which nobody lies",
    "let liars take part (algorithm.fraction, adversary.fraction), in rounds in which the attack is active, "
    "and choose an attack that changes their data or messages",
    is_presence=False,
)
"""The finding that the attacks of a simulation did nothing."""


UNKNOWN_SUCCESS = Finding(
    "attack_not_measured",
    "the data have no test set, so that nothing tells whether the backdoor succeeded: there is no "
    "attack_accuracy",
    "give test examples: the trigger is put on those",
    is_presence=False,
)
"""The finding that the success of a backdoor could not be measured."""


def find_problems(
    records: Sequence[Record], uncounted: Sequence[Any] = (), remedy: str = Algorithm.remedy
) -> tuple[Finding, ...]:
    """Looks for problems of a run.

    Args:
      records: its rounds.
      uncounted: the clients, by `who`, `asked`, `counted` and `why`, that were not counted as they should
        have been, where a runtime knows that.
      remedy: the algorithm's advice where its loss grows.
    """
    return (
        *_about_rounds(records),
        *map(_about_client, uncounted),
        *_about_loss(records, remedy),
        *_about_solver(records),
    )


def find_unread(function: str, unread: Sequence[str], config: Mapping[str, Any]) -> Finding:
    """Returns the finding that a training function did not read some keys of its config."""
    name = function.rpartition(":")[2]
    read = [key for key in config if key not in unread]
    return Finding(
        "config_unread",
        f"{name}, called for the first client, did not read {' and '.join(f'config.{key}' for key in unread)}"
        + (f"; it read {' and '.join(read)}" if read else ""),
        "correct the key as the function spells it, or leave it out, unless later rounds read it",
        is_presence=False,
    )


def has_trained(records: Sequence[Record]) -> bool:
    """Returns whether at least one round was closed with contributions."""
    return any(_is_trained(record) for record in records)


def judge_status(status: str, found: Sequence[Finding]) -> str:
    """Returns the status of a run, given how its program ended and what was found."""
    lacking = any(finding.is_presence for finding in found)
    return "incomplete" if status == "completed" and lacking else status


def _is_trained(record: Record) -> bool:
    return record.round > 0 and record.is_closed and record.usage.counted > 0


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


HIGH_PEAK = 10.0
"""A loss that exceeds the first by this factor shows steps that are too large, even if it falls again."""


def _about_loss(records: Sequence[Record], remedy: str) -> Iterator[Finding]:
    name = OBJECTIVE if any(OBJECTIVE in record.metrics for record in records) else "loss"
    losses = {record.round: record.metrics[name] for record in records if name in record.metrics}
    if len(losses) < 2:
        return
    first, last = losses[min(losses)], losses[max(losses)]
    if not last <= first:
        text = f"the {name} was {first:.4g} before the first round and is {last:.4g} after the last"
        yield Finding("worse_than_start", text, remedy, is_presence=False)
    worst = max(losses, key=lambda number: losses[number])
    if 0 < HIGH_PEAK * first < losses[worst]:
        text = f"the {name} rose from {first:.4g} at the start to {losses[worst]:.4g} in round {worst}"
        yield Finding("peaked", text, remedy, is_presence=False)


UNSOLVED = 0.1
"""The share of its gradient that a local solver may leave, over all rounds together."""


def _about_solver(records: Sequence[Record]) -> Iterator[Finding]:
    before, after = (
        sum(record.metrics.get(f"train_gradient_{when}", 0.0) for record in records)
        for when in ("before", "after")
    )
    if not after <= UNSOLVED * before:
        yield Finding(
            "unsolved",
            f"the clients' solver left {after / (before or 1.0):.0%} of the gradient that it began with: the "
            "local problems are not solved",
            "give the solver more steps or a step size that suits, or take newton()",
            is_presence=False,
        )


def sentences(found: Sequence[Mapping[str, str]]) -> list[str]:
    """Returns a sentence for each finding, in plain data."""
    return [f"{finding['text']}; {finding['cure']}" for finding in found]
