"""Terminals of 60, 80 and 120 columns: what does not fit is left out whole and named; pipes get all of it."""

import os
from pathlib import Path

import pytest
from forked import PIPE, python
from rich.console import Console
from windows import WIDTHS, type_in_window

import hanse
from hanse.audits import AuditResult
from hanse.cli import audit_views, consoles
from hanse.columns import Columns
from hanse.data import dirichlet
from hanse.evaluation import centralised, on_site

SWEEP = """
rounds = 1
evaluate_every = 1
[sweep]
seeds = [0, 1]
[sweep.over]
"algorithm" = [{ name = "fed_avg", epochs = 2, fraction = 0.5 }, "fed_sgd"]
"""

HEADS = {
    "ls": ("run", "begun", "status", "round", "final", "what"),
    "show": ("round", "loss", "accuracy", "clients", "dropped", "bytes up", "bytes down", "time"),
    "run": ("accuracy", "loss", "clients: mean accuracy", "worst tenth accuracy", "bytes", "seconds"),
    "doctor": ("extra", "for", "state"),
    "sweep": ("best accuracy", "final accuracy", "bytes up", "bytes down", "time"),
    "data": ("client", "examples", "labels", "tests"),
    "plan": ("stage", "bytes", "of raw"),
}
"""The columns of a table of each command."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with a store that has a run, and the settings of a sweep that was performed."""
    folder = tmp_path_factory.mktemp("work")
    hanse.run(
        rounds=2, partition=dirichlet(12, 0.5), client_test_fraction=0.2, store=folder / "runs.db",
        baselines=(centralised(), on_site()),
    )  # fmt: skip
    (folder / "sweep.toml").write_text(SWEEP, encoding="utf-8")
    (folder / "run.toml").write_text(
        'rounds = 1\nclient_test_fraction = 0.2\nbaselines = ["centralised", "on_site"]\n'
        'partition = { name = "dirichlet", num_clients = 12 }\n'
        'algorithm = { name = "fed_avg", uplink = [{ name = "clip", max_norm = 1.0 }] }\n',
        encoding="utf-8",
    )
    return folder


def list_words(name: str, folder: Path) -> list[str]:
    kept = ["--store", str(folder / "runs.db")]
    run = hanse.store.Runs(folder / "runs.db").infos()[-1].run
    return {
        "ls": ["ls", *kept],
        "show": ["show", run, *kept],
        "run": ["run", "run.toml", "--store", str(folder / "others.db")],
        "doctor": ["doctor", *kept],
        "sweep": ["sweep", "sweep.toml", "--workers", "1", "--store", str(folder / "sweep.db")],
        "data": ["data", "describe", "run.toml"],
        "plan": ["plan", "run.toml"],
    }[name]


@pytest.mark.parametrize("name", HEADS)
def test_columns_that_do_not_fit_are_left_out_and_named(name: str, folder: Path) -> None:
    words = list_words(name, folder)
    for width in WIDTHS:
        lines = type_in_window(width, *words, cwd=folder)
        text = "\n".join(lines)
        left_out = " ".join(" ".join(text.split()).split("there is no room for ")[1:])
        for head in HEADS[name]:
            assert any(head in line for line in lines if "no room" not in line) or head in left_out, head
    assert "there is no room" not in text  # in the widest window


def test_a_pipe_gets_all_columns(folder: Path) -> None:
    env = {**os.environ, "COLUMNS": "60"}
    words = list_words("show", folder)
    with python("-m", "hanse", *words, cwd=folder, env=env, stdout=PIPE, stderr=PIPE) as process:
        piped, said = process.communicate(60)
    assert process.returncode == 0, said
    assert "there is no room" not in piped
    assert all(head in piped for head in (*HEADS["show"], *HEADS["run"]))
    assert not any(line.endswith(" ") for line in piped.splitlines())


def render(table: Columns, width: int) -> list[str]:
    console = Console(width=width, color_system=None, highlight=False)
    with console.capture() as captured:
        console.print(table)
    return [line.rstrip() for line in captured.get().splitlines()]


def test_what_matters_least_goes_first() -> None:
    table = Columns("run", "loss", "note", "time", numbers=("loss",), folded=("note",), first_out=("loss",))
    table.add_row("abc", "12.5", "word " * 9, "1 s")
    assert render(table, 70)[0].split() == ["run", "loss", "note", "time"]
    wide = render(table, 33)  # the note is folded first: 3 + 4 + 16 + 4 and gaps
    assert wide[0].split() == ["run", "loss", "note", "time"]
    assert len(wide) > 2
    assert not any("no room" in line for line in wide)
    narrow = render(table, 32)
    assert narrow[0].split() == ["run", "note", "time"]
    assert " ".join(narrow).endswith("there is no room for loss: widen the window, or write --json")
    last = render(table, 20)
    assert last[0].split() == ["run"]
    assert "there is no room for loss, note, time" in " ".join(last)


def test_the_first_column_is_folded_rather_than_cut() -> None:
    table = Columns("settings", "runs")
    table.add_row("abcdefghijklmnopqrstuvwxyz", "3")
    lines = render(table, 10)
    assert "".join(lines[1:4]) == "abcdefghijklmnopqrstuvwxyz"


def test_an_audit_fits_a_narrow_window(monkeypatch: pytest.MonkeyPatch) -> None:
    from hanse.audits import Section

    long = "the rows of one client, as a curious server reads them out of an update"
    section = Section("What the server sees", "about", ("attack", "found", "of"), ((long, "12", "40"),))
    result = AuditResult("about", {}, {"rows": section}, (), "sha256")
    for width in (60, 80):
        lines = list(audit_views._list_lines(result, width))
        assert max(map(len, lines)) <= width
        assert any("12" in line and "40" in line for line in lines)


@pytest.mark.parametrize("columns", [60, 120])
def test_a_dumb_terminal_is_as_wide_as_its_window(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", str(columns))
    assert consoles._make_console(force_terminal=True).width == columns
