"""A party's row in a run of real parties: its owner reads it at home, and decides whether it leaves.

work = measure_row(...)                      # measures at the party, and trains a model there alone
answers = yield from ask_rows(work, ...)     # of the parties whose owners share their rows
row = work.read(answers["test/0"], 0, "north")
"""

import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np

from hanse.algorithms import ClientOptimiser
from hanse.core import (
    VOLATILE,
    Array,
    Close,
    Contribution,
    DifferentiableLearner,
    Examples,
    Key,
    Keys,
    Learner,
    Memory,
    Part,
    PartSpec,
    PartyId,
    Plain,
    Program,
    Shared,
    Spec,
    Tensors,
    TensorSpec,
    Work,
    collect,
    each,
    own_test,
    value,
)
from hanse.core.exchange import Dispatch, Dispatched
from hanse.data import FederatedData
from hanse.evaluation.baselines import train_alone
from hanse.evaluation.clients import measure_metrics
from hanse.evaluation.measuring import list_statistics, score
from hanse.evaluation.metrics import Metric
from hanse.evaluation.parties import Gain, PartyRows, describe_gain, list_gain, show_cell, show_count

__all__ = ["ROW", "ask_rows", "measure_row"]

ROW = "row"
"""The part of a message that holds a row."""

SUMS = "sums/"
"""The beginning of the names of a row's sums, which intervals over parties are computed from."""

GAINS = ("gain", "gain_low", "gain_high")
COUNTS = ("examples", "test_examples")
ABSENT, KNOWN, UNDEFINED = 0.0, 1.0, 2.0
MASKED = -1.0
"""Beside each number of a row stands whether it is known; a count that is masked is below 0."""


