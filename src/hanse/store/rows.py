"""The rows of one run: the layout of a `Store` in the tables."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update
from sqlalchemy.dialects import sqlite

from hanse.core import InvalidInput, Memory, PartyId, Release, StoreError, fields
from hanse.core.exchange import (
    Checkpoint,
    Entry,
    Flow,
    Record,
    ReleaseRecord,
    TicketTimes,
    Usage,
    held_bytes,
    pieces,
)
from hanse.store.database import Database
from hanse.store.head import Position
from hanse.store.objects import Address, Hashed, Kept, Writing, cut_batches, read_objects, read_value, to_json
from hanse.store.tables import checkpoints, journal, memories, rounds, runs, traffic

__all__ = ["Lost", "RunRows", "Unwritten", "load_checkpoint", "load_records", "load_traffic"]

_SUMS = {"bytes_up", "bytes_down", "counted", "dropped", "virtual_s"}
"""The fields of a `Usage` that have columns of their own."""

_CHECKPOINT = select(checkpoints.c.value, checkpoints.c.tensors).where(
    checkpoints.c.run == bindparam("of_run")
)
_SAVE_FIRST = insert(checkpoints)
_SAVE = update(checkpoints).where(checkpoints.c.run == bindparam("of_run"))
_JOURNAL = (
    select(journal.c.value, journal.c.tensors)
    .where(journal.c.run == bindparam("of_run"))
    .order_by(journal.c.position)
)
_APPEND = insert(journal)
_EMPTY = delete(journal).where(journal.c.run == bindparam("of_run"))
_RECORDS = select(rounds).where(rounds.c.run == bindparam("of_run")).order_by(rounds.c.position)
_RECORD = insert(rounds)
_USAGE = {f.name: rounds.c[f.name].type.python_type for f in fields(Usage) if f.name in _SUMS}
_SENT = sqlite.insert(traffic)
_MORE_SENT = _SENT.on_conflict_do_update(
    index_elements=["run", "client"],
    set_={name: traffic.c[name] + _SENT.excluded[name] for name in ("bytes_up", "bytes_down")},
)
_TRAFFIC = (
    select(traffic.c.client, traffic.c.bytes_up, traffic.c.bytes_down)
    .where(traffic.c.run == bindparam("of_run"))
    .order_by(traffic.c.client)
)
_MEMORIES = (
    select(memories.c.party, memories.c.value)
    .where(memories.c.run == bindparam("of_run"))
    .where(memories.c.party.in_(bindparam("parties", expanding=True)))
)
_REMEMBER_FIRST = insert(memories)
_REMEMBER = (
    update(memories)
    .where(memories.c.run == bindparam("of_run"))
    .where(memories.c.party == bindparam("of_party"))
)
_TAKE = (
    update(runs)
    .where(runs.c.number == bindparam("of_run"))
    .where(runs.c.revision == bindparam("of_revision"))
)


class Lost(StoreError):
    """Another process has taken over the run: this one must not write any more."""


@dataclass
class Unwritten:
    """Data that are not in the database yet: the last checkpoint, and the journal after it."""

    checkpoint: Checkpoint | None = None
    records: list[Record] = field(default_factory=list)
    memories: dict[PartyId, Memory] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    memory_bytes: int = 0

    def add_memories(self, memories: Mapping[PartyId, Memory]) -> None:
        """Adds memories that changed; their bytes count each time."""
        self.memories.update(memories)
        self.memory_bytes += held_bytes(memories)

    def __bool__(self) -> bool:
        return self.checkpoint is not None or bool(self.entries)


class RunRows:
    """The rows of a run that this process has claimed, so that nobody else changes them.

    Args:
      run: its id.
      number: the number of its row in `runs`.
      revision: the revision of that row as long as nobody else claims the run.
      durable: a write has reached the disk when it returns.
    """

    def __init__(self, database: Database, run: str, number: int, revision: int, *, durable: bool) -> None:
        self._database, self._run, self._number, self._revision = database, run, number, revision
        self._this = {"of_run": number}
        self._connection = database.connect(durable=durable)
        self._hashed: Hashed = {}
        try:
            self._load()
        except BaseException:
            self._connection.close()
            raise

    def _load(self) -> None:
        """Loads what this process must know of the tables as long as it alone writes there."""
        with self._database.begin(self._connection):
            kept = self._kept(_CHECKPOINT)
            self._has_checkpoint = bool(kept)
            self._checkpoint_uses = _uses(kept)
            number = select(checkpoints.c.round).where(checkpoints.c.run == self._number)
            round = self._connection.scalar(number)
            self._round = -1 if round is None else int(round)
            entries = self._kept(_JOURNAL)
            self._sha256 = _chain("", [*kept, *entries])
            self._num_entries = len(entries)
            self._journal_uses = _uses(entries)
            query = select(func.count()).select_from(rounds).where(rounds.c.run == self._number)
            self._num_records: int = self._connection.scalar(query) or 0
            self._parties = set(
                self._connection.scalars(select(memories.c.party).where(memories.c.run == self._number))
            )

    @property
    def position(self) -> Position:
        """The progress of the run in the database."""
        return Position(self._run, self._round, self._num_records, self._num_entries, self._sha256)

    def close(self) -> None:
        """Closes the connection."""
        with self._database.explain_errors():
            self._connection.close()

    # -- reading -------------------------------------------------------------------------------

    def _kept(self, query: Any) -> list[Kept]:
        return [_kept(row) for row in self._connection.execute(query, self._this)]

    def checkpoint(self) -> Checkpoint | None:
        """Loads the checkpoint."""
        with self._database.begin(self._connection):
            return load_checkpoint(self._connection, self._number)

    def journal(self) -> tuple[Entry, ...]:
        """Loads the journal."""
        with self._database.begin(self._connection):
            kept = self._kept(_JOURNAL)
            return tuple(read_value(self._connection, self._number, entry) for entry in kept)

    def memory(self, party: PartyId) -> Memory:
        """Loads the memory of a party."""
        name = _party(party)
        if name not in self._parties:
            return {}
        with self._database.begin(self._connection):
            address = self._addresses([name])
            memory: Memory = read_objects(self._connection, self._number, address)[name]
            return memory

    def _addresses(self, parties: Sequence[str]) -> dict[str, Address]:
        found: dict[str, Address] = {}
        for batch in cut_batches(parties):
            rows = self._connection.execute(_MEMORIES, {**self._this, "parties": batch})
            found.update((party, tuple(json.loads(address))) for party, address in rows)
        return found

    # -- writing -------------------------------------------------------------------------------

    def write(self, what: Unwritten) -> None:
        """Writes all of it, in one transaction. Raises: Lost, StoreError, InvalidInput."""
        with self._database.begin(self._connection):
            self._take(status="running", result=None)
            writing = Writing(self._connection, self._number, self._hashed)
            remembered = self._write_memories(writing, what.memories)
            self._write_records(what.records)
            saved = None if what.checkpoint is None else self._save(writing, what.checkpoint)
            entries = self._append(writing, what.entries, 0 if saved else self._num_entries)
            writing.finish()
        # Committed: from here on this is what the database holds.
        self._sha256 = _chain("" if saved else self._sha256, [*([saved] if saved else []), *entries])
        if saved is not None:
            assert what.checkpoint is not None
            self._round = what.checkpoint.round
            self._has_checkpoint, self._checkpoint_uses = True, _uses([saved])
            self._num_entries, self._journal_uses, self._hashed = 0, [], {}
        self._num_entries += len(entries)
        self._journal_uses += _uses(entries)
        self._hashed.update(writing.hashed)
        self._num_records += len(what.records)
        self._parties |= remembered

    def finish(self, status: str, result: str | None) -> None:
        """Writes how the run ended. Raises: Lost, StoreError."""
        with self._database.begin(self._connection):
            self._take(status=status, result=result)

    def _take(self, **values: Any) -> None:
        """Begins each transaction that writes: waits for its turn, and checks the claim."""
        taken = self._connection.execute(
            _TAKE.values(**values), {**self._this, "of_revision": self._revision}
        )
        if taken.rowcount != 1:
            query = select(runs.c.run, runs.c.claimed_by).where(runs.c.number == self._number)
            run, by = self._connection.execute(query).one()
            raise Lost(f"run {run} was taken over by {by}, so this process must stop; see `hanse ls`")

    def _save(self, writing: Writing, checkpoint: Checkpoint) -> Kept:
        kept = writing.value(checkpoint)
        writing.release(self._checkpoint_uses)
        writing.release(self._journal_uses)
        row = {"round": checkpoint.round, **_columns(kept)}
        if self._has_checkpoint:
            self._connection.execute(_SAVE, {**self._this, **row})
        else:
            self._connection.execute(_SAVE_FIRST, {"run": self._number, **row})
        if self._num_entries:
            self._connection.execute(_EMPTY, self._this)
        return kept

    def _append(self, writing: Writing, entries: Iterable[Entry], position: int) -> list[Kept]:
        kept = [writing.value(entry) for entry in entries]
        rows = [
            {"run": self._number, "position": at, **_columns(entry)}
            for at, entry in enumerate(kept, start=position)
        ]
        if rows:
            self._connection.execute(_APPEND, rows)
        return kept

    def _write_records(self, records: Sequence[Record]) -> None:
        rows = [
            {
                "run": self._number,
                "position": at,
                "number": record.round,
                "metrics": to_json(_mark_reported(record)),
                "seconds": float(record.seconds),
                "abandoned": record.abandoned,
                **{name: kind(getattr(record.usage, name)) for name, kind in _USAGE.items()},
                "flows": to_json([_as_row(flow) for flow in record.usage.flows]),
                "way": record.execution,
                "spent": to_json({what: float(seconds) for what, seconds in record.spent.items()}),
                "releases": to_json([_release_as_row(release) for release in record.usage.releases]),
                "left_out": to_json(record.usage.left_out),
                "times": to_json([_times_as_row(times) for times in record.usage.times]),
            }
            for at, record in enumerate(records, start=self._num_records)
        ]
        if rows:
            self._connection.execute(_RECORD, rows)
        self._write_traffic(records)

    def _write_traffic(self, records: Iterable[Record]) -> None:
        sums: dict[PartyId, tuple[int, int]] = {}
        for record in records:
            for client, (up, down) in record.usage.clients.items():
                so_far = sums.get(client, (0, 0))
                sums[client] = so_far[0] + up, so_far[1] + down
        rows = [
            {"run": self._number, "client": client, "bytes_up": up, "bytes_down": down}
            for client, (up, down) in sums.items()
        ]
        if rows:
            self._connection.execute(_MORE_SENT, rows)

    def _write_memories(self, writing: Writing, changed: Mapping[PartyId, Memory]) -> set[str]:
        named = {_party(party): memory for party, memory in changed.items()}
        for address in self._addresses([name for name in named if name in self._parties]).values():
            writing.release(address)
        new, old = [], []
        for name, memory in named.items():
            value = to_json(writing.data(pieces(memory)))
            if name in self._parties:
                old.append({**self._this, "of_party": name, "value": value})
            else:
                new.append({"run": self._number, "party": name, "value": value})
        if new:
            self._connection.execute(_REMEMBER_FIRST, new)
        if old:
            self._connection.execute(_REMEMBER, old)
        return named.keys() - self._parties


def load_checkpoint(connection: Connection, number: int) -> Checkpoint | None:
    """Loads the checkpoint of a run, whoever performs it."""
    row = connection.execute(_CHECKPOINT, {"of_run": number}).one_or_none()
    return None if row is None else read_value(connection, number, _kept(row))


def load_records(connection: Connection, number: int) -> tuple[Record, ...]:
    """Loads the rounds of a run, whoever performs it."""
    return tuple(_record(row) for row in connection.execute(_RECORDS, {"of_run": number}))


def load_traffic(connection: Connection, number: int) -> Iterator[tuple[PartyId, int, int]]:
    """Yields the clients of a run that took part, each with its bytes up and down in all rounds."""
    yield from (tuple(row) for row in connection.execute(_TRAFFIC, {"of_run": number}))


def _as_row(flow: Flow) -> tuple[Any, ...]:
    return tuple(getattr(flow, f.name) for f in fields(Flow))


def _flow(direction: Any, name: str, stages: list[str], messages: int, num_bytes: list[int | None]) -> Flow:
    return Flow(direction, name, tuple(stages), messages, tuple(num_bytes))


def _release_as_row(record: ReleaseRecord) -> tuple[Any, ...]:
    release = record.release
    parameters = {name: float(number) for name, number in release.parameters.items()}
    noise = float(release.noise_multiplier)
    return record.part, release.mechanism, noise, parameters, float(record.sampling), record.sample


def _times_as_row(times: TicketTimes) -> tuple[Any, ...]:
    return tuple(getattr(times, f.name) for f in fields(TicketTimes))


def _release(
    part: str, mechanism: str, noise: float, parameters: Any, sampling: float, sample: int
) -> ReleaseRecord:
    return ReleaseRecord(part, Release(mechanism, noise, parameters), sampling, sample)


def _record(row: Any) -> Record:
    flows = tuple(_flow(*flow) for flow in json.loads(row.flows))
    releases = tuple(_release(*release) for release in json.loads(row.releases))
    sums, left_out = {name: getattr(row, name) for name in _USAGE}, tuple(json.loads(row.left_out))
    times = tuple(TicketTimes(*one) for one in json.loads(row.times))
    usage = Usage(**sums, flows=flows, releases=releases, left_out=left_out, times=times)
    spent = json.loads(row.spent)
    marked = json.loads(row.metrics)
    reported = tuple(name for name, metric in marked.items() if isinstance(metric, list))
    metrics = {name: metric[0] if name in reported else metric for name, metric in marked.items()}
    return Record(row.number, metrics, usage, row.seconds, row.abandoned, row.way or "", spent, reported)


def _mark_reported(record: Record) -> dict[str, float | list[float]]:
    """Returns the metrics of a round; what the algorithm reported is in a list, and so told from the rest."""
    return {
        name: [float(metric)] if name in record.reported else float(metric)
        for name, metric in record.metrics.items()
    }


def _kept(row: Any) -> Kept:
    return Kept(row.value, {path: tuple(address) for path, address in json.loads(row.tensors).items()})


def _columns(kept: Kept) -> dict[str, str]:
    return {"value": kept.skeleton, "tensors": to_json(kept.tensors)}


def _chain(sha256: str, kept: Iterable[Kept]) -> str:
    """Continues a hash over values that are kept one after the other."""
    for one in kept:
        text = "\n".join([sha256, *_columns(one).values()])
        sha256 = hashlib.sha256(text.encode()).hexdigest()
    return sha256


def _uses(kept: Iterable[Kept]) -> list[str]:
    return [use for one in kept for use in one.uses]


def _party(party: PartyId) -> str:
    if type(party) not in (int, str):
        raise InvalidInput(f"{party!r} is a {type(party).__name__}; a party is a number or a word")
    return to_json(party)
