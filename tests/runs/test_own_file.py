"""A party's own file is read as the run's data are, or refused with a message that says what is needed."""

import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hanse.config import Experiment
from hanse.core import Examples, InvalidInput
from hanse.data import by_key, csv, iid, npz, own_test
from hanse.learners import least_squares, softmax
from hanse.runs.deployment import Parties, data_needs, plan_of
from hanse.runs.own_file import read_examples
from hanse.runs.preparation import prepare_run
from hanse.runs.wanted import Wanted

ROWS = [
    ("31", "cook", "yes", "north"), ("", "nurse", "no", "north"), ("52", "cook", "no", "south"),
    ("44", "?", "yes", "south"), ("29", "nurse", "yes", "north"), ("61", "cook", "no", "south"),
]  # fmt: skip


def written(path: Path, names: str, rows: Any) -> str:
    path.write_text("\n".join([names, *(",".join(row) for row in rows)]) + "\n")
    return str(path)


@pytest.fixture
def ready(tmp_path: Path) -> Any:
    path = written(tmp_path / "all.csv", "age,job,ill,site", ROWS)
    data = csv(path, label="ill", key="site", test_fraction=0.0)
    return prepare_run(Experiment(data=data, partition=by_key(), model=softmax(), evaluate_every=0))


def wanted(ready: Any) -> Wanted:
    return data_needs(plan_of(ready))


def test_a_partys_rows_are_those_that_the_simulation_gives_it(ready: Any, tmp_path: Path) -> None:
    mine = [(job, ill, "x", age) for age, job, ill, site in ROWS if site == "south"]
    own = read_examples(written(tmp_path / "own.csv", "job,ill,ward,age", mine), wanted(ready))
    there = ready.population.client(list(ready.population.names).index("south"))
    assert np.array_equal(own.x, there.x)
    assert np.array_equal(own.y, there.y)


def test_a_party_holds_out_the_rows_that_the_simulation_does(ready: Any, tmp_path: Path) -> None:
    held = prepare_run(replace(ready.experiment, client_test_fraction=0.3, evaluate_every=1))
    plan, parties = plan_of(held), Parties()
    for number, name in enumerate(held.population.names):
        mine = [(age, job, ill) for age, job, ill, site in ROWS if site == name]
        path = written(tmp_path / f"{name}.csv", "age,job,ill", mine)
        train, test = parties.data(path, number)(plan), parties.test(path, number)(plan)
        assert np.array_equal(train.x, held.population.client(number).x)
        assert np.array_equal(test.x, held.population.role(own_test(number)).x)
        assert (len(train), len(test)) == (2, 1)
        apart = written(tmp_path / "test.csv", "age,job,ill", mine[:1])
        assert len(parties.data(path, number, apart)(plan)) == 3
        assert len(parties.test(path, number, apart)(plan)) == 1
    one = written(tmp_path / "one.csv", "age,job,ill", mine[:1])
    assert len(parties.test(one, 0)(plan)) == 0  # too few to hold any out: it declines to measure
    with pytest.raises(InvalidInput, match="--test nowhere: there is no such file"):
        parties.test(path, 0, "nowhere")


def test_one_label_alone_keeps_its_number_and_no_column_changes_its_kind(ready: Any, tmp_path: Path) -> None:
    own = read_examples(written(tmp_path / "own.csv", "age,job,ill", [("", "7", "yes")]), wanted(ready))
    assert own.y.tolist() == [1]
    assert own.x.shape == (1, *ready.population.feature_shape)


def test_parquet_stands_in_for_csv(ready: Any, tmp_path: Path) -> None:
    arrow, files = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    age, job, ill, _ = zip(*ROWS, strict=True)
    numbers = [float(a) if a else None for a in age]
    words = [None if j == "?" else j for j in job]
    files.write_table(arrow.table({"age": numbers, "job": words, "ill": ill}), tmp_path / "own.parquet")
    as_csv = read_examples(written(tmp_path / "own.csv", "age,job,ill", [r[:3] for r in ROWS]), wanted(ready))
    as_parquet = read_examples(str(tmp_path / "own.parquet"), wanted(ready))
    assert np.array_equal(as_csv.x, as_parquet.x)
    assert np.array_equal(as_csv.y, as_parquet.y)


