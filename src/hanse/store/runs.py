"""The store of many runs in one file."""

import json
import os
import platform
import secrets
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from hanse.core import InvalidInput, PartyId, StoreError
from hanse.core.exchange import Checkpoint, Record, renew, renew_result, renew_settings
from hanse.store.claim import Claim, is_claimed
from hanse.store.database import Database
from hanse.store.head import Head, explain_loss
from hanse.store.naming import Known, check_name, check_tags, find_meant
from hanse.store.objects import to_json
from hanse.store.rows import RunRows, load_checkpoint, load_records, load_traffic
from hanse.store.run import RunStore
from hanse.store.tables import rounds, runs

__all__ = ["RunInfo", "Runs"]

_LAST = (
    select(rounds.c.number)
    .where(rounds.c.run == runs.c.number)
    .order_by(rounds.c.position.desc())
    .limit(1)
    .scalar_subquery()
)
_LOCK = update(runs).where(runs.c.number == -1).values(revision=0)
"""Changes nothing, but lets no other process write until the transaction ends."""

_RUNS = select(runs, func.coalesce(_LAST, 0).label("rounds"))


@dataclass(frozen=True)
class RunInfo:
    """A summary of a run.

    Args:
      run: its id.
      created: when it began, in UTC.
      status: "running" while a living process performs it, "interrupted" if none does before it ended,
        or how it ended: "completed", "incomplete", "interrupted", "diverged", "failed" or "stopped".
      settings, environment: as they were when it began.
      result: the result that it ended with.
      rounds: the number of the last round that was written.
      name: what its user calls it; None: it has no name.
      tags: words by which its user finds it among others.
    """

    run: str
    created: datetime
    status: str
    settings: Mapping[str, Any]
    environment: Mapping[str, Any]
    result: Mapping[str, Any] | None
    rounds: int
    name: str | None = None
    tags: tuple[str, ...] = ()


