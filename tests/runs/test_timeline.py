"""The simulated clock of whole runs: planned, resumed, measured and drawn."""

import itertools
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from forked import PIPE, python

import hanse
from hanse.algorithms import fed_avg, fed_buff
from hanse.config import Experiment
from hanse.core import Close
from hanse.data import iid
from hanse.report import load_run, report_page
from hanse.runs import as_chrome_trace, existing, plan_messages, prepare_run, resume, run
from hanse.simulation import Link, constant_speed, log_normal_speed, sequential, timed, volunteers

SLOW = timed(log_normal_speed(0.01), 0.1, Link(1e6, 5e5, 0.1), Link(4e6, 2e6))
SOURCES = str(Path(hanse.__file__).parents[1])
FEW = Experiment(
    partition=iid(8), algorithm=fed_avg(fraction=0.5), rounds=3, devices=SLOW, execution=sequential()
)


def as_settings(experiment):
    names = ("partition", "algorithm", "rounds", "devices", "execution")
    return {name: getattr(experiment, name) for name in names}


def perform(experiment, store=None):
    return run(**as_settings(experiment), store=store)


def virtual(result):
    return [record.usage.virtual_s for record in result.records]


@pytest.mark.parametrize(
    "algorithm",
    [fed_avg(fraction=0.5), fed_avg(epochs=3), fed_avg(close=Close(goal=5, minimum_fraction=0.0))],
)
def test_a_plan_and_a_run_share_the_clock(algorithm):
    experiment = replace(FEW, algorithm=algorithm)
    planned, records = plan_messages(prepare_run(experiment)).virtual_s, perform(experiment).records
    assert planned["first"] == pytest.approx(records[1].usage.virtual_s, rel=1e-3)
    assert planned["later"] == pytest.approx(records[2].usage.virtual_s, rel=1e-3)


def test_the_clock_is_the_same_with_workers_and_in_any_execution():
    from hanse.simulation import batched

    few = replace(FEW, rounds=2)
    alone = perform(few)
    assert virtual(alone) == virtual(perform(replace(few, execution=batched())))
    assert virtual(alone) == virtual(perform(replace(few, execution=sequential(2))))


KILLED = """
import json, os, signal, sys
from hanse.config import Experiment
from hanse.core.exchange import Commit
from hanse.runs import run
from hanse.simulation import Simulation
from hanse.store import Runs

Runs.open.__kwdefaults__["flush_every_s"] = 0.0  # every round is kept at once
perform = Simulation.perform

def end(runtime, command):
    event = perform(runtime, command)
    if isinstance(command, Commit) and command.round == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return event

Simulation.perform = end
experiment = Experiment.from_settings(json.loads(sys.argv[2]))
names = ("partition", "algorithm", "rounds", "devices", "execution")
run(**{name: getattr(experiment, name) for name in names}, store=sys.argv[1])
"""
"""A run that is killed at the end of round 4, before that round is kept."""


@pytest.mark.parametrize(
    ("algorithm", "devices"),
    [(fed_avg(fraction=0.5), SLOW), (fed_buff(buffer_size=2, concurrency=4), volunteers(0.05))],
)
def test_a_run_that_is_killed_and_resumed_has_the_same_virtual_times(tmp_path, algorithm, devices):
    whole = replace(FEW, algorithm=algorithm, devices=devices, rounds=6)
    expected = perform(whole)
    store = tmp_path / "runs.db"
    process = python(
        "-c",
        KILLED,
        str(store),
        json.dumps(whole.settings()),
        stderr=PIPE,
        env={**os.environ, "PYTHONPATH": SOURCES},
    )
    _, said = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, said
    runs = existing(store)
    (info,) = runs.infos()
    assert info.rounds == 3
    gone_on = resume(info.run, store=store)
    kept = runs.records(info.run)
    assert [record.usage.times for record in kept] == [record.usage.times for record in expected.records]
    assert virtual(gone_on) == virtual(expected)
    assert gone_on.params_sha256 == expected.params_sha256


