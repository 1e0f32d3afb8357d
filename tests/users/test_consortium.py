"""The page about a consortium, followed to the letter: on three messy files, then between real parties."""

import csv
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from forked import PIPE, STDOUT, python
from typer.testing import CliRunner

import hanse
from hanse.cli import app
from hanse.data import party_files

from .consortium import NUM_ROWS, write_files

PAGE = (Path(__file__).parents[2] / "docs" / "consortium.md").read_text(encoding="utf-8")
REHEARSAL, _, HOSPITALS = PAGE.partition("## Do it with the hospitals")


def commands(text: str, language: str = "sh") -> list[list[str]]:
    """Returns the commands of a part of the page, word by word."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    blocks = [block for kind, block in found if kind == language]
    return [
        shlex.split(line)[1:] for block in blocks for line in block.splitlines() if line.startswith("hanse ")
    ]


def typed(*words: str) -> Any:
    done = CliRunner().invoke(app, words, prog_name="hanse")
    assert done.exit_code == 0, done.output
    return done


def check_report(page: str) -> None:
    """Asserts what the report says of each hospital."""
    _, parties = page.split('class="card wide parties"')
    rows = parties.split("</table>")[0]
    for name in NUM_ROWS:
        assert f"<td>{name}</td>" in rows
    found = re.search(r"<td>auroc</td>.*?</tr>", page)
    assert found is not None
    assert re.match(r"<td>auroc</td><td>0\.\d+( ± \S+)?</td><td>0\.5000</td>", found[0]), found[0]


def check_settings(file: Path) -> None:
    """Asserts what was guessed, each with a comment."""
    data = hanse.read(file).data
    assert isinstance(data, party_files)
    assert data.classes == ("died", "moved", "well")
    assert {*data.drop} == {"case", "ward"}
    read = {name: (own.encoding, own.decimal, own.censored, own.dates) for name, own in data.parties.items()}
    assert read == {
        "north": ("cp1252", ",", "limit", {"admitted": "%d.%m.%Y"}),
        "south": ("utf-8", ".", "limit", {"admitted": "%Y-%m-%d"}),
        "west": ("utf-16", ",", "limit", {"admitted": "%d.%m.%Y"}),
    }
    text = file.read_text(encoding="utf-8")
    assert "west has no 'died'" in text
    assert '"ward",   # north, west have no such column' in text
    data_lines = text.partition("[data]")[2].partition("[partition]")[0].splitlines()
    guesses = [
        line
        for line in data_lines
        if " = " in line and not line.startswith(("#", 'name = "csv"', 'path = "'))
    ]
    assert all("   # " in line for line in guesses)


def check_predictions(file: Path) -> None:
    """Asserts that each row has its name, and that the probabilities of all classes add up to one."""
    with file.open(encoding="utf-8", newline="") as opened:
        head, *rows = csv.reader(opened)
    assert head == [
        "case",
        "prediction",
        "probability",
        *(f"probability_{c}" for c in ("died", "moved", "well")),
    ]
    assert [row[0] for row in rows] == [f"X-{1000 + number}" for number in range(40)]
    for row in rows:
        shares = dict(zip(("died", "moved", "well"), map(float, row[3:]), strict=True))
        assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
        assert max(shares, key=lambda name: shares[name]) == row[1]


def test_a_consortium_walks_from_files_to_a_model_that_all_have_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path)
    init, describe, run, report, release, predict = commands(REHEARSAL)
    typed(*init)
    check_settings(tmp_path / "study.toml")
    said = typed(*describe)
    assert said.stderr.count("censored") == 3
    assert "study.toml, line" in said.stderr
    settings = tmp_path / "study.toml"
    text = settings.read_text(encoding="utf-8").replace("SETTLE THIS: ", "")
    settings.write_text(text.replace("rounds = 50", "rounds = 4"), encoding="utf-8")
    assert "Note: study.toml" not in typed(*describe).stderr
    result = json.loads(typed(*run, "--json").stdout)
    assert result["status"] == "completed"
    assert result["data"]["names"] == [*NUM_ROWS]
    assert result["final"]["accuracy"] > 0.4  # a third by chance
    *words, name, folder = [word.replace("RUN", result["run"]) for word in report]
    typed(*words, name, folder)
    check_report((tmp_path / folder / "index.html").read_text(encoding="utf-8"))
    typed(*(word.replace("RUN", result["run"]) for word in release))
    typed(*predict)
    check_predictions(tmp_path / "predictions.csv")
    found = served(tmp_path)
    assert found["params_sha256"] == result["params_sha256"]
    rows = [{name: cell for name, cell in row.items() if name != "centralised"} for row in result["parties"]]
    for number, row in enumerate(rows):
        (kept,) = tmp_path.glob(f"hanse-client-{number}/runs/*/row.json")
        own = json.loads(kept.read_text(encoding="utf-8"))["row"]
        assert {name: own[name] for name in row} == {**row, "party": own["party"]}
    assert found["parties"] == rows[:2]
    assert found["sharing"]["not_shared"] == ["west"]
    assert "2 of 3 parties shared their row" in found["headline"]


def served(folder: Path) -> dict[str, Any]:
    """Lets three clients train in processes of their own; two share their rows. Returns the result."""
    (serve,), (join,) = commands(HOSPITALS), commands(HOSPITALS, "")
    server = python("-m", "hanse", *serve, "--listen", "127.0.0.1:0", cwd=folder, stdout=PIPE, stderr=STDOUT)
    lines: list[list[str]] = []
    before = ""
    while len(lines) < len(NUM_ROWS):
        line = server.stdout.readline()
        assert line, "the server has ended"
        if "hanse join" in line:
            assert before.strip() == f"{[*NUM_ROWS][len(lines)]}:"
            lines.append(shlex.split(line)[1:])
        before = line
    clients = []
    for number in range(2):
        (folder / f"hanse-client-{number}").mkdir()
        (folder / f"hanse-client-{number}" / "policy.toml").write_text("share_row = true\n")
    for name, line in zip(NUM_ROWS, lines, strict=True):
        given = line[: line.index("--data")]
        assert [word for word in given if word.startswith("--")] == [w for w in join if w.startswith("--")][
            :2
        ]
        own = folder / f"at-{name}"
        own.mkdir()
        (folder / f"{name}.csv").rename(own / f"{name}.csv")
        words = [*given, "--data", f"{own / name}.csv", "--yes"]
        clients.append(python("-m", "hanse", *words, cwd=folder, stdout=PIPE, stderr=STDOUT))
    for client in (*clients, server):
        said, _ = client.communicate(timeout=280)
        assert client.returncode == 0, said
        assert client is server or "your row: " in said
    found: dict[str, Any] = json.loads(said[said.index('{"run"') :].splitlines()[0])
    return found
