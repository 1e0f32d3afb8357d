"""Metrics equal scikit-learn's on pooled predictions, and definitions where scikit-learn has none."""

from typing import Any

import numpy as np
import pytest
import sklearn.metrics as sk
from sklearn.calibration import calibration_curve

from hanse.core import Array, InvalidInput
from hanse.evaluation import (
    Metric,
    accuracy,
    auroc,
    average_precision,
    balanced_accuracy,
    brier,
    calibration_error,
    concordance,
    confusion_matrix,
    f1,
    list_statistics,
    log_loss,
    mae,
    perplexity,
    r2,
    rmse,
    score_rows,
    sensitivity,
    specificity,
)

CLOSE = 1e-12


def draw_classes(seed: int, k: int) -> tuple[Array, Array, Array]:
    """Draw labels of k classes, probabilities with many ties, and weights of which some are 0."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(4 * k, 150))
    y = np.concatenate([np.arange(k), rng.integers(0, k, n - k)])
    scores = rng.normal(size=(n, k)) + rng.choice([0.0, 2.0]) * np.eye(k)[y]
    if seed % 2:  # few values, so that most examples are tied
        scores = np.round(scores)
    p = np.exp(scores)
    p /= p.sum(axis=1, keepdims=True)
    w = rng.choice([0.0, 0.5, 1.0, 3.0], n) if seed % 3 else np.ones(n)
    w[:k] = 1.0
    return y, p, w


def of_each_class(found: Any, y: Array, p: Array, w: Array) -> float:
    k = p.shape[1]
    if k == 2:
        return float(found(y, p[:, 1], sample_weight=w))
    return float(np.mean([found(y == c, p[:, c], sample_weight=w) for c in range(k)]))


@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("seed", range(5))
def test_metrics_of_classes_equal_those_of_scikit_learn(seed: int, k: int) -> None:
    y, p, w = draw_classes(seed, k)
    named, average = p.argmax(axis=1), "binary" if k == 2 else "macro"
    expected: list[tuple[Metric, float]] = [
        (accuracy(), sk.accuracy_score(y, named, sample_weight=w)),
        (balanced_accuracy(), sk.balanced_accuracy_score(y, named, sample_weight=w)),
        (f1(), sk.f1_score(y, named, sample_weight=w, average=average)),
        (auroc(), of_each_class(sk.roc_auc_score, y, p, w)),
        (average_precision(), of_each_class(sk.average_precision_score, y, p, w)),
        (log_loss(), sk.log_loss(y, p, sample_weight=w)),
        (perplexity(), np.exp(sk.log_loss(y, p, sample_weight=w))),
        (brier(), sk.brier_score_loss(y, p[:, 1] if k == 2 else p, sample_weight=w)),
        (
            sensitivity(0.3, positive=1),
            sk.recall_score(y == 1, p[:, 1] >= 0.3, sample_weight=w),
        ),
        (
            specificity(0.3, positive=1),
            sk.recall_score(y != 1, p[:, 1] < 0.3, sample_weight=w),
        ),
    ]
    for metric, truth in expected:
        assert metric.compute(y, p, w) == pytest.approx(truth, abs=CLOSE, rel=CLOSE), metric.key
    table: Any = confusion_matrix().find_table(confusion_matrix().add_up(score_rows(y, p, w)))
    np.testing.assert_allclose(table, sk.confusion_matrix(y, named, sample_weight=w), atol=CLOSE)


def test_probabilities_in_single_precision_are_clipped_as_scikit_learn_clips_them() -> None:
    p = np.array([[0.0, 1.0], [1.0, 0.0], [0.3, 0.7]], np.float32)
    y = np.array([0, 0, 1])
    found = log_loss().compute(y, p)
    assert found == pytest.approx(sk.log_loss(y, p), rel=1e-6)
    assert found < 6, "in double precision, it would be 12"


@pytest.mark.parametrize("seed", range(6))
def test_the_calibration_error_of_two_classes_is_that_of_scikit_learns_curve(seed: int) -> None:
    y, p, _ = draw_classes(seed, 2)
    p1 = np.round(p[:, 1], 1)  # also on the edges of bins
    holds, claimed = calibration_curve(y, p1, n_bins=10)
    sizes = np.bincount(np.searchsorted(np.linspace(0, 1, 11)[1:-1], p1), minlength=10)
    truth = np.abs(holds - claimed) @ sizes[sizes > 0] / len(y)
    assert calibration_error(bins=10).compute(y, p1, kind="probabilities") == pytest.approx(truth, abs=CLOSE)


def test_the_calibration_error_of_more_classes_is_that_of_the_predicted_one() -> None:
    y, p, w = draw_classes(3, 4)
    sure, right, truth = p.max(axis=1), p.argmax(axis=1) == y, 0.0
    for low in np.arange(15) / 15:
        inside = (sure > low) & (sure <= low + 1 / 15)
        truth += abs(w[inside] @ sure[inside] - w[inside] @ right[inside]) / w.sum()
    assert calibration_error().compute(y, p, w) == pytest.approx(truth, abs=1e-9)


@pytest.mark.parametrize("shape", [(), (3,)])
@pytest.mark.parametrize("seed", range(6))
def test_metrics_of_numbers_equal_those_of_scikit_learn(seed: int, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(40, *shape)) * 10 + 2020
    found, w = y + rng.normal(size=y.shape), rng.choice([0.0, 1.0, 2.5], 40)
    for metric, oracle in [(rmse(), sk.root_mean_squared_error), (mae(), sk.mean_absolute_error)]:
        assert metric.compute(y, found, w) == pytest.approx(oracle(y, found, sample_weight=w), rel=CLOSE)
    assert r2().compute(y, found, w) == pytest.approx(sk.r2_score(y, found, sample_weight=w), rel=CLOSE)
    from_sums, error = r2().conclude(r2().add_up(score_rows(y, found, w)))
    assert from_sums == pytest.approx(r2().compute(y, found, w), rel=1e-9)
    assert error == 0.0


def count_slowly(risks: Array, labels: Array, w: Array) -> float:
    """Compute the concordance pair by pair, by its definition."""
    right = comparable = 0.0
    for i, (time, event, stratum) in enumerate(labels):
        for j, (other, later_event, other_stratum) in enumerate(labels):
            outlives = other > time or (other == time and not later_event)
            if i != j and event and stratum == other_stratum and outlives:
                comparable += w[i] * w[j]
                right += w[i] * w[j] * ((risks[i] > risks[j]) + (risks[i] == risks[j]) / 2)
    return right / comparable


@pytest.mark.parametrize("seed", range(8))
def test_concordance_is_that_of_all_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 40
    labels = np.column_stack([rng.integers(1, 9, n), rng.integers(0, 2, n), rng.integers(0, 2, n)])
    risks, w = rng.integers(0, 6, n).astype(float), rng.choice([0.0, 1.0, 2.0], n)
    found = concordance().compute(labels, risks, w, kind="risks")
    assert found == pytest.approx(count_slowly(risks, labels, w), abs=CLOSE)
    as_events = np.column_stack([labels[:, 0], np.ones(n), np.zeros(n)])
    numbers = concordance().compute(labels[:, 0].astype(float), risks, w)
    assert numbers == pytest.approx(count_slowly(-risks, as_events, w), abs=CLOSE)


def test_concordance_of_two_values_is_the_auroc() -> None:
    y, p, w = draw_classes(5, 2)
    found = concordance().compute(y.astype(float), p[:, 1], w)
    assert found == pytest.approx(sk.roc_auc_score(y, p[:, 1], sample_weight=w), abs=CLOSE)


def test_scores_without_probabilities_are_ranked_by_their_difference() -> None:
    y, _, w = draw_classes(2, 2)
    scores = np.random.default_rng(2).normal(size=(len(y), 2)) * 50
    found = auroc().compute(y, scores, w, kind="scores")
    assert found == pytest.approx(
        sk.roc_auc_score(y, scores[:, 1] - scores[:, 0], sample_weight=w), abs=CLOSE
    )


@pytest.mark.parametrize("k", [2, 3])
def test_a_metric_is_undefined_where_a_class_is_absent(k: int) -> None:
    y, p, _ = draw_classes(4, k)
    y = np.zeros_like(y)
    for metric in (auroc(), average_precision(), balanced_accuracy(), f1(), sensitivity(positive=1)):
        assert np.isnan(metric.compute(y, p)), metric.key
    assert np.isnan(specificity(positive=0).compute(y, p))
    for defined in (accuracy(), log_loss(), brier(), calibration_error()):
        assert np.isfinite(defined.compute(y, p)), defined.key
    present, unweighted = np.arange(len(y)) % k, np.where(np.arange(len(y)) % k == 1, 0.0, 1.0)
    assert np.isnan(auroc().compute(present, p, unweighted)), "an example without weight is absent, too"


def test_nothing_is_a_crash_where_there_are_no_examples() -> None:
    no_classes, nothing = np.empty((0, 2)), np.empty(0)
    for metric in (accuracy(), auroc(), log_loss(), brier(), calibration_error(), perplexity(), f1()):
        assert np.isnan(metric.compute(nothing.astype(int), no_classes)), metric.key
    for other in (rmse(), mae(), r2(), concordance()):
        assert np.isnan(other.compute(nothing, nothing)), other.key
    assert np.isnan(r2().compute(np.ones(3), np.arange(3.0))), "labels without variance"
    assert np.isnan(concordance().compute(np.ones(3), np.arange(3.0))), "no pair can be compared"


def test_places_of_a_text_that_are_ignored_count_in_nothing() -> None:
    p = np.array([[[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]]])
    found = perplexity().compute(np.array([[0, -100, 1]]), p)
    assert found == pytest.approx(np.exp(-(np.log(0.9) + np.log(0.8)) / 2))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("k", [2, 4])
def test_the_constant_predictor_is_scikit_learns(seed: int, k: int) -> None:
    y, p, w = draw_classes(seed, k)
    shares = np.tile(np.bincount(y, w, k) / w.sum(), (len(y), 1))
    rows = score_rows(y, p, w)
    for metric in (accuracy(), balanced_accuracy(), auroc(), average_precision(), log_loss(), brier()):
        truth = metric.compute(y, shares, w)
        assert metric.measure_constant(rows) == pytest.approx(truth, abs=CLOSE), metric.key
        assert metric.conclude_constant(metric.add_up(rows)) == pytest.approx(truth, abs=CLOSE), metric.key
    assert accuracy().measure_constant(rows) == np.bincount(y, w).max() / w.sum()
    assert auroc().measure_constant(rows) == 0.5


def test_the_constant_predictor_of_numbers_is_their_mean() -> None:
    y, w = np.array([1.0, 2.0, 6.0]), np.array([1.0, 1.0, 2.0])
    rows = score_rows(y, y + 1, w)
    mean = np.full(3, y @ w / w.sum())
    for metric in (rmse(), r2()):
        truth = metric.compute(y, mean, w)
        assert metric.measure_constant(rows) == pytest.approx(truth)
        assert metric.conclude_constant(metric.add_up(rows)) == pytest.approx(truth, abs=CLOSE)
    assert mae().measure_constant(rows) == mae().compute(y, mean, w) == pytest.approx(2.25)
    assert np.isnan(mae().conclude_constant(mae().add_up(rows))), "sums do not tell it"
    assert concordance().measure_constant(rows) == 0.5
    assert concordance().conclude_constant(concordance().add_up(rows)) == 0.5


def draw_binned(seed: int) -> tuple[Array, Array, Array]:
    """Draw scores that lie in few bins, tied inside them in the worst ways for counts."""
    rng = np.random.default_rng(seed)
    n, bins = int(rng.integers(5, 120)), 10
    y = np.concatenate([[0, 1], rng.integers(0, 2, n)])
    w = rng.choice([0.0, 0.25, 1.0, 4.0], n + 2)
    w[:2] = 1.0
    inside = {  # where in its bin an example lies: those of the class above others, below, tied, or anywhere
        0: 0.2 + 0.6 * y,
        1: 0.8 - 0.6 * y,
        2: np.full(n + 2, 0.5),
        3: rng.random(n + 2) * 0.99,
        4: np.where(y == 1, 0.9, 0.1 + 0.7 * rng.random(n + 2)),
        5: np.where(y == 1, 0.05 * rng.random(n + 2), 0.9),
    }[seed % 6]
    at = rng.integers(0, bins, n + 2) if seed % 5 else np.full(n + 2, 3)
    return y, (at + inside) / bins, w


@pytest.mark.parametrize("seed", range(60))
def test_binned_metrics_are_within_their_error(seed: int) -> None:
    y, p, w = draw_binned(seed)
    rows = score_rows(y, p, w, kind="probabilities")
    for metric in (auroc(bins=10), average_precision(bins=10)):
        found, error = metric.conclude(metric.add_up(rows))
        assert abs(found - metric.measure(rows)) <= error + CLOSE, metric.key
        assert 0 <= error <= 0.5


def test_the_error_of_the_auroc_is_reached_and_vanishes_with_the_ties() -> None:
    y, bins = np.array([0, 0, 1, 1]), auroc(bins=10)
    above = np.array([0.31, 0.31, 0.35, 0.35])
    for p, truth in ((above, 1.0), (above[::-1], 0.0)):
        rows = score_rows(y, p, kind="probabilities")
        assert bins.measure(rows) == truth
        assert bins.conclude(bins.add_up(rows)) == (0.5, 0.5)
    apart = score_rows(y, np.array([0.0, 0.2, 0.45, 1.0]), kind="probabilities")
    for metric in (bins, average_precision(bins=10)):
        assert metric.conclude(metric.add_up(apart)) == (1.0, 0.0)


def test_sums_of_parties_are_those_of_the_pooled_examples() -> None:
    y, p, w = draw_classes(7, 3)
    cut = len(y) // 3
    for metric in (f1(), brier(), auroc(), average_precision(), calibration_error(), log_loss()):
        one, two = (
            metric.add_up(score_rows(y[part], p[part], w[part])) for part in (slice(cut), slice(cut, None))
        )
        found, error = metric.conclude({name: one[name] + two[name] for name in one})
        assert abs(found - metric.compute(y, p, w)) <= error + CLOSE, metric.key
        assert (error > 0) == (metric in (auroc(), average_precision()))


def test_rows_that_do_not_fit_are_refused() -> None:
    y, p = np.array([0, 1]), np.eye(2)
    cases: list[tuple[Any, ...]] = [
        (y, np.eye(3), None),
        (np.array([0, 2]), p, None),
        (y, np.array([[np.nan, 1.0], [0.0, 1.0]]), None),
        (y, p, np.array([1.0, -1.0])),
        (y, p, np.array([1.0])),
        (np.array([0.5, 1.0]), p, None),
    ]
    for labels, predictions, weights in cases:
        with pytest.raises(InvalidInput):
            score_rows(labels, predictions, weights)
    with pytest.raises(InvalidInput, match="the model predicts numbers; write one of concordance, mae"):
        auroc().compute(np.ones(2), np.ones(2))
    with pytest.raises(InvalidInput, match="name it, such as sensitivity"):
        sensitivity().compute(np.array([0, 1, 2]), np.eye(3))
    with pytest.raises(InvalidInput, match="0 to 1"):
        sensitivity(positive=2).compute(y, p)


def test_thresholds_that_differ_have_sums_of_their_own() -> None:
    """Also those that differ in a late digit; names that stored and served runs know stay."""
    y, p = np.array([0, 1, 1]), np.array([0.2, 0.3000001, 0.8])
    near = [sensitivity(threshold=at) for at in (0.3000001, np.nextafter(0.3000001, 1), 0.3)]
    rows = score_rows(y, p, kind="probabilities")
    sums = {name: one.sum(rows) for name, one in list_statistics(near).items()}
    assert [one.conclude(sums)[0] for one in near] == [1.0, 0.5, 1.0]
    names = [sensitivity(threshold=at).statistics[0].name for at in (0, 0.3, 0.00012, 1e-05, 1)]
    assert names == [f"from_{at}_of_1" for at in ("0", "0.3", "0.00012", "1e-05", "1")]


def test_r2_of_equal_labels_is_undefined() -> None:
    assert np.isnan(r2().compute(np.full(9, 0.1), np.full(9, 1.1)))
