"""The executions of clients: the same bits and bytes, and processes that leave nothing behind."""

import fcntl
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mortal import ends_its_process
from support import KEYS, Few, Quadratic, program

import hanse
from hanse.algorithms import fed_avg, scaffold
from hanse.core import (
    Algorithm,
    Close,
    Examples,
    InvalidInput,
    Key,
    PartSpec,
    Program,
    Spec,
    Tensors,
    gather,
    value,
)
from hanse.core.exchange import InMemory, ModelState, Progress, Record, digest, drive, training
from hanse.data import from_clients, generate
from hanse.learners import softmax
from hanse.simulation import (
    AdaptiveClients,
    Clients,
    Execution,
    Simulation,
    WorkersFailed,
    adaptive,
    auto,
    batched,
    num_processors,
    sequential,
)
from hanse.simulation.worker import remove_stale_files
from hanse.simulation.workers import cut_fair_blocks

KEY = KEYS.public
DATA = from_clients(
    [
        Examples(
            np.random.default_rng(k).normal(size=(3 + k % 4, 5)).astype(np.float32), np.arange(3 + k % 4) % 3
        )
        for k in range(20)
    ]
)


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    before = children()
    yield
    assert children() <= before


def children() -> set[str]:
    task = Path(f"/proc/self/task/{os.getpid()}/children")
    return set(task.read_text().split()) if task.exists() else set()


def run(execution: Execution, **options: Any) -> hanse.Result:
    settings: dict[str, Any] = {"algorithm": fed_avg(lr=0.1, fraction=0.9, batch_size=2), "rounds": 4}
    return hanse.run(data=DATA, model=softmax(), execution=execution, **{**settings, **options})


def cost(result: hanse.Result) -> list[Any]:
    return [(record.usage, record.metrics) for record in result.records]


AVG = fed_avg(lr=0.1, fraction=0.9, batch_size=2)


