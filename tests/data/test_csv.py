"""CSV files as people have them, and what they are told when something is wrong."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from real_data import real

from hanse.core import InvalidInput, Key
from hanse.core.exchange import pack, unpack
from hanse.data import by_key, csv, partition_data

GOOD = """\
age, job, "height, cm", hospital, died
31, cook, 170.5, north, yes
45, nurse, , south, no
?, "nurse, night", 160, north, no
28, ?, 1.8e2, west, yes
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(text: str, name: str = "stays.csv", encoding: str = "utf-8") -> str:
    Path(name).write_text(text, encoding=encoding)
    return name


def stays(text: str = GOOD, **options: Any) -> csv:
    said: dict[str, Any] = {"label": "died", "key": "hospital", "test_fraction": 0.0}
    return csv(write(text), **said | options)


# What is read


def test_lines_without_cells_may_come_before_the_names(folder: Path) -> None:
    assert len(stays("\n  \n" + GOOD).load().train) == len(stays().load().train)


def test_a_table_has_columns_of_numbers_and_of_words(folder: Path) -> None:
    data = stays().load()
    x = data.train.x
    assert x.dtype.names == ("age", "job", "height, cm")
    np.testing.assert_array_equal(x["age"], [31, 45, np.nan, 28])
    np.testing.assert_array_equal(x["height, cm"], [170.5, np.nan, 160, 180])
    assert x["job"].tolist() == ["cook", "nurse", "nurse, night", ""]


def test_labels_are_classes_in_the_order_of_their_names(folder: Path) -> None:
    data = stays().load()
    assert (data.classes, data.num_classes) == (("no", "yes"), 2)
    assert data.train.y.tolist() == [1, 0, 0, 1]


def test_numbers_as_labels_are_in_the_order_of_their_size(folder: Path) -> None:
    data = csv(write("x,y\n1,10\n2,9\n3,10\n"), label="y", test_fraction=0).load()
    assert (data.classes, data.train.y.tolist()) == (("9", "10"), [1, 0, 1])


def test_the_key_is_no_feature(folder: Path) -> None:
    data = stays().load()
    assert data.keys is not None
    assert data.keys.tolist() == ["north", "south", "north", "west"]
    assert partition_data(data, by_key(), Key.from_seed(0)).names == ("north", "south", "west")


def test_columns_can_be_dropped_whatever_they_hold(folder: Path) -> None:
    text = "id,x,y\n1,2,0\nA7,3,1\n,4,1\n"
    assert csv(write(text), label="y", drop=("id",)).load().train.x.dtype.names == ("x",)


def test_a_target_is_a_number(folder: Path) -> None:
    data = csv(write("x,price\n1,10.5\n2,9\n"), target="price", test_fraction=0).load()
    assert (data.num_classes, data.train.y.tolist()) == (None, [10.5, 9])


def test_there_may_be_several_targets(folder: Path) -> None:
    data = csv(write("x,time,event\n1,10.5,1\n2,9,0\n"), target=("time", "event"), test_fraction=0).load()
    assert data.train.y.tolist() == [[10.5, 1], [9, 0]]
    assert data.train.x.dtype.names == ("x",)


def test_what_looks_like_a_number_may_be_a_word(folder: Path) -> None:
    text = "ward,x,y\n01234,1,0\n99999,2,1\n"
    assert csv(write(text), label="y").load().train.x["ward"].dtype == np.float64
    data = csv(write(text), label="y", categorical=("ward",), test_fraction=0).load()
    assert data.train.x["ward"].tolist() == ["01234", "99999"]


def test_a_column_may_show_late_that_it_is_one_of_words(folder: Path) -> None:
    codes = ["7"] * 9000 + ["A"] * 9001
    text = "code,y\n" + "".join(f"{code},{i % 2}\n" for i, code in enumerate(codes))
    data = csv(write(text), label="y", test_fraction=0).load()
    assert data.train.x["code"].tolist() == codes


def test_underscores_make_a_word(folder: Path) -> None:
    data = csv(write("code,y\n1_000,0\n2_000,1\n"), label="y", test_fraction=0).load()
    assert data.train.x["code"].tolist() == ["1_000", "2_000"]


DIALECTS = {
    "semicolons": "age;y\n3,5;a\n4;b\n",
    "tabs": "age\ty\n3,5\ta\n4\tb\n",
    "bars": "age|y\n3,5|a\n4|b\n",
}


