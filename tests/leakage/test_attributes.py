"""Attribute inference: a model that knows a column gives it away, and imputation is told apart from it."""

import numpy as np
import pytest

from hanse.core import Array, InvalidInput
from hanse.leakage import impute, infer_attribute
from hanse.learners import least_squares, softmax


def rows(n: int, seed: int) -> tuple[Array, Array]:
    """A column of coins beside one that follows it in four of five rows."""
    rng = np.random.default_rng(seed)
    column = rng.integers(2, size=n)
    return np.where(rng.random(n) < 0.8, column, 1 - column)[:, None].astype(float), column


def test_imputation_learns_how_columns_depend() -> None:
    known, column = rows(2000, 0)
    wanted, truth = rows(2000, 1)
    found = impute(known, column, wanted, 2)
    assert found.shape == (2000, 2)
    assert (found.argmax(axis=1) == truth).mean() == pytest.approx(0.8, abs=0.03)
    assert found[wanted[:, 0] == 1, 1] == pytest.approx(0.8, abs=0.03)


def test_only_what_a_model_adds_is_a_gain() -> None:
    """The label is the column and a coin's flip in one of ten rows, which the model has learned."""
    other, truth = rows(4000, 2)
    labels = np.where(np.random.default_rng(3).random(4000) < 0.9, truth, 1 - truth)
    learner = softmax().bind((2,), 2)
    candidates = [np.hstack([other, np.full((4000, 1), float(value))]) for value in (0, 1)]
    prior = np.where(other == 1, [[0.2, 0.8]], [[0.8, 0.2]])
    odds = np.log(9)
    knows = {"weights": np.array([[0, 0], [-odds, odds]], float), "bias": np.array([odds / 2, -odds / 2])}
    ignorant = {name: 0 * tensor for name, tensor in knows.items()}
    found = infer_attribute(learner, knows, candidates, labels, truth, prior, prior, 1)
    assert found.with_model == pytest.approx(0.9, abs=0.02)
    assert found.imputed == pytest.approx(0.8, abs=0.02)
    assert found.gain == found.with_model - found.imputed
    assert found.majority == pytest.approx(0.5, abs=0.03)
    assert infer_attribute(learner, ignorant, candidates, labels, truth, prior, prior, 1).gain == 0


def test_a_model_of_numbers_is_refused() -> None:
    learner = least_squares().bind((2,), None)
    with pytest.raises(InvalidInput, match="probabilities"):
        infer_attribute(learner, {}, [], np.zeros(1), np.zeros(1), np.ones((1, 2)), np.ones((1, 2)), 0)
