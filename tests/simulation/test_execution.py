"""The executions of clients: the same bits and bytes, and processes that leave nothing behind."""

import fcntl
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mortal import ends_its_process
from support import KEYS, Few, Quadratic, program

import hanse
from hanse.algorithms import fed_avg, fed_buff, scaffold
from hanse.core import (
    Algorithm,
    Close,
    Examples,
    InvalidInput,
    Key,
    Memory,
    PartSpec,
    Program,
    Spec,
    Tensors,
    gather,
    value,
)
from hanse.core.exchange import (
    InMemory,
    ModelState,
    Payload,
    Progress,
    Record,
    Task,
    digest,
    drive,
    training,
)
from hanse.data import from_clients, generate
from hanse.learners import softmax
from hanse.processes import num_processors
from hanse.simulation import (
    Answer,
    Automatic,
    ClientBackend,
    Execution,
    InProcess,
    Job,
    MemoryAt,
    Simulation,
    WorkerPool,
    WorkersFailed,
    WrappedBackend,
    auto,
    batched,
    heavy_tailed,
    sequential,
)
from hanse.simulation.backend import divide_job
from hanse.simulation.worker import remove_stale_files

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
    ready = WorkerPool.ready
    monkeypatch.setattr(WorkerPool, "start_s", 0.0)
    monkeypatch.setattr(WorkerPool, "ready", lambda self, wait_s=None: ready(self, None))


def test_workers_take_over_within_a_round(at_once: None) -> None:
    got = run(auto(2))
    assert got.params_sha256 == run(sequential()).params_sha256
    assert "2 workers" in str(got.records[1].execution)


def test_a_short_run_starts_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> Any:
        raise AssertionError("started")

    monkeypatch.setattr(WorkerPool, "start_s", 1000.0)
    monkeypatch.setattr(WorkerPool, "__init__", refuse)
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


MAKE = partial(InProcess, Quadratic(), Few(), KEYS)


def perform(backend: ClientBackend, watch: Any = None, rounds: int = 6) -> Any:
    """Performs rounds of six clients; the digest of the state, and by whom each round was computed."""
    store = InMemory()
    runtime = Simulation(backend, 6, KEYS)
    state = drive(program(fed_avg(lr=0.02, fraction=1.0), rounds), runtime, store, watch).state
    return digest(state), [record.execution for record in store.records if record.round > 0]


def test_a_worker_that_is_killed_is_replaced_by_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "hanse.simulation.automatic.time", SimpleNamespace(perf_counter=float)
    )  # no time passes
    pools: list[WorkerPool] = []

    def start() -> WorkerPool:
        pools.append(WorkerPool(MAKE, 2))
        pools[-1].ready(None)
        return pools[-1]

    def kill(record: Record) -> None:
        if record.round == 3:
            os.kill(pools[-1].pids[0], signal.SIGKILL)

    due, _ = perform(MAKE())
    with closing(Automatic(MAKE(), start, 2, 1000, start_s=-1.0)) as backend:
        assert perform(backend, kill)[0] == due
        assert backend.why_not is not None
        assert backend.why_not.startswith("a worker process ended")
    with closing(start()), pytest.raises(WorkersFailed, match="a worker process ended"):
        perform(pools[-1], kill)


class Clocked(WrappedBackend):
    """Takes some seconds for each client, by a clock that nothing else moves."""

    def __init__(self, clock: list[float], seconds: list[float], by: str) -> None:
        super().__init__(MAKE())
        self.clock, self.seconds, self.by = clock, seconds, by

    def compute(self, jobs: Sequence[Job], memory_at: MemoryAt) -> Iterator[Answer]:
        for answer in self.inner.compute(jobs, memory_at):
            self.clock[0] += self.seconds[0] * len(answer.job.places)
            yield replace(answer, by=self.by)


def timed(
    monkeypatch: pytest.MonkeyPatch, there: list[float], start_s: float, num_rounds: int = 12
) -> list[str]:
    """By whom each round was computed, if a client takes a second here, and in workers so many.

    Args:
      there: seconds per client in workers, of each round; the last for all that follow.
    """
    clock, seconds = [0.0], there[:1]
    monkeypatch.setattr("hanse.simulation.automatic.time", SimpleNamespace(perf_counter=lambda: clock[0]))
    workers = Clocked(clock, seconds, "workers")
    backend = Automatic(Clocked(clock, [1.0], "here"), lambda: workers, 2, num_rounds, start_s)

    def watch(record: Record) -> None:
        seconds[0] = there[min(record.round, len(there) - 1)]

    due, _ = perform(MAKE(), rounds=num_rounds)
    got, executions = perform(backend, watch, num_rounds)
    assert got == due
    return list(executions)


