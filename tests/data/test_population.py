import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from hanse.core import Examples, InvalidInput, Key
from hanse.data import (
    FederatedData,
    arrays,
    dirichlet,
    feature_noise,
    from_clients,
    generate,
    iid,
    own_test,
    partition_data,
)

KEY = Key.from_seed(4)
X, Y = np.arange(40.0).reshape(20, 2), np.arange(20) % 3
DATA = arrays(X, Y, test_x=X[:4], test_y=Y[:4]).load()


def made(number: int) -> Examples:
    rng = KEY.fold_in(number).rng()
    return Examples(rng.random((3 + number % 2, 2)), rng.integers(3, size=3 + number % 2))


MAKERS: dict[str, Callable[[], FederatedData]] = {
    "partitioned": lambda: partition_data(DATA, iid(5), KEY),
    "from_clients": lambda: from_clients([made(i) for i in range(5)], test=DATA.test),
    "generated": lambda: generate(5, made, test=DATA.test, num_classes=3),
}
each_source = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())


@each_source
def test_clients_hold_what_they_are_said_to(make: Callable[[], FederatedData]) -> None:
    data = make()
    assert (data.num_clients, data.num_classes, data.feature_shape) == (5, 3, (2,))
    assert [len(data.client(number)) for number in range(5)] == list(data.sizes())
    assert data.num_examples == sum(data.sizes())
    assert "5 clients" in repr(data)


@each_source
def test_clients_are_the_same_each_time(make: Callable[[], FederatedData]) -> None:
    first, again = make(), make()
    for number in range(5):
        np.testing.assert_array_equal(first.client(number).x, again.client(number).x)
        np.testing.assert_array_equal(first.client(number).y, again.client(number).y)


@each_source
@pytest.mark.parametrize("number", [-1, 5])
def test_unknown_clients_are_refused(make: Callable[[], FederatedData], number: int) -> None:
    with pytest.raises(InvalidInput, match=f"client {number} is unknown; write a number from 0 to 4"):
        make().client(number)


@each_source
def test_the_server_holds_the_test_set(make: Callable[[], FederatedData]) -> None:
    assert make().role("server") is DATA.test


def test_other_roles_hold_nothing() -> None:
    data = from_clients([made(0)])
    with pytest.raises(InvalidInput, match="no test set"):
        data.role("server")
    with pytest.raises(InvalidInput, match="did you mean 'server'"):
        data.role("sever")


# Test examples of one's own


def holding(fraction: float = 0.25) -> FederatedData:
    return partition_data(DATA, iid(5), KEY, client_test_fraction=fraction)


def test_each_client_may_hold_out_examples() -> None:
    data, whole = holding(), partition_data(DATA, iid(5), KEY)
    assert (list(data.sizes()), list(data.test_sizes()), data.find_test_clients()) == (
        [3] * 5,
        [1] * 5,
        (0, 1, 2, 3, 4),
    )
    for number in range(5):
        train, test = data.client(number), data.role(own_test(number))
        assert (len(train), len(test)) == (3, 1)
        both = np.concatenate([train.x, test.x])
        np.testing.assert_array_equal(np.sort(both, axis=0), np.sort(whole.client(number).x, axis=0))
        np.testing.assert_array_equal(data.labels(number), train.y)
    assert data.role("server") is DATA.test


def test_what_is_held_out_stays_the_same() -> None:
    np.testing.assert_array_equal(holding().role("test/2").x, holding().role("test/2").x)
    assert holding().fingerprint == holding().fingerprint
    assert len({holding(f).fingerprint for f in (0.0, 0.25, 0.5)}) == 3


def test_who_has_one_example_trains_on_it() -> None:
    clients = [Examples(X[:n], Y[:n]) for n in (1, 2, 9)]
    data = from_clients(clients, num_classes=3).holding_out(0.5, KEY)
    assert list(data.sizes()) == [1, 1, 5]
    assert data.find_test_clients() == (1, 2)