class Runs:
    """Runs, kept in an SQLite file. A run is asked for by its id, the beginning of it, its name, or "last".

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> runs = Runs(f"{folder.name}/runs.db")
    >>> run = runs.begin({"lr": 0.1}, {"python": "3.11"}, name="slow")
    >>> with runs.open(run) as store:
    ...     store.checkpoint() is None
    True
    >>> runs.finish(run, "completed", {"accuracy": 0.9})
    >>> runs.info("slow").result
    {'accuracy': 0.9}
    >>> folder.cleanup()

    Args:
      where: the path of the file, made with its parent folders if needed, or a URL such as
        "sqlite:///runs.db".
      to_read: whether it is only read. A store that can't be written to, such as one on a read-only disk,
        can be read all the same.
      option: follows the commands that messages name, such as " --store runs.db".

    Raises: StoreError: if it can't be used, or a newer Hanse made it.
    """

    def __init__(self, where: str | Path, *, to_read: bool = False, option: str = "") -> None:
        self._database = Database(where, to_read=to_read)
        self.option = option
        self._open: weakref.WeakValueDictionary[str, RunStore] = weakref.WeakValueDictionary()

    def begin(
        self,
        settings: Mapping[str, Any],
        environment: Mapping[str, Any],
        *,
        name: str | None = None,
        tags: Sequence[str] = (),
    ) -> str:
        """Adds a new run, and returns its id. Both mappings are kept as JSON.

        Raises: InvalidInput: if the name or a tag can't be used, or another run has the name.
        """
        row = {
            "created": datetime.now(UTC).isoformat(timespec="microseconds"),
            "status": "running",
            "revision": 0,
            "settings": to_json(dict(settings), "the settings"),
            "environment": to_json(dict(environment), "the environment"),
            "name": None if name is None else check_name(name),
            "tags": to_json(check_tags(tags)),
        }
        run = secrets.token_hex(6)
        with self._database.begin() as connection:
            if name is not None:
                connection.execute(_LOCK)
                self._check_free(connection, name)
            connection.execute(insert(runs).values(run=run, **row))
        return run

    def _check_free(self, connection: Connection, name: str) -> None:
        """Checks that no run has this name, in a transaction in which nobody else writes."""
        taken = connection.scalar(select(runs.c.run).where(runs.c.name == name))
        if taken is not None:
            raise InvalidInput(
                f"name {name!r} is that of run {taken}; take another name, or remove that run: "
                f"hanse rm {name}{self.option}"
            )

    def open(self, run: str, *, flush_every_s: float = 0.5, head: Path | None = None) -> RunStore:
        """Claims a run for this process, until it is closed or the process ends.

        Args:
          run: its id. A run that has ended may be opened: to go on, or to read how it ended.
          flush_every_s: seconds between two writes; 0: each call returns when its data are on the disk.
          head: a file outside the store that is told how far the run has got; see `check`.

        Raises: StoreError: if there is no such run, or another process performs it.
        """
        if not flush_every_s >= 0:
            raise InvalidInput(f"flush_every_s is {flush_every_s}; write seconds, at least 0")
        with self._database.begin() as connection:
            row = self._find(connection, run)
        claim = Claim.take(self._claim_path(row.run))
        if claim is None:
            raise StoreError(
                f"run {row.run} is open in this process: close that store first"
                if row.claimed_by == _this_process()
                else f"run {row.run} is performed by {row.claimed_by}: wait for it, or stop that process"
            )
        try:
            revision = self._claim(row.number)
            rows = RunRows(self._database, row.run, row.number, revision, durable=flush_every_s == 0)
        except BaseException:
            claim.release()
            raise
        store = RunStore(row.run, rows, claim, flush_every_s=flush_every_s, head=head)
        self._open[row.run] = store
        return store

    def check(self, run: str, head: Path) -> None:
        """Checks that the store holds all of a run that its head tells of. It changes nothing.

        Raises: StoreError: if the store is older, saying what is missing.
        """
        with self._database.begin() as connection:
            row = self._find(connection, run)
        rows = RunRows(self._database, row.run, row.number, row.revision, durable=False)
        try:
            Head(head).check(rows.position, self._database.path)
        finally:
            rows.close()

    def check_known(self, heads: Iterable[Path]) -> None:
        """Checks that the store knows the runs of these heads, each in a folder that its run names.

        Raises: StoreError: if it does not.
        """
        with self._database.begin() as connection:
            known = set(connection.scalars(select(runs.c.run)))
        for path in heads:
            if path.parent.name not in known:
                raise explain_loss(self._database.path, path.parent.name, "everything is missing")

    def _claim(self, number: int) -> int:
        with self._database.begin() as connection:
            this = runs.c.number == number
            claimed = {"revision": runs.c.revision + 1, "claimed_by": _this_process()}
            connection.execute(update(runs).where(this).values(claimed))
            revision: int = connection.execute(select(runs.c.revision).where(this)).scalar_one()
            return revision

    def finish(self, run: str, status: str, result: Mapping[str, Any] | None = None) -> None:
        """Writes how a run ended.

        Args:
          run: its id. If this object has it open, what was not written yet is written first.
          status: "completed", "incomplete", "interrupted", "diverged", "failed" or "stopped".
          result: kept as JSON.

        Raises: StoreError: if another process performs the run.
        """
        with self._database.begin() as connection:
            name = self._find(connection, run).run
        store = self._open.get(name)
        if store is not None and not store.closed:
            store.finish(status, result)
        else:
            with self.open(name) as store:
                store.finish(status, result)

    def remove(self, run: str) -> int:
        """Removes a run with all that is kept of it, and returns by how many bytes the store has shrunk.

        Tensors are kept for each run by itself, so no other run loses any. If another process uses the store,
        it may shrink later only: what is free is used again first.

        Raises: StoreError: if there is no such run, or a process performs it.
        """
        with self._database.begin() as connection:
            row = self._find(connection, run)
        claim = Claim.take(self._claim_path(row.run))
        if claim is None:
            raise StoreError(
                f"run {row.run} is performed by {row.claimed_by}, so it can't be removed; wait for it, or "
                "stop that process"
            )
        try:
            before = self._database.num_bytes
            with self._database.begin() as connection:
                connection.execute(delete(runs).where(runs.c.number == row.number))
            self._database.shrink()
            return max(0, before - self._database.num_bytes)
        finally:
            claim.release()

    def amend(self, run: str, change: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
        """Changes the settings that are kept of a run, in one transaction.

        Args:
          run: its whole id.
          change: makes the new settings of the present ones, as they were kept.

        Raises: StoreError: if there is no such run.
        """
        with self._database.begin() as connection:
            this = runs.c.run == run
            connection.execute(update(runs).where(this).values(revision=runs.c.revision))  # locks the file
            row = self._find(connection, run)
            settings = to_json(dict(change(json.loads(row.settings))), "the settings")
            connection.execute(update(runs).where(this).values(settings=settings))

    # -- reading -------------------------------------------------------------------------------

    def info(self, run: str) -> RunInfo:
        """Returns a summary of a run. Raises: StoreError: if there is no such run."""
        with self._database.begin() as connection:
            return self._info(self._find(connection, run))

    def infos(self) -> tuple[RunInfo, ...]:
        """Returns summaries of all runs, newest first."""
        with self._database.begin() as connection:
            rows = connection.execute(_RUNS.order_by(runs.c.number.desc())).all()
        return tuple(self._info(row) for row in rows)

    def records(self, run: str) -> tuple[Record, ...]:
        """Loads the rounds of a run that have been written, oldest first."""
        with self._database.begin() as connection:
            return load_records(connection, self._find(connection, run).number)

    def traffic(self, run: str) -> tuple[tuple[PartyId, int, int], ...]:
        """Loads the clients that have taken part in a run, with their bytes up and down in written rounds."""
        with self._database.begin() as connection:
            return tuple(load_traffic(connection, self._find(connection, run).number))

    def checkpoint(self, run: str) -> Checkpoint | None:
        """Loads the last checkpoint that has been written, whoever performs the run."""
        with self._database.begin() as connection:
            return load_checkpoint(connection, self._find(connection, run).number)

    def _info(self, row: Any) -> RunInfo:
        status = row.status
        if status == "running" and not is_claimed(self._claim_path(row.run)):
            status = "interrupted"
        return RunInfo(
            row.run,
            datetime.fromisoformat(row.created),
            status,
            _read_settings(row.settings),
            json.loads(row.environment),
            None if row.result is None else renew_result(json.loads(row.result)),
            row.rounds,
            row.name,
            tuple(json.loads(row.tags)),
        )

    def _find(self, connection: Connection, given: str) -> Any:
        """Finds the row of the run that is meant. Raises: StoreError: see `find_meant`."""
        row = connection.execute(_RUNS.where(runs.c.run == given)).one_or_none()
        if row is not None:
            return row
        query = select(runs.c.run, runs.c.name).order_by(runs.c.number.desc())
        known = [Known(run, name) for run, name in connection.execute(query)]
        meant = find_meant(given, known, option=self.option)
        return connection.execute(_RUNS.where(runs.c.run == meant)).one()

    def _claim_path(self, run: str) -> Path:
        path = self._database.path
        return path.with_name(f"{path.name}-{run}.claim")


def _read_settings(text: str) -> Any:
    """Reads a run's settings, those of an earlier version under the names of today."""
    settings = json.loads(text)
    if isinstance(settings.get("experiment"), dict):
        settings["experiment"] = renew_settings(renew(settings["experiment"]))
    return settings


def _this_process() -> str:
    return f"process {os.getpid()} on {platform.node() or 'this machine'}"
