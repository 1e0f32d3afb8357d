"""Guesses at messy files: each has a comment, and is marked and listed where only the owner can know."""

import json
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import hanse
from hanse.cli import app
from hanse.config import guess_parties
from hanse.core import InvalidInput
from hanse.data import csv, parquet, party_files

NUM_ROWS = 60


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HANSE_STORE", "runs.db")


def cli(*arguments: str, code: int = 0) -> Any:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == code, done.output
    return done


def table(delimiter: str = ",", **columns: Any) -> str:
    """Writes a table of functions of the row's number, with a label at its end."""
    made = {"x": lambda i: i * 7 % 11, **columns, "died": lambda i: "yes" if i % 5 > 2 else "no"}
    rows = [[str(cell(i)) for cell in made.values()] for i in range(NUM_ROWS)]
    quoted = [[f'"{cell}"' if delimiter in cell else cell for cell in row] for row in [[*made], *rows]]
    return "\n".join(map(delimiter.join, quoted)) + "\n"


def guessed(text: str, encoding: str = "utf-8") -> tuple[csv, str]:
    """Lets init guess at a file; returns the reader, and the settings file's text."""
    Path("t.csv").write_bytes(text.encode(encoding))
    cli("init", "t.csv")
    data = hanse.read("t.toml").data
    assert isinstance(data, csv)
    return data, Path("t.toml").read_text(encoding="utf-8")


def column(data: csv, name: str) -> list[float]:
    found: list[float] = data.rows("t.csv", None).columns[name].tolist()
    return found


def settle(text: str, name: str) -> bool:
    """Returns whether the guess at a setting is marked."""
    (line,) = (line for line in text.splitlines() if line.startswith(f"{name} = "))
    return "SETTLE THIS" in line


def test_limits_are_read_also_beside_decimal_commas() -> None:
    """One cell in three is a limit, so that most cells would not be numbers with decimal commas alone."""
    data, text = guessed(table(";", crp=lambda i: ("<5", ">100", f"{i},5")[i % 3]))
    assert (data.decimal, data.censored, data.drop) == (",", "limit", ())
    assert settle(text, "censored")
    assert '(crp: "<5", ">100")' in text
    due = {"limit": [5.0, 100, 2.5], "half": [2.5, 100, 2.5], "missing": [np.nan, np.nan, 2.5]}
    for censored, first in due.items():
        own = csv("t.csv", label="died", decimal=",", censored=censored)  # type: ignore[arg-type]
        assert column(own, "crp")[:3] == pytest.approx(first, nan_ok=True)
    with pytest.raises(
        InvalidInput, match=r"'crp' is '<5'; .* \(so in 40 cells\): write censored = \"missing\""
    ):
        csv("t.csv", label="died", decimal=",").load()
    with pytest.raises(InvalidInput, match="censored is 'zero'; write one of \"limit\""):
        csv("t.csv", censored="zero")  # type: ignore[arg-type]


def test_limits_with_decimal_commas_are_limits() -> None:
    """Once the comma is known, `<0,5` is no sign of it, and no word for a gap either."""
    data, text = guessed(table(";", crp=lambda i: "<0,5" if i % 10 == 0 else f"{i},5"))
    assert (data.decimal, data.censored) == (",", "limit")
    assert "<0,5" not in data.missing
    assert '(crp: "<0,5")' in text
    assert column(data, "crp")[0] == 0.5


def test_points_beside_decimal_commas_are_asked_about() -> None:
    """They are words then, and a column of many was left out as one that identifies rows."""
    data, text = guessed(
        table(";", crp=lambda i: f"{i},5", hb=lambda i: f"{i}.3", size=lambda i: f"1.{i % 4}")
    )
    assert (data.decimal, data.drop, data.categorical) == (",", ("hb",), ("size",))
    for name, word in (("hb", "0.3"), ("size", "1.0")):
        assert f'"{name}",   # SETTLE THIS: numbers with a point, such as "{word}", are words' in text


def test_init_says_which_class_metrics_are_about() -> None:
    _, text = guessed("x;died\n" + "".join(f"{i};{('nein', 'ja')[i % 2]}\n" for i in range(20)))
    assert 'classes = ["ja", "nein"]   # in this order' in text
    assert "f1 and others are about the last, 'nein'" in text