def test_a_share_leaves_something() -> None:
    with pytest.raises(InvalidInput, match=r"test_fraction is 1.5"):
        holding(1.5)


def test_listed_clients_bring_their_tests() -> None:
    data = from_clients([made(0), made(1)], client_tests=[None, made(7)], names=["north", "south"])
    assert (data.find_test_clients(), data.names) == ((1,), ("north", "south"))
    np.testing.assert_array_equal(data.role("test/1").x, made(7).x)
    with pytest.raises(InvalidInput, match="2 clients and 1 client_tests; give one a client"):
        from_clients([made(0), made(1)], client_tests=[made(7)])
    with pytest.raises(InvalidInput, match="the test of client 0: the feature in row 0"):
        from_clients([made(0)], client_tests=[Examples(np.full((1, 2), np.inf), np.array([0]))])


@each_source
def test_without_more_nobody_has_a_test_of_his_own(make: Callable[[], FederatedData]) -> None:
    assert make().find_test_clients() == ()
    with pytest.raises(InvalidInput, match=r"client 3 has no test examples of its own.*client_test_fraction"):
        make().role("test/3")
    with pytest.raises(InvalidInput, match="client 7 is unknown"):
        make().role("test/7")


# The same data, transformed


def doubled(examples: Examples) -> Examples:
    return Examples(2 * examples.x, examples.y)


ALL_MAKERS = MAKERS | {
    "holding": holding,
    "noisy": lambda: partition_data(DATA, feature_noise(iid(5)), KEY),
    "with tests": lambda: from_clients(
        [made(i) for i in range(5)], client_tests=[made(i) for i in range(5, 10)]
    ),
}


@pytest.mark.parametrize("make", ALL_MAKERS.values(), ids=ALL_MAKERS.keys())
def test_a_mapped_population_differs_in_features_only(make: Callable[[], FederatedData]) -> None:
    data, mapped = make(), make().map(doubled)
    assert (mapped.num_clients, mapped.num_classes, mapped.find_test_clients()) == (
        5,
        data.num_classes,
        data.find_test_clients(),
    )
    assert list(mapped.sizes()) == list(data.sizes())
    for number in range(5):
        np.testing.assert_array_equal(mapped.client(number).x, 2 * data.client(number).x)
        np.testing.assert_array_equal(mapped.client(number).y, data.client(number).y)
        np.testing.assert_array_equal(mapped.labels(number), data.labels(number))
    for number in data.find_test_clients():
        np.testing.assert_array_equal(mapped.role(own_test(number)).x, 2 * data.role(own_test(number)).x)
    if data.test is not None:
        np.testing.assert_array_equal(mapped.role("server").x, 2 * data.test.x)
    assert mapped.fingerprint != data.fingerprint


def test_a_table_is_not_for_models() -> None:
    table = np.array([(1.0, "a")] * 4, dtype=[("age", float), ("job", "U3")])
    data = from_clients([Examples(table, np.array([0, 1, 0, 1]))])
    assert data.columns == ("age", "job")
    assert not from_clients([made(0)]).columns
    with pytest.raises(InvalidInput, match=r"a table \(age, job\), and models take numbers; prepare"):
        _ = data.feature_shape
    table["age"] = np.inf
    with pytest.raises(InvalidInput, match="client 0: column 'age' in row 0 is inf"):
        from_clients([Examples(table, np.zeros(4))])


# Fingerprints


@each_source
def test_a_fingerprint_is_the_same_for_the_same_data(make: Callable[[], FederatedData]) -> None:
    fingerprint = make().fingerprint
    assert fingerprint == make().fingerprint
    assert len(bytes.fromhex(fingerprint)) == 32