@pytest.mark.parametrize("text", DIALECTS.values(), ids=DIALECTS.keys())
def test_delimiters_are_told_from_the_first_line(folder: Path, text: str) -> None:
    data = csv(write(text), label="y", decimal=",", test_fraction=0).load()
    assert data.train.x["age"].tolist() == [3.5, 4]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_in_any_way(folder: Path, end: str) -> None:
    Path("ends.csv").write_bytes("x,y\n1,a\n\n,\n2,b".replace("\n", end).encode())
    assert csv("ends.csv", label="y", test_fraction=0).load().train.x["x"].tolist() == [1, 2]


def test_gzip_is_unpacked_whatever_the_name(folder: Path) -> None:
    Path("stays.csv").write_bytes(gzip.compress(GOOD.encode()))
    assert len(csv("stays.csv", label="died", test_fraction=0).load().train) == 4


def test_a_byte_order_mark_is_no_part_of_a_name(folder: Path) -> None:
    write("x,y\n1,a\n2,b\n", encoding="utf-8-sig")
    assert csv("stays.csv", label="y").load().train.x.dtype.names == ("x",)


def test_other_encodings_are_named(folder: Path) -> None:
    write("x,y\n1,é\n2,ü\n", encoding="latin-1")
    assert csv("stays.csv", label="y", encoding="latin-1").load().classes == ("é", "ü")


def test_a_file_without_names_is_given_them(folder: Path) -> None:
    text = "|a remark\n31,cook,<=50.\n28,nurse,>50.\n"
    data = csv(
        write(text), label="pay", columns=("age", "job", "pay"), comment="|", strip=".", test_fraction=0
    ).load()
    assert data.classes == ("<=50", ">50")
    assert data.train.x["age"].tolist() == [31, 28]


def test_cells_may_hold_lines(folder: Path) -> None:
    data = csv(write('note,y\n"a\nb",0\nc,1\n'), label="y", test_fraction=0).load()
    assert data.train.x["note"].tolist() == ["a\nb", "c"]


def test_a_column_without_any_value_stays(folder: Path) -> None:
    assert np.isnan(csv(write("x,z,y\n1,,0\n2,?,1\n"), label="y").load().train.x["z"]).all()


# What is held out


def test_some_rows_are_held_out_the_same_each_time(folder: Path) -> None:
    text = "x,y,who\n" + "".join(f"{i},{i % 2},{i % 3}\n" for i in range(50))
    first, again = (csv(write(text), label="y", key="who").load() for _ in range(2))
    assert first.test is not None
    assert again.test is not None
    assert first.test_keys is not None
    assert (len(first.train), len(first.test)) == (40, 10)
    np.testing.assert_array_equal(first.test.x, again.test.x)
    assert sorted([*first.train.x["x"], *first.test.x["x"]]) == list(range(50))
    assert (first.test.x["x"] % 3).astype(int).astype(str).tolist() == first.test_keys.tolist()


def test_a_test_file_is_read_as_the_training_file_is(folder: Path) -> None:
    write("y,x,code\nb,1,7\na,2,8\nc,3,7\n", "test.csv")
    data = csv(
        write("x,code,y\n1,A,a\n2,B,b\n3,7,c\n"), label="y", test="test.csv", categorical=("code",)
    ).load()
    assert data.test is not None
    assert data.test.x["code"].tolist() == ["7", "8", "7"]
    assert data.test.y.tolist() == [1, 0, 2]
    assert len(data.train) == 3


def test_parties_that_hold_one_class_agree_on_all(folder: Path) -> None:
    data = stays("age,hospital,died\n3,a,yes\n4,a,yes\n", classes=("no", "yes")).load()
    assert (data.num_classes, data.train.y.tolist()) == (2, [1, 1])


def test_a_csv_is_a_value(folder: Path) -> None:
    data = csv(Path("a.csv"), label="y", drop=("b",))  # type: ignore[arg-type]
    assert data.path == "a.csv"
    assert unpack(pack(data)) == data


# What can't be used

