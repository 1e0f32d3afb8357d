"""Runs from Python return results, and go on where they stopped."""

import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hanse
from hanse.algorithms import fed_avg, fed_buff, gossip, scaffold
from hanse.core import Examples, value
from hanse.core.exchange import Record, digest
from hanse.data import Dataset, TrainTest, arrays, from_clients, generate, iid
from hanse.learners import least_squares, logistic
from hanse.runs import session as running
from hanse.runs.machine import environment
from hanse.simulation import heavy_tailed, unstable
from hanse.store import Runs

X = np.random.default_rng(0).normal(size=(60, 3))
Y = (X[:, 0] > 0).astype(int)
DATA = arrays(X, Y)
SMALL: dict[str, Any] = {"data": DATA, "partition": iid(6), "model": logistic(), "rounds": 6}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "store.db"


def stop_after(round: int) -> Any:
    def watch(record: Record) -> None:
        if record.round == round:
            signal.raise_signal(signal.SIGINT)

    return watch


def test_a_model_is_loaded_while_the_data_are_read() -> None:
    reading, loading = threading.Event(), threading.Event()

    @value
    class slow_to_load(logistic):
        def load(self) -> None:
            loading.set()
            reading.wait(20)
            raise RuntimeError("never mind")

    @value
    class slow_to_read(Dataset):
        def load(self) -> TrainTest:
            assert loading.wait(20)
            reading.set()
            return DATA.load()

    result = hanse.run(**SMALL | {"data": slow_to_read(), "model": slow_to_load()})
    assert result.status == "completed"


def test_the_default_learns() -> None:
    seen: list[Record] = []
    result = hanse.run(watch=seen.append)
    assert (result.run, result.status, result.rounds, result.reason) == (None, "completed", 100, None)
    assert result.final is not None
    assert result.best is not None
    assert result.final.round == 100
    assert result.final.metrics["accuracy"] > 0.93
    assert result.best.metrics["accuracy"] == max(record.metrics["accuracy"] for record in result.records)
    assert tuple(seen) == result.records
    assert [record.round for record in result.records] == list(range(101))
    assert result.params_sha256 == digest(result.params)


def test_result_as_plain_data() -> None:
    plain = hanse.run(**SMALL, stop=hanse.Stop(target=0.8)).to_json()
    assert plain.keys() == {
        *(
            "run",
            "status",
            "reason",
            "findings",
            "rounds",
            "rounds_to_target",
            "rounds_abandoned",
            "final",
            "best",
        ),
        *("bytes_up", "bytes_down", "flows", "seconds", "spent", "executions", "virtual_s", "params_sha256"),
        *("clients", "baselines", "data", "higher_is_better", "privacy", "assessment", "headline", "parties"),
    }
    assert plain["status"] == "completed"
    assert plain["rounds"] == plain["rounds_to_target"] == plain["final"]["round"] < 6
    assert plain["reason"] == "accuracy reached 0.8"
    assert plain["bytes_up"] > 0 < plain["bytes_down"]


def test_a_kept_run_is_the_same_run(store: Path) -> None:
    alone, kept = hanse.run(rounds=5), hanse.run(rounds=5, store=store)
    assert kept.run is not None
    assert kept.params_sha256 == alone.params_sha256
    info = Runs(store).info(kept.run)
    assert (info.status, info.rounds, info.result) == ("completed", 5, kept.to_json())
    assert info.environment.keys() == {"hanse", "python", "numpy", "blas", "threads", "cpu", "system"}
    assert info.environment["threads"] == "1"
    assert Runs(store).records(kept.run) == kept.records


def test_a_completed_run_resumes_to_itself(store: Path) -> None:
    done = hanse.run(rounds=3, store=store)
    assert done.run is not None
    again = hanse.resume(done.run, store=store)
    assert again.to_json() == done.to_json()
    assert again.records == done.records


def test_the_usual_place(monkeypatch: pytest.MonkeyPatch, store: Path) -> None:
    assert running.default_store() == Path(".hanse/store.db")
    monkeypatch.setenv("HANSE_STORE", str(store))
    assert running.default_store() == str(store)
    with pytest.raises(hanse.StoreError, match="no runs are kept at"):
        hanse.resume("abc")
    assert not store.parent.exists()


