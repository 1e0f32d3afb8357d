import itertools

import numpy as np
import pytest

from hanse.core import Array, Examples, InvalidInput, Key
from hanse.data import (
    TrainTest,
    feature_noise,
    feature_shards,
    iid,
    labels_per_client,
    log_normal,
    partition_data,
    power_law,
    quantity,
)

KEY = Key.from_seed(3)
LABELS = np.arange(600) % 10
X = KEY.rng().normal(size=(600, 4))
DATA = TrainTest(Examples(X, LABELS), num_classes=10)
TABLE = np.array([(float(i % 7), "ab"[i % 2]) for i in range(40)], dtype=[("age", np.float64), ("sex", "U1")])


def with_labels(labels: Array) -> TrainTest:
    return TrainTest(Examples(np.ones((len(labels), 1)), labels))


# Labels


def test_a_label_finds_as_many_holders_as_any_other() -> None:
    assigned = labels_per_client(7, 3).split(DATA, KEY)
    held = [set(LABELS[assigned.client(k)].tolist()) for k in range(7)]
    holders = [sum(label in own for own in held) for label in range(10)]
    assert {len(own) for own in held} == {3}
    assert sorted(holders) == [2] * 9 + [3]


def test_the_holders_of_a_label_share_it_evenly() -> None:
    assigned = labels_per_client(10, 2).split(DATA, KEY)
    counts = np.array([np.bincount(LABELS[assigned.client(k)], minlength=10) for k in range(10)])
    assert set(counts.ravel()) == {0, 30}


def test_clients_choose_unlike_sets() -> None:
    assigned = labels_per_client(60, 2).split(DATA, KEY)
    sets = {frozenset(LABELS[assigned.client(k)].tolist()) for k in range(60)}
    assert len(sets) > 25


def test_labels_must_suffice() -> None:
    with pytest.raises(InvalidInput, match="num_labels is 11, the examples have 10; write at most that"):
        labels_per_client(20, 11).split(DATA, KEY)
    with pytest.raises(InvalidInput, match=r"3 clients x 2 labels .* nobody; write num_labels=4 or more"):
        labels_per_client(3, 2).split(DATA, KEY)
    with pytest.raises(InvalidInput, match="label 1 has 1 examples for the 3 clients"):
        labels_per_client(3, 2).split(with_labels(np.array([0, 0, 0, 1])), KEY)
    with pytest.raises(InvalidInput, match="divides classes, and the labels are float64"):
        labels_per_client(3, 2).split(with_labels(np.array([0.5, 1.5])), KEY)
    with pytest.raises(InvalidInput, match="num_labels is 0"):
        labels_per_client(3, 0)


# Sizes


def test_sizes_follow_the_power_law() -> None:
    sizes = np.sort(quantity(5, power_law(1.0)).split(DATA, KEY).sizes())[::-1]
    shares = 1 / np.arange(1, 6)
    np.testing.assert_allclose(sizes, 1 + 595 * shares / shares.sum(), atol=1)


def test_who_is_largest_is_drawn() -> None:
    largest = {int(quantity(5, power_law()).split(DATA, KEY.fold_in(i)).sizes().argmax()) for i in range(40)}
    assert largest == set(range(5))


def test_sizes_follow_the_log_normal_law() -> None:
    labels = np.zeros(2_000_000, int)
    logs = np.log(quantity(4000, log_normal(0.5)).split(with_labels(labels), KEY).sizes())
    assert logs.std() == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("sizes", [power_law(0.0), log_normal(0.0)])
def test_a_law_without_spread_is_even(sizes: power_law | log_normal) -> None:
    assert set(quantity(20, sizes).split(DATA, KEY).sizes()) == {30}


def test_labels_stay_mixed() -> None:
    assigned = quantity(6, log_normal(0.3)).split(DATA, KEY)
    assert all(len(np.unique(LABELS[assigned.client(k)])) == 10 for k in range(6))


def test_laws_are_bounded() -> None:
    with pytest.raises(InvalidInput, match="exponent is -1"):
        power_law(-1)
    with pytest.raises(InvalidInput, match="sigma is nan"):
        log_normal(float("nan"))
    with pytest.raises(InvalidInput, match="10 examples can't give each of 3 clients 4"):
        quantity(3, min_examples=4).split(with_labels(LABELS[:10]), KEY)
    with pytest.raises(InvalidInput, match="min_examples is 0"):
        quantity(3, min_examples=0)


# Features


def test_clients_have_features_of_one_range() -> None:
    assigned = feature_shards(6, 2).split(DATA, KEY)
    ranges = sorted((X[assigned.client(k), 2].min(), X[assigned.client(k), 2].max()) for k in range(6))
    assert all(left[1] <= right[0] for left, right in itertools.pairwise(ranges))


def test_by_default_the_mean_of_all_features_counts() -> None:
    assigned = feature_shards(2).split(DATA, KEY)
    means = [X[assigned.client(k)].mean(axis=1) for k in range(2)]
    assert means[0].max() <= means[1].min() or means[1].max() <= means[0].min()


@pytest.mark.parametrize("feature", ["age", "sex"])
def test_columns_are_named(feature: str) -> None:
    data = TrainTest(Examples(TABLE, np.zeros(40)))
    assigned = feature_shards(2, feature).split(data, KEY)
    values = [TABLE[feature][assigned.client(k)].tolist() for k in range(2)]
    assert max(values[0]) <= min(values[1]) or max(values[1]) <= min(values[0])


def test_unknown_features_are_refused() -> None:
    table = TrainTest(Examples(TABLE, np.zeros(40)))
    with pytest.raises(InvalidInput, match=r"feature is 'agee', .*did you mean 'age'"):
        feature_shards(2, "agee").split(table, KEY)
    with pytest.raises(InvalidInput, match=r"feature is None, .*known: age, sex"):
        feature_shards(2).split(table, KEY)
    with pytest.raises(InvalidInput, match="feature is 4; these features are numbered: write 0 to 3"):
        feature_shards(2, 4).split(DATA, KEY)
    with pytest.raises(InvalidInput, match="feature is 'age'; these features are numbered"):
        feature_shards(2, "age").split(DATA, KEY)


def test_noise_grows_with_the_number_of_the_client() -> None:
    flat = TrainTest(Examples(np.zeros((4000, 25), np.float32), np.zeros(4000)))
    data = partition_data(flat, feature_noise(iid(4), 0.8), KEY)
    variances = [data.client(k).x.var() for k in range(4)]
    np.testing.assert_allclose(variances, 0.8 * np.arange(1, 5) / 4, rtol=0.05)
    assert data.client(2).x.dtype == np.float32
    np.testing.assert_array_equal(data.client(2).x, data.client(2).x)


def test_noise_is_for_real_numbers() -> None:
    with pytest.raises(InvalidInput, match="feature_noise needs features of real numbers"):
        feature_noise(iid(2)).split(TrainTest(Examples(TABLE, np.zeros(40))), KEY)
    with pytest.raises(InvalidInput, match="variance is 0"):
        feature_noise(iid(2), 0)


def test_noise_changes_the_fingerprint() -> None:
    prints = {
        partition_data(DATA, feature_noise(iid(4), v), k).fingerprint for v in (0.1, 0.2) for k in (KEY, KEY)
    }
    assert len(prints) == 2
    assert partition_data(DATA, iid(4), KEY).fingerprint not in prints