def test_equal_devices_without_communication_are_as_fast_as_their_number():
    result = perform(replace(FEW, algorithm=fed_avg(fraction=1.0), devices=timed(constant_speed(0.01))))
    found = result.parallelism
    sizes = [1438 // 8 + (k < 1438 % 8) for k in range(8)]
    assert found["num_devices"] == 8
    assert found["speed_up"] == pytest.approx(sum(sizes) / max(sizes))
    assert found["efficiency"] == pytest.approx(found["speed_up"] / 8) == found["compute_share"]
    assert found["communication_share"] == 0.0
    assert result.to_json()["parallelism"] == found


def test_shares_of_time_add_up_to_all_of_it():
    found = perform(FEW).parallelism
    shares = [found[f"{what}_share"] for what in ("compute", "communication", "waiting")]
    assert sum(shares) == pytest.approx(1.0)
    assert min(shares) > 0.01


def test_devices_without_links_have_no_timeline():
    result = run(partition=iid(4), rounds=1)
    assert result.parallelism is None
    assert "parallelism" not in result.to_json()
    assert all(not record.usage.times for record in result.records)


def test_a_trace_is_what_chrome_opens():
    result = perform(FEW)
    trace = json.loads(json.dumps(as_chrome_trace(result.records)))
    spans = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    named = {event["tid"]: event["args"]["name"] for event in trace["traceEvents"] if event["ph"] == "M"}
    assert len(spans) == 3 * 3 * 4, "download, compute and upload of four clients in three rounds"
    for span in spans:
        assert set(span) == {"name", "cat", "ph", "pid", "tid", "ts", "dur", "args"}
        assert span["dur"] >= 0
        assert named[span["tid"]].endswith(span["name"])
    ends = max(span["ts"] + span["dur"] for span in spans)
    assert ends == pytest.approx(1e6 * sum(virtual(result)))
    for tid in named:
        own = sorted((s["ts"], s["ts"] + s["dur"]) for s in spans if s["tid"] == tid)
        assert all(a[1] <= b[0] + 1e-3 for a, b in itertools.pairwise(own)), "one thing at a time"


def test_the_page_of_a_run_shows_who_was_busy_with_what(tmp_path):
    pytest.importorskip("altair")
    store = tmp_path / "runs.db"
    begun = perform(FEW, store)
    page, drawings = report_page(load_run(existing(store), begun.run))
    assert "timeline" in [drawing.name for drawing in drawings]
    assert "Who was busy with what" in page
    assert "Speed-up: " in page


def test_a_plan_measures_the_seconds_for_an_example_that_is_visited():
    once, thrice = (
        plan_messages(prepare_run(replace(FEW, algorithm=fed_avg(epochs=epochs)))) for epochs in (1, 3)
    )
    exchange = thrice.later[0]
    visited = 3 * prepare_run(FEW).population.sizes()[exchange.cohort[0]]
    assert thrice.s_per_example == pytest.approx(exchange.compute_s / visited)
    assert once.s_per_example > 0
    assert thrice.to_json()["s_per_example"] == thrice.s_per_example


def test_the_command_line_writes_a_trace_and_refuses_one_of_nothing(tmp_path):
    from typer.testing import CliRunner

    from hanse.cli.commands import app

    store, trace = tmp_path / "runs.db", tmp_path / "trace.json"
    timed_run, untimed = perform(FEW, store), run(partition=iid(4), rounds=1, store=store)

    def show(which):
        return CliRunner().invoke(app, ["show", which, "--store", str(store), "--trace", str(trace)])

    shown = show(timed_run.run)
    assert shown.exit_code == 0
    assert "speed-up" in shown.output
    assert json.loads(trace.read_text())["traceEvents"]
    assert show(untimed.run).exit_code != 0


def test_a_settings_file_names_devices_with_links(tmp_path):
    from hanse.config import read

    file = tmp_path / "run.toml"
    file.write_text(
        '[devices]\nname = "timed"\nspeed = {name = "pareto_speed", tail = 1.5}\n'
        "link = {down_bps = 6e6, up_bps = 2e6, latency_s = 0.05}\n"
        'availability = {name = "all_of", conditions = [{name = "daily"}, {name = "at_random"}]}\n'
    )
    devices = read(file).devices
    assert devices.link == Link(6e6, 2e6, 0.05)
    assert len(devices.availability.conditions) == 2
    assert Experiment.from_settings(Experiment(devices=devices).settings()).devices == devices
