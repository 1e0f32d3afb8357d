"""NumPy and `csv` read the same columns and give the same messages, however many lines they take."""

import random
from pathlib import Path
from typing import Any

import pytest

from hanse.core import InvalidInput
from hanse.data import csv
from hanse.data.delimited import cells

NUMBERS = ["1", "2.5", "-3e4", "0", " 7", "1e-3", "+4", "8.25 ", "-0.0", "123456789.123456789"]
WORDS = ["cook", "nurse", " a", "b ", "", "NA", '"x y"', "7", "1.0", "é"]
ODD = [
    *("", "NA", "nan", "1_0", "inf", "x", '"5"', '"a,b"', '"l\n2"', '"q""r"', ' "q"', 'a"b', "?", "1,234"),
    *("\u0661", "\xa03", "1e999", "1e200", "0x1", "3\x0b", "\x85", "3 4", "1d5", "2\x00"),
]


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[bool]:
    """Notes for each group of lines whether NumPy read it."""
    monkeypatch.chdir(tmp_path)
    found: list[bool] = []
    read_plainly = cells._read_plainly

    def note(*args: Any) -> bool:
        found.append(read_plainly(*args))
        return found[-1]

    monkeypatch.setattr(cells, "_read_plainly", note)
    return found


def read(data: csv, lines: int, num_cells: int = 2**18) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "CHUNK", lines)
        patch.setattr(cells, "CHUNK_CELLS", num_cells)
        patch.setattr(cells, "LINE_CELLS", 8 * num_cells)
        try:
            rows = data.rows(data.path, None)
        except InvalidInput as error:
            return str(error)
    columns = {name: (str(cells.dtype), cells.tobytes()) for name, cells in rows.columns.items()}
    return columns, rows.lines.tolist()


def write(draw: random.Random) -> csv:
    """Writes a small file, in most cases with something odd in it."""
    width, odd = draw.randint(1, 5), draw.choice([0, 0, 0.02, 0.1])
    kinds = [draw.choice([NUMBERS, NUMBERS, NUMBERS, WORDS]) for _ in range(width)]
    lines = [",".join(f"c{i}" for i in range(width))]
    for _ in range(draw.randint(0, 40)):
        row = [draw.choice(ODD if draw.random() < odd else kind) for kind in kinds]
        if draw.random() < odd / 3:
            row = draw.choice([row[:-1], [*row, "9"]])
        lines.append(",".join(row))
        if draw.random() < odd / 2:
            lines.append(draw.choice(["", "  ", "," * (width - 1), "# c"]))
    end = draw.choice(["\n", "\r\n", "\r"])
    Path("f.csv").write_text(end.join(lines) + draw.choice(["", end]), "utf-8", newline="")
    options: dict[str, Any] = {"comment": "#"} if draw.random() < 0.2 else {}
    options |= draw.choice([{}, {}, {"drop": ("c0",)}, {"categorical": ("c0",)}, {"numeric": ("c0",)}])
    options |= draw.choice([{}, {}, {}, {"missing": ("7", "NA")}, {"decimal": ","}])
    return csv("f.csv", label="none of them", **options)


def test_numpy_and_csv_read_the_same(plain: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(250):
        draw = random.Random(seed)
        data = write(draw)
        whole = read(data, 8192)  # csv reads the first lines, so all of them
        assert read(data, draw.choice([1, 2, 5]), draw.choice([1, 3, 7, 100])) == whole, seed
    assert 200 < sum(plain) < len(plain) - 200


def test_a_file_of_numbers_and_words_is_read_by_numpy(plain: list[bool]) -> None:
    lines = "".join(f"{i},{i / 8},w{i % 3}\n" for i in range(50))
    Path("f.csv").write_text("a,b,c\n" + lines)
    data = csv("f.csv", label="c")
    assert read(data, 10) == read(data, 8192)
    assert plain == [True] * 4  # but for the first lines


def test_columns_with_gaps_do_not_keep_the_others_from_numpy(plain: list[bool]) -> None:
    lines = "".join(f"{i},{i / 8 if i % 5 else 'NA'}\n" for i in range(50))
    Path("f.csv").write_text("a,b\n" + lines)
    read(csv("f.csv", label="b", categorical=()), 10)
    assert plain == [True] * 4


def test_of_a_wide_file_few_cells_are_held_as_text(
    plain: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 0
    add = cells._add

    def note(held: list[str], columns: Any) -> None:
        nonlocal most
        most = max(most, len(held))
        add(held, columns)

    monkeypatch.setattr(cells, "_add", note)
    row = ",".join(['"1"'] * 100) + "\n"  # in quotes, so that csv reads them
    Path("f.csv").write_text(",".join(f"c{i}" for i in range(100)) + "\n" + row * 90)
    found = read(csv("f.csv", label="c0"), 8192, 1000)
    assert len(found[1]) == 90
    assert most == 1000
    assert len(plain) < 5


@pytest.mark.parametrize("word", [*ODD, "Infinity", "1__0"])
def test_one_odd_cell_among_numbers_is_read_the_same(plain: list[bool], word: str) -> None:
    rows = [f"{i},{i / 8}\n" for i in range(40)]
    rows[20] = f"{word},1\n"
    Path("f.csv").write_text("a,b\n" + "".join(rows), newline="")
    data = csv("f.csv", label="b")
    found = read(data, 8192)
    assert read(data, 4) == found
    if word in ("1_0", "inf", "Infinity"):
        assert f"column 'a' is {word!r}, and 39 other cells of it are numbers" in found