def test_ranges_stay_categories() -> None:
    data, _ = guessed(table(age=lambda i: ("<50", "50-70", ">70")[i % 3]))
    assert data.censored is None
    assert {*column(data, "age")} == {"<50", "50-70", ">70"}


def test_a_comma_that_nothing_explains_is_guessed_and_marked() -> None:
    for delimiter, first in ((";", 1.2), (",", 1200.0)):
        Path("t.toml").unlink(missing_ok=True)
        data, text = guessed(table(delimiter, cost=lambda i: f"{1 + i % 9},{200 + i}"))
        assert column(data, "cost")[0] == first
        assert settle(text, "decimal" if delimiter == ";" else "thousands")
        (note,) = json.loads(cli("data", "describe", "t.toml", "--json").stdout)["unsettled"]
        assert note.startswith("t.toml, line 1")
        Path("t.toml").write_text(text.replace("SETTLE THIS: ", ""))
        assert json.loads(cli("data", "describe", "t.toml", "--json").stdout)["unsettled"] == []


@pytest.mark.parametrize(
    ("form", "written", "is_sure"),
    [
        ("%d.%m.%Y", "{d:02}.{m:02}.2024", True),
        ("%Y-%m-%d", "2024-{m:02}-{d:02}", True),
        ("%m/%d/%Y", "{m:02}/{e:02}/2024", True),  # days beyond the twelfth
        ("%d/%m/%Y", "{d:02}/{m:02}/2024", False),
    ],
)
def test_dates_become_days(form: str, written: str, is_sure: bool) -> None:
    def day(i: int) -> str:
        return "NA" if i == 3 else written.format(d=1 + i % 12, e=1 + i % 28, m=1 + i % 2)

    data, text = guessed(table(seen=day))
    assert data.dates == {"seen": form}
    assert settle(text, "dates") != is_sure
    days = column(data, "seen")
    assert days[0] == (2024 - 2000) * 365 + 6  # six of these years are leap years
    assert np.isnan(days[3])
    with pytest.raises(
        InvalidInput, match=r"line 2: column 'seen' is '.*', which is no date of the form %Y,"
    ):
        csv("t.csv", label="died", dates={"seen": "%Y"}).load()


def test_words_for_gaps_are_gaps_also_among_words() -> None:
    data, text = guessed(
        table(smoker=lambda i: ("ja", "nein", "-", "n/a")[i % 4], n=lambda i: "." if i == 4 else i % 6)
    )
    assert {*column(data, "smoker")} == {"ja", "nein", ""}
    assert np.isnan(column(data, "n")[4])
    assert not settle(text, "missing")
    Path("t.toml").unlink()
    _, text = guessed(table(n=lambda i: "hemolysed" if i == 4 else i % 6))
    assert settle(text, "missing")


def test_an_encoding_that_can_not_be_told_is_marked() -> None:
    data, text = guessed(table(town=lambda i: ("Москва", "Тверь")[i % 2]), "cp1251")
    assert data.encoding == "latin-1"
    assert settle(text, "encoding")


def test_rows_without_a_label_are_left_out_and_said() -> None:
    text = table().replace("no\n", "\n", 1)
    data, said = guessed(text)
    assert (data.incomplete, data.classes) == ("skip", ("no", "yes"))
    assert settle(said, "incomplete")
    assert len(data.load().train) == round((NUM_ROWS - 1) * 0.8)


def test_classes_that_differ_by_capitals_only_are_marked() -> None:
    data, text = guessed(table().replace(",no\n", ",No\n", 3))
    assert data.classes == ("No", "no", "yes")
    assert settle(text, "classes")


# -- what would be read as something else without a word ---------------------------------------------


def marked(text: str, name: str) -> str:
    """Returns the line, or the entry of a list, that names a column or a setting and is marked."""
    return next(
        line for line in text.splitlines() if line.lstrip().startswith(name) and "SETTLE THIS" in line
    )