# -- Ctrl-C ------------------------------------------------------------------------------------


@pytest.mark.parametrize("round", [0, 1, 4])
@pytest.mark.parametrize(
    "algorithm", [fed_avg(fraction=0.5), scaffold(fraction=0.5), fed_buff(concurrency=4, buffer_size=2)]
)
def test_a_run_interrupted_goes_on_to_the_same_bits(store: Path, round: int, algorithm: Any) -> None:
    settings = {**SMALL, "algorithm": algorithm, "devices": heavy_tailed()}
    undisturbed = hanse.run(**settings)
    with pytest.raises(
        hanse.Interrupted, match=f"interrupted after round {round}; go on with: hanse resume"
    ) as caught:
        hanse.run(**settings, store=store, watch=stop_after(round))
    cut = caught.value.result
    assert cut.run is not None
    assert (cut.status, cut.rounds, len(cut.records)) == ("interrupted", round, round + 1)
    assert Runs(store).info(cut.run).status == "interrupted"
    went_on = hanse.resume(cut.run, store=store, data=DATA)
    assert went_on.params_sha256 == undisturbed.params_sha256
    assert [replace(record, seconds=0) for record in went_on.records] == [
        replace(record, seconds=0) for record in undisturbed.records
    ]


def test_without_a_store_what_was_done_is_in_the_exception() -> None:
    with pytest.raises(hanse.Interrupted, match=r"^interrupted after round 2$") as caught:
        hanse.run(**SMALL, watch=stop_after(2))
    assert caught.value.result.rounds == 2


def test_ctrl_c_is_everybodys_again_afterwards() -> None:
    hanse.run(**SMALL)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(hanse.Interrupted):
        hanse.run(**SMALL, watch=stop_after(1))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_after_the_last_round_is_not_lost() -> None:
    with pytest.raises(KeyboardInterrupt):
        hanse.run(**SMALL, watch=stop_after(6))


@pytest.fixture
def debugger() -> Iterator[list[int]]:
    caught: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: caught.append(number))
    yield caught
    signal.signal(signal.SIGINT, before)


def test_who_handles_ctrl_c_already_goes_on_to(debugger: list[int]) -> None:
    assert hanse.run(**SMALL, watch=stop_after(1)).status == "completed"
    assert debugger == [signal.SIGINT]


def test_a_thread_can_run() -> None:
    results: list[hanse.Result] = []
    thread = threading.Thread(target=lambda: results.append(hanse.run(**SMALL)))
    thread.start()
    thread.join()
    assert results[0].params_sha256 == hanse.run(**SMALL).params_sha256


# -- what goes wrong ---------------------------------------------------------------------------


def test_divergence_is_stopped_and_said(store: Path) -> None:
    with pytest.raises(
        hanse.RunDiverged, match=r"diverged in round 1: .* write a smaller step size"
    ) as caught:
        hanse.run(algorithm=fed_avg(lr=1e9), store=store)
    result = caught.value.result
    assert result.run is not None
    assert (result.status, result.rounds) == ("diverged", 0)
    assert np.isfinite(result.params["weights"]).all()
    assert Runs(store).info(result.run).status == "diverged"


def test_what_fails_on_the_way_is_marked(store: Path) -> None:
    def fail(record: Record) -> None:
        raise RuntimeError("the disk of the watcher is full")

    with pytest.raises(RuntimeError):
        hanse.run(**SMALL, store=store, watch=fail)
    (info,) = Runs(store).infos()
    assert info.status == "failed"
    assert info.result is not None
    assert info.result["reason"] == "the disk of the watcher is full"
    assert hanse.resume(info.run, store=store, data=DATA).params_sha256 == hanse.run(**SMALL).params_sha256


def test_nothing_is_kept_of_what_can_not_begin(store: Path) -> None:
    hanse.run(rounds=1, store=store)
    with pytest.raises(hanse.InvalidInput):
        hanse.run(partition=iid(2000), store=store)
    assert len(Runs(store).infos()) == 1