def test_targets_stay_numbers(tmp_path: Path) -> None:
    path = written(tmp_path / "all.csv", "age,days", [(str(30 + i), str(i / 2)) for i in range(8)])
    data = csv(path, target="days", test_fraction=0.0)
    ready = prepare_run(Experiment(data=data, model=least_squares(), evaluate_every=0, partition=iid(2)))
    own = read_examples(path, wanted(ready))
    assert own.y.tolist() == [i / 2 for i in range(8)]


@pytest.mark.parametrize(
    ("names", "rows", "why"),
    [
        ("age,ill", [("3", "yes")], "has no column 'job'; the run wants ill, age, job"),
        ("age,job", [("3", "cook")], "has no column 'ill'"),
        ("age,job,ill", [("3", "cook", "perhaps")], r"line 2: column 'ill' holds no class \(so in 1"),
        ("age,job,ill", [("ancient", "cook", "yes")], "'age' holds something else than a number .*line 2;"),
        ("age,job,ill", [], "no rows"),
    ],
)
def test_what_does_not_suit_is_named(ready: Any, tmp_path: Path, names: str, rows: Any, why: str) -> None:
    with pytest.raises(InvalidInput, match=why) as caught:
        read_examples(written(tmp_path / "own.csv", names, rows), wanted(ready))
    shown = "".join(traceback.format_exception(caught.value))
    assert not any(cell in shown for cell in ("perhaps", "ancient"))


def test_arrays_are_checked(ready: Any, tmp_path: Path) -> None:
    digit = Wanted("digits", False, (8, 8), 10)
    path = str(tmp_path / "own.npz")
    for x, y, why in (
        (np.zeros((3, 64)), np.zeros(3, int), "shape"),
        (np.zeros((3, 8, 8)), np.full(3, 10), "0 to 9"),
        (np.zeros((3, 8, 8)), np.zeros(2, int), "3 rows of x and 2 of y"),
    ):
        np.savez(path, x=x, y=y)
        with pytest.raises(InvalidInput, match=why):
            read_examples(path, digit)
    np.savez(path, x=np.zeros((3, 8, 8)), y=np.arange(3))
    assert len(read_examples(path, digit)) == 3
    with pytest.raises(InvalidInput, match=r"not a table of columns; give an \.npz"):
        read_examples(written(tmp_path / "own.csv", "age", [("3",)]), digit)
    with pytest.raises(InvalidInput, match="not described by a file"):
        read_examples(str(tmp_path / "own.csv"), replace(digit, kind=None))


@pytest.mark.parametrize("labels", [["yes", "no"], [b"no", b"yes"]], ids=["text", "bytes"])
def test_words_in_arrays_are_the_classes_of_the_run(labels: Any, tmp_path: Path) -> None:
    path, ill = str(tmp_path / "own.npz"), Wanted("npz", False, (2,), 2, ("no", "yes"))
    np.savez(path, x=np.zeros((2, 2)), y=np.array(labels))
    said = [word.decode() if isinstance(word, bytes) else word for word in labels]
    assert read_examples(path, ill).y.tolist() == [("no", "yes").index(word) for word in said]
    np.savez(path, x=np.zeros((2, 2)), y=np.array(["yes", "perhaps"]))
    with pytest.raises(InvalidInput, match=r"own\.npz: array 'y', row 1 holds no class"):
        read_examples(path, ill)
    np.savez(path, x=np.zeros((3, 2)), y=np.array(["", "yes", "perhaps"]))
    with pytest.raises(InvalidInput, match=r"own\.npz: array 'y', row 2 holds no class"):
        read_examples(path, ill, npz(path, incomplete="skip"))
    np.savez(path, x=np.zeros((2, 2)), y=np.array(["yes", "perhaps"]))
    with pytest.raises(
        InvalidInput, match=r"row 0 holds no class \(so in 2 rows\); the classes are '0', '1'"
    ):
        read_examples(path, replace(ill, classes=()))


def test_a_class_spelt_as_another_number_is_that_class(tmp_path: Path) -> None:
    rows = [(str(i), str(i % 2)) for i in range(8)]
    path = written(tmp_path / "all.csv", "age,ill", rows)
    data = csv(path, label="ill", test_fraction=0.0)
    ready = prepare_run(Experiment(data=data, model=softmax(), evaluate_every=0, partition=iid(2)))
    floats = [(age, f"{ill}.0") for age, ill in rows]
    own = read_examples(written(tmp_path / "own.csv", "age,ill", floats), wanted(ready))
    assert own.y.tolist() == [i % 2 for i in range(8)]


