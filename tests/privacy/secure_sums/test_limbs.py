"""Large numbers in limbs: exact, small enough for a sum of bounded integers, and the sum of parties."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from hanse.core import ClientKeys, CompositionError, Declined, InvalidInput, Keys, Part, Parts, Spec, Total
from hanse.privacy.secure_sums import limbs

KEYS = Keys.from_seed(0)
LARGE = np.array([[0.0, -0.1, 1e7, 3.65843e15], [-1.8e15 - 0.25, 2.0**88, 5e-324, -1e27 / 3]])


def test_limbs_are_exact_and_bounded() -> None:
    stage: Any = limbs()(Spec.of({"sums": LARGE}))
    part, _ = stage.encode(None, Part({"sums": LARGE}), {}, KEYS)
    found = part.values["sums"]
    stage.out.check(part.values)
    assert np.abs(found).max() <= 2.0**29
    assert (found[..., 1:] == np.rint(found[..., 1:])).all(), "the integers of a sum hold them exactly"
    for number, row in zip(LARGE.reshape(-1), found.reshape(-1, 3), strict=True):
        assert sum(Fraction(limb) * 2 ** (30 * i) for i, limb in enumerate(row)) == Fraction(number)
    back, _ = stage.decode(None, None, Total(part.values, 1.0, 1), KEYS.public)
    np.testing.assert_array_equal(back.values["sums"], LARGE)


def test_limbs_of_clients_are_added_up() -> None:
    numbers = np.random.default_rng(0).normal(size=(50, 6)) * 10.0 ** np.arange(0, 24, 4)
    stage: Any = limbs()(Spec.of({"sums": numbers[0]}))
    many = stage.encode_many(None, Parts({"sums": numbers}, np.ones(50)), ClientKeys(50, lambda i: KEYS))
    alone = [stage.encode(None, Part({"sums": row}), {}, KEYS)[0].values["sums"] for row in numbers]
    np.testing.assert_array_equal(many.values["sums"], alone)
    added = np.sum(alone, axis=0)
    total, _ = stage.decode(None, None, Total({"sums": added}, 50.0, 50), KEYS.public)
    exact = [float(sum(map(Fraction, column))) for column in numbers.T]
    assert (np.abs(total.values["sums"] - exact) <= 1e-15 * np.abs(numbers).sum(axis=0)).all()


def test_what_has_no_limbs_is_refused() -> None:
    stage: Any = limbs(bits=4, count=2)(Spec.of({"w": np.zeros(1)}))
    stage.encode(None, Part({"w": np.array([128.0])}), {}, KEYS)
    with pytest.raises(Declined, match=r"a number in 'w' is above 128.* in a larger unit") as error:
        stage.encode(None, Part({"w": np.array([4321.0])}), {}, KEYS)
    assert "4321" not in str(error.value), "the reason leaves the house"
    for spec in (Spec.of({"w": np.zeros(1, np.float32)}), Spec.of({"w": np.zeros(1)}, kind="table")):
        with pytest.raises(CompositionError, match="needs real numbers of type float64"):
            limbs()(spec)
    with pytest.raises(InvalidInput, match="write 1 to 30"):
        limbs(bits=31)
