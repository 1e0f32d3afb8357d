"""The store of one run: it buffers data, and decides when to write them."""

import os
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar

from hanse.core import HanseError, InvalidInput, Memory, PartyId, StoreError, nearest
from hanse.core.exchange import Checkpoint, Entry, Record, Store, flatten, frozen, restore
from hanse.store.claim import Claim
from hanse.store.head import Head
from hanse.store.objects import to_json
from hanse.store.rows import Lost, RunRows, Unwritten

__all__ = ["ENDS", "RunStore"]

T = TypeVar("T")

ENDS = ("completed", "incomplete", "interrupted", "diverged", "failed", "stopped")
"""How a run can end."""

MAX_SHARE = 0.05
"""Buffered writing takes at most about this share of the time: a large model is written less often."""

MAX_UNWRITTEN_BYTES = 64 * 2**20
"""The most bytes of clients' memories that wait to be written. More are written at once, at any cost."""


class RunStore(Store):
    """One run, claimed by this process. `Runs.open` makes it; a context manager, for one thread at a time.

    Data are kept in memory, and written once `flush_every_s` seconds have passed since the last time:
    what a crash loses can be computed again, to the same bits. At any moment the database holds a
    checkpoint, the records up to it and the journal after it. Values that are passed in must not be
    changed afterwards.

    Args:
      run: its id.
      flush_every_s: seconds between two writes; 0: each call returns when its data are on the disk.
      head: a file outside the store that is told after each write how far the run has got; None: none is.
    """

    def __init__(
        self, run: str, rows: RunRows, claim: Claim, *, flush_every_s: float, head: Path | None = None
    ) -> None:
        self.run: Final = run
        self._head = None if head is None else Head(head)
        self._rows, self._flush_every_s = rows, flush_every_s
        self._release = weakref.finalize(self, claim.release)  # also if it is never closed
        self._unwritten = Unwritten()
        self._due_s = time.monotonic() + flush_every_s
        self._process = os.getpid()
        self.closed, self._sound = False, True

    def _check(self) -> None:
        if self._process != os.getpid():
            raise StoreError(f"run {self.run} is open in process {self._process}; a fork of it can't use it")
        if self.closed:
            raise StoreError(f"run {self.run} was closed here; open it again")
        if not self._sound:
            raise StoreError(f"a write of run {self.run} was cut short; close it, and open it again")

    # -- reading -------------------------------------------------------------------------------

    def checkpoint(self) -> Checkpoint | None:
        self._check()
        saved = self._unwritten.checkpoint
        return self._rows.checkpoint() if saved is None else _as_read(saved)

    def journal(self) -> tuple[Entry, ...]:
        self._check()
        written = () if self._unwritten.checkpoint is not None else self._rows.journal()
        return written + tuple(_as_read(entry) for entry in self._unwritten.entries)

    def memory(self, party: PartyId) -> Memory:
        self._check()
        if party in self._unwritten.memories:
            return _as_read(self._unwritten.memories[party])
        return self._rows.memory(party)

    # -- writing -------------------------------------------------------------------------------

    def append(self, entry: Entry) -> None:
        self._check()
        self._unwritten.entries.append(entry)
        self._flush_when_due()

    def save(self, checkpoint: Checkpoint, record: Record, memories: Mapping[PartyId, Memory]) -> None:
        self._check()
        self._sound = False  # until all of it is buffered: an interrupt may come between any two lines
        self._unwritten.checkpoint = checkpoint
        self._unwritten.records.append(record)
        self._unwritten.add_memories(memories)
        self._unwritten.entries.clear()
        self._sound = True
        self._flush_when_due()

    def _flush_when_due(self) -> None:
        if self._flush_every_s == 0:
            try:
                self.flush()
            except Exception:
                self._unwritten = Unwritten()  # a call that fails did nothing, so it may be made again
                raise
        elif time.monotonic() >= self._due_s or self._unwritten.memory_bytes > MAX_UNWRITTEN_BYTES:
            self.flush()

    def flush(self) -> None:
        """Writes what is not written yet, in one transaction.

        Raises:
          StoreError: if it can't be written, or another process has taken the run over.
          InvalidInput: if something in it is not a value.
        """
        self._check()
        if not self._unwritten:
            return
        began_s = time.monotonic()
        with self._whole():
            self._rows.write(self._unwritten)
            self._unwritten = Unwritten()
        if self._head is not None:
            with suppress(OSError):  # the store has it; a head that lags behind raises no alarm
                self._head.write(self._rows.position)
        ended_s = time.monotonic()
        self._due_s = ended_s + max(self._flush_every_s, (ended_s - began_s) / MAX_SHARE)

    def finish(self, status: str, result: Mapping[str, Any] | None = None) -> None:
        """Writes what is not written yet, and how the run ended: see `Runs.finish`."""
        if status not in ENDS:
            raise InvalidInput(f"a run can't end as {status!r}; {nearest(status, ENDS)}")
        text = None if result is None else to_json(result, "the result")
        self.flush()
        with self._whole():
            self._rows.finish(status, text)

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Guards a transaction: a failure changes nothing, an interrupted one may or may not be committed."""
        self._sound = False
        try:
            yield
        except Lost:
            raise
        except Exception:
            self._sound = True
            raise
        self._sound = True

    # -- the end -------------------------------------------------------------------------------

    def close(self) -> None:
        """Writes what is not written yet, and frees the run. Raises: StoreError: if it can't be written."""
        if self.closed or self._process != os.getpid():
            return
        try:
            if self._sound:
                self.flush()
        finally:
            self.closed = True
            try:
                self._rows.close()
            finally:
                self._release()

    def __enter__(self) -> "RunStore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except HanseError as failure:
            if error is None:
                raise
            error.add_note(f"while the run was closed: {failure}")


def _as_read(obj: T) -> T:
    """Returns the value as it would come back from the database, without going there."""
    skeleton, tensors = flatten(obj)
    value: T = restore(skeleton, frozen(tensors))
    return value