def test_columns_without_a_way_to_numbers_are_refused(ready: Any, tmp_path: Path) -> None:
    path = written(tmp_path / "own.csv", "age,job,ill", [r[:3] for r in ROWS])
    with pytest.raises(InvalidInput, match="has no encoder that turns columns into numbers"):
        read_examples(path, replace(wanted(ready), encoder=None))


def own(path: Path, names: str, rows: Any, ready: Any, **more: Any) -> Any:
    return read_examples(written(path / "own.csv", names, rows), wanted(ready), **more)


@pytest.mark.parametrize(
    "labels",
    [np.array([True, False]), np.array([1.0, 0.0]), np.array(["1", "0"]), np.array(["TRUE", "false"])],
    ids=lambda labels: str(labels.dtype),
)
def test_labels_that_a_simulation_takes_are_taken_from_a_party(labels: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "all.npz", x=np.eye(4), y=np.array([True, False, True, False]))
    data = npz(str(tmp_path / "all.npz"), test_fraction=0.0)
    ready = prepare_run(Experiment(data=data, model=softmax(), evaluate_every=0, partition=iid(2)))
    assert ready.population.classes == ()
    np.savez(tmp_path / "own.npz", x=np.eye(4)[:2], y=labels)
    found = read_examples(str(tmp_path / "own.npz"), wanted(ready))
    assert found.y.tolist() == [1, 0]
    np.savez(tmp_path / "own.npz", x=np.eye(4)[:2], y=np.array([0.0, np.nan]))
    with pytest.raises(InvalidInput, match="array 'y', row 1 is empty"):
        read_examples(str(tmp_path / "own.npz"), wanted(ready))
    np.savez(tmp_path / "own.npz", x=np.array([[0, 0, 0, np.inf]]), y=np.array([0]))
    with pytest.raises(InvalidInput, match="the feature in row 0, column 3 is inf"):
        read_examples(str(tmp_path / "own.npz"), wanted(ready))


def test_a_column_that_tells_nothing_is_refused_unless_its_owner_says_so(ready: Any, tmp_path: Path) -> None:
    names, said = "age,job,ill", list[str]()
    new = [("31", "Koch", "yes"), ("40", "Pfleger", "no"), ("41", "", "no")]
    with pytest.raises(
        InvalidInput, match="the run knows none of the categories in column 'job', but 'cook', 'nurse'"
    ):
        own(tmp_path, names, new, ready)
    with pytest.raises(InvalidInput, match="of the categories in column 'job'"):
        own(tmp_path, names, new, ready, is_test=True)
    for name, rows in (("age", [("", "cook", "yes"), ("?", "nurse", "no")]), ("job", [("3", "", "yes")] * 2)):
        with pytest.raises(
            InvalidInput, match=f"column '{name}' has no value in any of its 2 rows"
        ) as caught:
            own(tmp_path, names, rows, ready)
        assert "is written into a file of your own" in str(caught.value)
        assert len(own(tmp_path, names, rows, ready, is_test=True)) == 2
        description = tmp_path / "own.toml"
        description.write_text(
            f'data = {{name = "csv", path = "{tmp_path}/own.csv", uninformative = ["{name}"]}}'
        )
        found = read_examples(str(description), wanted(ready), warn=said.append)
        encoder = ready.encoder
        if name == "age":  # the mean, which standardised is 0
            assert found.x[:, 0].tolist() == [0, 0]
        else:
            assert found.x[:, 1:].sum(axis=1).tolist() == [1, 1]
            assert set(found.x[:, 1:].argmax(axis=1)) == {encoder.vocabularies[0].gap}
    mixed = [("31", "Koch", "yes"), ("40", "cook", "no")]
    assert own(tmp_path, names, mixed, ready).x[:, 1:].sum(axis=1).tolist() == [0, 1]
    assert said == []


def test_a_remedy_is_at_hand_where_a_party_joins(tmp_path: Path, ready: Any) -> None:
    rows = [("3.100,5", "cook", "yes"), ("4.200,25", "nurse", "no")]
    path = tmp_path / "own.csv"
    path.write_text("\n".join(["age;job;ill", *(";".join(row) for row in rows)]) + "\n")
    with pytest.raises(InvalidInput) as caught:
        read_examples(str(path), wanted(ready))
    said = str(caught.value)
    assert 'write decimal = "," and thousands = "."' in said
    data = f'data = {{name = "csv", path = "{path}", decimal = ",", thousands = "."}}'
    assert said.endswith(f"given in place of {path}: own.toml, with {data}")
    description = tmp_path / "own.toml"
    description.write_text(data)
    found = read_examples(str(description), wanted(ready))
    plain = own(tmp_path, "age,job,ill", [("3100.5", "cook", "yes"), ("4200.25", "nurse", "no")], ready)
    np.testing.assert_array_equal(found.x, plain.x)