@pytest.mark.parametrize("algorithm", [AVG, scaffold(lr=0.1), replace(AVG, close=Close(goal=7))])
def test_executions_end_in_the_same_bits_and_cost_the_same_bytes(algorithm: Any) -> None:
    due = run(sequential(), algorithm=algorithm)
    for execution in (auto(), batched(), sequential(2)):
        got = run(execution, algorithm=algorithm)
        assert got.params_sha256 == due.params_sha256
        assert cost(got) == cost(due)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers cost nothing to start, so that they always pay; and they are waited for."""
    monkeypatch.setattr(adaptive, "START_S", 0.0)
    start = adaptive.Workers.ready
    monkeypatch.setattr(adaptive.Workers, "ready", lambda self: self._pool.ready(None) or start(self))


def test_workers_take_over_within_a_run(at_once: None) -> None:
    got = run(auto(2))
    assert got.params_sha256 == run(sequential()).params_sha256


def test_a_short_run_starts_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> Any:
        raise AssertionError("started")

    monkeypatch.setattr(adaptive, "Workers", refuse)
    run(auto(2))


def test_data_that_can_not_be_sent_are_computed_here(at_once: None) -> None:
    def client(number: int) -> Examples:
        return DATA.client(number)

    data = generate(20, client, test=DATA.client(0), num_classes=3)
    settings: dict[str, Any] = {"data": data, "model": softmax(), "algorithm": fed_avg(lr=0.1), "rounds": 2}
    due = hanse.run(**settings, execution=sequential()).params_sha256
    assert hanse.run(**settings, execution=auto(2)).params_sha256 == due
    with pytest.raises(WorkersFailed, match=r"no worker processes could be started: .*client"):
        hanse.run(**settings, execution=sequential(2))


def test_a_worker_that_is_killed_is_replaced_by_this_process(at_once: None) -> None:
    make = partial(Clients, Quadratic(), Few(), KEYS)
    algorithm = fed_avg(lr=0.02, fraction=1.0)

    def perform(execution: Execution, watch: Any = None) -> Any:
        with AdaptiveClients(make, execution, num_rounds=6) as clients:
            runtime = Simulation(clients, 6, KEYS)
            return drive(
                program(algorithm, 6), runtime, InMemory(), partial(watch or (lambda *_: None), clients)
            )

    def kill(clients: AdaptiveClients, record: Record) -> None:
        if record.round == 3:
            assert clients._workers is not None
            clients._workers._pool._workers[0]._process.kill()

    due = digest(perform(sequential()).state)
    assert digest(perform(auto(2), kill).state) == due
    with pytest.raises(WorkersFailed, match="a worker process ended"):
        perform(sequential(2), kill)


MANY = 40
VICTIM = 20
"""A position in the second block of 40 for two workers, which both begin at once."""


@value(name="mean_of_features")
class mean_of_features(Algorithm[ModelState]):
    """In the second round a client ends its worker."""

    fifo: str

    def init(self, params: Tensors, key: Key) -> ModelState:
        return ModelState({"w": np.zeros(3)})

    def round(self, state: ModelState, key: Key) -> Program[ModelState]:
        second = state.params["w"].any()
        work = ends_its_process(os.getpid(), self.fifo, 5 + 3 * VICTIM if second else 0)
        u = PartSpec(Spec.of(state.params))
        got = yield from gather(work, tuple(range(MANY)), {}, key, u=u)
        return ModelState({"w": state.params["w"] + got["u"].values["w"]})


class Announcing:
    """Clients that open a pipe when the first block of the second round has been folded."""

    def __init__(self, clients: AdaptiveClients, fifo: str) -> None:
        self._clients, self._fifo, self.round, self.blocks = clients, fifo, 1, list[tuple[int, ...]]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clients, name)

    def fold(self, places: Any, payload: Any) -> Iterator[Any]:
        for block in self._clients.fold(places, payload):
            yield block
            if self.round == 2:
                self.blocks.append(block.counted)
                if len(self.blocks) == 1:
                    with open(self._fifo, "w"):
                        pass


def test_blocks_that_were_folded_before_a_worker_died_are_not_folded_again(
    at_once: None, tmp_path: Path
) -> None:
    make = partial(Clients, Quadratic(), Few(MANY), KEYS)
    fifo, records = str(tmp_path / "fifo"), InMemory()
    os.mkfifo(fifo)
    program = training(mean_of_features(fifo), Progress(0, ModelState({"w": np.zeros(3)})), KEY, rounds=2)
    with AdaptiveClients(make, auto(2), num_rounds=2) as clients:
        announcing = Announcing(clients, fifo)

        def watch(record: Record) -> None:
            announcing.round = record.round + 1

        ended = drive(program, Simulation(announcing, MANY, KEYS), records, watch)
        assert "a worker process ended (exit status 1)" in (clients.why_not or "")
    second = range(MANY, 2 * MANY)
    assert [ticket for block in announcing.blocks for ticket in block] == list(second)
    assert VICTIM + MANY not in announcing.blocks[0]
    parts = Few(MANY).parts
    mean = sum(part.x.sum(axis=0) for part in parts) / sum(map(len, parts))
    np.testing.assert_allclose(ended.state.params["w"], 2 * mean, rtol=1e-12)
    assert [record.usage.counted for record in records.records] == [MANY, MANY]


def test_ctrl_c_ends_workers_and_the_run_goes_on_later(tmp_path: Path) -> None:
    def interrupt(record: Record) -> None:
        if record.round == 2:
            signal.raise_signal(signal.SIGINT)

    before = children()
    with pytest.raises(hanse.Interrupted) as cut:
        run(sequential(2), store=tmp_path / "runs.db", watch=interrupt)
    assert cut.value.result.run is not None
    assert children() <= before
    found = hanse.resume(cut.value.result.run, store=tmp_path / "runs.db", data=DATA)
    assert found.params_sha256 == run(sequential()).params_sha256


def test_a_run_that_diverges_ends_its_workers() -> None:
    with pytest.raises(hanse.RunDiverged):
        run(sequential(2), algorithm=fed_avg(lr=1e30, fraction=0.9), rounds=20)


@pytest.mark.parametrize("num_workers", [1, 2, 5])
def test_blocks_for_workers_are_aligned_and_get_smaller(num_workers: int) -> None:
    for positions in (range(1), range(10), range(1000), [0, 2, 3, 5, 6, 7, 9, 10, 14, 15, 40]):
        places: Any = [(position, None) for position in positions]
        blocks = list(cut_fair_blocks(places, num_workers))
        assert [place for block in blocks for place in block] == places
        for block in blocks:
            first, last = block[0][0], block[-1][0]
            height = (first ^ last).bit_length()
            assert last - first < 1 << height <= 64
        fair = len(places) / num_workers
        assert all(len(block) <= max(1, 1.1 * fair) for block in blocks)
        assert len(blocks[-1]) <= max(1, fair / 4)
        assert len(blocks) <= 16 * num_workers + len(places) / 48


def test_processors_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3} if pid == 0 else set(), raising=False)
    assert num_processors() == auto().most == 1
    assert auto(5).most == 5
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert num_processors() == 7


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True])
def test_wrong_numbers_of_workers(wrong: Any) -> None:
    for execution in (auto, sequential, batched):
        with pytest.raises(InvalidInput, match="write a whole number of at least 1"):
            execution(wrong)


def test_what_a_killed_process_left_in_memory_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hanse.simulation.worker.MEMORY", tmp_path)
    left, held, young = (tmp_path / f"hanse-shared-{name}" for name in ("left", "held", "young"))
    for path in (left, held, young):
        path.write_bytes(b"data")
    for path in (left, held):
        os.utime(path, (0, 0))
    with held.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        remove_stale_files()
    assert not left.exists()
    assert held.exists()
    assert young.exists()
