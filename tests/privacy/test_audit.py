"""Audits by canaries bound epsilon as the paper does, and see what is broken on purpose."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from hanse.core import InvalidInput
from hanse.privacy import CanaryAudit, audit_guesses, bound_epsilon, compute_epsilon

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "privacy" / "canary.py"


@pytest.mark.parametrize(("canaries", "cap"), [(20, 1.82), (50, 2.78), (100, 3.49)])
def test_so_many_canaries_can_show_so_much(canaries: int, cap: float) -> None:
    assert round(bound_epsilon(canaries, canaries, canaries), 2) == cap
    assert CanaryAudit(0, 1, canaries).cap == bound_epsilon(canaries, canaries, canaries)


def test_delta_lowers_what_many_canaries_can_show() -> None:
    assert round(bound_epsilon(1437, 1437, 1437), 1) == 6.1
    assert round(bound_epsilon(1437, 1437, 1437, delta=0.0), 2) == 6.17


@pytest.mark.parametrize(("correct", "guesses"), [(60, 100), (93, 100), (180, 250)])
def test_without_delta_the_bound_is_that_of_a_binomial_test(correct: int, guesses: int) -> None:
    """At the bound, so many right guesses have a chance of exactly one in twenty."""
    epsilon = bound_epsilon(correct, guesses, 1000, delta=0.0)
    right = 1 / (1 + np.exp(-epsilon))
    assert stats.binom(guesses, right).sf(correct - 1) == pytest.approx(0.05, rel=1e-6)


def test_guesses_by_chance_prove_nothing() -> None:
    assert bound_epsilon(125, 250, 1437) == 0.0
    assert bound_epsilon(0, 10, 1437) == 0.0


@pytest.mark.parametrize("numbers", [(3, 2, 10), (2, 20, 10), (0, 0, 10), (-1, 2, 10)])
def test_numbers_that_do_not_fit_are_refused(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidInput, match="write numbers that do not grow"):
        bound_epsilon(*numbers)


def test_too_few_canaries_can_not_tell() -> None:
    few = audit_guesses(np.arange(49), np.arange(49) > 24, 48)
    assert (few.bound, few.refutes(0.0)) == (None, False)
    assert str(few) == ("can't tell: 49 canaries can show at most 2.76; insert at least 50, better 1,000")
    enough = audit_guesses(np.arange(50), np.arange(50) > 24, 50)
    assert enough.refutes(2.7)
    assert not enough.refutes(2.8)
    assert "50 of 50 guesses are right; 50 canaries can show at most 2.78" in str(enough)


def test_the_highest_scores_are_guessed_to_be_in_and_the_lowest_out() -> None:
    scores = np.arange(100.0)
    assert audit_guesses(scores, scores >= 90, 20).correct == 20
    assert audit_guesses(-scores, scores >= 90, 20).correct == 0
    assert audit_guesses(scores, scores >= 95, 20).correct == 15
    with pytest.raises(InvalidInput, match="an even number"):
        audit_guesses(scores, scores >= 90, 21)


@pytest.fixture(scope="module")
def canary() -> Iterator[Any]:
    spec = importlib.util.spec_from_file_location("canary", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["canary"] = module
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules["canary"]


FAST = {"canaries": 300, "guesses": 200, "rounds": 1, "rate": 1.0}
CLAIMED = compute_epsilon({(1.0, 2.0): 1}, 1e-5)


def test_a_sound_run_is_not_refuted_and_one_without_noise_is(canary: Any) -> None:
    assert not canary.audit(0, **FAST).refutes(CLAIMED)
    assert canary.audit(0, 0.0, **FAST).refutes(CLAIMED)


@pytest.mark.parametrize("name", ["a tenth of the noise", "clipping skipped", "weights after clipping"])
def test_what_is_broken_on_purpose_is_found(canary: Any, name: str) -> None:
    assert canary.audit_mutant(name, 0, **FAST).refutes(CLAIMED)
