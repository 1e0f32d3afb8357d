"""Runs by name, tag and "last" on the command line; their end; and hints that name the store."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forked import PIPE, python
from typer.testing import CliRunner

import hanse
from hanse.cli.commands import app
from hanse.store import Runs

Hanse = Callable[..., Any]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hanse:
    monkeypatch.delenv("HANSE_STORE", raising=False)
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, arguments, prog_name="hanse")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a store with three runs."""
    store = tmp_path_factory.mktemp("kept") / "runs.db"
    hanse.run(rounds=1, store=store, name="base", tags=["paper", "iid"])
    hanse.run(rounds=2, store=store, tags=["paper"])
    hanse.run(rounds=3, store=store)
    return store


def test_a_run_gets_its_numbers_name_and_tags(cli: Hanse) -> None:
    Path("mine.toml").write_text("rounds = 9\nseed = 5\n")
    done = cli(
        "run", "mine.toml", "--rounds", "2", "--seed", "3", "--name", "mine", "--tag", "a", "--tag", "b"
    )
    assert done.exit_code == 0, done.stderr
    (info,) = Runs(".hanse/store.db").infos()
    said = info.settings["experiment"]
    assert (info.name, info.tags, said["rounds"], said["seed"]) == ("mine", ("a", "b"), 2, 3)
    assert info.result is not None
    assert info.result["params_sha256"] == hanse.run(rounds=2, seed=3).params_sha256


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "2", "--set", "rounds=3"], "--rounds and --set rounds=... are both given; write one"),
        (["--seed", "2", "--set", "seed = 3"], "--seed and --set seed=... are both given"),
        (["--rounds", "0"], "rounds is 0; write at least 1"),
        (["--name", "last"], "name 'last' stands for the newest run already"),
        (["--tag", "a b"], "tag 'a b' can't be used; write at most 64 letters"),
    ],
)
def test_what_can_not_be_a_number_name_or_tag_is_refused(
    cli: Hanse, arguments: list[str], message: str
) -> None:
    done = cli("run", "--set", "evaluate_every=0", *arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert not Path(".hanse").exists() or not Runs(".hanse/store.db").infos()


def test_ls_shows_names_and_filters_by_tags(cli: Hanse, kept: Path) -> None:
    lines = cli("ls", "--store", str(kept)).stdout.splitlines()
    assert lines[0].split()[:3] == ["run", "name", "tags"]
    assert "  base  paper iid  " in lines[3]

    def listed(*tags: str) -> list[int]:
        found = json.loads(cli("ls", "--json", "--store", str(kept), *tags).stdout)["runs"]
        return [run["rounds"] for run in found]

    assert listed() == [3, 2, 1]
    assert listed("--tag", "paper") == [2, 1]
    assert listed("--tag", "paper", "--tag", "iid") == [1]
    none = cli("ls", "--store", str(kept), "--tag", "papers")
    assert "none of 3 runs has the tag papers; tags here: iid, paper" in none.stderr
    assert none.exit_code == 0


def test_every_command_takes_a_name_and_last(cli: Hanse, kept: Path) -> None:
    where = ("--store", str(kept))
    base, last = (hanse.load(word, store=kept).run for word in ("base", "last"))
    assert json.loads(cli("show", "base", "--json", *where).stdout)["run"] == base
    assert json.loads(cli("show", "last", "--json", *where).stdout)["run"] == last
    shown = cli("show", "base", *where).stdout
    assert re.search(r"^name +base$", shown, re.MULTILINE)
    assert re.search(r"^tags +paper iid$", shown, re.MULTILINE)
    assert json.loads(cli("resume", "base", "--json", *where).stdout)["run"] == base
    for arguments in (
        ["release", "base", "--to", "model"],
        ["replay", "base", "--round", "1", "--client", "0"],
    ):
        done = cli(*arguments, *where)
        no_work = arguments[0] == "replay" and "computed nothing" in done.stderr
        assert done.exit_code == 0 or no_work, done.stderr
    assert json.loads(Path("model", "model.json").read_text())["run"] == base
    for command in ("show", "report", "compare", "release", "resume", "rm"):
        more = ("--to", "x") if command == "release" else ()
        wrong = cli(command, "bse", *more, *where)
        assert wrong.exit_code == 2
        assert f"did you mean {base} (base)? `hanse ls --store {kept}` lists them" in wrong.stderr


def test_hints_name_the_store_unless_it_is_found_anyway(
    cli: Hanse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = cli("run", "--rounds", "1", "--store", "my runs.db")
    assert f"hanse show {Runs('my runs.db').infos()[0].run} --store 'my runs.db'" in done.stdout
    assert "hanse run --store none.db" in cli("show", "x", "--store", "none.db").stderr
    assert "hanse run --store none.db" in cli("ls", "--store", "none.db").stderr
    monkeypatch.setenv("HANSE_STORE", str(tmp_path / "my runs.db"))
    assert "--store" not in cli("run", "--rounds", "1").stdout
    assert "`hanse ls` lists" in cli("show", "x").stderr


def test_an_interrupted_run_says_how_to_go_on_with_its_store(cli: Hanse) -> None:
    def watch(record: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(hanse.Interrupted):
        hanse.run(rounds=2, store="other.db", watch=watch)
    shown = cli("show", "last", "--store", "other.db").stdout
    (line,) = (line for line in shown.splitlines() if line.startswith("go on"))
    command = line.partition("hanse ")[2].split()
    assert command[2:] == ["--store", "other.db"]
    assert cli(*command).exit_code == 0


# -- rm ----------------------------------------------------------------------------------------


def test_rm_says_what_it_freed(cli: Hanse, kept: Path, tmp_path: Path) -> None:
    store = tmp_path / "copy.db"
    store.write_bytes(kept.read_bytes())
    where = ("--store", str(store))
    refused = cli("rm", "last", *where)
    assert refused.exit_code == 2
    assert "for ever, and nobody can be asked here; write --yes" in refused.stderr
    assert len(Runs(store).infos()) == 3
    before = store.stat().st_size
    said = json.loads(cli("rm", "base", "last", "--yes", "--json", *where).stdout)
    assert said["bytes"] == before - store.stat().st_size > 0
    assert len(said["removed"]) == 2
    (left,) = Runs(store).infos()
    assert left.rounds == 2
    done = cli("rm", left.run[:4], "--yes", *where)
    assert re.fullmatch(rf"removed {left.run}; the store is smaller by [\d.]+ k?B\n", done.stdout)
    assert Runs(store).infos() == ()


def test_rm_refuses_a_run_in_progress(cli: Hanse) -> None:
    runs = Runs("runs.db")
    with runs.open(runs.begin({"experiment": {}}, {}, name="busy")):
        done = cli("rm", "busy", "--yes", "--store", "runs.db")
        assert done.exit_code == 2
        assert "is in progress; wait for it, or stop it" in done.stderr
    assert [info.name for info in runs.infos()] == ["busy"]


@pytest.mark.parametrize(("answer", "left"), [(b"n\n", 3), (b"y\n", 2)])
def test_rm_asks_in_a_terminal(kept: Path, tmp_path: Path, answer: bytes, left: int) -> None:
    store = tmp_path / "copy.db"
    store.write_bytes(kept.read_bytes())
    ours, theirs = os.openpty()
    try:
        os.write(ours, answer)
        process = python(
            "-m", "hanse", "rm", "base", "--store", str(store), cwd=tmp_path, stdin=theirs, stdout=PIPE
        )
        out, _ = process.communicate(timeout=120)
    finally:
        os.close(ours)
        os.close(theirs)
    assert process.returncode == 0
    assert "base" in out
    assert "Remove them for ever" in out
    assert len(Runs(store).infos()) == left


# -- TensorBoard -------------------------------------------------------------------------------


def test_run_writes_for_tensorboard(cli: Hanse) -> None:
    pytest.importorskip("tensorboardX")
    assert cli("run", "--rounds", "1", "--tensorboard", "logs/a").exit_code == 0
    (path,) = Path("logs/a").iterdir()
    assert b"accuracy" in path.read_bytes()
