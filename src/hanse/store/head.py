"""The head of a run: how far it has got, in a small file outside the store.

A store that was restored from an older copy, or that lost the end of its log, is whole and wrong: parties
outside have gone on from what it does not hold any more. The head shows it. It is written after each write of
the store, so it is never ahead of an intact one.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from hanse.core import StoreError

__all__ = ["Head", "Position"]

SLOT_BYTES = 512
"""The size of each half of the file. They are written in turn: a torn write leaves the one before."""


@dataclass(frozen=True)
class Position:
    """The point that the store of a run has reached.

    Args:
      run: its id.
      round: the last one that was written; -1: none.
      records: how many rounds were written, abandoned ones included.
      entries: how many events of the next round were written.
      sha256: of the checkpoint and these events.
    """

    run: str
    round: int
    records: int
    entries: int
    sha256: str


class Head:
    """The file that holds the head of one run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._number, self._last = self._read()

    def _read(self) -> tuple[int, Position | None]:
        """Returns the newest position that can be read, and its number."""
        found: tuple[int, Position | None] = (0, None)
        data = self._path.read_bytes() if self._path.exists() else b""
        for at in (0, SLOT_BYTES):
            slot = _parse(data[at : at + SLOT_BYTES])
            if slot is not None and slot[0] > found[0]:
                found = slot
        return found

    def write(self, position: Position) -> None:
        """Writes a position. With a new round it reaches the disk, together with what was written before."""
        is_new_round = self._last is None or position.records != self._last.records
        self._number += 1
        text = json.dumps({"number": self._number, **asdict(position)})
        line = f"{hashlib.sha256(text.encode()).hexdigest()} {text}".ljust(SLOT_BYTES - 1) + "\n"
        is_new = not self._path.exists()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.lseek(file, self._number % 2 * SLOT_BYTES, os.SEEK_SET)
            os.write(file, line.encode())
            if is_new_round or is_new:
                os.fsync(file)
        finally:
            os.close(file)
        self._last = position

    def check(self, found: Position, store: Path) -> None:
        """Checks that a store holds all that the head tells of. Raises: StoreError: what is missing."""
        last = self._last
        if last is None or last.run != found.run:
            return
        if (found.records, found.entries) > (last.records, last.entries):
            return  # a process ended between the two writes
        if (found.records, found.entries) == (last.records, last.entries):
            if found.sha256 == last.sha256:
                return
            missing = f"its last round, {found.round}, is not the one that was written last"
        elif found.records < last.records:
            first = found.round + 1
            rounds = f"round {first} is" if first >= last.round else f"rounds {first} to {last.round} are"
            missing = f"{rounds} missing"
        else:
            missing = (
                f"of round {found.round + 1}, {last.entries - found.entries} of {last.entries} events that "
                "were written are missing"
            )
        raise explain_loss(store, found.run, missing)


def explain_loss(store: Path, run: str, missing: str) -> StoreError:
    """Makes the error that says what is missing from a store, and what can be done."""
    return StoreError(
        f"the store {store} is older than it was, for example a copy that was restored, or it lost its log "
        f"({store.name}-wal): of run {run}, {missing}. The clients have gone on, and what they remember does "
        "not suit this store. Put the newer store back, all of its files together; or begin a new run with "
        "--fresh. Nothing was changed"
    )


def _parse(slot: bytes) -> tuple[int, Position] | None:
    sha256, _, text = slot.decode(errors="replace").strip().partition(" ")
    if hashlib.sha256(text.encode()).hexdigest() != sha256:
        return None
    fields = json.loads(text)
    return fields.pop("number"), Position(**fields)