WRONG_CELLS = {
    "a limit": ("12,5;cook;yes\n<5;nurse;no\n", 'censored = "missing"'),
    "a gap in the label": ("12,5;cook;yes\n13;nurse;\n", 'incomplete = "skip"'),
    "a column that is empty": (";cook;yes\n;nurse;no\n", 'uninformative = ["age"]'),
    "categories of its own": ("12,5;Koch;yes\n13;Koch;no\n", 'uninformative = ["job"]'),
    "another delimiter": ("12,5\tcook\tyes\n13\tnurse\tno\n", 'delimiter = "\\t"'),
    "UTF-16": ("12,5;cook;yes\n13;nurse;no\n", 'encoding = "utf-16"'),
}


@pytest.mark.parametrize("case", WRONG_CELLS)
def test_a_file_of_ones_own_keeps_how_the_file_was_read(tmp_path: Path, ready: Any, case: str) -> None:
    """The message is followed to the letter: its last words are all of own.toml."""
    rows, cure = WRONG_CELLS[case]
    path, description = tmp_path / "own.csv", tmp_path / "own.toml"
    names = "age;job;ill\n" if case != "another delimiter" else "age\tjob\till\n"
    path.write_text(names + rows, encoding="utf-16" if case == "UTF-16" else "utf-8")
    with pytest.raises(InvalidInput) as caught:
        read_examples(str(path), wanted(ready), csv("all.csv", decimal=",", delimiter=";", label="ill"))
    said = str(caught.value)
    assert cure in said
    assert "drop = " not in said
    description.write_text(said.partition("own.toml, with ")[2], encoding="utf-8")
    found = read_examples(str(description), wanted(ready), warn=lambda line: None)
    assert len(found) == (1 if case == "a gap in the label" else 2)
    if case != "a column that is empty":  # 12,5 is read with the decimal comma
        scaler = ready.encoder(
            Examples(np.array([(12.5, "cook")], [("age", float), ("job", "U4")]), found.y[:1])
        )
        assert found.x[0, 0] == scaler.x[0, 0]


def test_rows_without_a_label_are_skipped_and_counted(tmp_path: Path, ready: Any) -> None:
    rows = [("31", "cook", "yes"), ("40", "nurse", "None"), ("41", "nurse", "no")]
    with pytest.raises(InvalidInput, match=r"line 3: column 'ill' is empty .* incomplete = \"skip\""):
        own(tmp_path, "age,job,ill", rows, ready)
    description, said = tmp_path / "own.toml", list[str]()
    description.write_text(
        f'data = {{name = "csv", path = "{tmp_path}/own.csv", incomplete = "skip"}}', encoding="utf-16"
    )
    assert read_examples(str(description), wanted(ready), warn=said.append).y.tolist() == [1, 0]
    assert said == [f"{tmp_path}/own.csv: 1 of 3 rows have no 'ill' and are left out"]


def test_columns_that_the_run_does_not_use_are_not_read(ready: Any, tmp_path: Path) -> None:
    rows = [("0", "<5", "31", "cook", "yes"), ("1", "7", "40", "nurse", "no"), ("2", "9", "2", "cook", "no")]
    found = own(tmp_path, ",crp,age,job,ill", rows, ready)
    plain = own(tmp_path, "age,job,ill", [row[2:] for row in rows], ready)
    np.testing.assert_array_equal(found.x, plain.x)


def test_a_parquet_column_is_of_the_runs_kind(ready: Any, tmp_path: Path) -> None:
    arrow, files = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path, ill = str(tmp_path / "own.parquet"), ["yes", "no"]

    def read(age: Any, job: Any) -> Any:
        files.write_table(arrow.table({"age": age, "job": job, "ill": ill}), path)
        return read_examples(path, wanted(ready), is_test=True).x

    plain = own(tmp_path, "age,job,ill", [("31", "", "yes"), ("", "", "no")], ready, is_test=True).x
    nothing = arrow.nulls(2)
    np.testing.assert_array_equal(read(["31.0", None], nothing), plain)
    np.testing.assert_array_equal(read(nothing, nothing)[1], plain[1])
    with pytest.raises(InvalidInput, match="column 'age', row 2 is something else, where a number"):
        read(["31", "old"], nothing)
