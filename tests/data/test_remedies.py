"""Remedies in messages about files: each is followed to the letter, and must not make other data of them."""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hanse.core import Array, InvalidInput
from hanse.data import TrainTest, csv

NUM_ROWS = 60
RNG = np.random.default_rng(4)
BEDS, COST = RNG.integers(5, 40, NUM_ROWS), RNG.integers(1000, 9999, NUM_ROWS)
SHARE = (2 * RNG.integers(1, 500, NUM_ROWS) + 1) / 100
SICK = np.where(BEDS > 20, "ja", "nein")
TRUTH: Mapping[str, Array] = {"beds": BEDS, "cost": COST, "share": SHARE}
"""The numbers that each file means, whatever they look like in it."""

SETTING = r'[a-z_]+ = (?:"(?:[^"\\]|\\.)*"|\[[^\].]*\])'


@dataclass(frozen=True)
class Messy:
    """A file as people save it, and what is true of it.

    Args:
      content: its bytes.
      asked: the settings that its owner began with.
      gaps: the rows that have no number, by column.
      skipped: the rows that may be left out.
      more: the words in further columns.
    """

    content: bytes
    asked: Mapping[str, Any] = field(default_factory=dict)
    gaps: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    skipped: tuple[int, ...] = ()
    more: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def table(
    delimiter: str = ",",
    *,
    encoding: str = "utf-8",
    labels: Any = SICK,
    more: Mapping[str, Any] | None = None,
    **write: Callable[[Any], str],
) -> bytes:
    """Writes the truth; `write` formats the numbers of a column."""
    columns = {**(more or {}), **TRUTH, "y": labels}
    lines = [delimiter.join(columns)]
    for row in range(NUM_ROWS):
        cells = [write.get(name, str)(column[row]) for name, column in columns.items()]
        lines.append(delimiter.join(f'"{cell}"' if delimiter in cell else cell for cell in cells))
    return ("\n".join(lines) + "\n").encode(encoding)


def group(mark: str) -> Callable[[Any], str]:
    return lambda number: f"{number:,}".replace(",", mark)


def comma(number: Any) -> str:
    return str(number).replace(".", ",")


def comma_and_point(number: Any) -> str:
    return f"{number:,.2f}".translate(str.maketrans(",.", ".,"))


def in_row_5(word: str) -> Callable[[Any], str]:
    return lambda number: word if number == COST[5] else str(number)


WARDS = ("Süd", "Höhe", "Nord")
wards = tuple(WARDS[row % 3] for row in range(NUM_ROWS))
ROWS_5 = tuple(np.flatnonzero(COST[5] == COST).tolist())
empty_in_3 = ["NaN" if row == 3 else str(word) for row, word in enumerate(SICK)]
codes = tuple(str(20095 + 7 * (row % 20)) for row in range(NUM_ROWS))

FILES = {
    "thousands separated by commas": Messy(table(cost=group(","))),
    "thousands, and decimals": Messy(table(";", cost=group(","))),
    "thousands separated by spaces": Messy(table(cost=group(" "))),
    "thousands separated by hard spaces": Messy(table(cost=group("\u202f"))),
    "thousands separated by quotes": Messy(table(cost=group("'"))),
    "decimal commas": Messy(table(";", share=comma)),
    "decimal commas in quotes": Messy(table(",", share=comma)),
    "decimal commas and thousands": Messy(table(";", share=comma, cost=comma_and_point)),
    "decimal commas, and thousands elsewhere": Messy(table(";", share=comma, cost=group("."))),
    "thousands and decimals in each number": Messy(table(cost=lambda number: f"{number:,.1f}")),
    "a word for a small number": Messy(table(cost=in_row_5("<5")), gaps={"cost": ROWS_5}),
    "a word and the usual ones": Messy(
        table(cost=in_row_5("<5"), beds=lambda n: "NA" if n == BEDS[0] else str(n)),
        gaps={"cost": ROWS_5, "beds": tuple(np.flatnonzero(BEDS[0] == BEDS).tolist())},
    ),
    "UTF-16": Messy(table("\t", encoding="utf-16")),
    "UTF-16 without a mark": Messy(table("\t", encoding="utf-16-le")),
    "Windows": Messy(table(encoding="cp1252", more={"ward": wards}), more={"ward": wards}),
    "row numbers without a name": Messy(table(more={"": tuple(map(str, range(NUM_ROWS)))})),
    "case numbers": Messy(table(more={"Fall-Nr": tuple(str(9000 + row * 31) for row in range(NUM_ROWS))})),
    "names of persons": Messy(table(more={"who": tuple(f"P{row}" for row in range(NUM_ROWS))})),
    "postcodes": Messy(table(more={"PLZ": codes}), more={"PLZ": codes}),
    "an empty label": Messy(table(labels=empty_in_3), skipped=(3,)),
    "another delimiter": Messy(table(";"), {"delimiter": "|", "columns": ()}),
    "the delimiter in a line of its own": Messy(b"sep=;\n" + table(";")),
    "a title": Messy(b"Costs of 2024\n\n" + table()),
    "a title above other delimiters": Messy(b"Costs of 2024\n" + table(";")),
    "a note at the end": Messy(table() + b"Source: the archive\n"),
    "a row of totals": Messy(table() + b"Total,0,0,ja\n"),
    "two columns to drop": Messy(
        table(more={"who": tuple(f"P{row}" for row in range(NUM_ROWS))}), {"drop": ("share",)}
    ),
}  # fmt: skip


