"""The headline of a run: sentences that tell first who gained and who lost, and what not to rely on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hanse.core import Plain
from hanse.evaluation.formats import as_number
from hanse.evaluation.parties import HELPED, HURT, UNCLEAR

__all__ = ["FEW_TESTS", "Guessing", "write_headline"]

FEW_TESTS = 100
"""The fewest test examples whose figures are taken for reliable: of fewer, an interval of 95% for an accuracy
of one half is more than 20 points wide."""

MOST_NAMED = 3


@dataclass(frozen=True)
class Guessing:
    """The model beside a guess that looks at no features.

    Args:
      always: what is always guessed: "the majority class" or "the mean".
      metric: the metric that both are measured by.
      model, guess: the metrics.
      is_better: whether the model is better.
      is_clear: whether it is better by the whole 95% interval of the difference.
    """

    always: str
    metric: str
    model: float
    guess: float
    is_better: bool
    is_clear: bool


def write_headline(
    *,
    rows: Sequence[Mapping[str, Plain]] = (),
    guess: Guessing | None = None,
    num_tests: int | None = None,
    num_parties: int = 0,
    num_uncounted: int = 0,
) -> tuple[str, ...]:
    """Writes the sentences that a reader should see first, good news and bad.

    >>> write_headline(num_tests=12, num_parties=5, num_uncounted=2)
    ('the test set has 12 examples: the figures are not reliable', '2 of 5 parties were never counted')

    Args:
      rows: each party's, as `PartyRows` lists them; of real parties, of those that shared theirs.
      guess: the model beside a guess; None: not compared.
      num_tests: the number of test examples that the final metrics were measured on; 0: there were none, so
        that they were measured on training examples; None: the model was not measured.
      num_parties, num_uncounted: the parties, and those that no round has counted.
    """
    said = list(_about_parties(rows, " that shared" if len(rows) < num_parties else ""))
    if guess is not None and not guess.is_clear:
        how = "not clearly better" if guess.is_better else "not better"
        figures = f"{guess.metric} {as_number(guess.model)} against {as_number(guess.guess)}"
        said.append(f"{how} than always guessing {guess.always}: {figures}")
    if num_tests == 0:
        said.append("there are no test examples: the figures are of training examples, and flatter the model")
    elif num_tests is not None and num_tests < FEW_TESTS:
        examples = "1 example" if num_tests == 1 else f"{num_tests} examples"
        said.append(f"the test set has {examples}: the figures are not reliable")
    if num_uncounted:
        was = "was" if num_uncounted == 1 else "were"
        said.append(f"{num_uncounted:,} of {_parties(num_parties)} {was} never counted")
    return tuple(said)


def _parties(count: int) -> str:
    return "1 party" if count == 1 else f"{count:,} parties"


def _about_parties(rows: Sequence[Mapping[str, Plain]], which: str) -> list[str]:
    judged = [row for row in rows if row["verdict"] is not None]
    if not judged:
        return []
    helped = sum(row["verdict"] == HELPED for row in judged)
    hurt = sorted((row for row in judged if row["verdict"] == HURT), key=lambda row: float(row["gain"]))
    if not helped and not hurt:
        whom = "the only party" if len(judged) == 1 else f"any of {len(judged):,} parties"
        said = [f"federation made no clear difference to {whom}{which}"]
    else:
        said = [f"federation helped {helped or 'none'} of {_parties(len(judged))}{which}"]
    if 0 < len(hurt) <= MOST_NAMED:
        said += [f"{row['party']} lost {_loss(row)} against training alone" for row in hurt]
    elif hurt:
        said.append(f"{len(hurt):,} lost against training alone, {hurt[0]['party']} most: {_loss(hurt[0])}")
    unclear = sum(row["verdict"] == UNCLEAR for row in judged)
    if unclear and (helped or hurt):
        said.append(f"{unclear:,} {'shows' if unclear == 1 else 'show'} no clear difference")
    if len(judged) < len(rows):
        said.append(f"{len(rows) - len(judged):,} could not be compared")
    return ["; ".join(said)]


def _loss(row: Mapping[str, Plain]) -> str:
    """Formats what a party lost: points of accuracy, or the difference of another metric."""
    lost = -float(row["gain"])
    return (
        f"{100 * lost:.1f} points" if row["metric"] == "accuracy" else f"{as_number(lost)} of {row['metric']}"
    )
