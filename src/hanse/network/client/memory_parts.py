"""Values on the disk in parts: each large tensor in a file of its own, named by its SHA-256.

A tensor that has not changed is not written again. The rest of a value is its index, which names the parts
and carries a checksum. A value that an earlier version wrote, in one piece, can be read too.
"""

import hashlib
import re
import weakref
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np

from hanse.core import PROMISED, Array, HanseError, Memory, MessageError, value
from hanse.core.exchange import digest, flatten, pack, pieces, restore, unpack
from hanse.network.protocol.spool import sync_folder, write_whole

__all__ = ["MEMORY", "name_memory", "pack_parts", "read_parts", "sweep_parts"]

MEMORY = "memory"
"""The name of the file that holds the index of a role's memory, in the role's folder."""

PARTS = "parts"
"""The name of the folder of parts, beside it."""

PART_BYTES = 1 << 16
"""Tensors of at least so many bytes are parts: below, writing one is quicker than making a file."""

_PART = re.compile(r"[0-9a-f]{64}(\.part)?")

MARK: Final = b"hanse parts 1\n"
"""The beginning of an index, before its SHA-256. Values in one piece never begin like this."""


@value
class PartsIndex:
    """A value without its large tensors: its structure, its small tensors, and the SHA-256s of the others."""

    skeleton: str
    small: Mapping[str, Array]
    parts: Mapping[str, str]


def name_memory(memory: Memory) -> str:
    """Names what a ticket continues. Promises decide only whether it is answered, so they are left out."""
    skeleton, tensors = flatten({n: kept for n, kept in memory.items() if not n.startswith(PROMISED)})
    return digest((skeleton, {name: _digest(tensor) for name, tensor in tensors.items()}))


def pack_parts(folder: Path, obj: Any) -> bytes:
    """Writes the parts of a value that are not here yet; returns its index, which the caller writes.

    All parts have reached the disk when this returns.
    """
    skeleton, tensors = flatten(obj)
    large = {name: tensor for name, tensor in tensors.items() if tensor.nbytes >= PART_BYTES}
    small = {name: tensor for name, tensor in tensors.items() if name not in large}
    parts = {name: _write_part(folder / PARTS, tensor) for name, tensor in large.items()}
    if parts:
        sync_folder(folder / PARTS)  # also if all were here: a killed process may have written them just now
    packed = pack(PartsIndex(skeleton, small, parts))
    return MARK + hashlib.sha256(packed).digest() + packed


def _write_part(folder: Path, tensor: Array) -> str:
    name = _digest(tensor)
    if not (folder / name).exists():
        folder.mkdir(exist_ok=True)
        write_whole(folder / name, pieces(tensor))
    return name


_DIGESTS: dict[int, tuple[weakref.ref[Array], str]] = {}
"""The SHA-256 of tensors that can't change any more, by their identity."""


def _digest(tensor: Array) -> str:
    """Computes the SHA-256 of a packed tensor; only once if its memory is bytes, which nobody can change."""
    known = _DIGESTS.get(id(tensor))
    if known is not None and known[0]() is tensor:
        return known[1]
    state = hashlib.sha256()
    for piece in pieces(tensor):
        state.update(piece)
    base: Any = tensor
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, bytes):
        number = id(tensor)
        _DIGESTS[number] = weakref.ref(tensor, lambda _: _DIGESTS.pop(number, None)), state.hexdigest()
    return state.hexdigest()


def read_parts(path: Path) -> Any:
    """Reads a value from its index and its parts, or in one piece as earlier versions wrote it.

    Raises: HanseError: if a file has changed since it was written, or is missing; it names the file.
    """
    data = path.read_bytes()
    if not data.startswith(MARK):
        try:
            return unpack(data)
        except MessageError as error:
            raise HanseError(_explain(path, path, str(error))) from error
    index = _read_index(path, data)
    found = {name: _read_part(path, path.parent / PARTS / sha256) for name, sha256 in index.parts.items()}
    return restore(index.skeleton, {**index.small, **found})


def _read_index(path: Path, data: bytes) -> PartsIndex:
    sha256, packed = data[len(MARK) : len(MARK) + 32], data[len(MARK) + 32 :]
    if hashlib.sha256(packed).digest() != sha256:
        raise HanseError(_explain(path, path, "its content has changed since it was written"))
    index: PartsIndex = unpack(packed, PartsIndex)
    return index


def _read_part(index: Path, path: Path) -> Array:
    if not path.exists():
        raise HanseError(_explain(index, path, "it is missing"))
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != path.name:
        raise HanseError(_explain(index, path, "its content is not what its name, its SHA-256, says"))
    tensor: Array = unpack(data)
    return tensor


def _explain(index: Path, path: Path, why: str) -> str:
    return (
        f"{path} can't be used: {why}. Restore it from a backup, or remove {index}: then this client begins "
        "the run again without what it kept"
    )


def sweep_parts(folder: Path) -> None:
    """Removes the parts that neither the role's memory nor a note of a ticket names."""
    if not (folder / PARTS).exists():
        return
    named = set(_named(folder / MEMORY))
    for note in folder.glob("*.task"):
        with suppress(HanseError, FileNotFoundError):  # a note need not be whole
            named.update(_named(note))
    for path in (folder / PARTS).iterdir():
        if path.name not in named and _PART.fullmatch(path.name):  # other files are left alone
            path.unlink(missing_ok=True)


def _named(path: Path) -> Iterator[str]:
    data = path.read_bytes()
    if data.startswith(MARK):
        yield from _read_index(path, data).parts.values()
