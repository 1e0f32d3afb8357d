"""Membership inference: scores with a known AUC, likelihood ratios in closed form, confidence of models."""

import math

import numpy as np
import pytest

from hanse.core import Examples, InvalidInput
from hanse.leakage import bound_share, compare_shadows, measure_confidence, measure_membership
from hanse.learners import softmax


def normal_cdf(x: float) -> float:
    return (1 + math.erf(x / math.sqrt(2))) / 2


def test_scores_of_two_normals_have_the_auc_and_the_rates_of_the_closed_form() -> None:
    rng, n = np.random.default_rng(3), 10_000
    scores = np.concatenate([rng.normal(1, 1, n), rng.normal(0, 1, n)])
    found = measure_membership(scores, np.arange(2 * n) < n)
    assert found.auc_low < normal_cdf(1 / math.sqrt(2)) < found.auc_high
    assert found.auc_high - found.auc_low < 0.014
    for at, z in (("1%", 2.326348), ("0.1%", 3.090232)):
        share = found.tpr[at]
        assert share is not None
        assert share[0] == pytest.approx(1 - normal_cdf(z - 1), abs=0.012)
        assert share[1] < share[0] < share[2]


def test_ties_count_half_and_too_few_others_measure_nothing() -> None:
    found = measure_membership(np.zeros(150), np.arange(150) < 50)
    assert found.auc == 0.5
    assert found.tpr == {"1%": (0.0, 0.0, pytest.approx(0.0711, abs=1e-4)), "0.1%": None}
    assert (found.members, found.others) == (50, 100)


def test_a_rate_is_never_passed() -> None:
    """Of 100 others one may be taken for a member, not two: the best two of them are above all but one."""
    scores = np.concatenate([[5.0, 3.5, 2.5], [4.0, 3.0], np.zeros(98)])
    found = measure_membership(scores, np.arange(103) < 3)
    share = found.tpr["1%"]
    assert share is not None
    assert share[0] == pytest.approx(2 / 3)


def test_the_interval_of_a_share_is_that_of_clopper_and_pearson() -> None:
    assert bound_share(3, 10) == pytest.approx((0.0667395, 0.6524529), abs=1e-6)
    assert bound_share(10, 10) == pytest.approx((0.6915029, 1.0), abs=1e-6)


def test_a_likelihood_ratio_is_that_of_the_formula() -> None:
    shadows = np.array([[2.0, 1.0], [4.0, 3.0], [0.0, -1.0], [2.0, 3.0]])
    is_in = np.array([[True, True], [True, True], [False, False], [False, False]])
    found = compare_shadows(np.array([3.0, 1.0]), shadows, is_in)
    inside, outside = math.sqrt((2 + 2) / 2), math.sqrt((2 + 8) / 2)  # spreads that the two rows share
    for score, phi, mu_in, mu_out in zip(found, (3.0, 1.0), (3.0, 2.0), (1.0, 1.0), strict=True):
        log_in = -(((phi - mu_in) / inside) ** 2) / 2 - math.log(inside)
        log_out = -(((phi - mu_out) / outside) ** 2) / 2 - math.log(outside)
        assert score == pytest.approx(log_in - log_out, abs=1e-5)
    offline = compare_shadows(np.array([3.0, 1.0]), shadows, is_in, online=False)
    assert offline == pytest.approx([2 / outside, 0.0], abs=1e-5)


def test_shadow_models_find_members_that_a_threshold_does_not() -> None:
    """Rows are hard or easy, which hides from a threshold that each gains the same by membership."""
    rng, rows = np.random.default_rng(5), 2000
    hardness = rng.normal(0, 10, rows)
    is_in = rng.random((33, rows)) < 0.5
    confidences = hardness + 2.0 * is_in + rng.normal(0, 1, is_in.shape)
    ratio = measure_membership(compare_shadows(confidences[0], confidences[1:], is_in[1:]), is_in[0])
    offline = compare_shadows(confidences[0], confidences[1:], is_in[1:], online=False)
    threshold = measure_membership(confidences[0], is_in[0])
    best = normal_cdf(2 / math.sqrt(2))
    assert best - 0.04 < ratio.auc < best + 0.02
    assert best - 0.06 < measure_membership(offline, is_in[0]).auc < best + 0.02
    assert threshold.auc < 0.62


def test_rows_without_two_shadows_on_a_side_are_refused() -> None:
    is_in = np.array([[True], [True], [False]])
    with pytest.raises(InvalidInput, match="1 shadow models on one side"):
        compare_shadows(np.zeros(1), np.zeros((3, 1)), is_in)
    with pytest.raises(InvalidInput, match="both"):
        measure_membership(np.zeros(3), np.ones(3, bool))


def test_confidence_is_the_log_odds_of_the_label() -> None:
    data = Examples(np.array([[1.0], [2.0]]), np.array([0, 2]))
    weights = {"weights": np.array([[0.5, 0.0, -1.0]]), "bias": np.zeros(3)}
    odds = measure_confidence(softmax().bind((1,), 3), weights, data)
    expected = [0.5 - np.logaddexp(0, -1.0), -2.0 - np.logaddexp(1.0, 0.0)]
    assert odds == pytest.approx(expected, abs=1e-6)
    far = measure_confidence(softmax().bind((1,), 3), {**weights, "weights": 1e4 * weights["weights"]}, data)
    assert far.tolist() == [40, -40]