def rows(text: str, *columns: str) -> list[list[Any]]:
    data, _ = guessed(text)
    found = data.rows("t.csv", None)
    return [found.columns[name].tolist() for name in columns]


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_a_point_before_three_digits_is_asked_about(delimiter: str) -> None:
    data, text = guessed(table(delimiter, cost=lambda i: f"{1 + i % 9}.{200 + i}" if i % 3 else 100 + i))
    assert column(data, "cost")[:3] == [100, 2201, 3202]
    assert "2.201 is read as 2201; if it is a number with three decimals, remove the lines" in marked(
        text, "thousands"
    )
    both = [line for line in text.splitlines() if not line.startswith(("decimal", "thousands"))]
    Path("t.toml").write_text("\n".join(both))  # what the comment says, to the letter
    other = hanse.read("t.toml").data
    assert isinstance(other, csv)
    assert column(other, "cost")[:3] == [100, 2.201, 3.202]


def test_a_point_that_another_number_explains_is_not_asked_about() -> None:
    for more in (lambda i: f"0.{125 + i}", lambda i: f"{i}.5"):
        Path("t.toml").unlink(missing_ok=True)
        data, text = guessed(table(";", ph=lambda i: f"7.{200 + i}", more=more))
        assert (data.decimal, data.thousands, "SETTLE THIS: 7" in text) == (".", None, False)
        assert column(data, "ph")[1] == 7.201
    Path("t.toml").unlink()
    data, _ = guessed(table(ph=lambda i: f"7.{200 + i}"))  # a comma is between the cells
    assert column(data, "ph")[1] == 7.201


def test_both_marks_side_by_side_are_refused() -> None:
    text = table(";", cost=lambda i: f"1,{250 + i}" if i % 2 else f"1.{250 + i}")
    data, _ = guessed(text)
    assert data.drop == ("cost",)
    with pytest.raises(
        InvalidInput, match=r"which mark of 1,234 and 1\.234 is the decimal point can't be told"
    ):
        csv("t.csv", label="died").load()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_the_line_by_which_excel_names_the_delimiter_is_no_row(encoding: str) -> None:
    for delimiter in (";", "\t"):
        Path("t.toml").unlink(missing_ok=True)
        data, _ = guessed(f"sep={delimiter}\n" + table(delimiter, share=lambda i: f"{i},5"), encoding)
        assert (column(data, "share")[:2], len(column(data, "x"))) == ([0.5, 1.5], NUM_ROWS)
        assert data.load().classes == ("no", "yes")


@pytest.mark.parametrize(
    ("head", "tail"), [("Report of 2024\n\n", ""), ("Report of 2024,,\n", ""), ("", "Source: the archive\n")]
)
def test_a_line_that_is_no_row_is_left_out_and_marked(head: str, tail: str) -> None:
    data, text = guessed(head + table(n=lambda i: i % 6) + tail)
    assert data.comment == (head.strip(",\n") or tail.strip())
    assert [len(column(data, name)) for name in ("x", "n")] == [NUM_ROWS, NUM_ROWS]
    assert "is none of them a row?" in marked(text, "comment")


def test_a_title_above_cells_with_another_delimiter_is_left_out() -> None:
    data, _ = guessed("Report of 2024\n" + table(";"))
    assert (data.comment, len(column(data, "x"))) == ("Report of 2024", NUM_ROWS)


TOTALS = {
    "a word among numbers": (table(n=lambda i: i % 6) + "Total,150,yes\n", "remove it, or write comment"),
    "a word among words": (table(ward=lambda i: "AB"[i % 2]) + "300,Summe,\n", "holds totals|hold totals"),
    "sums without a word": (
        table(n=lambda i: i % 6) + f"{sum(i * 7 % 11 for i in range(60))},150,\n",
        "totals",
    ),
}


@pytest.mark.parametrize("case", TOTALS)
def test_a_row_of_totals_is_no_patient(case: str) -> None:
    text, message = TOTALS[case]
    Path("t.csv").write_text(text)
    with pytest.raises(InvalidInput, match=message) as caught:
        csv("t.csv", label="died").load()
    assert "t.csv, line 62: the last row" in str(caught.value)
    if case == "a word among numbers":
        data, settings = guessed(text)
        assert (data.comment, len(column(data, "x"))) == ("Total", NUM_ROWS)
        assert marked(settings, "comment")
    else:
        assert "line 62" in cli("init", "t.csv", code=2).stderr