@value
class measure_row(Work[Learner, Examples]):
    """Measures the final model on the party's own test examples, and one that it trains alone; emits "row".

    The row is left in memory for the party's owner, who decides whether the message leaves.

    Args:
      names: of the metrics of a row.
      metric: the one by which both models are compared; `higher`: whether it is better when higher.
      metrics: named ones, beside the learner's own.
      alone: the steps of training alone, with one epoch a pass; None: no model is trained alone.
      max_passes: the most passes over its examples.
      seed: of the run, for the draws.
      min_count: cells that count fewer examples, or are computed from fewer, are masked.
      sums: whether the sums of named metrics are sent, too, for intervals over parties.
      shares: whether the message has a row. Without, it is empty, and the row stays with its owner.
    """

    names: tuple[str, ...]
    metric: str
    higher: bool
    metrics: tuple[Metric, ...] = ()
    alone: ClientOptimiser | None = None
    max_passes: int = 1
    seed: int = 0
    min_count: int = 5
    sums: bool = False
    shares: bool = True

    at_home: ClassVar[str] = f"{VOLATILE}own row"
    """The name in memory under which it finds the party's number, the number of its training examples, and
    these if it may train on them, and under which it leaves the row. Only a real party has them there."""

    def run(
        self, learner: Learner, shared: Shared, data: Examples, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        number, size, own = memory.get(self.at_home, (0, 0, None))
        key, party = Keys.from_seed(self.seed).public, _Party(number, size, data)
        rows = PartyRows(
            learner,
            cast(FederatedData, party),
            shared["params"],
            self.metric,
            key.fold_in("each party's row"),
            (self.metric,) if self.higher else (),
            self.min_count,
            lambda params, examples: measure_metrics(learner, params, examples, self.metrics),
        )
        if (
            self.alone is not None
            and isinstance(own, Examples)
            and isinstance(learner, DifferentiableLearner)
        ):
            model = self._train(self.alone, learner, shared, own, number, key)
            rows.add("on_site", number, model)
        row = rows.list_rows()[number]
        kept = {**memory, self.at_home: json.dumps({"row": row, "lines": list(_describe(row))})}
        if not self.shares:
            return {}, kept
        sums = self._add_up(learner, shared["params"], data) if self.sums else {}
        return {ROW: Part(self._pack(row) | sums)}, kept

    def _train(
        self,
        alone: ClientOptimiser,
        learner: DifferentiableLearner,
        shared: Shared,
        own: Examples,
        number: int,
        key: Key,
    ) -> Tensors:
        begin = shared["start"] if "start" in shared.tensors else learner.init(key.fold_in("model"))
        passes = max(1, min(int(shared["alone"]["passes"]), self.max_passes))
        return train_alone(learner, begin, own, number, alone, passes, key.fold_in("baselines"))

    @property
    def trainers(self) -> tuple[str, ...]:
        """The models of a row."""
        return ("federated",) if self.alone is None else ("federated", "on_site")

    # -- on the wire ---------------------------------------------------------------------------

    def find_spec(self, width: int) -> Spec:
        """Returns the spec of a row, given the number of classes or of numbers in a row of labels."""
        shapes: dict[str, tuple[int, ...]] = {"counts": (2,), "gain": (3, 2)}
        shapes |= dict.fromkeys(self.trainers, (len(self.names), 2))
        if self.sums:
            sums = list_statistics(self.metrics)
            shapes |= {SUMS + name: one.find_shape(width) for name, one in sums.items()}
        return Spec({name: TensorSpec(shape, "float64") for name, shape in shapes.items()})

    def _pack(self, row: Mapping[str, Plain]) -> dict[str, Array]:
        cells = {name: row.get(name) or {} for name in self.trainers}
        return {
            "counts": np.array([MASKED if row[name] is None else row[name] for name in COUNTS], np.float64),
            "gain": _pack({name: row[name] for name in GAINS if row[name] is not None}, GAINS),
            **{name: _pack(found, self.names) for name, found in cells.items()},
        }

    def _add_up(self, learner: Learner, params: Tensors, data: Examples) -> dict[str, Array]:
        """Adds up what named metrics need, or nothing where too few examples would be added up."""
        rows = score(learner, params, data)
        found = {
            name: np.asarray(one.sum(rows), np.float64) for name, one in list_statistics(self.metrics).items()
        }
        is_small = len(data) < self.min_count
        return {SUMS + name: np.zeros_like(sums) if is_small else sums for name, sums in found.items()}

    def read(self, part: Tensors, number: int, name: str) -> dict[str, Plain]:
        """Reads the row of a party, as `PartyRows` lists it."""
        counts = [int(count) if count >= 0 else None for count in part["counts"].tolist()]
        masked = [what for what, count in zip(COUNTS, counts, strict=True) if count is None]
        masked += self.trainers if counts[1] is None else ()
        cells: dict[str, Plain] = {
            trainer: _unpack(part[trainer], self.names) or None for trainer in self.trainers
        }
        gains = _unpack(part["gain"], GAINS)
        is_compared = all(gains.get(one) is not None for one in GAINS)
        gain = Gain(*(cast(float, gains[one]) for one in GAINS)) if is_compared else None
        return {
            "party": name,
            "number": number,
            **dict(zip(COUNTS, counts, strict=True)),
            **cells,
            "metric": self.metric,
            "higher_is_better": self.higher,
            **list_gain(gain),
            "masked": masked,
            "min_count": self.min_count,
        }

    def read_sums(self, part: Tensors) -> dict[str, Array] | None:
        """Returns the sums of a row's named metrics; None: they are masked, or were not sent."""
        if not self.sums or part["counts"][1] < self.min_count:
            return None
        return {name: np.asarray(part[SUMS + name]) for name in list_statistics(self.metrics)}


def _pack(found: Mapping[str, Plain], names: Collection[str]) -> Array:
    packed = np.zeros((len(names), 2))
    for i, name in enumerate(names):
        if name in found:
            number = found[name]
            packed[i] = (0.0, UNDEFINED) if number is None else (number, KNOWN)
    return packed


def _unpack(packed: Array, names: Collection[str]) -> dict[str, float | None]:
    pairs = zip(names, packed.tolist(), strict=True)
    return {name: number if kind == KNOWN else None for name, (number, kind) in pairs if kind != ABSENT}


def _describe(row: Mapping[str, Plain]) -> Iterator[str]:
    """Describes a row to its owner."""
    metric = str(row["metric"])
    counts = [show_count(row, name) for name in COUNTS]
    yield f"your row: {counts[0]} examples to train on, {counts[1]} test examples"
    trainers = {"federated": "the shared model", "on_site": "a model that you train alone"}
    said = [f"{who} {show_cell(row, name, metric)}" for name, who in trainers.items() if name in row]
    yield f"{metric} on your test examples: {', '.join(said)}"
    if row["verdict"] is not None:
        points = " points" if metric == "accuracy" else ""
        gain = describe_gain(row).replace(" (", f"{points} (", 1)
        yield f"federation: {row['verdict']}, gain {gain}"


@dataclass(frozen=True)
class _Party:
    """The data of one party, as `PartyRows` reads those of all."""

    number: int
    size: int
    tests: Examples
    names: tuple[str, ...] = ()

    @property
    def num_clients(self) -> int:
        return self.number + 1

    def _place(self, count: int) -> Array:
        found = np.zeros(self.num_clients, np.int64)
        found[self.number] = count
        return found

    def sizes(self) -> Array:
        return self._place(self.size)

    def test_sizes(self) -> Array:
        return self._place(len(self.tests))

    def role(self, name: str) -> Examples:
        assert name == own_test(self.number)
        return self.tests


# -- at the server -------------------------------------------------------------------------------


def ask_rows(
    work: measure_row,
    parties: tuple[PartyId, ...],
    shared: Mapping[str, Tensors],
    key: Key,
    width: int,
) -> Program[dict[PartyId, Tensors]]:
    """Lets parties measure their rows; returns those that their owners share, by party.

    It closes once all have answered or declined, or are gone. That nobody answers is no failure.
    """
    parts = {ROW: PartSpec(work.find_spec(width), into=each())} if work.shares else {}
    dispatched = yield Dispatch(work, parties, shared, parts, key)
    assert isinstance(dispatched, Dispatched)
    got = yield from collect(
        dispatched.tickets, close=Close(minimum_fraction=0.0), dispatch=dispatched.dispatch
    )
    if got.abandoned is not None or not work.shares:
        return {}
    return {party: part.values for party, part in got.by_party(ROW).items() if math.isfinite(part.weight)}
