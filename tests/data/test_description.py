import io

import numpy as np
import pytest
from rich.console import Console

from hanse.core import Examples, InvalidInput, Key
from hanse.data import (
    Description,
    TrainTest,
    by_key,
    describe,
    digits,
    dirichlet,
    from_clients,
    generate,
    iid,
    partition_data,
    power_law,
    quantity,
    scikit_learn,
    shards,
)

KEY = Key.from_seed(6)


def client(*labels: float) -> Examples:
    return Examples(np.ones((len(labels), 2)), np.array(labels))


def drawing(found: Description, width: int = 100) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(found)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_labels_are_counted_client_by_client() -> None:
    clients = [client(0, 0, 1), client(2)]
    found = describe(from_clients(clients, test=client(0, 1), client_tests=[None, client(2, 2)]))
    assert found.counts.tolist() == [[2, 1, 0], [0, 0, 1]]
    assert (found.labels, found.names) == (("0", "1", "2"), ("0", "1"))
    assert (found.sizes.tolist(), found.test_sizes.tolist(), found.num_test) == ([3, 1], [0, 2], 2)
    assert list(found.rows())[1] == {
        "client": 1,
        "name": "1",
        "examples": 1,
        "test_examples": 2,
        "0": 0,
        "1": 0,
        "2": 1,
    }


def test_names_are_those_of_the_data() -> None:
    data = TrainTest(client(0, 1, 1), num_classes=2, keys=np.array(["b", "a", "b"]), classes=("no", "yes"))
    found = describe(partition_data(data, by_key(), KEY))
    assert (found.names, found.labels, found.counts.tolist()) == (("a", "b"), ("no", "yes"), [[0, 1], [1, 1]])


def test_skews_range_from_alike_to_unlike() -> None:
    data = digits().load()
    assert describe(partition_data(data, iid(2), KEY)).label_skew < 0.1
    assert describe(partition_data(data, shards(100), KEY)).label_skew > 0.7
    assert describe(partition_data(data, iid(100), KEY)).size_skew < 0.05
    assert describe(partition_data(data, quantity(100, power_law(2)), KEY)).size_skew > 0.7
    alike = describe(from_clients([client(0, 1)] * 3))
    assert (alike.label_skew, alike.size_skew) == (0, 0)


def test_measurements_are_counted_in_ranges() -> None:
    found = describe(partition_data(scikit_learn("diabetes").load(), iid(5), KEY))
    assert len(found.labels) == 10
    assert found.labels[0].startswith("below ")
    assert np.ptp(found.counts.sum(axis=0)) < 10
    assert found.counts.sum() == 354
    few = describe(from_clients([client(0.5, 1.5), client(1.5)]))
    assert (few.labels, few.counts.tolist()) == (("0.5", "1.5"), [[1, 1], [0, 1]])


def test_sequences_and_several_targets_are_counted() -> None:
    steps = Examples(np.ones((2, 3)), np.array([[1, 1, 2], [5, 1, 1]]))
    assert describe(from_clients([steps])).counts.tolist() == [[4, 1, 1]]
    survival = Examples(np.ones((2, 3)), np.array([[3.5, 1], [8, 0]]))
    assert describe(from_clients([survival])).labels == ("3.5", "8")


def test_of_very_many_clients_some_are_described() -> None:
    asked: list[int] = []

    def make(number: int) -> Examples:
        asked.append(number)
        return client(*range(1 + number % 3))

    found = describe(generate(1_000_000, make, num_classes=3), max_clients=50)
    assert len(set(asked)) == len(found.clients) == 50
    assert found.summary()["num_clients"] == 1_000_000
    assert "1,000,000 clients" in drawing(found)
    assert "50 looked at" in drawing(found)
    with pytest.raises(InvalidInput, match="max_clients is 0"):
        describe(from_clients([client(0)]), max_clients=0)


def test_the_drawing_shows_who_has_what() -> None:
    data = TrainTest(client(0, 0, 0, 1), num_classes=2, keys=np.array(list("aaab")), classes=("no", "yes"))
    lines = drawing(describe(partition_data(data, by_key(), KEY))).splitlines()
    assert lines[0] == "2 clients · 4 examples · 2 labels · features 2 · no test set"
    rows = [line.split() for line in lines if line.startswith(("a ", "b "))]
    assert [row[:2] for row in rows] == [["a", "3"], ["b", "1"]]
    assert [row[-2:] for row in rows] == [["██", "··"], ["··", "██"]]
    assert any("no, yes" in line for line in lines)


def test_the_drawing_fits_whatever_there_is() -> None:
    many = partition_data(digits().load(), dirichlet(100, 0.3), KEY, client_test_fraction=0.2)
    assert len(drawing(describe(many)).splitlines()) < 32
    assert max(map(len, drawing(describe(many), 60).splitlines())) <= 60
    table = Examples(np.zeros(1, [("age", float), ("[red]job", "U3")]), np.array([0]))
    found = describe(from_clients([table], names=["[bold]odd[/]"]))
    assert "2 columns" in drawing(found)
    assert "[bold]odd[/]" in drawing(found)