def test_a_last_row_like_the_others_is_one() -> None:
    for last in ("5,total,yes\n", "5,,yes\n", "0,B,\n"):
        text = table(ward=lambda i: ("total", "part")[i % 2]) + last
        Path("t.csv").write_text(text)
        assert len(csv("t.csv", label="died", incomplete="skip").rows("t.csv", None)) == NUM_ROWS + 1


DATES = {
    "whole numbers": (lambda i: f"202403{1 + i % 28:02}", 8826.0, True),
    "months": (lambda i: f"{1 + i % 12:02}.2024", 8766.0, True),
    "without zeros": (lambda i: f"{1 + i % 28}.3.2024", 8826.0, False),
    "a word among them": (lambda i: "unknown" if i == 4 else f"{1 + i % 28:02}.03.2024", 8826.0, False),
}


@pytest.mark.parametrize("case", DATES)
def test_no_date_is_read_as_a_number_or_a_word(case: str) -> None:
    write, first, is_marked = DATES[case]
    data, text = guessed(table(";", seen=write))
    assert column(data, "seen")[0] == first
    assert settle(text, "dates") == is_marked
    assert data.missing[-1:] == ("unknown",) if case == "a word among them" else True


def test_dates_in_several_forms_are_left_out_and_marked() -> None:
    data, text = guessed(
        table(seen=lambda i: f"{1 + i % 28:02}.03.2024" if i % 2 else f"2024-03-{1 + i % 28:02}")
    )
    assert data.drop == ("seen",)
    assert "write all in one form" in marked(text, '"seen"')


CATEGORIES = {
    "codes with zeros": (lambda i: f"00{i % 9}", "look like codes"),
    "codes with an E": (lambda i: f"{i % 9}E0{i % 3}", "look like codes"),
    "answers in two ways": (
        lambda i: ("yes", "no", "1", "0", "")[i % 5],
        '"0" and "no" seem to mean the same',
    ),
    "mostly numbers": (
        lambda i: ("1", "0", "1", "0", "yes", "")[i % 6],
        '"1" and "yes" seem to mean the same',
    ),
    "capitals": (lambda i: ("Yes", "no", "YES")[i % 3], '"YES" and "Yes" seem to mean the same'),
    "a unit": (lambda i: f"{5 + i % 7} mg", 'numbers with a unit ("mg")'),
    "two units": (lambda i: f"{5 + i % 7} mg" if i % 2 else f"0.{5 + i % 7} g", '("g", "mg")'),
    "per cent": (lambda i: f"{80 + i % 20}%", 'numbers with a unit ("%")'),
}


@pytest.mark.parametrize("case", CATEGORIES)
def test_cells_that_are_no_plain_numbers_or_words_are_marked(case: str) -> None:
    write, why = CATEGORIES[case]
    data, text = guessed(table(own=write))
    assert data.categorical == ("own",)
    assert why in marked(text, '"own"')
    assert {*column(data, "own")} == {str(write(i)) for i in range(NUM_ROWS)}
    assert data.load().classes == ("no", "yes")


def test_numbers_that_stand_for_gaps_are_marked() -> None:
    data, text = guessed(table(n=lambda i: -999 if i % 7 == 0 else i % 30, m=lambda i: 90 + i % 11))
    assert np.isnan(column(data, "n")[0])
    assert column(data, "m")[9] == 99  # it lies among the others
    assert "-999 lies far from the other numbers of n" in marked(text, "missing")
    Path("t.toml").unlink()
    data, _ = guessed(table(";", n=lambda i: -999 if i % 7 == 0 else i % 30, m=lambda i: f"{i},5"))
    assert (data.decimal, column(data, "n")[1]) == (",", 1)
    assert np.isnan(column(data, "n")[0]), "also beside decimal commas"
    Path("t.toml").unlink()
    data, _ = guessed(table(n=lambda i: -999 if i % 7 == 0 else i % 30, m=lambda i: -999 + i % 30))
    assert column(data, "n")[0] == -999  # a gap there would be one in m, where it is a number


