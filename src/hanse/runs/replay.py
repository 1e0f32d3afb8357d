"""Doing a client's work of one round again, to see what it emits or to stop in it.

A ticket comes from one of three places:
  a simulated run  the tickets of any round: the run is led again up to it, from its last checkpoint if that
                   is earlier
  a client home    the tickets of its last exchange, with its memory and secret of that time
  a server home    the tickets of clients that failed or were refused lately, without their memory and secret
"""

import math
import pdb
from bdb import BdbQuit
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from threadpoolctl import threadpool_limits

from hanse.core import (
    Contribution,
    Examples,
    InvalidInput,
    Key,
    Keys,
    Memory,
    PartyId,
    Shared,
    Stalled,
    bind_learner,
    check_count,
)
from hanse.core.exchange import (
    Commit,
    Fork,
    InMemory,
    Led,
    Message,
    Payload,
    Record,
    Task,
    compute,
    digest,
    pack,
    unpack,
)
from hanse.data import Dataset, FederatedData
from hanse.runs.kept import experiment_of, find_run_folder, read_latest_plan
from hanse.runs.machine import is_simulated
from hanse.runs.own_code import import_code
from hanse.runs.own_file import read_examples
from hanse.runs.preparation import Prepared, prepare_run
from hanse.runs.wanted import Wanted
from hanse.simulation import Answer, InProcess, Job, MemoryAt, WrappedBackend

if TYPE_CHECKING:
    from hanse.store import Runs, RunStore

__all__ = [
    "Case",
    "Replayed",
    "in_client_home",
    "in_server_home",
    "in_simulation",
    "replay_ticket",
]


@dataclass(frozen=True)
class Case:
    """A ticket, and everything that its holder computes it from.

    Args:
      task, payload, learner, data, memory, secret: see `hanse.core.exchange.party.compute`.
      sha256: the hash of the message that was sent, if it was written down.
      lacks: describes what is missing here.
    """

    task: Task
    payload: Payload
    learner: Any
    data: Examples
    memory: Memory
    secret: Key
    sha256: str | None = None
    lacks: str = ""


@dataclass(frozen=True)
class Replayed:
    """The outcome of a ticket.

    Args:
      case: the ticket.
      parts: the parts that the work emitted, before transforms.
      sent: the message.
      fork: the changes to the memory that the client keeps if the message is counted.
    """

    case: Case
    parts: Contribution
    sent: Message
    fork: Fork

    @property
    def memory(self) -> Memory:
        """The memory that the client keeps if the message is counted."""
        return self.fork.on(self.case.memory)

    @cached_property
    def message(self) -> bytes:
        """The packed message, as it is sent."""
        return pack(self.sent)

    @property
    def sha256(self) -> str:
        """The hash of the packed message, which names it."""
        from hanse.network.protocol import hash_chunks

        return hash_chunks([self.message])

    def to_json(self) -> dict[str, Any]:
        """Returns the outcome as plain data."""
        case = self.case
        return {
            "ticket": case.task.ticket,
            "party": case.task.party,
            "work": str(case.payload.work),
            "num_examples": len(case.data),
            "memory_before": sorted(case.memory),
            "memory_after": sorted(self.memory),
            "parts": {
                name: {
                    "weight": part.weight,
                    "values": {key: _about(array) for key, array in part.values.items()},
                }
                for name, part in self.parts.items()
            },
            "message_bytes": len(self.message),
            "message_sha256": self.sha256,
            "recorded_sha256": case.sha256,
            "lacks": case.lacks,
        }


def _about(array: Any) -> dict[str, Any]:
    """Describes an array by shape, dtype and norm, or by its value if it is one number.

    Numbers that are not finite become words.
    """
    array = np.asarray(array)
    about: dict[str, Any] = {"shape": list(array.shape), "dtype": array.dtype.name}
    number = float(array) if array.ndim == 0 else float(np.linalg.norm(array.astype(np.float64).ravel()))
    about["value" if array.ndim == 0 else "norm"] = number if np.isfinite(number) else str(number)
    return about


class _Seen:
    """A work whose emissions are kept; on request it stops in the debugger at its first line."""

    def __init__(self, work: Any, stop: bool) -> None:
        self._work, self._stop = work, stop
        self.parts: Contribution = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._work, name)

    def __str__(self) -> str:
        return str(self._work)

    def run(self, learner: Any, shared: Shared, data: Any, memory: Memory, keys: Keys) -> Any:
        """Runs the work."""
        work = (learner, shared, data, memory, keys)
        done: Any = pdb.Pdb().runcall(self._work.run, *work) if self._stop else self._work.run(*work)
        if done is None:
            raise BdbQuit
        self.parts = done[0]
        return done


def replay_ticket(case: Case, *, debug: bool = False) -> Replayed:
    """Does a ticket again.

    Args:
      debug: stops in the debugger at the first line of the work.
    """
    seen = _Seen(case.payload.work, debug)
    payload = replace(case.payload, work=cast(Any, seen))
    learner = bind_learner(case.learner, case.task.party, case.data)
    message, fork = compute(case.task, payload, learner, case.data, case.memory, case.secret)
    return Replayed(case, seen.parts, message, fork)


