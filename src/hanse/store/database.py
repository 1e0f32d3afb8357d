"""The file that holds runs: connections, transactions, its version, and explained errors."""

import contextlib
import os
import shutil
import sqlite3
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, NullPool, create_engine, event, insert, inspect, make_url, select
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError

from hanse.core import InvalidInput, StoreError
from hanse.store.read_only import copy_store, find_uri, is_writable
from hanse.store.tables import metadata, version

__all__ = ["HEAD", "Database"]

HEAD = "0007"
"""The version of the tables that this code reads and writes: the last of `migrations`."""

BUSY_TIMEOUT_S = 30.0
"""The time that a transaction waits while other processes write."""

PAGE_BYTES = 16384
"""The page size: tensors are written faster than on pages of 4 KiB, and small rows no slower."""

_REMEDIES = {
    "SQLITE_FULL": "no space is left there: free some, then resume; what was written before is unharmed",
    "SQLITE_READONLY": "it is read-only: make it and its folder writable, or copy it to where you may write",
    "SQLITE_CANTOPEN": "it can't be opened: is it a folder, or may this user not write there?",
    "SQLITE_PERM": "this user may not open it",
    "SQLITE_BUSY": f"other processes have kept it busy for {BUSY_TIMEOUT_S:g} s: try again, or use one each",
    "SQLITE_NOTADB": "it is something else, not a store: write another path",
    "SQLITE_CORRUPT": "it is damaged: restore it from a copy, or start a new one",
    "SQLITE_IOERR": "the disk refused to read or write: is it full, removed or broken?",
    "SQLITE_TOOBIG": "a value is larger than SQLite can hold",
}