def remedies(message: str) -> Iterator[dict[str, Any]]:
    """Yields what a message tells to write: each setting, and those that it joins by "and"."""
    for found in re.finditer(rf"{SETTING}(?: and {SETTING})*", message):
        parts = [tomllib.loads(part) for part in re.findall(SETTING, found[0])]
        whole: dict[str, Any] = {}
        for part in parts:
            whole |= {name: tuple(said) if isinstance(said, list) else said for name, said in part.items()}
        yield whole
        if len(parts) > 1:
            yield from ({name: said} for name, said in whole.items())


def follow(path: str, asked: Mapping[str, Any], depth: int = 0) -> Iterator[tuple[dict[str, Any], TrainTest]]:
    """Yields the data that a file gives, for each way of following the messages about it to the letter."""
    assert depth < 6, f"the messages lead in a circle: {asked}"
    try:
        yield dict(asked), csv(path, **{"label": "y", "test_fraction": 0.0, **asked}).load()
    except InvalidInput as error:
        for setting in remedies(str(error)):
            if {**asked, **setting} == asked:
                pytest.fail(f"{error}: that was done already")
            yield from follow(path, {**asked, **setting}, depth + 1)


def check(data: TrainTest, messy: Messy, rows: Array) -> None:
    """Assert that the data are the truth, but for gaps and columns that were left out."""
    assert data.classes == ("ja", "nein")
    np.testing.assert_array_equal(np.array(data.classes)[data.train.y], SICK[rows])
    for name in data.train.x.dtype.names or ():
        column = data.train.x[name]
        if name in messy.more:
            assert column.tolist() == [messy.more[name][row] for row in rows]
        elif column.dtype.kind == "U":  # kept as categories on purpose
            assert name in ("who", "cost")
        elif name in TRUTH:
            due = TRUTH[name].astype(float)
            due[list(messy.gaps.get(name, ()))] = np.nan
            np.testing.assert_allclose(column, due[rows], rtol=1e-12)


@pytest.mark.parametrize("messy", FILES.values(), ids=FILES.keys())
def test_each_remedy_gives_the_data_that_are_meant(messy: Messy, tmp_path: Path) -> None:
    path = tmp_path / "messy.csv"
    path.write_bytes(messy.content)
    ways = list(follow(str(path), messy.asked))
    assert ways, "no remedy reads the file"
    for settings, data in ways:
        numeric = {*settings.get("numeric", ())}
        kept = np.delete(np.arange(NUM_ROWS), messy.skipped if "incomplete" in settings else ())
        if not numeric & {"PLZ"}:
            check(data, messy, kept)
    whole = [data for settings, data in ways if {"beds", "cost"} <= {*(data.train.x.dtype.names or ())}]
    assert whole, "each remedy leaves a column out"


