"""Sweeps try the right settings, their runs have the bits of runs alone, and none is performed twice."""

import csv
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked import PIPE, python
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

import hanse
from hanse.algorithms import adam, fed_avg, fed_sgd, sgd
from hanse.cli import app, sweep_views
from hanse.cli.sweep_views import sweep_page
from hanse.config import WrongSetting
from hanse.core import InvalidInput, Stop
from hanse.data import arrays, iid
from hanse.learners import logistic
from hanse.pages import draw_page
from hanse.store import Runs
from hanse.sweeps import picture
from hanse.sweeps.result import Spread, SweepResult, SweepRun, summarise
from hanse.sweeps.search import axes, between, grid, random
from hanse.sweeps.session import plan_sweep, read_sweep

SOURCES = str(Path(hanse.__file__).parents[1])

SWEEP = """
rounds = 3
evaluate_every = 3

[sweep]
seeds = [0, 1]

[sweep.over]
algorithm = ["fed_sgd", {name = "fed_avg", epochs = 1}]
"partition.num_clients" = [10, 20]
"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "store.db"


def written(text: str, path: str = "sweep.toml") -> str:
    Path(path).write_text(text)
    return path


ENVIRONMENT = {"PYTHONPATH": SOURCES, "PYTHONWARNINGS": "error"}


def process(*arguments: str) -> Any:
    env = {**os.environ, **ENVIRONMENT}
    return python("-m", "hanse", "sweep", *arguments, stdout=PIPE, stderr=PIPE, env=env)


def newly_started(*arguments: str) -> "subprocess.Popen[str]":
    """Start a sweep as a user does, in an interpreter that has imported nothing."""
    command = [sys.executable, "-m", "hanse", "sweep", *arguments]
    return subprocess.Popen(command, stdout=PIPE, stderr=PIPE, text=True, env={**os.environ, **ENVIRONMENT})


def finished(process: Any) -> tuple[int, dict[str, Any], str]:
    stdout, stderr = process.communicate(timeout=280)
    return process.returncode, json.loads(stdout), stderr


# -- what is tried -----------------------------------------------------------------------------

LISTS = st.dictionaries(
    st.sampled_from(["a", "b.c", "b.d", "e"]),
    st.lists(st.integers(), min_size=1, max_size=4, unique=True),
)


@settings(max_examples=50, deadline=None)
@given(LISTS)
def test_a_grid_is_all_combinations(lists: dict[str, list[int]]) -> None:
    trials = list(grid().trials(axes(lists)))
    assert len(trials) == math.prod(map(len, lists.values()))
    assert [tuple(trial.values()) for trial in trials] == list(itertools.product(*lists.values()))


@settings(max_examples=50, deadline=None)
@given(LISTS, st.integers(1, 20), st.integers(0, 20), st.integers())
def test_random_draws_are_reproducible(lists: dict[str, list[int]], few: int, more: int, seed: int) -> None:
    over = {**axes(lists), "z": between(0.001, 10.0, log=True)}
    trials = list(random(few, seed).trials(over))
    assert len(trials) == few
    assert list(random(few + more, seed).trials(over))[:few] == trials
    assert all(trial[path] in lists[path] for trial in trials for path in lists)
    alone = list(random(few, seed).trials({"z": over["z"]}))
    assert [trial["z"] for trial in trials] == [trial["z"] for trial in alone]


def test_another_seed_draws_otherwise() -> None:
    over = {"lr": between(0.0, 1.0)}
    assert list(random(3, 0).trials(over)) != list(random(3, 1).trials(over))


numbers = st.floats(1e-6, 1e6) | st.integers(1, 10**6)


@settings(max_examples=50, deadline=None)
@given(numbers, numbers, st.booleans(), st.floats(0, 1, exclude_max=True))
def test_a_range_holds_what_is_drawn(a: float, b: float, log: bool, part: float) -> None:
    low, high = sorted((a, b))
    if low == high:
        return
    drawn = between(low, high, log).at(part)
    assert low <= drawn <= high
    assert isinstance(drawn, int) == (isinstance(low, int) and isinstance(high, int))


def test_whole_numbers_come_equally_often() -> None:
    drawn = [between(1, 4).at(part) for part in np.arange(0, 1, 1 / 400)]
    assert {number: drawn.count(number) for number in drawn} == {1: 100, 2: 100, 3: 100, 4: 100}


def test_logarithmic_draws_are_uniform_in_the_logarithm() -> None:
    drawn = [trial["lr"] for trial in random(300).trials({"lr": between(0.01, 1.0, log=True)})]
    assert 120 < sum(lr < 0.1 for lr in drawn) < 180


def test_quotes_may_be_left_out(store: Path) -> None:
    quoted = read_sweep(written('[sweep.over]\n"algorithm.lr" = [0.1]'))
    assert read_sweep(written("[sweep.over]\nalgorithm.lr = [0.1]")).over == quoted.over


def test_a_choice_comes_before_what_is_set_in_it(store: Path) -> None:
    asked = read_sweep(written('[sweep.over]\n"algorithm.lr" = [0.1]\nalgorithm = ["fed_avg", "fed_sgd"]'))
    tried = [experiment.algorithm for _, experiment in asked.experiments()]
    assert tried == [fed_avg(lr=0.1), fed_sgd(lr=0.1)]


def test_a_table_replaces_that_of_the_file(store: Path) -> None:
    file = '[algorithm]\nname = "fed_avg"\nclient = {name = "sgd", lr = 0.2, momentum = 0.9}\n[sweep.over]\n'
    swept = read_sweep(
        written(file + '"algorithm.client" = [{name = "sgd", lr = 0.1}, {name = "sgd", lr = 0.2}]')
    )
    tried = [experiment.algorithm for _, experiment in swept.experiments()]
    assert tried == [fed_avg(client=sgd(0.1)), fed_avg(client=sgd(0.2))]


def test_the_example_can_be_read() -> None:
    asked = read_sweep(Path(SOURCES).with_name("examples") / "sweep.toml")
    assert len(list(asked.experiments())) == 6 * 3


def test_equal_draws_are_one_trial(store: Path) -> None:
    text = '[sweep]\nsearch = {name = "random", num_trials = 30}\n[sweep.over]\nrounds = [1, 2]'
    assert len(read_sweep(written(text)).trials()) == 2


def test_set_changes_the_sweep_and_what_it_shares(store: Path) -> None:
    sets = ["sweep.seeds=[7]", "sweep.over.partition.num_clients=[5]", "rounds=9"]
    asked = read_sweep(written(SWEEP), sets)
    about = [(x.seed, x.rounds, x.partition.num_clients) for _, x in asked.experiments()]  # type: ignore[union-attr]
    assert about == [(7, 9, 5), (7, 9, 5)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rounds = 3", "sweep.toml has no table [sweep]; write [sweep.over]"),
        ("[sweep]\nsedes = [1]", "sweep.toml: sweep.sedes is unknown; did you mean sweep.seeds?"),
        ("sweep = 3", "sweep.toml: sweep is 3; write a table: [sweep]"),
        ("[sweep]\nseeds = []", "sweep.toml: sweep.seeds is an empty list; write at least one"),
        ("[sweep]\nseeds = [1, 2, 1]", "sweep.toml: sweep.seeds lists 1 twice"),
        ("[sweep]\nseeds = 3", "sweep.toml: sweep.seeds is 3; write a list: [...]"),
        ("[sweep]\nseeds = [0.5]", "sweep.toml: sweep.seeds[0] is 0.5; write a whole number"),
        (
            '[sweep]\nsearch = "gird"',
            "sweep.search.name is \"gird\", which names no search; did you mean 'grid'?",
        ),
        ('[sweep]\nsearch = "random"', "sweep.search.num_trials is missing"),
        ('[sweep]\nsearch = {name = "random", num_trials = 0}', "num_trials is 0; write at least 1"),
        ("[sweep.over]\nrounds = []", "sweep.toml: sweep.over.rounds is an empty list"),
        ("[sweep.over]\nrounds = 3", "sweep.toml: sweep.over.rounds: write a list of values, such as [3]"),
        ("[sweep.over]\nrounds = [3, 3]", "sweep.toml: sweep.over.rounds[1] is listed twice"),
        ("[sweep.over]\nseed = [1]", "sweep.over.seed: seeds have a list of their own; write sweep.seeds"),
        (
            '[sweep.over]\n"algorithm.lrr" = [0.1]',
            "sweep.toml: sweep.over: algorithm.lrr is unknown; did you mean algorithm.lr?",
        ),
        ("[sweep.over]\nruonds = [1]", "sweep.toml: sweep.over: ruonds is unknown; did you mean rounds?"),
        (
            '[sweep.over]\n"algorithm.lr" = [0.1, "fast"]',
            'sweep.toml: sweep.over: algorithm.lr is the string "fast"; write a number, such as 0.1',
        ),
        (
            '[sweep.over]\nalgorithm = ["fed_avg", "fed_sgb"]',
            "sweep.over: algorithm.name is \"fed_sgb\", which names no algorithm; did you mean 'fed_sgd'?",
        ),
        ("[sweep.over]\nrounds = [0]", "sweep.toml: sweep.over: rounds is 0; write at least 1"),
        (
            "[sweep.over]\nalgorithm.lr = {low = 0.1, high = 1.0}",
            "sweep.over.algorithm.lr is a range, and a grid can't try all its values; write a list of values",
        ),
        ("[sweep.over]\nalgorithm.lr = {low = 1, high = 0}", "low is 1 and high is 0; write low below high"),
        (
            "[sweep.over]\nalgorithm.lr = {low = 0, high = 1, log = true}",
            "low is 0, which has no logarithm",
        ),
        (
            "[sweep.over]\nalgorithm.lr = {low = 1, hihg = 2}",
            "sweep.over.algorithm.lr.hihg is unknown; did you mean sweep.over.algorithm.lr.high?",
        ),
        ("ruonds = 3\n[sweep]\nseeds = [1]", "sweep.toml: ruonds is unknown; did you mean rounds?"),
    ],
)
def test_what_cannot_be_swept_is_named(store: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_sweep(written(text))
    assert message in str(caught.value)


def test_set_on_what_is_swept_is_refused(store: Path) -> None:
    with pytest.raises(InvalidInput, match=r"--set partition.num_clients: the sweep sets it"):
        read_sweep(written(SWEEP), ["partition.num_clients=3"])


def test_wrong_sets_are_named(store: Path) -> None:
    with pytest.raises(InvalidInput, match=r"^--set sweep.over: algorithm.lrr is unknown"):
        read_sweep(None, ["sweep.over.algorithm.lrr=[1]"])


def test_a_grid_names_the_range_that_it_cannot_try() -> None:
    with pytest.raises(WrongSetting):
        list(grid().trials({"lr": between(0.1, 1.0)}))


# -- what is found -----------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=6))
def test_spread_is_that_of_numpy(values: list[float]) -> None:
    found = summarise([*values, None])
    assert found is not None
    assert found.n == len(values)
    assert (found.mean, found.std) == pytest.approx((np.mean(values), np.std(values, ddof=1)), abs=1e-9)


def test_spread_of_few() -> None:
    assert summarise([None]) is None
    assert summarise([2.0]) == Spread(2.0, None, 1)


def member(lr: float, seed: int, best: float | None, reached: int | None = None) -> SweepRun:
    measured = {"round": 3, "accuracy": best}
    costs = {
        "rounds": 3,
        "rounds_to_target": reached,
        "bytes_up": 1,
        "bytes_down": 1,
        "seconds": 1.0,
        "virtual_s": 3,
    }
    status = "diverged" if best is None else "completed"
    return SweepRun({"lr": lr}, seed, "1", status, None, {"best": measured, "final": measured, **costs})


def measure_by(lr: float, metric: str, best: float, **said: Any) -> SweepRun:
    result = dict(member(lr, 0, best).result or {})
    found = {"round": 3, metric: best}
    return SweepRun({"lr": lr}, 0, "1", "completed", None, {**result, "best": found, "final": found, **said})


@pytest.mark.parametrize(
    ("metric", "said", "stop", "higher"),
    [
        ("auc", {}, Stop("auc"), True),
        ("own", {}, Stop("own"), False),
        ("own", {"higher_is_better": ["own"]}, Stop("own"), True),
        ("own", {"higher_is_better": ["own"]}, Stop("loss"), True),
        ("own", {}, Stop("own", higher_is_better=True), True),
        ("auc", {}, Stop("auc", higher_is_better=False), False),
        ("auc", {}, Stop("loss", higher_is_better=False), True),
    ],
)
def test_the_best_setting_is_that_of_the_better_metric(
    metric: str, said: dict[str, Any], stop: Stop, higher: bool
) -> None:
    """As the settings say, or else the results; those of earlier versions go by well-known names."""
    found = SweepResult.of([measure_by(1, metric, 0.2, **said), measure_by(2, metric, 0.7, **said)], stop, "")
    assert (found.metric, found.higher_is_better) == (metric, higher)
    assert found.settings[0].over == {"lr": 2 if higher else 1}


def order(*members: SweepRun) -> list[float]:
    return [setting.over["lr"] for setting in SweepResult.of(members, Stop(), "").settings]


def test_best_come_first() -> None:
    assert order(member(1, 0, 0.5), member(2, 0, 0.9), member(3, 0, 0.7)) == [2, 3, 1]


def test_a_setting_of_which_a_run_diverged_comes_after_all_others() -> None:
    assert order(member(1, 0, 0.9), member(1, 1, None), member(2, 0, 0.5), member(2, 1, 0.5)) == [2, 1]


def test_with_a_target_the_soonest_come_first() -> None:
    assert order(member(1, 0, 0.9), member(2, 0, 0.8, 7), member(3, 0, 0.8, 5)) == [3, 2, 1]


# -- performing --------------------------------------------------------------------------------

X = np.random.default_rng(0).normal(size=(60, 3))
DATA = arrays(X, (X[:, 0] > 0).astype(int))
OTHER = arrays(-X, (X[:, 0] > 0).astype(int))
SMALL = hanse.Experiment(data=DATA, partition=iid(6), model=logistic(), rounds=2)


def test_from_python_on_arrays_with_members_that_fail(store: Path) -> None:
    """Runs have the bits of runs alone; failures stop nothing; asked again, only these are tried again."""
    over = {"algorithm": [fed_avg(lr=0.5), fed_sgd(lr=1e300)], "partition.num_clients": [6, 1000]}
    result = hanse.sweep(SMALL, over=over, seeds=[3, 4], store=store, num_workers=2)
    statuses = [[member.status for member in setting.members] for setting in result.settings]
    assert statuses == [["completed"] * 2, ["failed"] * 2, ["diverged"] * 2, ["failed"] * 2]
    for done in result.settings[0].members:
        alone = hanse.run(
            data=DATA, partition=iid(6), model=logistic(), algorithm=fed_avg(lr=0.5), rounds=2, seed=done.seed
        )
        assert done.result is not None
        assert done.result["params_sha256"] == alone.params_sha256
        assert Runs(store).info(str(done.run)).status == "completed"
    assert "1000 clients" in str(result.settings[-1].members[0].reason)
    kept = len(Runs(store).infos())
    again = hanse.sweep(SMALL, over={"algorithm": [fed_avg(lr=0.5)]}, seeds=[3, 4], store=store)
    assert [m.run for m in again.members] == [m.run for m in result.settings[0].members]
    assert len(Runs(store).infos()) == kept == 4
    other = hanse.Experiment(data=OTHER, partition=iid(6), model=logistic(), rounds=2)
    anew = hanse.sweep(other, over={"algorithm": [fed_avg(lr=0.5)]}, seeds=[3], store=store, num_workers=1)
    assert anew.notes == ("1 of the runs that are kept were made on other data, and are performed again",)
    assert anew.members[0].run not in [member.run for member in result.members]


def test_from_python_bad_input_is_named(store: Path) -> None:
    with pytest.raises(InvalidInput, match=r"algorithm.lrr is unknown; did you mean algorithm.lr\?"):
        hanse.sweep(SMALL, over={"algorithm.lrr": [1]}, store=store)
    with pytest.raises(InvalidInput, match="num_workers is 0; write at least 1"):
        hanse.sweep(SMALL, over={"algorithm.lr": [1]}, store=store, num_workers=0)
    assert not Runs(store).infos()


LONG = """
rounds = 100
evaluate_every = 20
[sweep]
seeds = [0, 1]
[sweep.over]
"algorithm.lr" = [0.1, 0.5]
[algorithm]
epochs = 1
"""


@pytest.fixture(scope="module")
def alone() -> str:
    """Perform the run with lr = 0.5 and seed 1, undisturbed."""
    return hanse.run(algorithm=fed_avg(lr=0.5, epochs=1), rounds=100, evaluate_every=20, seed=1).params_sha256


def pids_of_children(parent: int) -> Iterator[int]:
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            yield int(status.parent.name)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_killed_it_goes_on_and_ends_in_the_same_bits(store: Path, alone: str) -> None:
    told = (written(LONG), "--store", str(store), "--json", "--workers", "2")
    first = newly_started(*told)
    while not (store.exists() and any(info.rounds > 0 for info in Runs(store).infos())):
        assert first.poll() is None
        time.sleep(0.02)
    workers = list(pids_of_children(first.pid))
    first.send_signal(signal.SIGKILL)
    first.communicate()
    code, result, stderr = finished(process(*told))
    assert not any(map(is_alive, workers))
    assert (code, result["num_completed"]) == (0, 4), stderr
    assert len(Runs(store).infos()) == 4
    bits = {
        (s["over"]["algorithm.lr"], r["seed"]): r["params_sha256"]
        for s in result["settings"]
        for r in s["runs"]
    }
    assert bits[0.5, 1] == alone
    assert all(m.status == "completed" for m in plan_sweep(read_sweep("sweep.toml"), store).members)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_a_process_that_is_killed_fails_only_its_run(store: Path) -> None:
    text = "[sweep.over]\nrounds = [100000, 3]"
    told = (written(text), "--store", str(store), "--json", "--workers", "1")
    sweeping = process(*told)
    while not (store.exists() and any(info.rounds > 0 for info in Runs(store).infos())):
        assert sweeping.poll() is None
        time.sleep(0.02)
    running = next(info for info in Runs(store).infos() if info.rounds)
    worker = next(pid for pid in pids_of_children(sweeping.pid) if "resource" not in command(pid))
    os.kill(worker, signal.SIGKILL)
    code, result, stderr = finished(sweeping)
    assert (code, result["num_completed"]) == (1, 1)
    failed = next(
        run for setting in result["settings"] for run in setting["runs"] if run["status"] == "failed"
    )
    assert failed["run"] == running.run
    assert "killed from outside" in failed["reason"]
    assert "killed from outside" in stderr


def command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


# -- the command -------------------------------------------------------------------------------


def test_the_command_prints_a_table_and_draws(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(picture, "drawing", lambda path: drawn.append)
    told = ("sweep", written(SWEEP), "--store", str(store), "--workers", "2")
    done = CliRunner().invoke(app, [*told, "--picture", "p.png"])
    assert done.exit_code == 0, done.output
    assert "\x1b" not in done.output
    said = done.stderr.splitlines()
    assert said[0] == "sweep: 4 settings x 2 seeds = 8 runs"
    assert len(said) == 10
    assert said[-2].startswith("8/8  ")
    assert "ranked by a metric on test examples" in said[-1]
    head, *rows = done.stdout.splitlines()
    for word in ("algorithm", "num_clients", "best accuracy", "final accuracy", "bytes up", "time", "runs"):
        assert word in head
    assert len(rows) == 4
    assert all("±" in row for row in rows)
    assert any(row.startswith("fed_avg(epochs=1)") for row in rows)
    (result,) = drawn
    assert list(result.curves()[0]) == [0, 3]
    again = CliRunner().invoke(app, [*told, "--json"])
    assert again.stderr.splitlines()[0] == said[0] + ", 8 done before"
    assert json.loads(again.stdout)["num_completed"] == 8
    assert json.loads(again.stdout) == result.to_json()


def test_a_narrow_window_leaves_out_costs_and_says_so(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sweep_views, "make_stdout", lambda: Console(width=60))
    sweep_page(SweepResult.of([member(0.1, 0, 0.5, 3), member(0.1, 1, 0.6, 5)], Stop(), ""))
    head, row, *rest = capsys.readouterr().out.splitlines()
    assert row.startswith("0.1     2  0.5500 ± 0.0707")
    assert "…" not in head + row
    assert "best accuracy" in head
    assert " ".join(rest).startswith("there is no room for rounds to target, bytes up")


def test_exit_code_tells_of_failures(store: Path) -> None:
    text = '[sweep.over]\n"partition.num_clients" = [1000000]'
    done = CliRunner().invoke(app, ["sweep", written(text), "--store", str(store)])
    assert done.exit_code == 1
    assert "\nnum_clients=1000000, seed 0: failed: " in done.stdout
    assert CliRunner().invoke(app, ["sweep", written("rounds = 1")]).exit_code == 2


def test_pictures(tmp_path: Path) -> None:
    pytest.importorskip("altair")
    pytest.importorskip("vl_convert")
    result = SweepResult.of([member(1, 0, 0.5), member(2, 0, 0.9)], Stop(), str(tmp_path / "store.db"))
    curves = {i: {0: Spread(0.1, 0.01, 2), 3: Spread(0.5, 0.02, 2)} for i in range(2)}
    object.__setattr__(result, "curves", lambda: curves)
    for name, begin in (("p.png", b"\x89PNG"), ("p.html", b"<!doctype html>")):
        picture.drawing(tmp_path / name)(result)
        assert (tmp_path / name).read_bytes().lstrip()[: len(begin)] == begin
    assert b"<script src=" not in (tmp_path / "p.html").read_bytes()


def test_a_curve_goes_on_with_the_seeds_that_are_there(tmp_path: Path) -> None:
    """Two seeds end after round 2, one after 5; the curve goes on with one, which the picture dashes."""
    store = tmp_path / "runs.db"
    done = [hanse.run(rounds=rounds, seed=seed, store=store) for seed, rounds in enumerate((2, 2, 5))]
    members = tuple(
        SweepRun({"algorithm.lr": 0.5}, seed, str(one.run), "completed", None, one.to_json())
        for seed, one in enumerate(done)
    )
    result = SweepResult.of(members, Stop(), str(store))
    (curve,) = result.curves().values()
    assert [(round, found.n) for round, found in curve.items()] == [
        (0, 3), (1, 3), (2, 3), (3, 1), (4, 1), (5, 1),
    ]  # fmt: skip
    alone = [record.metrics["accuracy"] for record in done[2].records]
    assert [curve[round].mean for round in (3, 4, 5)] == alone[3:]
    middle = [one.records[1].metrics["accuracy"] for one in done]
    assert curve[1].mean == pytest.approx(sum(middle) / 3)
    pytest.importorskip("altair")
    page = picture.sweep_html(result)
    assert "Dashed: some seeds had ended; the mean is over the others (setting 1 from round 2 on)." in page
    layers = picture.chart(result).to_dict()["vconcat"][1]["layer"]
    assert [row["round"] for row in layers[2]["data"]["values"]] == [2, 3, 4, 5]
    assert layers[2]["mark"]["strokeDash"] == [5, 4]


@pytest.mark.parametrize(
    ("path", "message"), [("p.gif", "ends in .png"), ("no/p.png", "there is no folder 'no'")]
)
def test_a_picture_that_cannot_be_drawn_is_refused_at_once(store: Path, path: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        picture.drawing(Path(path))


def test_a_page_that_is_somebody_elses_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "sweep.html"
    path.write_text("mine")
    with pytest.raises(InvalidInput, match="Hanse did not write"):
        picture.drawing(path)
    path.write_text(draw_page("Sweep", "", []))
    picture.drawing(path)


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "altair", None)
    with pytest.raises(InvalidInput, match=r"pip install 'hanse\[report\]'"):
        picture.drawing(Path("p.png"))


def test_a_sweep_over_clients_and_their_settings(tmp_path: Path) -> None:
    path = tmp_path / "sweep.toml"
    path.write_text(
        """
        rounds = 1
        [sweep.over]
        "algorithm.client" = [{name = "sgd", lr = 0.1}, {name = "adam", lr = 0.01}]
        "algorithm.client.epochs" = [1, 2]
        """
    )
    found = {run.algorithm for _, run in read_sweep(path).experiments()}
    assert found == {
        fed_avg(client=make) for e in (1, 2) for make in (sgd(0.1, epochs=e), adam(0.01, epochs=e))
    }


def test_a_spreadsheet_has_a_row_for_each_run(store: Path, tmp_path: Path) -> None:
    told = ("sweep", written(SWEEP), "--store", str(store), "--workers", "1")
    done = CliRunner().invoke(app, [*told, "--csv", str(tmp_path / "runs.csv"), "--json"])
    assert done.exit_code == 0, done.output
    with (tmp_path / "runs.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = json.loads(done.stdout)
    runs = [(setting["over"], run) for setting in found["settings"] for run in setting["runs"]]
    assert len(rows) == len(runs) == 8
    for row, (over, run) in zip(rows, runs, strict=True):
        assert row["run"] == run["run"]
        assert int(row["seed"]) == run["seed"]
        assert float(row["final_accuracy"]) == run["final"]["accuracy"]
        assert float(row["best_loss"]) == run["best"]["loss"]
        assert int(row["bytes_up"]) == run["bytes_up"]
        assert int(row["partition.num_clients"]) == over["partition.num_clients"]
        assert row["reason"] == ""
    folder = CliRunner().invoke(app, [*told, "--csv", str(tmp_path / "none" / "runs.csv")])
    assert folder.exit_code == 2
    assert "a folder that exists" in folder.stderr