BREAKS: dict[str, tuple[str, dict[str, Any], str]] = {
    "an empty file": ("", {}, "stays.csv is empty; give a line of column names and at least 1 row"),
    "a header alone": ("age,hospital,died\n", {}, "holds column names and no rows"),
    "nothing to learn": (GOOD, {"label": None}, r"which column should the model learn\? .* age, job, height"),
    "a wrong label": (GOOD, {"label": "dead"}, "no column 'dead' for label; did you mean 'died'"),
    "a wrong key": (GOOD, {"key": "hospitals"}, "no column 'hospitals' for key; did you mean 'hospital'"),
    "a wrong drop": (GOOD, {"drop": ("Age",)}, "no column 'Age' for drop; did you mean 'age'"),
    "a wrong numeric": (GOOD, {"numeric": ("aeg",)}, "no column 'aeg' for numeric; did you mean 'age'"),
    "a wrong categorical": (GOOD, {"categorical": ("jb",)}, "'jb' for categorical; did you mean 'job'"),
    "a wrong target": (GOOD, {"label": None, "target": "agee"}, "'agee' for target; did you mean 'age'"),
    "no features": (GOOD, {"drop": ("age", "job", "height, cm")}, "no column left for features"),
    "ragged rows": (
        GOOD + "50, cook\n",
        {},
        r"stays.csv, line 6: 2 cells \(50, cook, ...\), and 5 columns .* must be in quotes",
    ),
    "a word in a number column": (
        GOOD.replace("45", "forty"),
        {},
        r"stays.csv, line 3: column 'age' is 'forty', and 2 other cells of it are numbers; write a number "
        r"there, or missing = \[.*\"null\", \"forty\"\] if 'forty' .* drop = \[\"age\"\] .* "
        r"categorical = \[\"age\"\]",
    ),
    "a word in a column said to be of numbers": (
        GOOD,
        {"numeric": ("job",)},
        "line 2: column 'job' is 'cook'; write a number there",
    ),
    "infinity": (GOOD.replace("45", "inf"), {}, "line 3: column 'age' is 'inf'"),
    "a decimal comma": (
        "a;hospital;died\n1,5;x;yes\n2,5;y;no\n",
        {},
        "line 2: column 'a' is '1,5'; write decimal = \",\"",
    ),
    "an empty label": (
        GOOD.replace("north, no", "north,"),
        {},
        r"line 4: column 'died' is empty \(it is in 1 of 4 rows\); .* incomplete = \"skip\" to leave",
    ),
    "an empty key": (GOOD.replace("west", ""), {}, "line 5: column 'hospital' is empty"),
    "one class only": (
        GOOD.replace("yes", "no"),
        {},
        r"column 'died' is 'no' in every row; .* another column, or write classes = \[\"no\", ...\]",
    ),
    "an unknown class": (
        GOOD,
        {"classes": ("no", "yess")},
        "line 2: column 'died' is 'yes', which is not a class; did you mean 'yess'",
    ),
    "a measurement as a label": (
        "x,died,hospital\n" + "".join(f"1,{i / 8},a\n" for i in range(30)),
        {},
        "holds 30 different numbers in 30 rows, .* as target = ... instead of label",
    ),
    "words as a target": (
        GOOD,
        {"label": None, "target": "job"},
        "target column 'job' is 'cook'; a target is a number, .* write label = \"job\"",
    ),
    "an empty target": (
        GOOD,
        {"label": None, "target": "age"},
        "line 4: column 'age' is empty",
    ),
    "names of persons": (
        "name,hospital,died\n" + "".join(f"P{i},a,{i % 2}\n" for i in range(60)),
        {},
        r"column 'name' holds 60 different categories in 60 rows, such as 'P0', .* write drop = \[\"name\"\]",
    ),
    "two columns of one name": ("a,a,hospital,died\n1,2,x,0\n", {}, "two columns are called 'a'"),
    "a column without a name": (
        ",age,hospital,died\n0,3,x,0\n1,4,x,1\n",
        {},
        r"column 1 has no name \(row numbers .*\); name it, or write drop = \[\"column 1\"\]",
    ),
    "no names": (
        "31,cook,a,yes\n28,nurse,a,no\n",
        {},
        r"the first line holds data, not names \(31, cook, a, yes, ...\); name the 4 columns: columns =",
    ),
    "another delimiter": (
        "age;hospital;died\n31;a;0\n",
        {"delimiter": ","},
        "the first line has no ','; write delimiter = \";\"",
    ),
    "another delimiter in the rows": (
        "age,hospital,died\n31;a;0\n",
        {},
        "line 2: 1 cells .* separate all lines by ',', as the first one, not by ';'",
    ),
    "an open quote": (GOOD + '1,"cook,2,a,yes\n', {}, "line 6: a quote was opened before here"),
    "a broken quote": (
        GOOD + '1,"co"ok,2,a,yes\n',
        {},
        "line 6: .*a quote inside a quoted cell is written twice",
    ),
}