def changed(name: str) -> FederatedData:
    x, y = X.copy(), Y.copy()
    if name == "one feature":
        x[13, 1] += 1e-9
    if name == "one label":
        y[13] = (y[13] + 1) % 3
    test_x = X[:5] if name == "test set" else X[:4]
    partition = dirichlet(5, 1.0) if name == "partition" else iid(5)
    data = arrays(x, y, test_x=test_x, test_y=Y[: len(test_x)], num_classes=4 if name == "classes" else None)
    return partition_data(data.load(), partition, KEY.fold_in("other") if name == "key" else KEY)


@pytest.mark.parametrize("name", ["one feature", "one label", "test set", "partition", "classes", "key"])
def test_a_fingerprint_tells_other_data(name: str) -> None:
    assert changed(name).fingerprint != changed("nothing").fingerprint


def test_a_fingerprint_tells_other_clients() -> None:
    clients = [made(i) for i in range(5)]
    fingerprints = {
        from_clients(clients).fingerprint,
        from_clients(clients[::-1]).fingerprint,
        from_clients(clients[:4]).fingerprint,
        generate(5, made).fingerprint,
        generate(6, made).fingerprint,
        generate(5, lambda number: made(number + 1)).fingerprint,
    }
    assert len(fingerprints) == 6


# Large populations


def test_a_trillion_clients_cost_nothing() -> None:
    asked: list[int] = []

    def make(number: int) -> Examples:
        asked.append(number)
        return made(number)

    tracemalloc.start()
    data = generate(10**12, make, test=DATA.test)  # so many that a loop over them would not end
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert data.num_clients == 10**12
    assert asked == []
    assert peak_bytes < 10_000
    assert len(data.client(10**12 - 1)) == 4
    assert len(data.fingerprint) == 64
    assert len(asked) == 17


def test_a_partition_takes_rows_only_when_asked() -> None:
    data = partition_data(DATA, iid(5), KEY)
    examples = data.client(2)
    examples.x[:] = 0
    assert data.client(2).x.any()


# What can't be used


def test_empty_clients_are_named() -> None:
    empty = Examples(np.empty((0, 2)), np.empty(0, int))
    with pytest.raises(InvalidInput, match="client 1: no examples"):
        from_clients([made(0), empty])
    with pytest.raises(InvalidInput, match="client 0: no examples"):
        from_clients([empty])
    data = generate(3, lambda number: empty if number == 2 else made(number))
    assert len(data.client(1)) == 4
    with pytest.raises(InvalidInput, match="client 2 holds no examples"):
        data.client(2)


def test_no_clients_at_all_are_refused() -> None:
    with pytest.raises(InvalidInput, match="empty list of clients"):
        from_clients([])
    with pytest.raises(InvalidInput, match="num_clients is 0"):
        generate(0, made)


def test_spoiled_clients_are_named() -> None:
    good = made(0)
    nan = Examples(np.full((1, 2), np.nan), np.array([0]))
    with pytest.raises(InvalidInput, match="client 1: the feature in row 0, column 0 is nan"):
        from_clients([good, nan])
    with pytest.raises(InvalidInput, match="client 1: the label in row 0 is 7; 3 classes"):
        from_clients([good, Examples(np.ones((1, 2)), np.array([7]))], num_classes=3)
    with pytest.raises(InvalidInput, match=r"client 1: features of shape \(5,\); client 0 has \(2,\)"):
        from_clients([good, Examples(np.ones((1, 5)), np.array([0]))])
    with pytest.raises(InvalidInput, match=r"test: features of shape \(5,\); client 0 has \(2,\)"):
        from_clients([good], test=Examples(np.ones((1, 5)), np.array([0])))
    with pytest.raises(InvalidInput, match="the smallest label is 1"):
        from_clients([Examples(np.ones((1, 2)), np.array([1]))])


def test_classes_are_counted_over_all_clients() -> None:
    one, two = (Examples(np.ones((1, 2)), np.array([label])) for label in (0, 4))
    assert from_clients([one, two]).num_classes == 5
    assert from_clients([Examples(np.ones((1, 2)), np.array([0.5]))]).num_classes is None
