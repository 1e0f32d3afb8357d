"""Many runs: how they begin, end, and are found."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import simulate

from hanse.algorithms import fed_buff, scaffold
from hanse.core import InvalidInput, Release, StoreError, former
from hanse.core.exchange import Checkpoint, Entry, Flow, Record, ReleaseRecord, Usage, digest
from hanse.simulation import heavy_tailed, ideal
from hanse.store import RunInfo, Runs


def save(store: Any, number: int, **metrics: float) -> None:
    store.save(Checkpoint(number, None, None), Record(number, metrics, Usage(), 0.0), {})


def test_settings_of_a_run_are_amended_while_another_process_performs_it(tmp_path: Path) -> None:
    runs = Runs(tmp_path / "runs.db")
    run, other = runs.begin({"a": 1, "b": [1]}, {}), runs.begin({"a": 1}, {})
    with runs.open(run) as store:
        Runs(tmp_path / "runs.db").amend(run, lambda settings: {**settings, "b": [*settings["b"], 2]})
        store.finish("completed")
    assert runs.info(run).settings == {"a": 1, "b": [1, 2]}
    assert runs.info(run).status == "completed"
    assert runs.info(other).settings == {"a": 1}
    with pytest.raises(StoreError, match="there is no run 'x'"):
        runs.amend("x", lambda settings: settings)


def test_a_run_from_beginning_to_end(runs: Runs) -> None:
    settings, environment = {"lr": 0.1, "layers": [3, 4], "note": "é"}, {"cpu": {"cores": 2}, "git": None}
    before = datetime.now(UTC)
    run = runs.begin(settings, environment)
    info = runs.info(run)
    assert before - timedelta(seconds=1) < info.created < datetime.now(UTC) + timedelta(seconds=1)
    assert info == RunInfo(run, info.created, "interrupted", settings, environment, None, 0)
    with runs.open(run) as store:
        assert store.run == run
        for number in range(4):
            save(store, number)
        assert runs.info(run).status == "running"
        runs.finish(run, "completed", {"accuracy": 0.9})
        assert runs.info(run) == RunInfo(
            run, info.created, "completed", settings, environment, {"accuracy": 0.9}, 3
        )


def test_settings_of_an_earlier_version_have_the_names_of_today(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(former, "CLASSES", {"finish": "Close"})
    monkeypatch.setattr(former, "FIELDS", {"Close": {"aim": "goal"}})
    monkeypatch.setattr(former, "SETTINGS", {"turns": "rounds"})
    run = runs.begin({"experiment": {"turns": 3, "close": {"name": "finish", "aim": 1}}, "turns": 3}, {})
    assert runs.info(run).settings == {
        "experiment": {"rounds": 3, "close": {"name": "Close", "goal": 1}},
        "turns": 3,
    }


def test_a_result_of_an_earlier_version_has_the_names_of_today(runs: Runs) -> None:
    run = runs.begin({}, {})
    runs.finish(run, "completed", {"ways": ["one by one"], "flows": [{"way": "up", "name": "update"}]})
    result = {"executions": ["one by one"], "flows": [{"direction": "up", "name": "update"}]}
    assert runs.info(run).result == result


RELEASES = (
    ReleaseRecord("update", Release("gaussian", 1.1), 0.05, 17),
    ReleaseRecord("norms", Release("tree", 7.0, {"height": 11.0}), 1.0, 2**40),
)


def test_records_come_back(runs: Runs) -> None:
    records = (
        Record(0, {"loss": 1.5, "accuracy": 0.1}, Usage(), 0.25),
        Record(1, {}, Usage(10**12, 7, 3, 1, 2.5), 1e-9, "1 of 3 contributions were counted, 2 are needed"),
        Record(1, {"loss": float("inf")}, Usage(), 0.0),
        Record(2, {}, Usage(flows=(Flow("up", "w", ("cast('float16')",), 3, (None, 6)),)), 0.0),
        Record(3, {}, Usage(releases=RELEASES), 0.0, "the second exchange was abandoned"),
    )
    run = runs.begin({}, {})
    with runs.open(run) as store:
        for record in records:
            store.save(Checkpoint(record.round, None, None), record, {})
        assert runs.records(run) == ()
    assert runs.records(run) == records
    assert runs.info(run).rounds == 3


def test_what_clients_sent_is_summed_over_rounds(runs: Runs) -> None:
    rounds: Any = [{3: (10**10, 1), 7: (2, 0)}, {}, {7: (5, 6), 0: (0, 8)}]
    run, other = runs.begin({}, {}), runs.begin({}, {})
    for each in (run, other):
        with runs.open(each) as store:
            for number, clients in enumerate(rounds):
                usage = Usage(clients=clients)
                store.save(Checkpoint(number, None, None), Record(number, {}, usage, 0.0), {})
                if each == run:
                    store.flush()
    assert runs.traffic(run) == runs.traffic(other) == ((0, 0, 8), (3, 10**10, 1), (7, 7, 6))
    assert all(record.usage.clients == {} for record in runs.records(run))


def test_numbers_may_be_numpy_and_not_finite(runs: Runs) -> None:
    run = runs.begin({}, {})
    usage = Usage(np.int64(3), np.uint8(4), 5, 6, np.float32(0.5))  # type: ignore[arg-type]
    metrics: Any = {"loss": np.float32(0.1), "nan": float("nan"), "array": np.array(3)}
    with runs.open(run) as store:
        store.save(Checkpoint(1, None, None), Record(1, metrics, usage, np.float64(0.25)), {})
        store.finish("diverged", {"loss": float("nan")})
    (record,) = runs.records(run)
    assert record.metrics["loss"] == float(np.float32(0.1))
    assert np.isnan(record.metrics["nan"])
    assert (record.metrics["array"], record.usage, record.seconds) == (3.0, Usage(3, 4, 5, 6, 0.5), 0.25)
    assert np.isnan(runs.info(run).result["loss"])


def test_the_newest_is_listed_first(runs: Runs) -> None:
    assert runs.infos() == ()
    begun = [runs.begin({"number": number}, {}) for number in range(3)]
    runs.finish(begun[1], "failed")
    assert [(info.run, info.status) for info in runs.infos()] == [
        (begun[2], "interrupted"),
        (begun[1], "failed"),
        (begun[0], "interrupted"),
    ]


def test_the_checkpoint_of_a_run_can_be_read_by_anybody(runs: Runs) -> None:
    run = runs.begin({}, {})
    assert runs.checkpoint(run) is None
    with runs.open(run) as store:
        save(store, 3)
        store.flush()
        assert runs.checkpoint(run[:6]) == Checkpoint(3, None, None)


def test_a_run_can_go_on_after_its_end(runs: Runs) -> None:
    run = runs.begin({}, {})
    runs.finish(run, "completed", {"accuracy": 0.5})
    with runs.open(run) as store:
        assert store.checkpoint() is None
    assert runs.info(run).status == "completed"
    with runs.open(run, flush_every_s=0.0) as store:
        save(store, 1)
        assert (runs.info(run).status, runs.info(run).result) == ("running", None)
    runs.finish(run, "failed")
    assert (runs.info(run).status, runs.info(run).result) == ("failed", None)


@pytest.mark.parametrize("status", ["completed", "diverged", "failed", "interrupted"])
def test_runs_end_in_four_ways(runs: Runs, status: str) -> None:
    run = runs.begin({}, {})
    runs.finish(run[:8], status)
    assert runs.info(run).status == status


# -- wrong inputs --------------------------------------------------------------------------------


def test_unknown_runs(runs: Runs) -> None:
    with pytest.raises(StoreError, match="there is no run 'abc': none has begun; `hanse ls` lists them"):
        runs.info("abc")
    runs.begin({}, {})
    run = runs.begin({}, {})
    wrong = run[:4] + ("0" if run[4] != "0" else "1") + run[5:]
    with pytest.raises(StoreError, match=f"there is no run '{wrong}': did you mean {run}"):
        runs.open(wrong)
    for unknown in ("", "%", "xyz"):
        with pytest.raises(StoreError, match=f"there is no run '{unknown}': the newest is {run}; `hanse ls`"):
            runs.records(unknown)


def test_a_prefix_that_several_runs_have(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = iter(["abcd00", "abce00"])
    monkeypatch.setattr("hanse.store.runs.secrets.token_hex", lambda num_bytes: next(ids))
    runs.begin({}, {})
    runs.begin({}, {})
    with pytest.raises(StoreError, match="2 runs begin with 'abc': abce00, abcd00; write more of the one"):
        runs.info("abc")
    assert runs.info("abce").run == "abce00"


@pytest.mark.parametrize("wrong", [{"f": print}, {"a": np.zeros(2)}, {1: {2, 3}}, {("a", "b"): 1}])
def test_what_is_not_json_is_refused(runs: Runs, wrong: Any) -> None:
    with pytest.raises(InvalidInput, match="the settings can't be written as JSON"):
        runs.begin(wrong, {})
    with pytest.raises(InvalidInput, match="the environment can't be written as JSON"):
        runs.begin({}, wrong)
    run = runs.begin({}, {})
    with pytest.raises(InvalidInput, match="the result can't be written as JSON"):
        runs.finish(run, "completed", wrong)
    assert [info.run for info in runs.infos()] == [run]


def test_other_wrong_inputs(runs: Runs) -> None:
    run = runs.begin({}, {})
    with pytest.raises(InvalidInput, match="a run can't end as 'complete'; did you mean 'completed'"):
        runs.finish(run, "complete")
    for seconds in (-1.0, float("nan")):
        with pytest.raises(InvalidInput, match=f"flush_every_s is {seconds}; write seconds, at least 0"):
            runs.open(run, flush_every_s=seconds)
    assert runs.info(run).status == "interrupted"


# -- real programs -------------------------------------------------------------------------------


class Cut(Exception):
    """The end of a process."""


def cut_at_every_fifth(store: Any, calls: list[Entry]) -> None:
    """Makes a store's process end just after each fifth entry of the journal, counted over all of them."""
    append = store.append

    def cut(entry: Entry) -> None:
        append(entry)
        calls.append(entry)
        if len(calls) % 5 == 0:
            raise Cut

    store.append = cut


@pytest.mark.parametrize(
    ("algorithm", "devices"),
    [
        (scaffold(lr=0.02, fraction=0.7, epochs=2, batch_size=4), ideal()),
        (fed_buff(lr=0.02, concurrency=4, buffer_size=2), heavy_tailed()),
    ],
)
@pytest.mark.parametrize("flush_every_s", [0.0, 3600.0])
def test_a_program_that_is_cut_ends_in_the_same_bits(
    runs: Runs, rows_of: Any, algorithm: Any, devices: Any, flush_every_s: float
) -> None:
    run = runs.begin({}, {})
    calls: list[Entry] = []
    ended = None
    while ended is None:
        with suppress(Cut), runs.open(run, flush_every_s=flush_every_s) as store:
            cut_at_every_fifth(store, calls)
            ended = simulate(algorithm, 6, devices, store)
        rows_of(runs, run).check_objects()
    assert len(calls) > 10
    assert digest(ended) == digest(simulate(algorithm, 6, devices))
    assert [record.round for record in runs.records(run)] == [1, 2, 3, 4, 5, 6]
