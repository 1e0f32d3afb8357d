"""The terminal shows the headline and each party's row, whatever the window."""

import json
import re
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from hanse.cli import app
from hanse.cli.consoles import print_standing

NAMES = ("Ålesund & Sons", "St. Mary [north]", "hospital c")


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a table of three hospitals, of which the last is unlike the others, and settings."""
    folder, rng = tmp_path_factory.mktemp("hospitals"), np.random.default_rng(7)
    lines = ["hospital,age,pressure,outcome"]
    for name, count, sign in zip(NAMES, (220, 90, 60), (1, 1, -1), strict=True):
        for age, pressure in rng.normal(size=(count, 2)).round(3):
            ill = rng.random() < 1 / (1 + np.exp(-4 * sign * age))
            lines.append(f"{name},{age},{pressure},{'ill' if ill else 'well'}")
    (folder / "rows.csv").write_text("\n".join(lines), encoding="utf-8")
    (folder / "run.toml").write_text(
        """
rounds = 10
baselines = ["centralised", "on_site"]
algorithm = {name = "fed_avg", lr = 0.3, fraction = 1.0}
partition = {name = "by_key"}
[data]
name = "csv"
path = "rows.csv"
label = "outcome"
key = "hospital"
""",
        encoding="utf-8",
    )
    return folder


def invoke(*words: str) -> str:
    given = CliRunner().invoke(app, words, prog_name="hanse")
    assert given.exit_code == 0, given.output
    return given.stdout


def test_a_run_shows_who_lost_and_show_says_it_again(
    hospitals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(hospitals)
    said = invoke("run", "run.toml")
    assert "; hospital c lost " in said
    heads = next(line for line in said.splitlines() if line.startswith("party"))
    columns = "party  federation  gain in points  federated  on-site  centralised  examples  tests"
    assert re.sub(r" {2,}", "  ", heads) == columns
    for name in NAMES:
        assert any(line.startswith(name) for line in said.splitlines())
    run = said.split("hanse show ")[1].split()[0]
    shown = json.loads(invoke("show", run, "--json"))["result"]
    told, again = shown["assessment"], invoke("show", run)
    for text in (said, again):
        lines = [line.split() for line in text.splitlines()]
        for name in ("auroc", "balanced_accuracy", "log_loss"):
            one = told["metrics"][name]
            better = "higher" if one["higher_is_better"] else "lower"
            assert [name, *(f"{one[what]:.4f}" for what in ("value", "constant")), better] in lines
    at = next(i for i, line in enumerate(again.splitlines()) if line.startswith("true class"))
    table = [line.split() for line in again.splitlines()[at : at + 3]]
    assert table[0] == ["true", "class", "ill", "well"]
    assert [[int(count) for count in row[1:]] for row in table[1:]] == told["confusion_matrix"]
    assert sum(map(sum, told["confusion_matrix"])) == told["num_examples"]
    assert [row["party"] for row in shown["parties"]] == sorted(NAMES)
    assert [row["verdict"] for row in shown["parties"]][1] == "hurt"
    assert shown["headline"][0].startswith("federation helped")
    assert "; hospital c lost " in again
    assert heads in again


def printed(result: dict[str, Any], width: int) -> str:
    out = Console(width=width, record=True, highlight=False, file=StringIO())
    print_standing(out, result)
    return out.export_text()


def make_row(number: int, gain: float) -> dict[str, Any]:
    return {
        "party": f"party [b]{number}[/b]", "number": number, "examples": 40, "test_examples": 20,
        "federated": {"accuracy": 0.5}, "metric": "accuracy", "higher_is_better": True, "gain": gain,
        "gain_low": gain, "gain_high": gain, "verdict": "helped", "masked": [], "min_count": 5,
    }  # fmt: skip


@pytest.mark.parametrize("width", [60, 80, 120])
def test_columns_that_do_not_fit_are_left_out_and_named(width: int) -> None:
    said = printed(
        {"parties": [make_row(number, 0.3) for number in range(3)], "headline": ("a [b]c",)}, width
    )
    assert "A [b]c." in said
    assert "party [b]0[/b]  helped" in said
    assert "…" not in said
    assert all(len(line.rstrip()) <= width for line in said.splitlines())
    assert ("there is no room for" in said) == (width < 80)


def test_of_a_hundred_parties_twelve_are_shown() -> None:
    said = printed({"parties": [make_row(number, number / 100) for number in range(100)]}, 120)
    assert sum(line.startswith("party [b]") for line in said.splitlines()) == 12
    assert "of 100 parties" in said
    assert "88 between them are not" in said


def test_a_result_without_rows_prints_nothing() -> None:
    assert printed({}, 80) == ""