ROLES: dict[str, dict[str, Any]] = {
    "a column that has to be numbers": {"numeric": ("cost",)},
    "a column to predict": {"target": "cost", "label": None, "drop": ("y",)},
    "a column of dates": {"dates": {"cost": "%Y"}},
    "a feature": {},
}


@pytest.mark.parametrize("word", ["<5", "low"])
@pytest.mark.parametrize("role", ROLES)
def test_no_remedy_gives_a_column_two_roles(role: str, word: str, tmp_path: Path) -> None:
    path, asked = tmp_path / "messy.csv", {"label": "y", "test_fraction": 0.0, **ROLES[role]}
    path.write_bytes(table(cost=in_row_5(word)))
    with pytest.raises(InvalidInput) as caught:
        csv(str(path), **asked).load()
    found = list(remedies(str(caught.value)))
    assert found
    for setting in found:
        following = csv(str(path), **{**asked, **setting})  # whether the settings stand together
        if "missing" in setting or "censored" in setting:
            settled = {"incomplete": "skip"} if role == "a column to predict" else {}
            assert "cost" in following.rows(str(path), None).columns
            assert len(csv(str(path), **{**asked, **setting, **settled}).load().train) >= NUM_ROWS - len(
                ROWS_5
            )
        else:
            assert len(following.load().train) == NUM_ROWS


def test_an_answer_among_codes_is_first_of_all_a_category(tmp_path: Path) -> None:
    path = tmp_path / "messy.csv"
    path.write_bytes(
        table(more={"smoker": tuple(("1", "0", "1", "yes")[row % 4] for row in range(NUM_ROWS))})
    )
    with pytest.raises(InvalidInput, match="column 'smoker' is 'yes'") as caught:
        csv(str(path), label="y").load()
    assert next(remedies(str(caught.value))) == {"categorical": ("smoker",)}


CHOICES = {
    "numbers of three decimals or thousands": (
        "\n".join(["beds;cost;y", *map("{};{:,};{}".format, BEDS, COST, SICK)]).encode(),
        "whether 1,234 is 1234 or 1.234 can't be told",
    ),
    "an encoding of DOS": (
        table(encoding="cp850", more={"ward": wards}),
        "can't be told; save the file as UTF-8",
    ),
    "Cyrillic": (
        table(encoding="cp1251", more={"ward": ("Москва", "Тверь") * (NUM_ROWS // 2)}),
        "can't be told; save the file as UTF-8",
    ),
    "rows with another delimiter than the names": (
        table(";").replace(b"beds;cost;share;y", b"beds,cost,share,y"),
        "separate all lines by ','",
    ),
}


@pytest.mark.parametrize(("content", "words"), CHOICES.values(), ids=CHOICES.keys())
def test_what_only_the_owner_knows_is_asked(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "messy.csv"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=re.escape(words)) as caught:
        csv(str(path), label="y").load()
    assert not list(remedies(str(caught.value)))


def test_stripping_is_offered_where_it_changes_labels_alone(tmp_path: Path) -> None:
    """As in Adult, whose test file has a point behind each label."""
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    train.write_text("job,y\ncook,<=50K\nnurse,>50K\n")
    for job, y, offered in (("cook", "50K.", True), ("St.", "50K.", False), ("cook", "50K.0", True)):
        test.write_text(f"job,y\n{job},<={y}\nnurse,>{y}\n")
        with pytest.raises(InvalidInput, match="which is not a class") as caught:
            csv(str(train), label="y", test=str(test)).load()
        found = list(remedies(str(caught.value)))
        assert bool(found) == offered
        for setting in found:
            data = csv(str(train), label="y", test=str(test), **setting).load()
            assert data.test is not None
            assert (data.classes, data.test.y.tolist()) == (("<=50K", ">50K"), [0, 1])
            assert data.test.x["job"].tolist() == [job, "nurse"]
    train.write_text("job,y\ncook,1\nnurse,10\n")  # stripping would make 1 of 10
    test.write_text("job,y\ncook,1a0\nnurse,10a0\n")
    with pytest.raises(InvalidInput, match="'1a0', which is not a class") as caught:
        csv(str(train), label="y", test=str(test)).load()
    assert not list(remedies(str(caught.value)))
