"""A plan is held to what the run then sends."""

import json
from typing import Any

import numpy as np
import pytest
from noise import private_avg
from typer.testing import CliRunner

import hanse
from hanse.algorithms import fed_avg, fed_buff, giant, scaffold
from hanse.cli import app
from hanse.core import Close, InvalidInput
from hanse.data import arrays, iid
from hanse.runs.dry_run import LinkModel, plan_messages
from hanse.runs.preparation import prepare_run
from hanse.runs.session import perform
from hanse.transforms import cast, deflate, low_rank, quantize, rotate, top_k


@pytest.mark.parametrize(
    ("algorithm", "share"),
    [
        (fed_avg(lr=0.5, fraction=0.2, uplink=(rotate(), quantize(2))), 0.02),
        (fed_avg(lr=0.5, uplink=(low_rank(1), cast("float16")), close=Close(goal=4)), 0.02),
        (fed_avg(lr=0.5, uplink=(top_k(0.1), quantize(4), deflate())), 0.05),
        (scaffold(lr=0.5, fraction=0.1), 0.02),
        (giant(num_iterations=2), 0.02),
        (fed_buff(lr=0.5, concurrency=10, buffer_size=10), 0.02),
    ],
)
def test_the_run_sends_what_was_planned(algorithm: Any, share: float) -> None:
    experiment = hanse.Experiment(algorithm=algorithm, rounds=4)
    plan, result = plan_messages(prepare_run(experiment)), perform(experiment)
    assert plan.total("up") == pytest.approx(result.bytes_up, rel=share)
    assert plan.total("down") == pytest.approx(result.bytes_down, rel=share)
    assert {n for e in plan.later for n, _ in e.varying} == ({"update"} if share > 0.02 else set())


def test_measuring_by_clients_is_planned_too() -> None:
    rng = np.random.default_rng(0)
    data = arrays(rng.normal(size=(200, 20)), rng.integers(0, 3, 200), test_fraction=0.0)
    experiment = hanse.Experiment(data=data, partition=iid(20), rounds=5, evaluate_every=2)
    plan, result = plan_messages(prepare_run(experiment)), perform(experiment)
    assert plan.evaluations == 4
    assert [e.asked for e in plan.evaluation] == [20]
    assert plan.total("up") == pytest.approx(result.bytes_up, rel=0.02)
    assert plan.total("down") == pytest.approx(result.bytes_down, rel=0.02)


@pytest.mark.parametrize(("rate", "asked"), [(0.2, 20), (1e-6, 1)])
def test_a_poisson_sample_is_planned_as_large_as_expected(rate: float, asked: int) -> None:
    plan = plan_messages(prepare_run(hanse.Experiment(algorithm=private_avg(rate=rate), rounds=2)))
    assert [exchange.asked for exchange in plan.later] == [asked]


def test_seconds_are_those_of_the_link() -> None:
    link = LinkModel.read("8kbit/s", "1 MB", "50ms")
    assert link is not None
    assert link.seconds(1000, 2e6) == pytest.approx(0.1 + 1.0 + 2.0)
    experiment = hanse.Experiment(rounds=10)
    plan = plan_messages(prepare_run(experiment), link)
    one = plan.later[0].usage
    assert plan.seconds(plan.later) == pytest.approx(link.seconds(one.bytes_up, one.bytes_down))
    assert plan.run_s == pytest.approx(10 * (plan.seconds(plan.later) or 0), rel=0.02)
    assert plan_messages(prepare_run(experiment)).run_s is None


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("10", "1MB", None), "--up is '10'; write a number and one of bit, kbit"),
        (("0Mbit", "1MB", None), "--up is '0Mbit'"),
        (("1Mbit", "-1MB", None), "--down is '-1MB'"),
        (("1Mbit", "1MB", "5"), "--latency is '5'; write a number and one of us, ms, s, such as 50ms"),
        (("1Mbit", None, None), "a link has two directions: write both"),
        ((None, None, "5ms"), "a link has two directions: write both"),
    ],
)
def test_a_link_that_can_not_be_read(given: Any, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        LinkModel.read(*given)


def test_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    sets = ["--set", 'algorithm.uplink=["rotate", {name="quantize", bits=2}, "deflate"]']
    found = CliRunner().invoke(app, ["plan", *sets, "--up", "1Mbit", "--down", "5Mbit"])
    assert found.exit_code == 0
    for words in (
        "local_sgd: one of 10 clients",
        "deflate() *",
        "1/14.5",
        "on the link",
        "the run, 100 rounds",
    ):
        assert words in found.output
    said = json.loads(CliRunner().invoke(app, ["plan", *sets, "--json"]).stdout)
    assert said["round"]["bytes_up"] == 10 * said["round"]["client_bytes_up"]
    assert said["later_rounds"][0]["depends_on_the_data"] == [{"name": "update", "stage": "deflate()"}]
    assert CliRunner().invoke(app, ["plan", "--up", "fast", "--down", "1MB"]).exit_code == 2


def test_a_plan_counts_encrypted_messages_and_refuses_a_run_whose_clients_would_all_decline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    into = '{name="encrypted_mean", min_cohort=3}'
    plan = [
        "plan",
        "--set",
        "partition.num_clients=4",
        "--set",
        'algorithm.uplink=[{name="clip", max_norm=1.0}]',
        "--set",
    ]
    sets = f"algorithm.into={into}"
    found = CliRunner().invoke(app, [*plan, sets, "--set", 'algorithm.weighting="uniform"', "--json"])
    assert found.exit_code == 0, found.output
    phase = json.loads(found.stdout)["later_rounds"][1]
    assert (phase["work"], phase["client_bytes_up"] > 262_144) == ("encrypt_pending", True)
    found = CliRunner().invoke(app, [*plan, sets])  # clients weigh as many as they have examples
    assert found.exit_code == 2
    words = " ".join(found.output.split())
    assert "no round of this run would close: all 4 that are asked for encrypt_pending refuse" in words
    assert "scaled for weights from 0 to 1" in words