class Database:
    """An SQLite file in WAL mode. A connection is opened for each use, so none is left behind.

    Args:
      where: its path (parent folders are made), or an SQLAlchemy URL such as "sqlite:///runs.db".
      to_read: whether it is only read. One that can't be written to is then opened in another way; one of an
        earlier version is copied to a folder of its own first, and brought up to date there.
    """

    def __init__(self, where: str | Path, *, to_read: bool = False) -> None:
        self.path = Path(str(_url(where).database)).resolve()
        if to_read and self.path.exists() and not is_writable(self.path):
            self._engine = self._durable = self._open_read_only()
            return
        self._engine = self._connecting("NORMAL", self.path)
        self._durable = self._connecting("FULL", self.path)
        with self.explain_errors():
            _make_privately(self.path)
            with self._engine.connect() as connection:
                if _version(connection) != HEAD:
                    self._upgrade()

    def _open_read_only(self) -> Engine:
        with self.explain_errors():
            uri = find_uri(self.path)
            if uri is not None:
                engine = self._reading(uri)
                with engine.connect() as connection:
                    if _version(connection) == HEAD:
                        return engine
            folder = tempfile.mkdtemp(prefix="hanse-store-")
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            self._engine = self._connecting("NORMAL", copy_store(self.path, Path(folder)))
            self._upgrade()
            return self._engine

    def _reading(self, uri: str) -> Engine:
        engine = create_engine(
            "sqlite://",
            poolclass=NullPool,
            creator=lambda: sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, check_same_thread=False),
        )

        @event.listens_for(engine, "connect")
        def prepare(connection: sqlite3.Connection, record: object) -> None:
            connection.isolation_level = None
            try:
                self._check_ours(connection)
            except BaseException:
                connection.close()
                raise

        event.listen(engine, "begin", _begin)
        return engine

    def _connecting(self, synchronous: str, file: Path) -> Engine:
        engine = create_engine(
            URL.create("sqlite", database=str(file)),
            poolclass=NullPool,
            connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
        )

        @event.listens_for(engine, "connect")
        def prepare(connection: sqlite3.Connection, record: object) -> None:
            connection.isolation_level = None  # SQLAlchemy begins, so that reads see one snapshot too
            try:
                self._check_ours(connection)
                connection.execute(f"PRAGMA page_size={PAGE_BYTES}")  # of a new file only
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute(f"PRAGMA synchronous={synchronous}")
                connection.execute("PRAGMA secure_delete=FAST")  # zeros only where it writes anyway
                connection.execute("PRAGMA foreign_keys=ON")
            except BaseException:
                connection.close()
                raise

        event.listen(engine, "begin", _begin)
        return engine

    def _check_ours(self, connection: sqlite3.Connection) -> None:
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        if names and version.name not in names:
            raise StoreError(f"{self.path} holds other tables: write a path of its own for the store")

    def _upgrade(self) -> None:
        with self._engine.execution_options(begin="BEGIN IMMEDIATE").begin() as connection:
            if _version(connection) == HEAD:  # another process was faster
                return
            if not inspect(connection).get_table_names():  # a new file
                metadata.create_all(connection, checkfirst=False)
                version.create(connection)
                connection.execute(insert(version).values(version_num=HEAD))
                return
            from hanse.store import migrations

            try:
                migrations.upgrade(connection)
            except StoreError as error:
                raise StoreError(f"{self.path}: {error}") from None

    @property
    def num_bytes(self) -> int:
        """The size of the file and its log."""
        files = (self.path, self.path.with_name(f"{self.path.name}-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    def shrink(self) -> None:
        """Gives space that is free in the file back to the disk, unless other processes use the file."""
        with self.explain_errors(), self._engine.connect() as connection:
            raw = connection.connection.driver_connection
            assert raw is not None
            raw.execute("PRAGMA busy_timeout=1000")
            with contextlib.suppress(sqlite3.OperationalError):  # busy, or no room: it is used again later
                raw.execute("VACUUM")
                raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def connect(self, *, durable: bool = False) -> Connection:
        """Opens a connection to keep. Durable: a commit has reached the disk when it returns."""
        with self.explain_errors():
            return (self._durable if durable else self._engine).connect()

    @contextlib.contextmanager
    def begin(self, connection: Connection | None = None) -> Iterator[Connection]:
        """Begins a transaction. One that may write begins by writing, or else it may find the file busy."""
        with self.explain_errors():
            if connection is None:
                with self._engine.begin() as own:
                    yield own
            else:
                with connection.begin():
                    yield connection

    @contextlib.contextmanager
    def explain_errors(self) -> Iterator[None]:
        """Turns the database's errors into a StoreError that says what to do."""
        try:
            yield
        except DBAPIError as error:
            raise self._explain(error.orig) from None
        except (sqlite3.Error, OSError) as error:
            raise self._explain(error) from None

    def _explain(self, error: BaseException | None) -> StoreError:
        name = getattr(error, "sqlite_errorname", "")
        remedies = [remedy for code, remedy in _REMEDIES.items() if name.startswith(code)]
        return StoreError(
            f"the store {self.path}: " + (f"{remedies[0]} ({error})" if remedies else str(error))
        )


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))


def _make_privately(path: Path) -> None:
    """Makes a new file, and the folders that it lacks, for its owner only. SQLite's other files follow it."""
    for folder in [parent for parent in path.parents if not parent.is_dir()][::-1]:
        folder.mkdir(exist_ok=True, mode=0o700)
    if not path.exists():
        with contextlib.suppress(OSError):  # SQLite itself says what is wrong
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def _url(where: str | Path) -> URL:
    if "://" not in str(where):
        return URL.create("sqlite", database=str(where))
    try:
        url = make_url(str(where))
    except ArgumentError as error:
        raise InvalidInput(
            f"{where!r} is no database URL ({error}); write a path such as .hanse/runs.db"
        ) from None
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:") or url.query:
        raise InvalidInput(
            f"runs can't be kept in {url!r} yet; write the path of a file, such as .hanse/runs.db"
        )
    return url


def _version(connection: Connection) -> Any:
    there = inspect(connection).has_table(version.name)
    return connection.scalar(select(version.c.version_num)) if there else None
