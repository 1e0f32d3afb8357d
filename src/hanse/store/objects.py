"""Objects: packed values under the SHA-256 of their bytes, kept for as long as something uses them."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from hanse.core import Array, InvalidInput, MessageError, StoreError
from hanse.core.exchange import flatten, pieces, restore, unpack
from hanse.store.tables import objects

__all__ = ["Address", "Hashed", "Kept", "Writing", "cut_batches", "read_objects", "read_value", "to_json"]

T = TypeVar("T")

Address: TypeAlias = tuple[str, ...]
"""The hashes of a value's pieces: one, unless the value is large."""

Hashed: TypeAlias = dict[int, tuple[Array, Address]]
"""Arrays that are in the store, by their id: they are not hashed again. Holding them keeps ids valid."""

PIECE_BYTES = 4 * 2**20
"""Values are cut into pieces of this size, so that no second copy of a large one is made."""

BATCH_BYTES = 4 * 2**20
"""This much is gathered before it is passed to the database."""

BATCH_ROWS = 500

_FIND = (
    select(objects.c.sha256, objects.c.uses)
    .where(objects.c.run == bindparam("of_run"))
    .where(objects.c.sha256.in_(bindparam("sha256s", expanding=True)))
)
_LOAD = (
    select(objects.c.sha256, objects.c.data)
    .where(objects.c.run == bindparam("of_run"))
    .where(objects.c.sha256.in_(bindparam("sha256s", expanding=True)))
)
_THIS = (objects.c.run == bindparam("of_run"), objects.c.sha256 == bindparam("of_sha256"))
_INSERT, _DELETE = insert(objects), delete(objects).where(*_THIS)
_UPDATE = update(objects).where(*_THIS)


class Kept:
    """A value as it is written: its skeleton, and the addresses of its tensors."""

    def __init__(self, skeleton: str, tensors: Mapping[str, Address]) -> None:
        self.skeleton, self.tensors = skeleton, tensors

    @property
    def uses(self) -> Iterator[str]:
        """The objects that it uses, each as often as it is used."""
        return chain.from_iterable(self.tensors.values())


class Writing:
    """The objects of one transaction: adds what is new, and removes what nothing uses any more.

    Args:
      connection: in a transaction that has claimed the run.
      run: its number. Only the process that performs it writes its objects, so counts can't race.
      hashed: arrays that the checkpoint and the journal already use.
    """

    def __init__(self, connection: Connection, run: int, hashed: Hashed) -> None:
        self._connection, self._run, self._known = connection, run, hashed
        self.hashed: Hashed = {}
        self._more: Counter[str] = Counter()
        self._new: dict[str, bytes] = {}
        self._new_bytes = 0

    def value(self, obj: Any) -> Kept:
        """Adds the uses of a value, tensor by tensor."""
        skeleton, tensors = flatten(obj)
        return Kept(skeleton, {path: self._tensor(array) for path, array in tensors.items()})

    def _tensor(self, array: Array) -> Address:
        known = self.hashed.get(id(array)) or self._known.get(id(array))
        if known is None:
            known = (array, self.data(pieces(array)))
        else:
            self._more.update(known[1])
        self.hashed[id(array)] = known
        return known[1]

    def data(self, pieces: Iterable[bytes | memoryview]) -> Address:
        """Adds a use of bytes, given in pieces."""
        address = []
        for piece in _cut(pieces):
            sha256 = hashlib.sha256(piece).hexdigest()
            address.append(sha256)
            self._more[sha256] += 1
            self._new[sha256] = piece
            self._new_bytes += len(piece)
            if self._new_bytes > BATCH_BYTES:
                self._insert()
        return tuple(address)

    def release(self, uses: Iterable[str]) -> None:
        """Removes these uses."""
        self._more.subtract(uses)

    def finish(self) -> None:
        """Writes the counts, and removes objects that are no longer used."""
        self._insert()
        changed = [sha256 for sha256, more in self._more.items() if more]
        updates, deletes = [], []
        for sha256, uses in self._find(changed).items():
            row = {"of_run": self._run, "of_sha256": sha256}
            if uses + self._more[sha256] > 0:
                updates.append({**row, "uses": uses + self._more[sha256]})
            else:
                deletes.append(row)
        if updates:
            self._connection.execute(_UPDATE, updates)
        if deletes:
            self._connection.execute(_DELETE, deletes)

    def _insert(self) -> None:
        there = self._find(list(self._new))
        rows = [
            {"run": self._run, "sha256": sha256, "uses": self._more.pop(sha256), "data": data}
            for sha256, data in self._new.items()
            if sha256 not in there
        ]
        if rows:
            self._connection.execute(_INSERT, rows)
        self._new, self._new_bytes = {}, 0

    def _find(self, sha256s: Sequence[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for batch in cut_batches(sha256s):
            rows = self._connection.execute(_FIND, {"of_run": self._run, "sha256s": batch})
            found.update((sha256, uses) for sha256, uses in rows)
        return found


def _cut(pieces: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """Cuts bytes into pieces of PIECE_BYTES."""
    held: list[memoryview] = []
    room = PIECE_BYTES
    for piece in pieces:
        rest = memoryview(piece)
        while rest:
            held.append(rest[:room])
            room -= len(held[-1])
            rest = rest[len(held[-1]) :]
            if room == 0:
                yield b"".join(held)
                held, room = [], PIECE_BYTES
    if held:
        yield b"".join(held)


def read_objects(connection: Connection, run: int, addresses: Mapping[str, Address]) -> dict[str, Any]:
    """Unpacks the values at several addresses. Raises: StoreError: if one is missing or damaged."""
    wanted = list(dict.fromkeys(chain.from_iterable(addresses.values())))
    data: dict[str, bytes] = {}
    for batch in cut_batches(wanted):
        data.update((s, d) for s, d in connection.execute(_LOAD, {"of_run": run, "sha256s": batch}))
    for sha256 in wanted:
        if sha256 not in data or hashlib.sha256(data[sha256]).hexdigest() != sha256:
            what = "damaged" if sha256 in data else "missing"
            raise StoreError(f"object {sha256[:12]} is {what}: restore the store from a copy")
    try:
        return {name: unpack(b"".join(data[s] for s in address)) for name, address in addresses.items()}
    except MessageError as error:
        raise _unreadable(error) from None


def read_value(connection: Connection, run: int, kept: Kept) -> Any:
    """Reads a value back. Raises: StoreError: if it can't be read."""
    tensors = read_objects(connection, run, kept.tensors)
    try:
        return restore(kept.skeleton, tensors)
    except MessageError as error:
        raise _unreadable(error) from None


def _unreadable(error: MessageError) -> StoreError:
    return StoreError(
        f"a saved value can't be read ({error}); import what defines its class (--import FILE.py), in the "
        "version that saved it"
    )


def cut_batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Cuts a sequence into parts that a statement can name."""
    for at in range(0, len(items), BATCH_ROWS):
        yield items[at : at + BATCH_ROWS]


def to_json(obj: Any, name: str = "this") -> str:
    """Writes compact JSON. Raises: InvalidInput: naming what can't be written."""
    try:
        return json.dumps(obj, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(
            f"{name} can't be written as JSON ({error}); use numbers, strings, lists and mappings by string"
        ) from None