# -- a simulated run ---------------------------------------------------------------------------


class _Watched(WrappedBackend):
    """A backend that does the work of one party by `act`, on its own data or on others.

    Args:
      inner: computes all other tickets.
      act: does a case.
      data: are read in place of the party's own; None: its own.
    """

    def __init__(self, inner: InProcess, act: Callable[[Case], Replayed], data: Examples | None) -> None:
        super().__init__(inner)
        self._process, self._act, self._data = inner, act, data
        self.watches: PartyId | None = None
        self.acted: list[Replayed] = []
        self.asked: list[PartyId] = []
        """The parties that have computed anything while one was watched."""

    def compute(self, jobs: Sequence[Job], memory_at: MemoryAt) -> Iterator[Answer]:
        for job in jobs:
            if self.watches is None:
                yield from self.inner.compute([job], memory_at)
                continue
            ((_, task),) = job.places  # in messages, so that clients are computed one by one
            self.asked.append(task.party)
            done = self._do(task, job.payload, memory_at(task)) if task.party == self.watches else None
            if done is None or self._data is not None:  # the round goes on with its own message
                yield from self.inner.compute([job], memory_at)
            else:
                yield Answer(job, done.message, (done.fork,), "")

    def _do(self, task: Task, payload: Payload, before: Memory) -> Replayed:
        data = self._process.data(task.party) if self._data is None else self._data
        case = Case(task, payload, self._process.learner, data, before, self._process.secret(task))
        self.acted.append(self._act(case))
        return self.acted[-1]


class _Kept(InMemory):
    """A store in memory that begins with the contents of another store, and writes nothing there."""

    def __init__(self, kept: "RunStore | None") -> None:
        super().__init__()
        self._kept = kept

    def checkpoint(self) -> Any:
        own = super().checkpoint()
        return self._kept.checkpoint() if own is None and self._kept is not None else own

    def memory(self, party: PartyId) -> Memory:
        own = super().memory(party)
        return self._kept.memory(party) if not own and self._kept is not None else own


def in_simulation(
    runs: "Runs",
    run: str,
    round: int,
    party: PartyId,
    act: Callable[[Case], Replayed],
    *,
    file: str | None = None,
    data: FederatedData | None = None,
    imports: Sequence[str] = (),
    accept_changed_imports: bool = False,
) -> tuple[list[Replayed], str]:
    """Does the work of a party in a round again, and compares the round with its record.

    Args:
      act: does a case, such as `replay_ticket`.
      file: is read in place of the party's own data. The round goes on with its own message.
      data: the data of the run, if they were given in Python.
      imports, accept_changed_imports: see `hanse.runs.own_code.import_code`; it is recorded with the run if
        changes are accepted.

    Returns: the outcomes of its tickets, and a sentence that says whether the round came out as recorded.
    Raises: StoreError: if there is no such run. InvalidInput: if the party computed nothing in that round.
    """
    info = runs.info(run)
    check_count("--round", round)
    code = import_code(info, imports, accept_changes=accept_changed_imports)
    saved = runs.checkpoint(info.run)
    earlier = saved is not None and saved.round < round and info.status != "running" and is_simulated(saved)
    with threadpool_limits(1):
        ready = prepare_run(experiment_of(info, data, code.named_by(info)))
        if ready.population.fingerprint != info.settings["data_sha256"]:
            raise InvalidInput(f"run {info.run} began on other data than these settings name now")
        _check_party(party, ready)
        code.record(runs, info, "replay")
        own = None if file is None else read_examples(file, _data_needs(ready), _reader(ready))
        with runs.open(info.run) if earlier else nullcontext() as kept:
            recorded = [record for record in runs.records(info.run) if record.round == round]
            done, record, asked = _lead(ready, _Kept(kept), round, len(recorded), party, act, own)
    if not done:
        others = ", ".join(str(p) for p in dict.fromkeys(asked) if isinstance(p, int)) or "no client"
        why = "the run did not reach that round" if record is None else f"these did: {others}"
        raise InvalidInput(f"client {party} computed nothing in round {round} of run {info.run}; {why}")
    return done, _compare(record, recorded[-1] if recorded else None, f"{info.run}{runs.option}")


def _check_party(party: PartyId, ready: Prepared) -> None:
    if isinstance(party, int) and not 0 <= party < ready.population.num_clients:
        last = ready.population.num_clients - 1
        raise InvalidInput(f"there is no client {party}; write a number from 0 to {last}")


def _reader(ready: Prepared) -> Dataset | None:
    return ready.experiment.data if isinstance(ready.experiment.data, Dataset) else None


def _data_needs(ready: Prepared) -> Wanted:
    people, said = ready.population, ready.experiment.settings()["data"]
    return Wanted.of(
        said, tuple(people.feature_shape), people.num_classes, tuple(people.classes), ready.encoder
    )


