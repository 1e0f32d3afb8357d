"""A run as a loop: its rounds, what is kept when it is left, and that everything is closed."""

import gc
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hanse
from hanse.algorithms import fed_avg, trained_by
from hanse.core import Stop
from hanse.core.exchange import Record, digest
from hanse.data import arrays, iid
from hanse.learners import logistic
from hanse.store import Runs

X = np.random.default_rng(0).normal(size=(60, 3))
DATA = arrays(X, (X[:, 0] > 0).astype(int))
SMALL: dict[str, Any] = {"data": DATA, "partition": iid(6), "model": logistic(), "rounds": 5}


def test_a_loop_to_the_end_is_a_run() -> None:
    begun = hanse.rounds(**SMALL)
    done = list(begun)
    ran = hanse.run(**SMALL)
    assert [round.record.round for round in done] == [0, 1, 2, 3, 4, 5]
    assert [round.metrics for round in done] == [record.metrics for record in ran.records]
    assert digest(dict(done[-1].params)) == ran.params_sha256
    assert digest(dict(done[2].params)) != digest(dict(done[3].params))
    assert begun.result.status == "completed"
    assert begun.result.params_sha256 == ran.params_sha256
    assert begun.result.clients == ran.clients
    assert next(begun, None) is None


def test_a_loop_takes_the_settings_of_a_run() -> None:
    begun = hanse.rounds(**SMALL, evaluate_every=2, seed=3, stop=Stop(target=0.5), baselines=())
    measured = [round.record.round for round in begun if round.metrics]
    ran = hanse.run(**SMALL, evaluate_every=2, seed=3, stop=Stop(target=0.5))
    assert begun.result.reason == ran.reason
    assert measured == [record.round for record in ran.records if record.metrics]
    with pytest.raises(hanse.InvalidInput, match="write at least 1"):
        hanse.rounds(**SMALL | {"rounds": 0})
    with pytest.raises(TypeError, match="lr"):
        hanse.rounds(lr=0.1)  # type: ignore[call-arg]


def test_parameters_can_be_kept_and_not_written() -> None:
    kept = {round.record.round: round.params for round in hanse.rounds(**SMALL)}
    with pytest.raises(ValueError, match="read-only"):
        kept[1]["weights"][0] = 7.0
    for number in (1, 3):
        assert digest(dict(kept[number])) == hanse.run(**SMALL | {"rounds": number}).params_sha256


def test_a_loop_that_is_left_is_kept_and_goes_on(tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    begun = hanse.rounds(**SMALL, store=store)
    for round in begun:
        if round.record.round == 2:
            break
    result = begun.result
    assert (result.status, result.reason, result.rounds) == ("stopped", "its loop was left", 2)
    assert digest(dict(result.params)) == digest(dict(round.params))
    assert next(begun, None) is None
    assert result.run is not None
    info = Runs(store).info(result.run)
    assert info.status == "stopped"
    assert hanse.resume(result.run, store=store, data=DATA).params_sha256 == hanse.run(**SMALL).params_sha256


def test_what_is_left_is_closed_by_itself(tmp_path: Path) -> None:
    """The run is claimed by this process until then, and its status is written."""
    store = tmp_path / "store.db"
    for round in hanse.rounds(**SMALL, store=store):
        if round.record.round == 1:
            break
    gc.collect()
    (info,) = Runs(store).infos()
    assert info.status == "stopped"
    assert hanse.resume(info.run, store=store, data=DATA).status == "completed"


@pytest.mark.parametrize("wrong", [KeyError("mine"), KeyboardInterrupt()])
def test_a_with_statement_says_how_the_loop_was_left(wrong: BaseException, tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    begun = hanse.rounds(**SMALL, store=store)
    with pytest.raises(type(wrong)), begun:
        raise wrong
    status = "interrupted" if isinstance(wrong, KeyboardInterrupt) else "stopped"
    assert begun.result.status == status
    assert Runs(store).infos()[0].status == status
    assert ("mine" in str(begun.result.reason)) == (status == "stopped")


def workers_of(pid: int) -> list[str]:
    done = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True)
    return done.stdout.split()


def test_worker_processes_end_with_the_loop() -> None:
    code = """
import os, sys
sys.path.insert(0, {folder!r})
from test_loop import SMALL, workers_of
import hanse
from hanse.simulation import sequential
with hanse.rounds(**SMALL, execution=sequential(num_workers=2)) as begun:
    for round in begun:
        if round.record.round == 1:
            print(len(workers_of(os.getpid())))
            break
print(len(workers_of(os.getpid())), begun.result.executions)
"""
    folder = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", code.format(folder=folder)], capture_output=True, text=True, check=True
    )
    before, after, *rest = done.stdout.split(None, 2)
    assert int(before) - int(after) == 2
    assert rest == ["('2 workers',)\n"]