def test_nan_in_the_data() -> None:
    x = X.copy()
    x[3, 1] = np.nan
    with pytest.raises(
        hanse.InvalidInput, match="the feature in row 3, column 1 is nan; give a finite number"
    ):
        hanse.run(data=arrays(x, Y))
    lazy = generate(
        4, lambda number: Examples(x if number == 2 else X, Y), test=Examples(X, Y), num_classes=2
    )
    with pytest.raises(hanse.InvalidInput, match="the feature in row 3, column 1") as caught:
        hanse.run(data=lazy, model=logistic(), algorithm=fed_avg(fraction=1.0))
    assert any("while 2 performed local_sgd" in note for note in caught.value.__notes__)


def test_labels_out_of_range() -> None:
    with pytest.raises(
        hanse.InvalidInput, match="the label in row 0 is 7; 2 classes are the integers 0 to 1"
    ):
        hanse.run(data=arrays(X, np.r_[7, Y[1:]], num_classes=2))


def test_an_empty_client() -> None:
    with pytest.raises(hanse.InvalidInput, match="client 1: no examples; give at least 1"):
        hanse.run(data=from_clients([Examples(X, Y), Examples(X[:0], Y[:0])]))


def test_abandoned_rounds_are_counted() -> None:
    result = hanse.run(rounds=3, devices=unstable(1.0))
    assert result.to_json()["rounds_abandoned"] == 3
    assert result.final is not None
    assert result.final.metrics == result.records[0].metrics


# -- resuming elsewhere ------------------------------------------------------------------------


def interrupted(store: Path, **settings: Any) -> str:
    with pytest.raises(hanse.Interrupted) as caught:
        hanse.run(**settings, store=store, watch=stop_after(2))
    assert caught.value.result.run is not None
    return caught.value.result.run


def test_data_from_python_must_be_given_again_and_be_the_same(store: Path) -> None:
    run = interrupted(store, **SMALL)
    with pytest.raises(
        hanse.InvalidInput, match=rf"not kept \(arrays\); .* hanse\.resume\('{run}', data=\.\.\.\)"
    ):
        hanse.resume(run, store=store)
    with pytest.raises(hanse.InvalidInput, match=f"run {run} began on other data"):
        hanse.resume(run, store=store, data=arrays(X + 1, Y))
    assert hanse.resume(run, store=store, data=DATA).status == "completed"


def test_own_clients_resume(store: Path) -> None:
    clients = from_clients([Examples(X, Y), Examples(X[:5], Y[:5])])
    run = interrupted(store, data=clients, model=logistic(), rounds=4)
    alone = hanse.run(data=clients, model=logistic(), rounds=4)
    assert hanse.resume(run, store=store, data=clients).params_sha256 == alone.params_sha256


def test_other_versions_are_warned_about(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = interrupted(store, rounds=4)
    now = environment()
    monkeypatch.setattr(running, "environment", lambda: {**now, "numpy": "9.9"})
    with pytest.warns(UserWarning, match=rf"bits may differ .*: numpy {now['numpy']} became 9\.9"):
        hanse.resume(run, store=store)


def test_an_unknown_run(store: Path) -> None:
    done = hanse.run(rounds=1, store=store)
    assert done.run is not None
    with pytest.raises(hanse.StoreError, match=rf"there is no run 'zzz': the newest is {done.run}"):
        hanse.resume("zzz", store=store)


def test_a_class_that_is_gone_is_named(store: Path) -> None:
    run = interrupted(store, rounds=4)
    info = Runs(store).info(run)
    settings = {**info.settings["experiment"], "algorithm": {"name": "mine", "lr": 1.0}}
    theirs = Runs(store).begin({"experiment": settings, "data_sha256": ""}, info.environment)
    with pytest.raises(
        hanse.InvalidInput,
        match=r'"mine", which names no algorithm.* --import FILE\.py, or import it in Python',
    ):
        hanse.resume(theirs, store=store)


def test_regression_needs_no_classes() -> None:
    result = hanse.run(
        data=arrays(X, X @ [1.0, 2.0, 3.0]), partition=iid(6), model=least_squares(), rounds=20
    )
    assert result.best is not None
    assert result.best.metrics["loss"] < 0.1 * result.records[0].metrics["loss"]


def test_a_peers_program_is_not_led_by_a_server() -> None:
    with pytest.raises(hanse.InvalidInput, match="drive_together"):
        hanse.run(algorithm=gossip(me=0, weights=((0, 1.0),)), rounds=1)