@pytest.mark.parametrize(("text", "options", "message"), BREAKS.values(), ids=BREAKS.keys())
def test_what_is_wrong_is_named(folder: Path, text: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        stays(text, **options).load()


def test_a_file_that_is_not_utf8_names_the_line(folder: Path) -> None:
    write("x,y\n1,a\n2,Zürich\n", encoding="latin-1")
    with pytest.raises(
        InvalidInput,
        match=r"stays.csv, line 3: byte 0xfc after '2,Z' is not utf-8 text; .*\"cp1252\", .* '2,Zürich'",
    ):
        csv("stays.csv", label="y").load()
    with pytest.raises(InvalidInput, match="encoding is 'utf9', which is unknown"):
        csv("stays.csv", label="y", encoding="utf9").load()


def test_a_missing_file_names_its_neighbour(folder: Path) -> None:
    write(GOOD)
    with pytest.raises(InvalidInput, match=r"no file 'stay.csv'; .*did you mean 'stays.csv'"):
        csv("stay.csv", label="died").load()
    with pytest.raises(InvalidInput, match="there is no folder 'there' either"):
        csv("there/stays.csv", label="died").load()
    with pytest.raises(InvalidInput, match=r"is a folder; name a file in it: stays.csv"):
        csv(str(folder), label="died").load()


def test_a_cut_archive_is_named(folder: Path) -> None:
    Path("stays.csv.gz").write_bytes(gzip.compress(GOOD.encode())[:-12])
    with pytest.raises(InvalidInput, match=r"stays.csv.gz is a broken .gz file"):
        csv("stays.csv.gz", label="died").load()


def test_a_test_file_has_the_same_columns_and_classes(folder: Path) -> None:
    write("x,y\n1,a\n2,b.\n", "test.csv")
    with pytest.raises(
        InvalidInput,
        match=r"test.csv, line 3: column 'y' is 'b\.', which is not a class; .* Or write strip = \"\.\"",
    ):
        csv(write("x,y\n1,a\n2,b\n"), label="y", test="test.csv").load()
    with pytest.raises(InvalidInput, match=r"test.csv has no column 'z', which stays.csv has"):
        csv(write("x,z,y\n1,1,a\n2,2,b\n"), label="y", test="test.csv").load()
    write("x,y\nforty,a\n2,b\n", "test.csv")
    with pytest.raises(InvalidInput, match=r"test.csv, line 2: column 'x' is 'forty'"):
        csv(write("x,y\n1,a\n2,b\n"), label="y", test="test.csv").load()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "a", "target": "b"}, "label is 'a' and target is 'b'; give one"),
        ({"label": "a", "key": "a"}, "column 'a' is given two roles"),
        ({"label": "a", "test_fraction": 1.0}, r"test_fraction is 1\.0"),
        ({"label": "a", "decimal": ";"}, "decimal is ';'"),
        ({"label": "a", "delimiter": "ab"}, "delimiter is 'ab'; write one character"),
        ({"label": "a", "numeric": ("b",), "drop": ("b",)}, "column 'b' is numeric and also"),
    ],
)
def test_settings_are_checked_before_anything_is_read(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        csv("nowhere.csv", **options)


# A real one

ADULT = (
    "age, workclass, fnlwgt, education, education_num, marital_status, occupation, relationship, race, sex, "
    "capital_gain, capital_loss, hours_per_week, native_country, income"
)


def test_adult_is_read_as_published() -> None:
    data = csv(
        real("adult/adult.data.gz"),
        label="income",
        key="occupation",
        drop=("fnlwgt",),
        columns=tuple(ADULT.split(", ")),
        comment="|",
        strip=".",
        test=real("adult/adult.test.gz"),
    ).load()
    assert data.test is not None
    assert (len(data.train), len(data.test), data.classes) == (32561, 16281, ("<=50K", ">50K"))
    assert data.train.y.sum() == 7841
    shared = partition_data(data, by_key(), Key.from_seed(0))
    assert shared.num_clients == 15
    assert shared.find_test_clients() == tuple(range(15))
    assert dict(zip(shared.names, shared.sizes().tolist(), strict=True))["Armed-Forces"] == 9
