"""The command line, in this process: its output and its exit codes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from noise import private_avg
from typer.testing import CliRunner

import hanse
from hanse.algorithms import fed_buff
from hanse.cli.commands import app
from hanse.cli.views import thin
from hanse.core.exchange import Record, Usage
from hanse.runs import environment
from hanse.runs import session as running
from hanse.store import Runs

Hanse = Callable[..., Any]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HANSE_STORE", str(tmp_path / "store.db"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "store.db"


@pytest.fixture
def cli(store: Path) -> Hanse:
    return lambda *arguments: CliRunner().invoke(app, arguments, prog_name="hanse")


def only_object(stdout: str) -> dict[str, Any]:
    lines = stdout.splitlines()
    assert len(lines) == 1
    return dict(json.loads(lines[0]))


def begun(store: Path, rounds: int = 5, until: int = 2) -> str:
    """Begin a run that is interrupted."""

    def watch(record: Record) -> None:
        if record.round == until:
            raise KeyboardInterrupt

    with pytest.raises(hanse.Interrupted) as caught:
        hanse.run(rounds=rounds, store=store, watch=watch)
    return str(caught.value.result.run)


# -- run ---------------------------------------------------------------------------------------


def test_run_shows_progress_and_a_table(cli: Hanse, store: Path) -> None:
    done = cli("run", "--set", "rounds=3")
    assert done.exit_code == 0
    (info,) = Runs(store).infos()
    said = done.stderr.splitlines()
    assert said[0] == f"run {info.run}: fed_avg(fraction=0.1) · softmax · digits over dirichlet(100) · seed 0"
    assert said[1].startswith("round 0/3  loss 2.3026  accuracy 0.")
    assert said[-1].startswith("round 3/3  loss ")
    assert done.stdout.splitlines()[0] == said[0].partition(": ")[2]
    for word in (
        "final",
        "best",
        "status      completed",
        "3 of 3",
        "bytes up",
        "bytes down",
        f"hanse show {info.run}",
    ):
        assert word in done.stdout


def test_run_says_it_in_json(cli: Hanse) -> None:
    done = cli("run", "--json", "--set", "rounds=3", "--set", "stop.target=0.2")
    result = only_object(done.stdout)
    assert done.exit_code == 0
    assert result["status"] == "completed"
    assert result["rounds"] == result["rounds_to_target"] == result["final"]["round"]
    assert result["params_sha256"] == hanse.run(rounds=result["rounds"]).params_sha256


def test_run_takes_a_file_and_another_store(cli: Hanse, store: Path) -> None:
    Path("mine.toml").write_text('rounds = 2\npartition = {name = "iid", num_clients = 5}\n')
    done = cli("run", "mine.toml", "--store", "elsewhere/runs.db", "--set", "seed=3")
    assert done.exit_code == 0
    assert "digits over iid(5) · seed 3" in done.stdout
    assert not store.exists()
    assert len(Runs("elsewhere/runs.db").infos()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "algorithm.lrr=1"], "--set algorithm.lrr is unknown; did you mean algorithm.lr?"),
        (["--set", "rounds=many"], '--set rounds is the string "many"; write a whole number'),
        (["--set", "model=softmx"], "did you mean 'softmax'?"),
        (["nothing.toml"], "no file 'nothing.toml'"),
        (["broken.toml"], "broken.toml, line 2, column 8: not TOML: invalid value"),
        (["--set", "partition.num_clients=2000"], "1438 examples can't give each of 2000 clients 1"),
        (
            ["--set", 'algorithm.uplink=[{name="quantize", bits=2}, {name="clip", max_norm=1.0}]'],
            "clip(max_norm=1.0) needs real numbers, these are coded: put it first",
        ),
    ],
)
def test_bad_input_is_explained(cli: Hanse, store: Path, arguments: list[str], message: str) -> None:
    Path("broken.toml").write_text("rounds = 3\nseed = \n")
    done = cli("run", *arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not store.exists()


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("way=sequential", "way is called execution now; write that"),
        ("way.num_workers=1", "way is called execution now; write that"),
        ("execution=plain", 'execution.name is "plain", which is called "sequential" now; write that'),
        ("execution.name=cohort", 'execution.name is "cohort", which is called "batched" now; write that'),
        (
            'algorithm.uplink=[{name="top_k", fraction=0.1, residual="remember"}]',
            'algorithm.uplink[0].residual.name is "remember", which is called "error_feedback" now; '
            "write that",
        ),
        (
            'algorithm.uplink=[{name="top_k", fraction=0.1, residual="forget"}]',
            'algorithm.uplink[0].residual.name is "forget", which is called "none" now; write that',
        ),
    ],
)
def test_former_names_are_errors_that_tell_the_new_ones(cli: Hanse, assignment: str, message: str) -> None:
    done = cli("run", "--set", assignment)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == f"Error: --set {message}\n"
    key, _, said = assignment.partition("=")
    Path("old.toml").write_text(f"{key} = {said if said[0] == '[' or said.isdigit() else json.dumps(said)}\n")
    done = cli("run", "old.toml")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == f"Error: old.toml: {message}\n"


def test_bad_input_in_json(cli: Hanse) -> None:
    done = cli("run", "--json", "--set", "rounds=many")
    assert done.exit_code == 2
    result = only_object(done.stdout)
    assert (result["run"], result["status"]) == (None, "failed")
    assert result["reason"].startswith("--set rounds is the string")


@pytest.mark.parametrize("as_json", [False, True])
def test_divergence_fails(cli: Hanse, as_json: bool) -> None:
    done = cli("run", "--set", "algorithm.lr=1e9", *(["--json"] if as_json else []))
    assert done.exit_code == 1
    assert "Error: diverged in round 1: the loss is " in done.stderr
    if as_json:
        assert only_object(done.stdout)["status"] == "diverged"
    else:
        assert "status      diverged in round 1" in done.stdout


def test_a_debugger_wants_the_traceback(cli: Hanse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANSE_DEBUG", "1")
    assert isinstance(cli("run", "--set", "rounds=many").exception, hanse.InvalidInput)


def test_a_fault_of_ours_keeps_its_traceback(cli: Hanse, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **more: object) -> None:
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr(running, "start_session", broken)
    done = cli("run", "--json")
    assert isinstance(done.exception, ZeroDivisionError)
    assert done.exit_code == 1
    assert only_object(done.stdout)["reason"] == "ZeroDivisionError: a fault"


# -- resume, ls, show --------------------------------------------------------------------------


def test_resume_goes_on(cli: Hanse, store: Path) -> None:
    run = begun(store)
    done = cli("resume", run[:6], "--json")
    result = only_object(done.stdout)
    assert (done.exit_code, result["run"], result["rounds"]) == (0, run, 5)
    assert result["params_sha256"] == hanse.run(rounds=5).params_sha256
    assert "round 2/5" in done.stderr.splitlines()[1]


def test_resume_of_a_completed_run_shows_it(cli: Hanse, store: Path) -> None:
    first = only_object(cli("run", "--json", "--set", "rounds=2").stdout)
    again = cli("resume", first["run"], "--json")
    assert again.exit_code == 0
    assert only_object(again.stdout) == first
    assert again.stderr == f"Note: run {first['run']} is completed: it has come to its end already\n"
    assert "completed" in cli("resume", first["run"]).stdout


def test_resume_elsewhere_warns(cli: Hanse, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = begun(store)
    now = environment()
    monkeypatch.setattr(running, "environment", lambda: {**now, "cpu": "an abacus"})
    done = cli("resume", run)
    assert done.exit_code == 0
    assert done.stderr.startswith("Note: the last bits may differ")
    assert "became an abacus" in done.stderr


def test_ls_lists_the_newest_first(cli: Hanse, store: Path) -> None:
    assert "no runs are kept at" in cli("ls").stderr
    assert not store.exists()
    assert only_object(cli("ls", "--json").stdout) == {"runs": []}
    old = begun(store)
    new = only_object(cli("run", "--json", "--set", "rounds=1").stdout)
    lines = cli("ls").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["run", new["run"], old]
    assert "interrupted" in lines[2]
    assert "2/5" in lines[2]
    assert "fed_avg · softmax · digits" in lines[2]
    infos = only_object(cli("ls", "--json").stdout)["runs"]
    assert [info["status"] for info in infos] == ["completed", "interrupted"]
    assert infos[0]["result"] == new


def test_show_says_what_noised_totals_revealed(cli: Hanse, store: Path) -> None:
    result = hanse.run(algorithm=private_avg(rate=0.1), rounds=3, store=store)
    records = only_object(cli("show", result.run, "--json").stdout)["records"]
    assert "releases" not in records[0]
    (booked,) = records[2]["releases"]
    assert booked.pop("sample") > 0
    assert booked == {
        "part": "update",
        "sampling": 0.1,
        "mechanism": "gaussian",
        "noise_multiplier": 0.5,
        "parameters": {},
    }
    shown = cli("show", result.run).stdout
    assert (
        "releases  3 of 'update': gaussian, noise multiplier 0.5, each client asked with probability 0.1\n"
        in shown
    )
    plain = hanse.run(rounds=1, store=store)
    assert "releases" not in cli("show", plain.run).stdout


def test_show_says_which_metrics_an_algorithm_reports(cli: Hanse, store: Path) -> None:
    result = hanse.run(
        algorithm=fed_buff(concurrency=4, buffer_size=2), rounds=3, evaluate_every=3, store=store
    )
    assert result.final is not None
    assert result.final.round == 3
    records = only_object(cli("show", result.run, "--json").stdout)["records"]
    assert ["loss" in record for record in records] == [True, False, False, True]
    assert [record.get("reported") for record in records[1:]] == [["staleness"]] * 3
    assert records[1]["staleness"] >= 0
    assert f"accuracy {result.final.metrics['accuracy']:.4f}" in cli("ls").stdout
    table = [line.split() for line in cli("show", result.run).stdout.splitlines() if "staleness" in line]
    assert table[0][:4] == ["round", "loss", "accuracy", "staleness"]


def test_tables_in_a_pipe_are_not_padded(cli: Hanse, store: Path) -> None:
    run = begun(store)
    for words in (("show", run), ("ls",), ("doctor",)):
        lines = cli(*words).stdout.splitlines()
        assert len(lines) > 1
        assert [line for line in lines if line != line.rstrip()] == []


def test_show_shows_all(cli: Hanse, store: Path) -> None:
    run = begun(store)
    page = cli("show", run).stdout
    for word in (
        run,
        "interrupted",
        "2 of 5",
        f"hanse resume {run}",
        "accuracy",
        "clients",
        "numpy",
        "threads",
    ):
        assert word in page
    plain = only_object(cli("show", run, "--json").stdout)
    assert [record["round"] for record in plain["records"]] == [0, 1, 2]
    assert plain["records"][1].keys() >= {
        "loss",
        "accuracy",
        "bytes_up",
        "bytes_down",
        "seconds",
        "abandoned",
    }
    assert plain["settings"]["algorithm"]["name"] == "fed_avg"


@pytest.mark.parametrize("command", ["show", "resume"])
def test_an_unknown_run(cli: Hanse, store: Path, command: str) -> None:
    done = cli(command, "zzz")
    assert done.exit_code == 2
    assert "no runs are kept at" in done.stderr
    run = begun(store)
    done = cli(command, "zzz")
    assert done.exit_code == 2
    assert done.stderr.startswith(f"Error: there is no run 'zzz': the newest is {run}")


def test_the_rest(cli: Hanse) -> None:
    assert cli("--version").stdout == f"hanse {hanse.__version__}\n"
    assert "resume" in cli("--help").stdout
    assert cli("run", "--sett", "x").exit_code == 2
    assert cli("show", "x", "--store", "nowhere.db").exit_code == 2
    assert cli("ls", "--store", "nowhere.db").exit_code == 0
    assert not Path("nowhere.db").exists()


@pytest.mark.parametrize(
    ("num_rounds", "rows"),
    [
        (0, [0]),
        (20, list(range(21))),
        (21, [*range(0, 21, 2), 21]),
        (100, list(range(0, 101, 5))),
        (5003, [*range(0, 5003, 500), 5003]),
    ],
)
def test_many_rounds_are_thinned(num_rounds: int, rows: list[int]) -> None:
    records = [Record(round, {}, Usage(), 0.0) for round in range(num_rounds + 1)]
    assert [record.round for record in thin(records, 21)] == rows


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("report", "RUN", "--to", "notes"), "notes can't be used"),
        (("report", "RUN", "--to", "notes/below"), "notes/below can't be used"),
        (("release", "RUN", "--to", "notes"), "notes can't be used"),
        (("release", "RUN", "--to", "notes/below"), "notes/below can't be used"),
        (("init", "stays.csv", "--to", "notes/x.toml"), "notes/x.toml can't be used"),
        (("run", "sweep.toml"), "sweep.toml describes a sweep of many runs; write hanse sweep sweep.toml"),
    ],
)
def test_files_in_the_way_are_named(
    arguments: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes").write_text("")
    Path("stays.csv").write_text("a,y\n1,0\n2,1\n3,0\n4,1\n")
    Path("sweep.toml").write_text("[sweep.over]\nrounds = [1, 2]\n")
    run = str(hanse.run(rounds=1, store="runs.db").run) if "RUN" in arguments else ""
    store = ("--store", "runs.db") * bool(run)
    done = CliRunner().invoke(app, [run if word == "RUN" else word for word in arguments] + list(store))
    assert done.exit_code == 2, done.stderr
    assert words in done.stderr.replace("\n", " ")
