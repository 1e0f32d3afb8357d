import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hanse.core import Array, Examples, InvalidInput, Key
from hanse.core.exchange import find_classes, pack, unpack
from hanse.data import (
    Assignment,
    Partition,
    Sizes,
    TrainTest,
    by_key,
    dirichlet,
    feature_noise,
    feature_shards,
    iid,
    labels_per_client,
    log_normal,
    power_law,
    quantity,
    regions,
    shards,
)
from hanse.data.partitions import _fill_up

KEY = Key.from_seed(2)


def rows(labels: Array) -> TrainTest:
    """Examples of such labels; each feature differs from all others."""
    x = KEY.fold_in("x").rng().permutation(len(labels)).reshape(-1, 1) / 7
    return TrainTest(Examples(x, labels), keys=np.array([f"user {i % 20}" for i in range(len(labels))]))


LABELS = np.arange(600) % 10
DATA = rows(LABELS)

labels_strategy = st.lists(st.integers(0, 4), min_size=1, max_size=80).map(np.array)
keys = st.integers(0, 2**32).map(Key.from_seed)


def assert_covers(assigned: Assignment, num_rows: int, num_clients: int, least: int = 1) -> None:
    """A disjoint cover that leaves no client with fewer than `least` rows."""
    assert assigned.num_clients == num_clients
    clients = [assigned.client(number) for number in range(num_clients)]
    assert sorted(np.concatenate(clients)) == list(range(num_rows))
    assert [len(rows) for rows in clients] == list(assigned.sizes())
    assert min(assigned.sizes()) >= least


@given(labels=labels_strategy, key=keys, data=st.data())
def test_iid_covers_evenly(labels: Array, key: Key, data: st.DataObject) -> None:
    num_clients = data.draw(st.integers(1, len(labels)))
    assigned = iid(num_clients).split(rows(labels), key)
    assert_covers(assigned, len(labels), num_clients)
    assert np.ptp(assigned.sizes()) <= 1


