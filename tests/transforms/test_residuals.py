"""Error feedback: nothing is lost, and what is owed is remembered only once the message counted."""

from typing import Any

import numpy as np
import pytest
from support import KEYS, InMemory, simulate

from hanse.algorithms import fed_avg
from hanse.core import Close, CompositionError, Part, Spec
from hanse.simulation import unstable
from hanse.transforms import (
    clip,
    low_rank,
    none,
    per_block,
    random_mask,
    rotate,
    sign,
    subsample,
    top_k,
)

BIASED = [top_k(0.1), top_k(0.5), sign(), sign(per_block(8))]
every_biased = pytest.mark.parametrize("transform", BIASED, ids=str)


def rounds(transform, messages):
    """Sums of what was encoded and of what arrived, and what is owed at the end."""
    stage = transform(Spec.of(messages[0]))
    memory: Any = {}
    given = {name: np.zeros_like(v) for name, v in messages[0].items()}
    arrived = {name: np.zeros_like(v) for name, v in messages[0].items()}
    for i, values in enumerate(messages):
        sent, memory = stage.encode(None, Part(values), memory, KEYS.fold_in(i))
        back = stage.open(None, sent, KEYS.public).values
        for name in values:
            given[name] += values[name]
            arrived[name] += back[name]
    return given, arrived, memory["residual"]


@every_biased
def test_what_was_sent_and_what_is_owed_add_up_exactly(transform):
    """Multiples of 2^-20 in float64, and means over powers of two: no sum is rounded."""
    rng = np.random.default_rng(1)
    messages = [
        {"w": rng.integers(-512, 512, (8, 8)) / 1024, "b": rng.integers(-512, 512, 4) / 1024}
        for _ in range(6)
    ]
    given, arrived, owed = rounds(transform, messages)
    for name in given:
        assert (arrived[name] != given[name]).any()
        np.testing.assert_array_equal(arrived[name] + owed[name], given[name])


@every_biased
def test_in_float32_they_add_up_but_for_rounding(transform):
    rng = np.random.default_rng(2)
    messages = [{"w": rng.normal(size=(30, 7)).astype(np.float32)} for _ in range(50)]
    given, arrived, owed = rounds(transform, messages)
    assert owed["w"].dtype == np.float32
    np.testing.assert_allclose(arrived["w"] + owed["w"], given["w"], atol=1e-4)


@every_biased
def test_a_constant_gradient_arrives_in_full(transform):
    x = {"w": np.linspace(-1, 1, 40)}
    _, arrived, _ = rounds(transform, [x] * 400)
    np.testing.assert_allclose(arrived["w"] / 400, x["w"], atol=0.05)


def test_forgotten_residuals_are_lost():
    x = {"w": np.linspace(0, 1, 40)}
    stage = top_k(0.1, residual=none())(Spec.of(x))
    sent, memory = stage.encode(None, Part(x), {}, KEYS)
    assert memory == {}
    assert stage.open(None, sent, KEYS.public).values["w"][0] == 0


class Remembering(InMemory):
    """Keeps what each client's memory was after each round."""

    def __init__(self) -> None:
        super().__init__()
        self.rounds: list[Any] = []

    def save(self, checkpoint: Any, record: Any, memories: Any) -> None:
        super().save(checkpoint, record, memories)
        self.rounds.append((record, {party: self.memory(party) for party in range(6)}))


def test_the_residual_is_committed_only_when_counted():
    store = Remembering()
    algorithm = fed_avg(
        lr=0.02, fraction=1.0, uplink=(top_k(0.3),), close=Close(goal=3, minimum_fraction=0.3)
    )
    simulate(algorithm, 6, unstable(0.3), store)
    seen = 0
    for (_, before), (record, after) in zip(store.rounds, store.rounds[1:], strict=False):
        changed = [party for party in after if after[party] is not before[party]]
        changed = [p for p in changed if str(after[p]) != str(before[p])]
        assert len(changed) == (0 if record.abandoned else record.usage.counted)
        seen += len(changed)
    assert seen >= 6
    kept = store.memory(0)["stages/update"]["0"]["residual"]
    assert kept.keys() == {"w", "b"}


@pytest.mark.parametrize(
    "before",
    [rotate(), subsample(0.5), random_mask(0.5), low_rank(1)],
    ids=str,
)
def test_positions_that_change_can_not_be_remembered(before):
    spec = before(Spec.of({"w": np.zeros((4, 4))})).out
    for transform in (top_k(0.5), sign()):
        with pytest.raises(CompositionError, match=r"put it first, or write residual=none\(\)"):
            transform(clip(1.0)(spec).out)
        assert type(transform)(**{**vars(transform), "residual": none()})(spec).open is not None
