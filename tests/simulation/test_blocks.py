"""Clients that are computed together: the bits, the bytes and the errors of one by one."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support import KEYS

import hanse
from hanse.algorithms import fed_avg, fed_sgd, scaffold, uniform
from hanse.core import (
    Close,
    Examples,
    InvalidInput,
    LocalProblem,
    Part,
    Parts,
    RoundAbandoned,
    Steps,
    mean,
    reduce,
    stack,
    sum,
    value,
)
from hanse.data import FederatedData, from_clients, generate
from hanse.learners import least_squares, logistic, softmax
from hanse.simulation import batched, sequential, unstable
from hanse.simulation.blocks import Folding
from hanse.transforms import (
    cast,
    clip,
    deflate,
    none,
    per_round,
    quantize,
    random_mask,
    rotate,
    sign,
    subsample,
)

RNG = np.random.default_rng(3)


def clients(num_classes: int | None, num_clients: int = 11, **options: Any) -> FederatedData:
    """Of unequal size, some smaller than a batch."""
    parts = []
    for k in range(num_clients):
        n = 1 + k % 6
        y = RNG.normal(size=n) if num_classes is None else np.arange(n) % num_classes
        parts.append(Examples(RNG.normal(size=(n, 4)), y))
    return from_clients(parts, **options)


DATA = clients(3)
AVG = fed_avg(lr=0.1, fraction=1.0, batch_size=2, epochs=2)
CASES: dict[str, dict[str, Any]] = {
    "softmax": {},
    "float64": {"model": softmax(dtype="float64")},
    "no bias": {"model": softmax(intercept=False)},
    "logistic": {"model": logistic(), "data": clients(2)},
    "least squares": {"model": least_squares(), "data": clients(None)},
    "full batches": {"algorithm": replace(AVG, batch_size=None)},
    "regularised": {"model": softmax(0.1)},
    "uniform": {"algorithm": replace(AVG, weighting=uniform())},
    "sum": {"algorithm": replace(AVG, into=sum(), server_lr=0.01)},
    "drop-out": {"devices": unstable(0.3)},
    "a goal": {"algorithm": replace(AVG, close=Close(goal=5))},
    "quantized": {"algorithm": replace(AVG, uplink=(clip(1.0), rotate(), quantize(2), deflate()))},
    "masked": {"algorithm": replace(AVG, uplink=(random_mask(0.5), quantize(2)))},
    "with memory": {"algorithm": scaffold(lr=0.1, batch_size=2)},
    "gradients": {"algorithm": fed_sgd(lr=0.1)},
    "clipped": {"algorithm": replace(AVG, uplink=(clip(0.05),))},
    "clipped, in float64": {
        "algorithm": replace(AVG, uplink=(clip(0.05),)),
        "model": softmax(dtype="float64"),
    },
    "opened one by one": {"algorithm": replace(AVG, uplink=(clip(0.05), cast("bfloat16")))},
    "signs": {"algorithm": replace(AVG, uplink=(sign(residual=none()),))},
    "decoded": {"algorithm": replace(AVG, uplink=(subsample(0.5, drawn=per_round()), clip(0.05)))},
    "clipped, summed": {"algorithm": replace(AVG, uplink=(clip(0.05),), into=sum(), server_lr=0.01)},
    "clipped, with drop-out": {"algorithm": replace(AVG, uplink=(clip(0.05),)), "devices": unstable(0.3)},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_together_as_one_by_one(case: dict[str, Any]) -> None:
    settings: dict[str, Any] = {"data": DATA, "model": softmax(), "algorithm": AVG, "rounds": 3, **case}
    due, got = (hanse.run(**settings, execution=way) for way in (sequential(), batched()))
    assert got.params_sha256 == due.params_sha256
    assert [record.usage for record in got.records] == [record.usage for record in due.records]
    assert [record.metrics for record in got.records] == [record.metrics for record in due.records]


@pytest.mark.parametrize(
    "uplink",
    [
        (),
        (clip(0.05),),
        (clip(0.05), cast("bfloat16")),
        (sign(residual=none()),),
        (subsample(0.5, drawn=per_round()), clip(0.05)),
    ],
    ids=str,
)
def test_transforms_without_memory_are_encoded_and_folded_at_once(
    uplink: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: Any) -> None:
        raise AssertionError("a message was folded alone")

    monkeypatch.setattr(Folding, "add", fail)
    settings: dict[str, Any] = {"data": DATA, "model": softmax(), "rounds": 2, "evaluate_every": 0}
    hanse.run(**settings, algorithm=replace(AVG, uplink=uplink), execution=batched())
    alone = replace(AVG, uplink=(quantize(2),))
    with pytest.raises(AssertionError, match="folded alone"):
        hanse.run(**settings, algorithm=alone, execution=batched())


@value
class blocked_sum(sum):
    """Can lift many parts, but may see none."""

    hides = True

    def protocol(self, parts: Any, parties: Any, key: Any) -> Any:
        yield from ()
        raise RoundAbandoned("nothing is summed here")


def test_parts_that_a_reducer_hides_are_never_folded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: Any) -> None:
        raise AssertionError("hidden parts were folded in the clear")

    monkeypatch.setattr(blocked_sum, "lift_many", fail)
    settings: dict[str, Any] = {"data": DATA, "model": softmax(), "rounds": 1, "evaluate_every": 0}
    hanse.run(**settings, algorithm=replace(AVG, into=blocked_sum()), execution=batched())


def test_examples_that_can_not_be_used_are_named_as_one_by_one() -> None:
    def client(number: int) -> Examples:
        return Examples(np.full((2, 4), np.nan if number == 1 else 0.0), np.array([0, 1]))

    wrong = generate(2, client, num_classes=2)
    said = []
    for way in (sequential(), batched()):
        with pytest.raises(InvalidInput, match="is nan") as raised:
            hanse.run(data=wrong, model=softmax(), algorithm=AVG, rounds=1, evaluate_every=0, execution=way)
        said.append((str(raised.value), raised.value.__notes__))
    assert said[0] == said[1]


def test_an_error_that_only_the_joint_way_makes_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: Any) -> None:
        raise RuntimeError("out of memory")

    learner = softmax().bind((4,), 3)
    monkeypatch.setattr(type(learner), "local_sgd_many", fail)
    settings: dict[str, Any] = {"data": DATA, "model": softmax(), "algorithm": AVG, "rounds": 3}
    with pytest.raises(RuntimeError, match="out of memory") as raised:
        hanse.run(**settings, execution=batched())
    (said,) = raised.value.__notes__
    assert said.endswith("was performed together; one by one it succeeds: execution=sequential()")
    hanse.run(**settings, execution=sequential())


def test_works_without_a_joint_way_ask_for_data_once() -> None:
    asked: list[int] = []

    def client(number: int) -> Examples:
        asked.append(number)
        return DATA.client(number)

    data = generate(5, client, num_classes=3, test=DATA.client(5))
    del asked[:]
    hanse.run(data=data, model=softmax(), algorithm=scaffold(lr=0.1), rounds=2, execution=batched())
    assert len(asked) <= 2 * 5 + 22  # and a few to see what they are, and how models serve them


@pytest.mark.parametrize("count", [1, 2, 5, 8, 13])
@pytest.mark.parametrize("reducer", [mean(), sum()])
def test_parts_are_lifted_in_the_bits_of_the_tree(reducer: Any, count: int) -> None:
    values = {"w": RNG.normal(size=(count, 3, 2)).astype(np.float32), "b": RNG.normal(size=count)}
    weights = RNG.integers(1, 9, count).astype(float)
    parts = [Part({n: v[i] for n, v in values.items()}, float(weights[i])) for i in range(count)]
    due = reduce(reducer, parts)
    got = reducer.result(reducer.lift_many(Parts({n: v.copy() for n, v in values.items()}, weights)))
    assert (got.weight, got.count) == (due.weight, due.count)
    for name in values:
        assert got.values[name].tobytes() == due.values[name].tobytes()


def test_what_is_not_a_sum_of_real_numbers_is_lifted_one_by_one() -> None:
    assert stack().lift_many(Parts({"w": np.zeros((2, 1))}, np.ones(2))) is None
    assert mean().lift_many(Parts({"w": np.zeros((2, 1), int)}, np.ones(2))) is None


@pytest.mark.parametrize("sizes", [[4] * 7, [20] * 33, [1, 9, 30, 4, 9, 2, 17], [3]])
@pytest.mark.parametrize("batch_size", [1, 4, None])
@pytest.mark.parametrize(
    ("model", "features"),
    [
        (softmax(), 784),
        (softmax(intercept=False), 5),
        (softmax(dtype="float64"), 40),
        (logistic(), 33),
        (logistic(intercept=False), 1),
        (least_squares(dtype="float64"), 7),
    ],
)
def test_many_is_each(model: Any, features: int, batch_size: int | None, sizes: list[int]) -> None:
    num_classes = {logistic: 2, softmax: 10, least_squares: None}[type(model)]
    learner = model.bind((features,), num_classes)
    params = {name: value + value.dtype.type(0.1) for name, value in learner.init(KEYS.public).items()}
    keys = [KEYS.public.fold_in(k) for k in range(len(sizes))]
    data = [Examples(RNG.normal(size=(n, features)).astype(np.float32), RNG.integers(0, 2, n)) for n in sizes]
    steps = Steps(0.03, epochs=2, batch_size=batch_size)
    together = learner.local_sgd_many(
        params, [LocalProblem(d, steps, key) for d, key in zip(data, keys, strict=True)]
    )
    assert together is not None
    for k, key in enumerate(keys):
        alone = learner.local_sgd(params, LocalProblem(data[k], steps, key))
        for name, array in alone.items():
            assert together[name][k].tobytes() == array.tobytes()