@given(labels=labels_strategy, key=keys, by_feature=st.booleans(), data=st.data())
def test_shards_cover(labels: Array, key: Key, by_feature: bool, data: st.DataObject) -> None:
    num_clients = data.draw(st.integers(1, len(labels)))
    per_client = data.draw(st.integers(1, len(labels) // num_clients))
    partition = (
        feature_shards(num_clients, shards_per_client=per_client)
        if by_feature
        else shards(num_clients, per_client)
    )
    assigned = partition.split(rows(labels), key)
    assert_covers(assigned, len(labels), num_clients)
    assert np.ptp(assigned.sizes()) <= per_client


@given(labels=labels_strategy, key=keys, alpha=st.floats(1e-300, 1e9), data=st.data())
def test_dirichlet_covers_and_leaves_nobody_short(
    labels: Array, key: Key, alpha: float, data: st.DataObject
) -> None:
    num_clients = data.draw(st.integers(1, len(labels)))
    least = data.draw(st.integers(1, len(labels) // num_clients))
    assigned = dirichlet(num_clients, alpha, min_examples=least).split(rows(labels), key)
    assert_covers(assigned, len(labels), num_clients, least)


sizes_strategy = st.one_of(
    st.floats(0, 100).map(power_law),
    st.floats(0, 100).map(log_normal),
)


@given(labels=labels_strategy, key=keys, sizes=sizes_strategy, data=st.data())
def test_quantity_covers_and_leaves_nobody_short(
    labels: Array, key: Key, sizes: Sizes, data: st.DataObject
) -> None:
    num_clients = data.draw(st.integers(1, len(labels)))
    least = data.draw(st.integers(1, len(labels) // num_clients))
    assigned = quantity(num_clients, sizes, min_examples=least).split(rows(labels), key)
    assert_covers(assigned, len(labels), num_clients, least)


@given(key=keys, num_classes=st.integers(1, 6), num_clients=st.integers(1, 12), data=st.data())
def test_labels_per_client_covers(key: Key, num_classes: int, num_clients: int, data: st.DataObject) -> None:
    num_labels = data.draw(st.integers(-(-num_classes // num_clients), num_classes))
    labels = np.repeat(np.arange(num_classes), data.draw(st.integers(num_clients, 2 * num_clients)))
    assigned = labels_per_client(num_clients, num_labels).split(rows(labels), key)
    assert_covers(assigned, len(labels), num_clients)
    for number in range(num_clients):
        assert len(np.unique(labels[assigned.client(number)])) == num_labels


@given(labels=labels_strategy, key=keys, data=st.data())
def test_regions_cover(labels: Array, key: Key, data: st.DataObject) -> None:
    num_regions = data.draw(st.integers(1, len(labels)))
    within = data.draw(st.integers(1, len(labels) // num_regions))
    across = dirichlet(num_regions, 0.5, min_examples=within)
    assigned = regions(across, iid(within)).split(rows(labels), key)
    assert_covers(assigned, len(labels), num_regions * within)


@given(labels=labels_strategy, key=keys)
def test_keys_cover(labels: Array, key: Key) -> None:
    assigned = by_key().split(rows(labels), key)
    assert_covers(assigned, len(labels), min(20, len(labels)))


PARTITIONS = [
    iid(20),
    shards(20),
    dirichlet(20, 0.3),
    labels_per_client(20, 2),
    quantity(20, power_law()),
    quantity(20, log_normal()),
    feature_shards(20),
    feature_noise(iid(20), 0.1),
    regions(dirichlet(4, 0.3), iid(5)),
    by_key(),
]
each_partition = pytest.mark.parametrize("partition", PARTITIONS, ids=repr)


@each_partition
def test_partitions_are_reproducible_by_key(partition: Partition) -> None:
    first, again, other = (partition.split(DATA, key) for key in (KEY, KEY, KEY.fold_in("other")))
    assert_covers(first, 600, 20)
    np.testing.assert_array_equal(first.rows, again.rows)
    np.testing.assert_array_equal(first.offsets, again.offsets)
    assert np.array_equal(first.rows, other.rows) == (partition == by_key())


@each_partition
def test_partitions_are_registered_values(partition: Partition) -> None:
    assert type(partition) in find_classes(Partition).values()
    assert unpack(pack(partition)) == partition
    assigned = partition.split(DATA, KEY)
    np.testing.assert_array_equal(unpack(pack(assigned), Assignment).rows, assigned.rows)


@each_partition
def test_clients_see_their_rows_as_often_as_they_ask(partition: Partition) -> None:
    examples = DATA.train.take(partition.split(DATA, KEY).client(3))
    seen, again = (partition.seen(examples, 3, 20, KEY) for _ in range(2))
    np.testing.assert_array_equal(seen.x, again.x)
    np.testing.assert_array_equal(seen.y, examples.y)
    assert np.array_equal(seen.x, examples.x) != partition.alters


def test_all_partitions_are_under_contract() -> None:
    ours = {c for c in find_classes(Partition).values() if c.__module__.startswith("hanse.")}
    assert ours == {type(partition) for partition in PARTITIONS}


def test_a_client_is_a_view() -> None:
    assigned = iid(3).split(DATA, KEY)
    assert assigned.client(1).base is assigned.rows


# iid


def test_iid_mixes_labels() -> None:
    assigned = iid(6).split(DATA, KEY)
    for number in range(6):
        assert len(np.unique(LABELS[assigned.client(number)])) == 10


# shards


def test_shards_give_few_labels_each() -> None:
    assigned = shards(100, 2).split(DATA, KEY)
    counts = [len(np.unique(LABELS[assigned.client(number)])) for number in range(100)]
    assert max(counts) == 2
    assert set(assigned.sizes()) == {6}


def test_shards_are_cut_from_the_sorted_labels() -> None:
    labels = np.array([2.5, -1.0, 7.0, 0.0])
    assigned = shards(2, 1).split(rows(labels), KEY)
    assert sorted(sorted(labels[assigned.client(number)]) for number in range(2)) == [[-1.0, 0.0], [2.5, 7.0]]


# dirichlet


def skew(alpha: float) -> float:
    """Mean total variation between the clients' mixtures of labels and that of all."""
    assigned = dirichlet(20, alpha).split(DATA, KEY)
    mixtures = [np.bincount(LABELS[assigned.client(i)], minlength=10) for i in range(20)]
    return float(np.mean([np.abs(m / m.sum() - 0.1).sum() / 2 for m in mixtures]))


def test_a_smaller_alpha_is_more_skewed() -> None:
    skews = [skew(alpha) for alpha in (0.01, 0.3, 3, 1e9)]
    assert skews == sorted(skews, reverse=True)
    assert skews[0] > 0.6
    assert skews[-1] < 1e-6


def test_a_huge_alpha_divides_evenly() -> None:
    assigned = dirichlet(20, 1e9).split(DATA, KEY)
    assert set(assigned.sizes()) == {30}


def test_sizes_follow_the_dirichlet_law() -> None:
    """One client's share of a class is Beta(alpha, (K - 1) alpha) distributed."""
    alpha, num_clients, labels = 0.5, 4, np.zeros(4000, int)
    shares = [
        dirichlet(num_clients, alpha).split(rows(labels), KEY.fold_in(i)).sizes()[0] / 4000
        for i in range(1000)
    ]
    variance = (1 / 4) * (3 / 4) / (num_clients * alpha + 1)
    assert np.mean(shares) == pytest.approx(1 / 4, abs=4 * np.sqrt(variance / 1000))
    assert np.var(shares) == pytest.approx(variance, rel=0.15)


def one_by_one(sizes: list[int], least: int) -> list[int]:
    """The repair, a row at a time."""
    sizes = list(sizes)
    while min(sizes) < least:
        sizes[sizes.index(min(sizes))] += 1
        sizes[sizes.index(max(sizes))] -= 1
    return sizes


@given(sizes=st.lists(st.integers(0, 12), min_size=1, max_size=9), least=st.integers(1, 5))
def test_the_largest_clients_help_first(sizes: list[int], least: int) -> None:
    num_rows = sum(sizes)
    assume(num_rows >= len(sizes) * least)
    before = Assignment(KEY.rng().permutation(num_rows), np.cumsum([0, *sizes]))
    after = _fill_up(before, least)
    assert_covers(after, num_rows, len(sizes), least)
    assert sorted(after.sizes()) == sorted(one_by_one(sizes, least))
    for number, size in enumerate(sizes):
        if size >= least:
            kept = after.client(number)
            np.testing.assert_array_equal(kept, before.client(number)[: len(kept)])


def test_what_is_given_away_is_a_random_sample() -> None:
    """The last rows of a client are of all its classes, not of the last one only."""
    labels = np.sort(LABELS)
    last = dirichlet(1, 1.0).split(rows(labels), KEY).client(0)[-60:]
    assert len(np.unique(labels[last])) == 10


# What is impossible


@pytest.mark.parametrize("num_clients", [0, -3])
def test_partitions_need_a_client(num_clients: int) -> None:
    with pytest.raises(InvalidInput, match=f"num_clients is {num_clients}; write at least 1"):
        iid(num_clients)
    with pytest.raises(InvalidInput, match=f"num_clients is {num_clients}"):
        shards(num_clients)
    with pytest.raises(InvalidInput, match=f"num_clients is {num_clients}"):
        dirichlet(num_clients, 0.5)


@pytest.mark.parametrize(
    ("alpha", "instead"),
    [(0.0, "above 0"), (-1.0, "above 0"), (float("nan"), "above 0"), (float("inf"), r"write iid\(5\)")],
)
def test_alpha_is_positive(alpha: float, instead: str) -> None:
    with pytest.raises(InvalidInput, match=f"alpha is {alpha}; .*{instead}"):
        dirichlet(5, alpha)


def test_other_settings_are_at_least_one() -> None:
    with pytest.raises(InvalidInput, match="min_examples is 0"):
        dirichlet(5, 1.0, min_examples=0)
    with pytest.raises(InvalidInput, match="shards_per_client is 0"):
        shards(5, 0)


@pytest.mark.parametrize("partition", [iid(11), shards(11), dirichlet(11, 0.5)], ids=repr)
def test_no_more_clients_than_examples(partition: Partition) -> None:
    with pytest.raises(
        InvalidInput, match="10 examples can't give each of 11 clients 1; write num_clients=10"
    ):
        partition.split(rows(LABELS[:10]), KEY)


def test_enough_examples_for_each() -> None:
    with pytest.raises(InvalidInput, match="10 examples can't give each of 3 clients 4; write num_clients=2"):
        dirichlet(3, 1.0, min_examples=4).split(rows(LABELS[:10]), KEY)


def test_no_empty_shards() -> None:
    with pytest.raises(InvalidInput, match=r"3 clients x 4 shards of 10 .*write shards_per_client=3 or less"):
        shards(3, 4).split(rows(LABELS[:10]), KEY)


def test_dirichlet_divides_classes() -> None:
    with pytest.raises(InvalidInput, match=r"the labels are float64; write labels.astype\(int\)"):
        dirichlet(3, 1.0).split(rows(LABELS / 2), KEY)


@pytest.mark.parametrize("partition", [shards(3), dirichlet(3, 1.0)], ids=repr)
def test_labels_are_one_a_row(partition: Partition) -> None:
    with pytest.raises(InvalidInput, match=r"one label a row, these have shape \(60, 10\)"):
        partition.split(rows(LABELS.reshape(60, 10)), KEY)
