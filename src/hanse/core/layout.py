"""The layout of packed tensors: the safetensors format, written and read without copying a value.

Eight bytes give the length of the header. The header is JSON that names each tensor's dtype, shape and place.
Then come the values, those of the widest dtype first, without a gap.
"""

import json
import math
import mmap
import os
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias

import numpy as np

from hanse.core.errors import MessageError
from hanse.core.tensors import Array

__all__ = ["DTYPES", "Mapped", "Packed", "Stored", "head", "lay_out", "read_layout"]

DTYPES: Final = {
    **{"U64": "uint64", "I64": "int64", "F64": "float64", "C64": "complex64"},
    **{"F32": "float32", "U32": "uint32", "I32": "int32"},
    **{"F16": "float16", "U16": "uint16", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool"},
}
"""The dtypes that can be sent, by their names in the format, in the order in which they are written."""

_CODES = {name: code for code, name in DTYPES.items()}
_ORDER = {name: position for position, name in enumerate(DTYPES.values())}

MAX_DIMS = 64
"""The most dimensions that NumPy allows."""

MAPPED_BYTES = 1 << 20
"""Files of at least this size are mapped; smaller ones are read."""


class Stored:
    """Packed bytes in a file that does not change."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = path
        self._size = os.stat(path).st_size
        self._held: Callable[[], mmap.mmap | None] = lambda: None

    def __len__(self) -> int:
        return self._size

    def __reduce__(self) -> tuple[type["Stored"], tuple[Any]]:
        """Pickles the path alone: another process maps the file itself."""
        return Stored, (self._path,)

    def view(self) -> "bytes | mmap.mmap":
        """Returns all bytes. Of a large file, only what is read takes memory, for as long as this is held."""
        held = self._held()
        if held is not None:
            return held
        with open(self._path, "rb") as file:
            if self._size < MAPPED_BYTES:
                return file.read()
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._held = weakref.ref(mapped)
        return mapped


Packed: TypeAlias = bytes | Stored

_Place: TypeAlias = tuple[Any, tuple[int, ...], int]
"""A tensor's dtype, its shape, and the offset of its values."""


class Mapped(Mapping[str, Array]):
    """Tensors in a file. Each is mapped anew when it is used: in between it takes no memory."""

    def __init__(self, stored: Stored, places: Mapping[str, _Place]) -> None:
        self._stored, self._places = stored, places

    def __getitem__(self, name: str) -> Array:
        return _view(self._stored.view(), self._places[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def rename(self, names: Mapping[str, str]) -> "Mapped":
        """Returns some of the tensors under other names; `names` maps each new name to the old one."""
        return Mapped(self._stored, {new: self._places[old] for new, old in names.items()})


def head(skeleton: str, tensors: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]) -> bytes:
    """Builds the header of tensors of these dtypes and shapes, before it is padded."""
    about: dict[str, Any] = {"__metadata__": {"hanse": skeleton}}
    at = 0
    for name in sorted(tensors, key=lambda name: (_ORDER[tensors[name][0].name], name.encode())):
        dtype, shape = tensors[name]
        end = at + math.prod(shape) * dtype.itemsize
        about[name] = {"dtype": _CODES[dtype.name], "shape": shape, "data_offsets": (at, end)}
        at = end
    return json.dumps(about, separators=(",", ":"), ensure_ascii=False).encode()


def lay_out(skeleton: str, tensors: Mapping[str, Array]) -> list[bytes | memoryview]:
    """Lays out packed bytes in pieces: the header, then the values of each tensor, not copied.

    Args:
      tensors: in C order and the machine's order of bytes.
    """
    text = head(skeleton, {name: (array.dtype, array.shape) for name, array in tensors.items()})
    text += b" " * (-len(text) % 8)
    order = sorted(tensors.items(), key=lambda named: (_ORDER[named[1].dtype.name], named[0].encode()))
    values = [array.reshape(-1).view(np.uint8).data for _, array in order if array.size]
    return [len(text).to_bytes(8, "little") + text, *values]


def read_layout(data: Packed, max_head_bytes: int | None) -> tuple[Any, Mapping[str, Array]]:
    """Reads the metadata entry "hanse", and the tensors, which can't be written.

    Raises: MessageError, and whatever parsing raises: if the bytes are not packed in this format.
    """
    view = data.view() if isinstance(data, Stored) else data
    head = int.from_bytes(view[:8], "little")
    if len(view) < 8 or head > len(view) - 8:
        raise MessageError(f"a header of {head} bytes in a message of {len(view)}")
    if max_head_bytes is not None and head > max_head_bytes:
        raise MessageError(f"a header of {head} bytes; at most {max_head_bytes} are allowed")
    about = json.loads(view[8 : 8 + head].decode())
    metadata = about.pop("__metadata__")
    places = _places(about, 8 + head, len(view))
    if isinstance(view, mmap.mmap):
        assert isinstance(data, Stored)
        return metadata["hanse"], Mapped(data, places)
    return metadata["hanse"], {name: _view(view, place) for name, place in places.items()}


def _places(about: Mapping[str, Any], begin: int, end: int) -> dict[str, _Place]:
    """Reads the place of each tensor. Each byte belongs to exactly one: there is no gap and no overlap."""
    given = [(*_pair(one["data_offsets"]), name, one["dtype"], one["shape"]) for name, one in about.items()]
    places: dict[str, _Place] = {}
    at = 0
    for first, last, name, code, dims in sorted(given, key=lambda one: one[:2]):
        dtype = np.dtype(DTYPES[code])
        if not _is_shape(dims, dtype.itemsize):
            raise ValueError(f"{name!r:.100} has shape {dims!s:.100}")
        if first != at or last - first != math.prod(dims) * dtype.itemsize:
            raise ValueError(
                f"{name!r:.100} is at bytes {first} to {last}; it must start at {at} with {dims} of {code}"
            )
        places[name] = (dtype, tuple(dims), begin + first)
        at = last
    if at != end - begin:
        raise ValueError(f"{end - begin} bytes of values, of which {at} belong to a tensor")
    return places


def _is_shape(dims: Any, itemsize: int) -> bool:
    """Returns whether an array can have this shape: if so, `_view` succeeds, whenever it is called."""
    if not isinstance(dims, list) or len(dims) > MAX_DIMS:
        return False
    sizes = all(type(dim) is int and 0 <= dim < 2**63 for dim in dims)
    return (
        sizes and math.prod(dim or 1 for dim in dims) * itemsize < 2**63
    )  # NumPy counts this way even where a dimension is 0


def _pair(offsets: Any) -> tuple[int, int]:
    first, last = offsets
    if type(first) is not int or type(last) is not int:
        raise ValueError(f"offsets {offsets!s:.100}")
    return first, last


def _view(data: "bytes | mmap.mmap", place: _Place) -> Array:
    dtype, shape, offset = place
    array: Array = np.ndarray(shape, dtype, data, offset)
    array.flags.writeable = False
    return array
