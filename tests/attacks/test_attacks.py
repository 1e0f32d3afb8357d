"""What each attack sends, from the formulas of its paper."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from hanse.attacks import (
    Adversary,
    Attack,
    Collusion,
    adaptive,
    alie,
    free_rider,
    inner_product,
    intermittent,
    label_flip,
    mimic,
    min_max,
    random_labels,
    random_update,
    scaled_mean,
    sign_flip,
    zero_update,
)
from hanse.core import Examples, InvalidInput, Key, Part, Reducer, Tensors, mean, reduce
from hanse.robust import krum, median, trimmed_mean

ROWS = Key.from_seed(5).rng().normal(1.0, 1.0, (7, 6))


def collude(
    rows: Any = ROWS,
    *,
    liars: int = 2,
    rule: Reducer[Any] = mean(),
    memory: Sequence[Mapping[str, Tensors]] | None = None,
    shared: Mapping[str, Tensors] | None = None,
    max_norm: float | None = None,
) -> Collusion:
    def split(row: Any) -> dict[str, Any]:
        return {"a": row[:4].reshape(2, 2), "b": row[4:]}

    return Collusion(
        part="update",
        round=1,
        own=tuple(Part(split(rows[i] + 1), 3.0 + i) for i in range(liars)),
        honest=tuple(split(row) for row in rows),
        num_honest=len(rows),
        shared=shared or {},
        aggregate=lambda parts: reduce(rule, list(parts)).values,
        max_norm=max_norm,
        memory=tuple(memory or ({},) * liars),
        key=Key.from_seed(1),
    )


def send(attack: Attack, seen: Collusion) -> Any:
    parts = attack.falsify(seen)
    assert [part.weight for part in parts] == [part.weight for part in seen.own]
    return np.stack([seen.flatten(part.values) for part in parts])


def test_simple_lies() -> None:
    seen = collude()
    own = np.stack([seen.flatten(part.values) for part in seen.own])
    np.testing.assert_allclose(send(sign_flip(), seen), -own)
    assert not send(zero_update(), seen).any()
    np.testing.assert_allclose(send(scaled_mean(-3.0), seen), np.tile(-3 * ROWS.mean(axis=0), (2, 1)))
    np.testing.assert_allclose(send(inner_product(0.5), seen)[1], -0.5 * ROWS.mean(axis=0))


def test_random_updates_differ_and_have_their_deviation() -> None:
    rows = np.zeros((3, 5000))
    sent = send(random_update(10.0), collude(rows))
    assert abs(sent.std() - 10) < 0.2
    assert abs(np.corrcoef(sent)[0, 1]) < 0.05


def test_alie_has_the_published_number_of_deviations() -> None:
    assert alie.find_z(50, 24) == pytest.approx(1.4261, abs=1e-4)
    assert alie.find_z(20, 4) == pytest.approx(
        0.1573, abs=1e-4
    )  # of 16 honest ones 7 must be won: Phi(z) = 9/16
    assert alie.find_z(10, 6) == 0
    sent = send(alie(), collude())[0]
    z = alie.find_z(9, 2)
    np.testing.assert_allclose(sent, ROWS.mean(axis=0) - z * ROWS.std(axis=0))
    np.testing.assert_allclose(send(alie(2.0), collude())[0], ROWS.mean(axis=0) - 2 * ROWS.std(axis=0))


@pytest.mark.parametrize("rule", [median(), trimmed_mean(2), krum(2)])
def test_an_optimised_strength_harms_more_than_any_fixed_one(rule: Reducer[Any]) -> None:
    seen = collude(rule=rule)
    middle = ROWS.mean(axis=0)

    def harm(attack: Attack) -> float:
        parts = attack.falsify(seen)
        total = seen.aggregate([*(Part(values) for values in seen.honest), *parts])
        assert total is not None
        return float(np.linalg.norm(seen.flatten(total) - middle))

    for best, others in (
        (alie("optimised"), [alie(), alie(0.5), alie(2.0), alie(8.0)]),
        (inner_product(), [inner_product(-1 + s) for s in (1.125, 1.5, 2.0, 5.0)]),
    ):
        assert harm(best) >= max(map(harm, others)) - 1e-9
    assert harm(alie("optimised")) > 0.2


def test_adaptive_throws_the_total_back_farther_than_simple_lies() -> None:
    seen, middle = collude(rule=trimmed_mean(2)), ROWS.mean(axis=0)

    def retreat(attack: Attack) -> float:
        total = seen.aggregate([*(Part(values) for values in seen.honest), *attack.falsify(seen)])
        assert total is not None
        return float((middle - seen.flatten(total)) @ middle)

    simple = [scaled_mean(-3.0), sign_flip(), zero_update(), inner_product(0.1), alie()]
    assert retreat(adaptive()) >= max(map(retreat, simple)) - 1e-9
    assert retreat(adaptive()) > 0


def test_lies_stay_within_the_bound_that_the_server_checks() -> None:
    seen = collude(max_norm=0.5)
    for attack in (alie("optimised"), inner_product(), adaptive()):
        assert np.linalg.norm(send(attack, seen)[0]) <= 0.5 + 1e-9


@pytest.mark.parametrize("direction", ["deviation", "mean", "sign"])
def test_min_max_reaches_the_largest_distance_and_not_farther(direction: Any) -> None:
    lie = send(min_max(direction), collude())[0]
    largest = max(np.linalg.norm(x - y) for x in ROWS for y in ROWS)
    assert max(np.linalg.norm(lie - x) for x in ROWS) == pytest.approx(largest, rel=1e-9)
    assert (lie - ROWS.mean(axis=0)) @ ROWS.mean(axis=0) < 0


def test_mimic_repeats_the_client_that_differs_the_most_in_the_same_way() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(0, 0.1, (8, 6))
    rows[3, 0] = 5.0  # the outlier, also of later rounds
    memory: Mapping[str, Tensors] = {}
    for _ in range(3):
        seen = collude(rows + rng.normal(0, 0.1, rows.shape), memory=(memory, {}))
        np.testing.assert_allclose(send(mimic(), seen), np.tile(seen.rows[3], (2, 1)))
        memory = mimic().remember(seen)
    assert int(memory["learned"]["rounds"]) == 3
    np.testing.assert_allclose(abs(memory["learned"]["direction"][0]), 1, atol=0.02)
    frozen = mimic(warmup=3).remember(collude(rows[::-1], memory=(memory, {})))
    np.testing.assert_array_equal(frozen["learned"]["direction"], memory["learned"]["direction"])


def test_a_free_rider_repeats_the_last_step_of_the_model() -> None:
    before = {"params": {"a": np.ones((2, 2)), "b": np.zeros(2)}}
    after = {"params": {"a": np.full((2, 2), 1.5), "b": np.array([0.0, -1.0])}}
    kept = free_rider(0.0).remember(collude(shared=before))
    sent = send(free_rider(0.0), collude(shared=after, memory=(kept, {})))
    np.testing.assert_allclose(sent[0], [0.5, 0.5, 0.5, 0.5, 0, -1])
    assert not sent[1].any()  # it was never asked before
    assert send(free_rider(1.0), collude(shared=after)).std() > 0.3


def test_false_labels() -> None:
    data = Examples(np.ones((2000, 1)), np.arange(2000) % 10)
    assert (label_flip().poison(data, 10, Key.from_seed(0)).y == 9 - data.y).all()
    drawn = random_labels().poison(data, 10, Key.from_seed(0))
    assert set(drawn.y) == set(range(10))
    assert abs((drawn.y == data.y).mean() - 0.1) < 0.03
    assert (data.y == np.arange(2000) % 10).all()
    with pytest.raises(InvalidInput, match="classes"):
        label_flip().poison(data, None, Key.from_seed(0))


def test_intermittent_lies_in_some_rounds() -> None:
    attack = intermittent(sign_flip(), every=2, first=3, last=7)
    assert [n for n in range(1, 12) if attack.is_active(n)] == [3, 5, 7]
    assert attack.falsifies
    assert not attack.poisons
    assert intermittent(label_flip()).poisons
    assert intermittent(mimic()).needs_honest
    with pytest.raises(InvalidInput, match="before first"):
        intermittent(sign_flip(), first=5, last=4)


def test_who_lies() -> None:
    one = Adversary(sign_flip(), fraction=0.2)
    key = Key.from_seed(3)
    assert len(one.find_liars(20, key=key)) == 4 == len(set(one.find_liars(20, key=key)))
    assert one.find_liars(20, key=key) != one.find_liars(20, key=Key.from_seed(4))
    assert len(one.find_liars(2)) == 1
    assert Adversary(sign_flip(), clients=("b", 0)).find_liars(3, ("a", "b", "c")) == (0, 1)
    for adversary, said in (
        (Adversary(sign_flip(), clients=("x",)), "no client 'x'"),
        (Adversary(sign_flip(), clients=(3,)), "from 0 to 2"),
    ):
        with pytest.raises(InvalidInput, match=said):
            adversary.find_liars(3, ("a", "b", "c"))


@pytest.mark.parametrize(
    ("said", "given"),
    [
        ("either fraction", {}),
        ("either fraction", {"fraction": 0.2, "clients": (1,)}),
        ("between 0 and 1", {"fraction": 1.0}),
        ("knows is", {"fraction": 0.2, "knows": "nothing"}),
        ("write an attack", {"attack": (), "fraction": 0.2}),
        ('knows = "all"', {"attack": mimic(), "fraction": 0.2}),
    ],
)
def test_bad_adversaries(said: str, given: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=said):
        Adversary(**{"attack": sign_flip(), **given})