def test_workers_start_once_they_save_more_than_their_start_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 72 clients, 70 are left when two were measured; two workers would save half of their seconds."""
    assert timed(monkeypatch, [0.5], 34.9) == ["here; then workers", *["workers"] * 11]
    assert timed(monkeypatch, [0.5], 35.0) == ["here"] * 12


def test_workers_that_prove_slower_rest_longer_and_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = timed(monkeypatch, [2.0], 0.0)
    assert slow == ["here; then workers", "here", "workers", *["here"] * 3, "workers", *["here"] * 5]


def test_workers_that_were_slow_at_first_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    warm = timed(monkeypatch, [2.0, 0.5], 0.0)
    assert warm == ["here; then workers", "here", *["workers"] * 10]


def test_a_disturbance_sends_no_workers_away(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = timed(monkeypatch, [0.5, 3.0], 0.0)
    assert busy == ["here; then workers", *["workers"] * 11]


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


class Announcing(WrappedBackend):
    """Clients that open a pipe when the first block of the second round has been folded."""

    def __init__(self, inner: ClientBackend, fifo: str) -> None:
        super().__init__(inner)
        self._fifo, self.round, self.blocks = fifo, 1, list[tuple[int, ...]]()

    def compute(self, jobs: Sequence[Job], memory_at: MemoryAt) -> Iterator[Answer]:
        for answer in self.inner.compute(jobs, memory_at):
            yield answer
            if self.round == 2:
                self.blocks.append(answer.result.counted)  # type: ignore[union-attr]
                if len(self.blocks) == 1:
                    with open(self._fifo, "w"):
                        pass


def test_blocks_that_were_folded_before_a_worker_died_are_not_folded_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = SimpleNamespace(perf_counter=float)  # no time passes
    monkeypatch.setattr("hanse.simulation.automatic.time", clock)
    make = partial(InProcess, Quadratic(), Few(MANY), KEYS)
    fifo, records = str(tmp_path / "fifo"), InMemory()
    os.mkfifo(fifo)
    program = training(mean_of_features(fifo), Progress(0, ModelState({"w": np.zeros(3)})), KEY, rounds=2)

    def start() -> WorkerPool:
        pool = WorkerPool(make, 2)
        pool.ready(None)
        return pool

    with closing(Automatic(make(), start, 2, 1000, start_s=-1.0)) as backend:
        announcing = Announcing(backend, fifo)

        def watch(record: Record) -> None:
            announcing.round = record.round + 1

        ended = drive(program, Simulation(announcing, MANY, KEYS), records, watch)
        assert "a worker process ended (exit status 1)" in (backend.why_not or "")
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
@pytest.mark.parametrize(
    "positions",
    [range(1), range(10), range(1000), [0, 2, 3, 5, 6, 7, 9, 10, 14, 15, 40], range(65, 200)],
    ids=str,
)
def test_blocks_are_whole_subtrees_also_of_what_is_left(num_workers: int, positions: Any) -> None:
    places: Any = [(position, None) for position in positions]
    whole: Any = Job(places, None)  # type: ignore[arg-type]
    for done in sorted({0, 1, 2, 3, 7, len(places) // 2, len(places) - 1} & set(range(len(places)))):
        blocks = [list(part.places) for part in divide_job(whole.skip(done), num_workers)]
        assert [place for block in blocks for place in block] == places[done:]
        for block in blocks:
            height = (block[0][0] ^ block[-1][0]).bit_length()
            assert height <= 6
            assert [p for p in places if p[0] >> height == block[0][0] >> height] == block


@pytest.mark.parametrize("num_workers", [2, 5])
def test_blocks_for_workers_get_smaller(num_workers: int) -> None:
    for num_places in (1, 10, 1000):
        blocks = [
            part.places for part in divide_job(Job([(n, None) for n in range(num_places)], None), num_workers)
        ]  # type: ignore[arg-type,misc]
        fair = num_places / num_workers
        assert all(len(block) <= max(1, fair) for block in blocks)
        assert len(blocks[-1]) <= max(1, fair / 4)
        assert len(blocks) <= 16 * num_workers + num_places / 48


class LateWorkers(WrappedBackend):
    """Workers that are ready when they were asked a number of times; they may end after some blocks."""

    def __init__(self, inner: ClientBackend, asked: int, ends_after: int | None = None) -> None:
        super().__init__(inner)
        self.asked, self.ends_after = asked, ends_after

    def ready(self, wait_s: float | None = 0.0) -> bool:
        self.asked -= 1
        return self.asked < 0

    def compute(self, jobs: Sequence[Job], memory_at: MemoryAt) -> Iterator[Answer]:
        parts = [part for job in jobs for part in divide_job(job, 2)]
        for number, answer in enumerate(self.inner.compute(parts, memory_at)):
            if number == self.ends_after:
                raise WorkersFailed("ended")
            yield answer


@pytest.mark.parametrize("num_clients", [6, 20])
@pytest.mark.parametrize("asked", range(5))
@pytest.mark.parametrize("ends_after", [None, 0, 1, 3])
def test_it_makes_no_difference_when_workers_take_over_or_end(
    num_clients: int, asked: int, ends_after: int | None
) -> None:
    data = from_clients([DATA.client(n) for n in range(num_clients)], test=DATA.client(0))
    learner = softmax().bind((5,), 3)
    make = partial(InProcess, learner, data, KEYS)

    def trained(backend: ClientBackend) -> str:
        algorithm = fed_avg(lr=0.1, fraction=1.0, batch_size=2)
        begin = Progress(0, algorithm.init(learner.init(KEYS.public), KEYS.public))
        led = training(algorithm, begin, KEYS.public, rounds=2)
        return digest(drive(led, Simulation(backend, num_clients, KEYS)).state)

    late = LateWorkers(make(), asked, ends_after)
    assert trained(Automatic(make(), lambda: late, 2, 1000, start_s=-1.0)) == trained(make())


def test_processors_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3} if pid == 0 else set(), raising=False)
    assert num_processors() == 1
    assert isinstance(auto().backend(MAKE, 5), InProcess)
    with closing(auto(5).backend(MAKE, 5)) as backend:
        assert isinstance(backend, Automatic)
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


class Counting(InProcess):
    """Writes a line to a file for each ticket that it computes, in whichever process."""

    def __init__(self, file: str) -> None:
        super().__init__(Quadratic(), Few(12), KEYS)
        self._file = file

    def compute_ticket(self, before: Memory, task: Task, payload: Payload, timer: Any = None) -> Any:
        with open(self._file, "a") as file:
            file.write(f"{task.ticket}\n")
        return super().compute_ticket(before, task, payload, timer)


def buffered(backend: ClientBackend, lr: float, goal: int, rounds: int) -> tuple[str, list[int]]:
    """The end of a buffered run on devices whose order changes, and the tickets that it counted."""
    counted: list[int] = []

    class Noting(Simulation):
        def perform(self, command: Any) -> Any:
            event = super().perform(command)
            counted.extend(getattr(event, "counted", ()))
            return event

    runtime = Noting(backend, 12, KEYS, heavy_tailed())
    ended = drive(program(fed_buff(lr, concurrency=8, buffer_size=goal), rounds), runtime)
    return digest(ended.state), counted


def test_workers_compute_no_ticket_twice(tmp_path: Path) -> None:
    """What they begin before it is asked for is kept; beside what is counted, each begins one at most.

    One pool serves runs whose tickets have the same numbers: a short one leaves some begun to the next.
    """
    runs = ((0.1, 1, 1), (0.01, 1, 40), (0.01, 3, 10))
    here, there = tmp_path / "here", tmp_path / "there"
    due = [buffered(Counting(str(here)), *run) for run in runs]
    num_counted = sum(len(counted) for _, counted in due)
    assert len(here.read_text().split()) == num_counted == 71
    with closing(WorkerPool(partial(Counting, str(there)), 2)) as pool:
        assert [buffered(pool, *run) for run in runs] == due
    assert num_counted <= len(there.read_text().split()) <= num_counted + 2 * len(runs)
