import numpy as np
import pytest

from hanse.core import Examples, InvalidInput, Key
from hanse.data import TrainTest, by_key, dirichlet, feature_noise, iid, partition_data, regions

KEY = Key.from_seed(5)
LABELS = np.arange(2000) % 10
X = np.arange(2000.0)[:, None]
DATA = TrainTest(Examples(X, LABELS), num_classes=10)


def keyed(*keys: str, test: tuple[str, ...] = ()) -> TrainTest:
    n = len(keys)
    held_out = Examples(-X[1 : len(test) + 1], LABELS[: len(test)]) if test else None
    return TrainTest(
        Examples(X[:n], LABELS[:n]), held_out, keys=np.array(keys), test_keys=np.array(test) if test else None
    )


# Keys


def test_those_who_hold_examples_are_the_clients() -> None:
    data = partition_data(keyed("b", "a", "b", "c"), by_key(), KEY)
    assert data.names == ("a", "b", "c")
    assert [data.client(k).x.ravel().tolist() for k in range(3)] == [[1], [0, 2], [3]]


def test_whole_numbers_are_in_the_order_of_their_size() -> None:
    assert partition_data(keyed("10", "9", "-1"), by_key(), KEY).names == ("-1", "9", "10")
    assert partition_data(keyed("10", "9", "b"), by_key(), KEY).names == ("10", "9", "b")


def test_data_without_keys_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r'the owner of each example.*key = "hospital", or .*iid\(10\)'):
        by_key().split(DATA, KEY)


def test_a_client_finds_its_own_test_examples_by_its_key() -> None:
    data = partition_data(keyed("b", "a", "c", test=("c", "b", "new", "b")), by_key(), KEY)
    assert data.find_test_clients() == (1, 2)
    assert data.role("test/1").x.ravel().tolist() == [-2, -4]
    assert data.role("test/2").x.ravel().tolist() == [-1]
    assert len(data.role("server")) == 4
    with pytest.raises(InvalidInput, match="client 0 has no test examples of its own"):
        data.role("test/0")


def test_tests_by_key_are_for_clients_by_key() -> None:
    assert partition_data(keyed("b", "a", "c", test=("c", "b")), iid(3), KEY).find_test_clients() == ()


# Regions


def mixture(data: TrainTest, rows: np.ndarray) -> np.ndarray:
    counts = np.bincount(data.train.y[rows], minlength=10)
    return np.asarray(counts / counts.sum())


def test_neighbours_are_alike_and_strangers_are_not() -> None:
    assigned = regions(dirichlet(4, 0.2), iid(3)).split(DATA, KEY)
    mixtures = np.array([mixture(DATA, assigned.client(k)) for k in range(12)])
    apart = np.abs(mixtures[:, None] - mixtures[None]).sum(2) / 2
    same = np.equal.outer(np.arange(12) // 3, np.arange(12) // 3)
    assert apart[same].max() < 0.2
    assert apart[~same].mean() > 0.5


def test_regions_may_be_real_ones() -> None:
    data = TrainTest(DATA.train, keys=np.array(["north", "south"])[LABELS % 2])
    shared = partition_data(data, regions(by_key(), iid(2)), KEY)
    assert shared.names == ("north/0", "north/1", "south/0", "south/1")
    assert set(shared.client(3).y.tolist()) == {1, 3, 5, 7, 9}


def test_regions_name_the_one_that_is_too_small() -> None:
    with pytest.raises(InvalidInput, match="region 1: 1 examples can't give each of 2 clients 1"):
        regions(by_key(), iid(2)).split(keyed("a", "b", "a"), KEY)


def test_regions_stand_within_noise() -> None:
    with pytest.raises(InvalidInput, match=r"put it around regions"):
        regions(feature_noise(iid(2)), iid(2))
    noisy = feature_noise(regions(iid(2), iid(2)))
    assert partition_data(DATA, noisy, KEY).num_clients == 4
