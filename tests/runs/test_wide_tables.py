"""What is done before the first round grows with the number of columns, not with its square."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hanse.algorithms import fed_avg
from hanse.config import Experiment
from hanse.data import csv, iid
from hanse.learners import softmax
from hanse.preprocessing import Encoder, Schema
from hanse.preprocessing.vocabularies import Vocabulary
from hanse.runs import prepare_run


class Name(str):
    """A name that counts how often it is compared."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        Name.compared += 1
        return str.__eq__(self, other)  # type: ignore[arg-type]

    __hash__ = str.__hash__


def names(num: int, of: str = "c") -> tuple[str, ...]:
    return tuple(Name(f"{of}{i}") for i in range(num))


def write(path: Path, num: int) -> csv:
    """Writes a table; of its columns a quarter are words, and a quarter each are dropped or made numbers."""
    draw = np.random.default_rng(0)
    words = [f"w{i}" for i in range(num // 4)]
    lines = [",".join([*(f"c{i}" for i in range(num)), *words, "y"])]
    for i in range(20):
        row = [*(f"{x:.3f}" for x in draw.normal(size=num)), *(f"v{(i + j) % 3}" for j in range(num // 4))]
        lines.append(",".join([*row, "ab"[i % 2]]))
    path.write_text("\n".join(lines))
    quarter = num // 4
    return csv(
        str(path),
        label="y",
        drop=names(num)[:quarter],
        numeric=names(num)[quarter : 2 * quarter],
        categorical=names(quarter, "w"),
    )


def count_calls(data: csv) -> tuple[int, int]:
    """Prepares a run; returns the number of calls of functions, and of comparisons of names."""
    calls = 0

    def count(frame: Any, event: str, arg: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    experiment = Experiment(
        data=data,
        partition=iid(4),
        model=softmax(),
        algorithm=fed_avg(),
        rounds=1,
    )
    Name.compared = 0
    before = sys.getprofile()
    sys.setprofile(count)
    try:
        prepare_run(experiment)
    finally:
        sys.setprofile(before)
    return calls, Name.compared


def test_preparing_twice_the_columns_takes_twice_the_calls(tmp_path: Path) -> None:
    count_calls(write(tmp_path / "0.csv", 40))  # imports what is needed
    few, many = (count_calls(write(tmp_path / f"{num}.csv", num)) for num in (200, 400))
    assert few[0] > 10_000
    assert many[0] < 2.05 * few[0]
    assert many[1] <= 2.05 * few[1] + 100


@pytest.mark.parametrize("method", ["numbers_in", "find_empty_columns", "find_new_columns"])
def test_a_table_in_another_order_is_compared_name_by_name(method: str) -> None:
    def compare(num: int) -> int:
        schema = Schema(names(num), names(num, "w"))
        whole = np.empty(0)
        known = (Vocabulary(("1",)),) * num
        own: Any = schema if method == "numbers_in" else Encoder(schema, whole, whole, whole, known)
        table = np.ones(
            3, [(name, "U1") for name in names(num, "w")[::-1]] + [(n, float) for n in names(num)[::-1]]
        )
        Name.compared = 0
        getattr(own, method)(table)
        return Name.compared

    few, many = compare(100), compare(200)
    assert many <= 2.05 * few + 10
    assert few < 2_000


def test_roles_of_many_columns_are_compared_once() -> None:
    Name.compared = 0
    csv("f.csv", label="y", drop=names(400), categorical=names(400, "w"))
    assert Name.compared < 4_000
