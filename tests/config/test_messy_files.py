"""Guesses at messy files: each has a comment, and is marked and listed where only the owner can know."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import hanse
from hanse.cli import app
from hanse.core import InvalidInput
from hanse.data import csv, party_files

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