@pytest.mark.parametrize("name", ["patient_id", "PatientenNr", "Fall-Nr", "MRN", "patient"])
def test_rows_of_one_patient_stay_together(name: str) -> None:
    for write in (lambda i: 1000 + i // 3, lambda i: f"P{i // 3}"):
        Path("t.toml").unlink(missing_ok=True)
        data, text = guessed(table(**{name: write}))
        assert (data.group, data.drop) == (name, ())
        assert "20 persons or cases have 60 rows" in marked(text, "group = ")
        assert data.load().train.x.dtype.names == ("x",)


def test_kinds_of_patients_are_no_patients() -> None:
    for columns in ({"patient": lambda i: ("in", "out")[i % 2]}, {"ward_id": lambda i: i % 3}):
        Path("t.toml").unlink(missing_ok=True)
        assert guessed(table(**columns))[0].group is None


def test_parquet_has_dates_decimals_and_categories() -> None:
    arrow, files = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    days = [date(2024, 3, 1 + i % 28) for i in range(NUM_ROWS)]
    columns = {
        "seen": days,
        "cost": [Decimal(i) / 4 for i in range(NUM_ROWS)],
        "ward": arrow.array(["AB"[i % 2] for i in range(NUM_ROWS)]).dictionary_encode(),
        "at": [datetime(2000, 1, 2, 12 + i) for i in range(3)] * 10 + [None] * 30,
        "died": [("no", "yes")[i % 2] for i in range(NUM_ROWS)],
    }
    files.write_table(arrow.table(columns), "t.parquet")
    cli("init", "t.parquet")
    data = hanse.read("t.toml").data
    assert isinstance(data, parquet)
    found = data.rows("t.parquet", None).columns
    assert (found["seen"][0], found["cost"][3], found["ward"][1]) == (8826, 0.75, "B")
    assert found["at"][0] == 1.5
    assert np.isnan(found["at"][30])
    named = parquet("t.parquet", label="died", categorical=("seen",)).rows("t.parquet", None).columns
    assert named["seen"][0] == "2024-03-01"


# -- where files are, and files of several parties ---------------------------------------------------


def test_paths_start_at_the_folder_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("data", "settings", "elsewhere"):
        (tmp_path / folder).mkdir()
    Path("data/t.csv").write_text(table())
    cli("init", "data/t.csv", "--to", "settings/t.toml")
    assert 'path = "../data/t.csv"' in Path("settings/t.toml").read_text()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run = json.loads(cli("run", "../settings/t.toml", "--set", "rounds=1", "--json").stdout)
    assert run["status"] == "completed"
    Path("near.csv").write_text(table())
    (tmp_path / "near.toml").write_text('data = {name = "csv", path = "near.csv", label = "died"}')
    with pytest.warns(UserWarning, match="'near.csv', which is in the current folder and not in that of"):
        assert hanse.read(tmp_path / "near.toml").data == csv("near.csv", label="died")
    (tmp_path / "near.csv").write_text(table())
    assert hanse.read(tmp_path / "near.toml").data == csv(str(tmp_path / "near.csv"), label="died")


def parties(**files: str) -> party_files:
    for name, text in files.items():
        Path(f"{name}.csv").write_text(text)
    cli("init", *(f"{name}.csv" for name in files), "--to", "all.toml")
    data = hanse.read("all.toml").data
    assert isinstance(data, party_files)
    return data


def test_files_without_a_column_in_common_are_refused() -> None:
    Path("north.csv").write_text("a,b\n1,2\n3,4\n")
    Path("south.csv").write_text("c,d\n1,2\n3,4\n")
    with pytest.raises(InvalidInput, match=r"no column is left to predict; left out: a \(south has no such"):
        guess_parties(["north.csv", "south.csv"])


def test_a_class_has_one_number_at_all_parties() -> None:
    """The first file lacks the class that would be class 0."""
    text = table()
    north = "\n".join(line for line in text.splitlines() if not line.endswith(",no")) + "\n"
    data = parties(north=north, west=text)
    assert data.classes == ("no", "yes")
    assert "north has no 'no'" in Path("all.toml").read_text()
    found = data.load()
    assert found.keys is not None
    assert {*found.train.y[found.keys == "north"].tolist()} == {1}
    assert found.train.y[found.keys == "west"].tolist() == [int(i % 5 > 2) for i in range(NUM_ROWS)]


def test_columns_that_parties_write_in_different_ways() -> None:
    codes = table(code=lambda i: "AB"[i % 2], more=lambda i: i % 3)
    data = parties(north=codes, west=table(code=lambda i: i % 2))
    assert (data.drop, data.categorical) == (("more",), ("code",))
    text = Path("all.toml").read_text()
    assert '"more",   # west has no such column' in text
    assert '"code",   # SETTLE THIS: numbers in some files and words in others' in text
    assert {*data.load().train.x["code"].tolist()} == {"A", "B", "0", "1"}
    with pytest.raises(
        InvalidInput, match=r"west.csv has no column 'more', which .*north.csv has; write drop"
    ):
        party_files(".", label="died", categorical=("code",), parties=data.parties).load()
    with pytest.raises(InvalidInput, match=r"'code' holds words in north.csv and numbers in west.csv"):
        party_files(".", label="died", drop=("more",), parties=data.parties).load()


def test_words_that_parties_write_in_two_ways_are_marked() -> None:
    parties(
        north=table(
            smoker=lambda i: ("ja", "nein")[i % 2], ward=lambda i: "AB"[i % 2], sex=lambda i: "mf"[i % 2]
        ),
        west=table(
            smoker=lambda i: ("yes", "no")[i % 2], ward=lambda i: "CD"[i % 2], sex=lambda i: "mf"[i % 2]
        ),
    )
    text = Path("all.toml").read_text()
    assert "'ja' and 'yes' seem to mean the same" in marked(text, '"smoker"')
    assert "no two files have a word in common" in marked(text, '"ward"')
    assert '"sex"' not in text
    unsettled = json.loads(cli("data", "describe", "all.toml", "--json").stdout)["unsettled"]
    assert any('"smoker": ' in line for line in unsettled)


def test_the_remedy_for_a_column_that_one_file_lacks_can_be_followed() -> None:
    """The label can't be left out, and a column that is a date somewhere is no category."""
    Path("north.csv").write_text(table(seen=lambda i: f"2024-03-{1 + i % 28:02}"))
    Path("west.csv").write_text(table(seen=lambda i: "spring").replace("died", "dead"))
    readers: dict[str, Any] = {"north": csv("north.csv", dates={"seen": "%Y-%m-%d"}), "west": csv("west.csv")}
    with pytest.raises(
        InvalidInput, match=r"west.csv has no column 'died', .*; give this column the same name"
    ):
        party_files(".", label="died", parties=readers, drop=("seen",)).load()
    Path("west.csv").write_text(Path("west.csv").read_text().replace("dead", "died"))
    with pytest.raises(InvalidInput, match=r"write drop = \[\"seen\"\], or mend one of the files") as caught:
        party_files(".", label="died", parties=readers).load()
    assert "categorical" not in str(caught.value)
    assert party_files(".", label="died", parties=readers, drop=("seen",)).load().train.x.dtype.names == (
        "x",
    )


def test_messages_name_the_file_and_the_line_of_a_party() -> None:
    data = parties(north=table(), west=table())
    Path("west.csv").write_text(table().replace(",no\n", ",\n", 1))
    with pytest.raises(InvalidInput, match=r"^west.csv, line 2: column 'died' is empty"):
        data.load()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"parties": {}}, "parties is empty"),
        ({"test": "t.csv"}, "takes no file for test; write test_fraction"),
        ({"parties": {"a": csv("a.csv", label="died")}}, "a has a setting label of its own; write it beside"),
        ({"parties": {"a": csv("a.csv", key="b")}}, "a has a setting key of its own; leave it out"),
    ],
)
def test_party_files_refuse_what_means_nothing(settings: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        party_files(".", **{"label": "died", "parties": {"a": csv("a.csv")}, **settings})


def test_init_refuses_what_it_can_not_do() -> None:
    Path("a.csv").write_text(table())
    Path("b.csv").write_text(table())
    assert "two files are called a" in cli("init", "a.csv", "a.csv", code=2).stderr
    assert "--key names a column of one file" in cli("init", "a.csv", "b.csv", "--key", "x", code=2).stderr
    assert "--client takes one file" in cli("init", "a.csv", "b.csv", "--client", code=2).stderr
