"""Two processes never perform the same run."""

import gc
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pytest

from hanse.core import StoreError
from hanse.core.exchange import Checkpoint, Record, Usage
from hanse.store import Runs, RunStore
from hanse.store.claim import Claim
from hanse.store.rows import RunRows


def save(store: RunStore, number: int) -> None:
    store.save(Checkpoint(number, None, None), Record(number, {}, Usage(), 0.0), {})


def test_a_run_is_performed_by_one_process(runs: Runs, nursery: Any) -> None:
    run = runs.begin({}, {})
    assert runs.info(run).status == "interrupted"
    child = nursery.start("hold", runs._database.path, run)
    assert child.line() == "holds"
    assert runs.info(run).status == "running"
    for attempt in (runs.open, lambda run: runs.finish(run, "failed")):
        with pytest.raises(StoreError, match=rf"run {run} is performed by process {child.pid} on .*: wait"):
            attempt(run)
    child.kill()
    assert runs.info(run).status == "interrupted"
    with runs.open(run) as store:
        save(store, 1)
        assert runs.info(run).status == "running"
    assert runs.info(run).status == "interrupted"


def test_other_runs_are_free(runs: Runs, nursery: Any) -> None:
    child = nursery.start("hold", runs._database.path, runs.begin({}, {}))
    assert child.line() == "holds"
    with runs.open(runs.begin({}, {})) as store:
        save(store, 1)
    child.kill()


def test_a_claim_ends_with_its_process_even_if_a_worker_lives_on(runs: Runs, nursery: Any) -> None:
    run = runs.begin({}, {})
    child = nursery.start("hold_with_a_worker", runs._database.path, run)
    worker, *words = child.words()
    assert " ".join(words) == f"run {run} is open in process {child.pid}; a fork of it can't use it"
    child.kill()
    os.kill(int(worker), 0)  # it lives
    with runs.open(run) as store:
        save(store, 1)
    os.kill(int(worker), SIGKILL)


def test_a_run_is_opened_once_in_a_process(runs: Runs) -> None:
    run = runs.begin({}, {})
    with runs.open(run), pytest.raises(StoreError, match=f"run {run} is open in this process: close"):
        runs.open(run)
    runs.open(run).close()


def test_a_store_that_is_forgotten_lets_go(runs: Runs) -> None:
    run = runs.begin({}, {})
    store = runs.open(run)
    save(store, 1)
    del store
    gc.collect()
    with runs.open(run) as store:
        assert store.checkpoint() is None


def test_closing_leaves_no_file_behind(runs: Runs) -> None:
    store = runs.open(runs.begin({}, {}))
    save(store, 1)
    folder = runs._database.path.parent
    assert any(path.suffix == ".claim" for path in folder.iterdir())
    store.close()
    store.close()
    assert [path.name for path in folder.iterdir()] == ["runs.db"]


def test_who_lost_a_run_can_not_write(runs: Runs) -> None:
    run = runs.begin({}, {})
    first = runs.open(run)
    save(first, 1)
    (claim,) = runs._database.path.parent.glob("*.claim")
    claim.unlink()  # a careless hand
    with runs.open(run) as second:
        save(second, 7)
        second.flush()
        save(first, 2)
        with pytest.raises(StoreError, match=rf"run {run} was taken over by process {os.getpid()} on .*stop"):
            first.flush()
        first.close()
        assert len(list(runs._database.path.parent.glob("*.claim"))) == 1
        assert second.checkpoint().round == 7
    assert [record.round for record in runs.records(run)] == [7]


def test_who_was_overtaken_and_left_alone_can_not_write_either(runs: Runs) -> None:
    run = runs.begin({}, {})
    first = runs.open(run)
    next(runs._database.path.parent.glob("*.claim")).unlink()
    runs.open(run).close()
    save(first, 1)
    with pytest.raises(StoreError, match="taken over"):
        first.close()
    assert runs.records(run) == ()


def test_a_store_that_is_closed_says_so(runs: Runs) -> None:
    with runs.open(runs.begin({}, {})) as store:
        pass
    for use in (
        store.checkpoint,
        store.journal,
        store.flush,
        lambda: store.memory(0),
        lambda: save(store, 1),
    ):
        with pytest.raises(StoreError, match=f"run {store.run} was closed here; open it again"):
            use()


def test_a_claim_that_can_not_be_made_says_so(runs: Runs) -> None:
    run = runs.begin({}, {})
    path = runs._database.path.with_name(f"runs.db-{run}.claim")
    path.mkdir()
    with pytest.raises(StoreError, match=rf"{run}\.claim can't be opened \(Is a directory\)"):
        runs.open(run)


def test_an_opening_that_fails_lets_go(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(rows: RunRows) -> None:
        raise StoreError("damaged")

    run = runs.begin({}, {})
    monkeypatch.setattr(RunRows, "_load", fail)
    with pytest.raises(StoreError, match="damaged"):
        runs.open(run)
    monkeypatch.undo()
    runs.open(run).close()


def test_two_never_hold_a_claim(tmp_path: Path) -> None:
    """Many threads take, hold and release one claim: never two at a time."""
    path, held, most = tmp_path / "claim", [0], [0]

    def work(_: int) -> int:
        taken = 0
        for _ in range(50):
            claim = Claim.take(path)
            if claim is None:
                continue
            held[0] += 1
            most[0] = max(most[0], held[0])
            taken += 1
            time.sleep(0)
            held[0] -= 1
            claim.release()
        return taken

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(work, range(4))) > 50
    assert most == [1]
    assert not path.exists()
