"""Labels and keys: a number has one spelling, a gap is no name, and each reader says so."""

import csv as csv_
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hanse.core import Array, InvalidInput, Key
from hanse.data import TrainTest, arrays, by_key, classes_of, csv, npz, parquet, partition_data, to_categories

X = np.arange(24.0) % 5 + np.arange(24.0) / 7
SITES = np.arange(24) % 3 + 9
SICK = np.arange(24) % 2


def read_csv(**columns: Any) -> csv:
    with Path("a.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv_.writer(file)
        writer.writerow(["x", *columns])
        writer.writerows(zip(X, *columns.values(), strict=True))
    return csv("a.csv", label="y", key="site", test_fraction=0.0)


def read_parquet(**columns: Any) -> parquet:
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table({"x": X, **{name: arrow.array(column) for name, column in columns.items()}})
    pytest.importorskip("pyarrow.parquet").write_table(table, "a.parquet")
    return parquet("a.parquet", label="y", key="site", test_fraction=0.0)


def read_npz(**columns: Any) -> npz:
    stored: dict[str, Any] = {name: np.asarray(column) for name, column in columns.items()}
    np.savez("a.npz", x=X[:, None], **stored)
    return npz("a.npz", key="site", test_fraction=0.0)


READERS: list[Callable[..., Any]] = [read_csv, read_parquet, read_npz]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def names_of(data: TrainTest) -> tuple[str, ...]:
    return partition_data(data, by_key(), Key.from_seed(0)).names


SPELT: dict[str, Callable[[int, int], str]] = {
    "1.0": lambda number, row: f"{number}.0",
    "1 and 1.0": lambda number, row: f"{number}.0" if row % 5 else str(number),
    "+1": lambda number, row: f"+{number}" if row % 5 else f"{number}.00",
}


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
@pytest.mark.parametrize("spell", SPELT.values(), ids=SPELT.keys())
def test_a_number_is_one_class_and_one_hospital_however_it_is_spelt(read: Any, spell: Any) -> None:
    sites = [spell(site, row) for row, site in enumerate(SITES.tolist())]
    sick = [spell(label, row) for row, label in enumerate(SICK.tolist())]
    data = read(site=sites, y=sick).load()
    assert (data.classes, names_of(data)) == (("0", "1"), ("9", "10", "11"))
    assert data.train.y.tolist() == SICK.tolist()
    assert data.keys.tolist() == list(map(str, SITES))


@pytest.mark.parametrize("read", READERS[:2], ids=lambda read: read.__name__)
def test_floats_are_the_same_names(read: Any) -> None:
    sites, sick = SITES * 1e20, SICK / 4
    data = read(site=sites, y=sick).load()
    assert data.classes == ("0", "0.25")
    assert names_of(data) == ("1000000000000000000000", "1100000000000000000000", "900000000000000000000")


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
def test_truth_values_are_one_class_in_each_case(read: Any) -> None:
    words = [("FALSE", "true", "False", "TRUE")[row % 4] for row in range(24)]
    data = read(site=SITES, y=words).load()
    assert (data.classes, data.train.y.tolist()) == (("False", "True"), SICK.tolist())
    if read is read_parquet:
        assert read(site=SITES, y=SICK > 0).load().train.y.tolist() == SICK.tolist()


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
@pytest.mark.parametrize("gap", ["", "nan", "NaN", "null", "None", "NA", " "])
@pytest.mark.parametrize("name", ["y", "site"])
def test_a_gap_is_no_name(read: Any, gap: str, name: str) -> None:
    columns = {"site": [f"h{site}" for site in SITES], "y": ["ab"[label] for label in SICK]}
    columns[name][4] = columns[name][7] = gap
    reader = read(**columns)
    with pytest.raises(InvalidInput, match=rf"{name}'.* is empty .*2 of 24 rows.* incomplete = \"skip\""):
        reader.load()
    skipping = type(reader)(**{**vars(reader), "incomplete": "skip"})
    data = skipping.load()
    assert (data.classes, names_of(data)) == (("a", "b"), ("h10", "h11", "h9"))
    assert data.train.y.tolist() == np.delete(SICK, [4, 7]).tolist()
    assert len(data.notes) == 1
    assert f"2 of 24 rows have no '{name}' and are left out" in data.notes[0]
    assert partition_data(data, by_key(), Key.from_seed(0)).map(lambda rows: rows).notes == data.notes


@pytest.mark.parametrize("name", ["y", "site"])
def test_a_number_that_is_missing_is_no_name(name: str) -> None:
    columns = {"site": SITES.astype(float), "y": SICK.astype(float)}
    columns[name][5] = np.nan
    with pytest.raises(InvalidInput, match=f"row 6: column '{name}' is empty .*1 of 24"):
        read_parquet(**columns).load()
    if name == "site":
        with pytest.raises(InvalidInput, match="array 'site', row 5 is empty"):
            read_npz(**columns).load()


def test_a_class_may_be_called_none_if_it_is_listed() -> None:
    words = [("None", "severe")[label] for label in SICK]
    with pytest.raises(InvalidInput, match=r"'None' counts as empty; if it is a name, list it in classes"):
        read_csv(site=SITES, y=words).load()
    data = csv("a.csv", label="y", classes=("None", "severe"), test_fraction=0.0, drop=("site",)).load()
    assert data.train.y.tolist() == SICK.tolist()


def test_a_key_of_a_test_file_that_no_client_has_is_refused() -> None:
    head = "x,site,y\n"
    Path("train.csv").write_text(head + "".join(f"{row},{row % 2 + 1},{row // 2 % 2}\n" for row in range(9)))
    Path("test.csv").write_text(head + "1,1.0,0\n2,3,1\n3,2.0,1\n")
    reader = csv("train.csv", label="y", key="site", test="test.csv")
    with pytest.raises(
        InvalidInput, match=r"test.csv, line 3: column 'site' is '3', and no training example"
    ):
        reader.load()
    Path("test.csv").write_text(head + "1,1.0,0\n2,1,1\n3,2.0,1\n")
    data = reader.load()
    people = partition_data(data, by_key(), Key.from_seed(0))
    assert people.test_sizes().tolist() == [2, 1]
    Path("test.csv").write_text("x,y\n1,0\n2,1\n")  # as the message says
    people = partition_data(reader.load(), by_key(), Key.from_seed(0))
    assert (people.test_sizes().tolist(), people.test is not None) == ([0, 0], True)
    np.savez(
        "a.npz", x=X[:, None], y=SICK, site=SITES, test_x=X[:3, None], test_y=SICK[:3], test_site=[9, 8, 9]
    )
    with pytest.raises(InvalidInput, match="array 'test_site', row 1 is '8'"):
        npz("a.npz", key="site").load()


def test_words_may_be_labels_of_arrays() -> None:
    words: Any = ["b", "a", "b", "c"]
    data = arrays(X[:4, None], words, test_x=X[:2, None], test_y=np.array(["c", "a"])).load()
    assert data.test is not None
    assert (data.classes, data.num_classes) == (("a", "b", "c"), 3)
    assert (data.train.y.tolist(), data.test.y.tolist()) == ([1, 0, 1, 2], [2, 0])


LABELS: dict[str, tuple[Array, tuple[str, ...], list[int]]] = {
    "words": (np.array(["b", "a"]), ("a", "b"), [1, 0]),
    "bytes": (np.array([b"b", b"a"]), ("a", "b"), [1, 0]),
    "whole numbers": (np.array([10, 9]), ("9", "10"), [1, 0]),
    "floats": (np.array([10.0, 9.0], np.float32), ("9", "10"), [1, 0]),
    "numbers as words": (np.array(["1.0", "0"]), ("0", "1"), [1, 0]),
    "truth values for 0 and 1": (np.array([True, False]), ("0", "1"), [1, 0]),
    "0 and 1 for truth values": (np.array([1, 0]), ("False", "True"), [1, 0]),
    "names that an earlier version kept": (np.array(["1.0", "2.0"]), ("1.0", "2.0"), [0, 1]),
    "objects": (np.array(["b", 1.0, True], object), ("1", "True", "b"), [2, 0, 1]),
}


@pytest.mark.parametrize(("labels", "names", "due"), LABELS.values(), ids=LABELS.keys())
def test_labels_are_the_classes_of_a_model(labels: Array, names: tuple[str, ...], due: list[int]) -> None:
    assert classes_of(labels, names, str).tolist() == due


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        (np.array([0, 1, 2]), ("0", "1"), "row 2 is '2', which is not a class; known: 0, 1"),
        (np.array([1, 3]), ("0", "1", "2"), "row 1 is '3', which is not a class; the classes are 0 to 2"),
        (np.array([0.0, np.nan]), ("0", "1"), "row 1 is 'nan', which is not a class"),
        (np.array([True, False]), ("0", "1", "2"), "row 0 is 'True', which is not a class"),
        (np.array([0, 1]), ("cat", "dog"), "row 0 is '0', which is not a class; known: cat, dog"),
        (np.array(["dog", "", "cat"]), ("cat", "dog"), "row 1 is '', which is not a class"),
    ],
)
def test_other_labels_are_refused_with_their_row(labels: Array, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        classes_of(labels, names, lambda row: f"row {row}")


def test_names_that_only_look_like_numbers_stay() -> None:
    words = np.array(
        ["007", "7", "1E5", "1_000", "-0.0", "1.", ".5", "-.50", ".", "-", "0x1", "inf", "1e+400"]
    )
    due = ["007", "7", "1E5", "1_000", "0", "1", "0.5", "-0.5", ".", "-", "0x1", "inf", "1" + "0" * 400]
    assert to_categories(words).tolist() == due


def test_rows_that_were_left_out_count_in_messages(tmp_path: Path) -> None:
    """The owner of a file finds the row under the number that the file gives it."""
    words = np.array(["a", "", "b", "a", "b", "a"])
    x = np.arange(6.0)[:, None]
    path = tmp_path / "a.npz"
    np.savez(path, x=x, y=words, test_x=x, test_y=np.array(["", "a", "", "b", "c", "a"]))
    with pytest.raises(InvalidInput, match=r"array 'test_y', row 4 is 'c'"):
        npz(str(path), incomplete="skip").load()
    np.savez(
        path, x=x, y=words, site=SITES[:6], test_x=x, test_y=words, test_site=np.array([9, 9, 9, 9, 7, 9])
    )
    with pytest.raises(InvalidInput, match=r"array 'test_site', row 4 is '7'"):
        npz(str(path), key="site", incomplete="skip").load()
    np.savez(path, x=x, y=words, site=np.array(["s", "t", "", "s", "t", "u"]))
    kept = npz(str(path), key="site", incomplete="skip", test_fraction=0).load()
    assert kept.train.x.ravel().tolist() == [0, 3, 4, 5]
    np.savez(path, x=x, y=words, sites=np.array(["s", "t", "", "s", "t", "u"]))
    with pytest.raises(InvalidInput, match=r"no array 'site'; did you mean 'sites'\?; write key = "):
        npz(str(path), key="site", incomplete="skip", test_fraction=0).load()
