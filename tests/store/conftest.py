"""What the tests of the store share: stores of every kind, and other processes to be killed."""

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import copy
from signal import SIGKILL
from typing import Any, Final

import pytest

from hanse.core.exchange import InMemory, Store
from hanse.store import Runs, RunStore


@pytest.fixture(scope="session")
def new_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which no run has begun."""
    return Runs(tmp_path_factory.mktemp("new") / "folder" / "runs.db")._database.path


@pytest.fixture
def runs(tmp_path: Path, new_store: Path) -> Runs:
    return Runs(copy(new_store, tmp_path / "runs.db"))


@pytest.fixture(scope="session")
def common_runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A store that many examples share, each with a run of its own."""
    return Runs(tmp_path_factory.mktemp("common") / "runs.db")


@dataclass
class Kind:
    """How a store is made, and what happens to it between writing and reading."""

    make: Callable[[Runs], Store]
    again: Callable[[Runs, Any], Store]


def _opened(flush_every_s: float) -> Callable[[Runs], RunStore]:
    return lambda runs: runs.open(runs.begin({}, {}), flush_every_s=flush_every_s)


def _flushed(runs: Runs, store: RunStore) -> RunStore:
    store.flush()
    return store


def _reopened(runs: Runs, store: RunStore) -> RunStore:
    store.close()
    return runs.open(store.run, flush_every_s=3600.0)


KINDS = {
    "in memory": Kind(lambda runs: InMemory(), lambda runs, store: store),
    "buffered": Kind(_opened(3600.0), lambda runs, store: store),
    "flushed": Kind(_opened(3600.0), _flushed),
    "durable": Kind(_opened(0.0), lambda runs, store: store),
    "durable, reopened": Kind(_opened(0.0), _reopened),
    "buffered, reopened": Kind(_opened(3600.0), _reopened),
}


class Subject:
    """A store under test. `again()` is the same store when it is next read."""

    def __init__(self, runs: Runs, kind: str) -> None:
        self._runs, self._kind = runs, KINDS[kind]
        self.store = self._kind.make(runs)

    def again(self) -> Store:
        self.store = self._kind.again(self._runs, self.store)
        return self.store

    def close(self) -> None:
        if isinstance(self.store, RunStore):
            self.store.close()


@pytest.fixture(params=KINDS)
def subject(request: pytest.FixtureRequest, common_runs: Runs) -> Iterator[Subject]:
    subject = Subject(common_runs, request.param)
    yield subject
    subject.close()


class RowsOf:
    """What the database holds of a run, seen without the code under test."""

    def __init__(self, runs: Runs, run: str) -> None:
        self._path, self._run = runs._database.path, run

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        """Rows; `:run` stands for the run's number."""
        with closing(sqlite3.connect(self._path)) as connection:
            (number,) = connection.execute("select number from runs where run = ?", [self._run]).fetchone()
            return connection.execute(query, {"run": number}).fetchall()

    def objects(self) -> dict[str, int]:
        """The row of each object: it changes when an object is written again."""
        return dict(self.ask("select sha256, rowid from objects where run = :run"))

    def check_objects(self) -> None:
        """Each object is used as often as it says, and the bytes are those that it is named by."""
        uses: Counter[str] = Counter()
        for table in ("checkpoints", "journal"):
            for (tensors,) in self.ask(f"select tensors from {table} where run = :run"):
                for address in json.loads(tensors).values():
                    uses.update(address)
        for (address,) in self.ask("select value from memories where run = :run"):
            uses.update(json.loads(address))
        assert dict(self.ask("select sha256, uses from objects where run = :run")) == uses
        for sha256, data in self.ask("select sha256, data from objects where run = :run"):
            assert hashlib.sha256(data).hexdigest() == sha256


@pytest.fixture(scope="session")
def rows_of() -> type[RowsOf]:
    return RowsOf


class Child:
    """A process that performs a run."""

    def __init__(self, pid: int, words: Callable[[], list[str]]) -> None:
        self.pid: Final = pid
        self.words = words

    def line(self) -> str:
        """The next word from it."""
        pid, *words = self.words()
        assert int(pid) == self.pid
        return " ".join(words)

    def kill(self) -> None:
        """kill -9; returns when the process is gone."""
        os.kill(self.pid, SIGKILL)
        with suppress(ProcessLookupError):
            while True:
                os.kill(self.pid, 0)
                time.sleep(0.001)


class Nursery:
    """Starts processes fast: they are forked from one that has imported all that they need."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("performer.py")
        self._process = subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def _words(self) -> list[str]:
        assert self._process.stdout is not None
        return self._process.stdout.readline().split()

    def start(self, act: str, where: Path, run: str, **options: Any) -> Child:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([act, str(where), run, options]) + "\n")
        for words in iter(self._words, []):
            if words[-1] == "started":  # what a killed child still had to say comes before
                return Child(int(words[0]), self._words)
        raise AssertionError("the nursery is closed")

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    nursery = Nursery()
    yield nursery
    nursery.close()