def _lead(
    ready: Prepared,
    store: _Kept,
    round: int,
    num_records: int,
    party: PartyId,
    act: Callable[[Case], Replayed],
    own: Examples | None,
) -> tuple[list[Replayed], Record | None, list[PartyId]]:
    """Leads the run to the end of a round, and watches a party in the last of its recorded attempts."""
    together = ready.experiment.execution.together
    backend = _Watched(InProcess(ready.learner, ready.party_data, ready.keys, together=together), act, own)
    runtime, seen = ready.runtime(backend, store), list[Record]()

    def look() -> Any:
        """Returns the last progress; the party is watched from there if its attempt is the next."""
        saved = store.checkpoint()
        if saved and (saved.state.round, saved.state.attempts) == (round - 1, max(0, num_records - 1)):
            backend.watches, runtime.in_blocks = party, False
        return ready.begin() if saved is None else saved.state

    def watch(record: Record) -> None:
        if backend.watches is not None or record.round > round:
            seen.append(record)
        look()

    with np.errstate(over="ignore", invalid="ignore"):
        led = Led(ready.program(look()), ready.watch_lies(runtime), store, watch)
        while not led.done and not seen:
            try:
                led.step()
            except Stalled:
                if not isinstance(led.command, Commit):
                    raise
                led = Led(ready.program(look()), ready.watch_lies(runtime), store, watch)  # as it was resumed
    return backend.acted, seen[-1] if seen and seen[-1].round == round else None, backend.asked


def _compare(now: Record | None, then: Record | None, run: str) -> str:
    if then is None or now is None:
        return "the round was not recorded: it was interrupted, or failed"
    one, other = ((r.metrics, r.usage.bytes_up, r.usage.counted, r.abandoned) for r in (now, then))
    if one == other:
        return "the round came out as it is recorded: the same metrics and bytes"
    close = now.metrics.keys() == then.metrics.keys() and all(
        math.isclose(now.metrics[name], then.metrics[name], rel_tol=1e-3) for name in now.metrics
    )
    if close and now.usage.counted == then.usage.counted:
        return (
            "the round came out as it is recorded, to rounding: here its clients were computed one by one, "
            "and in the run perhaps together"
        )
    return (
        f"the round did NOT come out as it is recorded: metrics {dict(now.metrics)} now, "
        f"{dict(then.metrics)} then; did versions or the processor change? See: hanse show {run}"
    )


# -- real parties ------------------------------------------------------------------------------


def in_client_home(
    home: Path, run: str, open_: Callable[[Any, int], Examples], bind: Callable[[Any], Any]
) -> Iterator[Case]:
    """Yields the tickets of a client's last exchange in a run, as the client had them.

    Args:
      open_: opens the data, from the plan and the client's number.
      bind: makes the learner of a plan.

    Raises: InvalidInput: if nothing of that run is kept there.
    """
    from hanse.network.client import ClientHome, read_parts

    folder = find_run_folder(home, run)
    client_home = ClientHome(home)
    plan = read_latest_plan(folder)
    sums = {
        line["ticket"]: line["sha256"]
        for line in client_home.audit.lines()
        if line["what"] == "sends" and line["run"] == folder.name
    }
    tasks = sorted(folder.glob("*.task"), key=lambda path: int(path.stem))
    if not tasks:
        raise InvalidInput(
            f"{folder} keeps no ticket: the client was asked for nothing yet, or for steps of a sum last, of "
            "which nothing is kept"
        )
    kept = client_home.membership or {}
    data = open_(plan, kept.get("number") or 0)
    for path in tasks:
        task, sha256, memory, *named = read_parts(path)
        own = named[0] if named else digest((task, sha256))  # an earlier version noted no name
        payload = unpack((folder / f"{sha256}.payload").read_bytes(), Payload)
        secret = client_home.secret.fold_in(folder.name).fold_in(own)
        yield Case(task, payload, bind(plan), data, memory, secret, sums.get(task.ticket))


def in_server_home(
    home: Path,
    run: str,
    round: int,
    client: PartyId,
    open_: Callable[[Any, int], Examples],
    bind: Callable[[Any], Any],
) -> Iterator[Case]:
    """Yields the tickets that a client failed to answer in a round, as far as the server knows them.

    Raises: InvalidInput: if they are not kept; it names the tickets that are.
    """
    from hanse.network.server import FailedTickets

    folder = find_run_folder(home, run)
    failed_tickets = FailedTickets(folder / "cases")
    plan = read_latest_plan(folder / "plans")
    found = failed_tickets.find(round, client)
    if not found:
        kept = ", ".join(f"round {r} client {c}" for r, c in failed_tickets.kept()) or "none now"
        raise InvalidInput(
            f"the tickets of client {client} in round {round} are not kept. A server keeps those of clients "
            f"that failed or were refused in the last rounds ({kept}); a client keeps its own last exchange: "
            f"there, write hanse replay {run} --home FOLDER --data FILE"
        )
    number = client if isinstance(client, int) else 0  # only a client with a number holds rows out by it
    data, lacks = open_(plan, number), "the client's memory and secret, which are with the client"
    for task, payload in found:
        yield Case(task, payload, bind(plan), data, {}, Key(bytes(32)), lacks=lacks)