def test_ctrl_c_between_rounds_waits_for_nothing(tmp_path: Path) -> None:
    """In the loop's body it is Python's own; in a round it ends the run as it does in `run`."""
    store = tmp_path / "store.db"
    begun = hanse.rounds(**SMALL, store=store)
    next(begun)
    with pytest.raises(KeyboardInterrupt), begun:
        signal.raise_signal(signal.SIGINT)
    assert Runs(store).infos()[0].status == "interrupted"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def train(params: Any, data: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    begun = hanse.rounds(**SMALL, algorithm=fed_avg(client=trained_by(train)))
    with pytest.raises(hanse.Interrupted) as caught:
        list(begun)
    assert begun.result is caught.value.result
    assert begun.result.status == "interrupted"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_in_a_round_ends_the_run(tmp_path: Path) -> None:
    begun = hanse.rounds(
        **SMALL, algorithm=fed_avg(lr=1e6, fraction=0.1, epochs=400), store=tmp_path / "store.db"
    )
    with pytest.raises(hanse.RunDiverged) as caught:
        list(begun)
    assert begun.result is caught.value.result
    assert Runs(tmp_path / "store.db").infos()[0].status == "diverged"

    def fails(params: Any, data: Any, key: Any, calls: Any = iter(range(100))) -> None:
        if next(calls) == 6:
            raise RuntimeError("out of luck")

    failing = hanse.rounds(**SMALL, algorithm=fed_avg(fraction=0.5, client=trained_by(fails)))
    with pytest.raises(RuntimeError, match="out of luck"):
        list(failing)
    assert (failing.result.status, failing.result.rounds) == ("failed", 1)


def test_time_in_the_body_is_not_that_of_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    passed = [0.0]
    real = time.perf_counter
    monkeypatch.setattr(time, "perf_counter", lambda: real() + passed[0])
    for _ in (begun := hanse.rounds(**SMALL)):
        passed[0] += 1000.0
    assert begun.result.seconds < 1000.0


def test_floating_point_warnings_of_the_body_are_the_users_own() -> None:
    with np.errstate(over="raise"):
        for _ in hanse.rounds(**SMALL):
            with pytest.raises(FloatingPointError):
                np.float64(1e308) * 10


def test_watch_sees_the_parameters_if_it_names_them() -> None:
    seen: list[Any] = []
    old: list[Record] = []

    def watch(record: Record, *, params: Any) -> None:
        seen.append((record.round, digest(dict(params))))

    def default(record: Record, prefix: str = "round") -> None:
        seen.append(prefix)

    result = hanse.run(**SMALL, watch=watch)
    assert [number for number, _ in seen] == [0, 1, 2, 3, 4, 5]
    assert seen[-1][1] == result.params_sha256
    assert len({bits for _, bits in seen}) == 6
    hanse.run(**SMALL, watch=old.append)
    assert [record.round for record in old] == [0, 1, 2, 3, 4, 5]
    seen.clear()
    hanse.run(**SMALL, watch=default)
    assert seen == ["round"] * 6
