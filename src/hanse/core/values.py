"""Values: frozen dataclasses, tensors and plain data that can be sent, saved and compared.

A value is None, a bool, int, float, str or bytes, an array, a tuple or mapping of values, or an
instance of a class marked with `@value`. Commands, events, states, tickets, transforms and
reducers are all values, so one codec serves the wire, the store and the journal. A packed value
is a safetensors file whose only metadata entry, "hanse", says in JSON where each tensor belongs.
Nothing is ever unpickled: unpacking builds only classes that the reader has registered.
"""

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable, Container, Mapping
from typing import Any, TypeAlias, TypeVar, dataclass_transform, overload

import numpy as np

from hanse.core import former, layout
from hanse.core.errors import InvalidInput, MessageError, nearest
from hanse.core.keys import Key, Keys
from hanse.core.layout import DTYPES, Mapped, Packed
from hanse.core.tensors import Array
from hanse.lazy import load_registering

__all__ = [
    "Plain",
    "add_padding",
    "brief",
    "digest",
    "fields",
    "find_class",
    "find_class_name",
    "find_classes",
    "flatten",
    "former_digest",
    "has_classes",
    "measure_layout",
    "measure_packed_bytes",
    "pack",
    "pieces",
    "renew",
    "restore",
    "to_sendable",
    "unpack",
    "value",
]

Plain: TypeAlias = Any
"""None, a bool, int, float or str, or a list or dictionary of these."""

T = TypeVar("T")

_CLASSES: dict[str, type] = {}
_NAMES: dict[type, str] = {}
_FIELDS: dict[type, tuple[dataclasses.Field[Any], ...]] = {}
_MAX_DEPTH = 64
_PLAIN = frozenset((type(None), bool, int, str))
_MAX_EQUAL_HASHES = 8
_SENDABLE = frozenset(DTYPES.values())
_ARRAYS = (np.ndarray, np.generic)
_DTYPES = frozenset(map(np.dtype, _SENDABLE))  # to look one up by itself: its name takes microseconds to make


def _register(cls: type[T], name: str) -> type[T]:
    known = _CLASSES.get(name) if cls.__module__.startswith("hanse.") else find_class(name)
    if known is not None and (known.__module__, known.__qualname__) != (
        cls.__module__,
        cls.__qualname__,
    ):
        raise InvalidInput(
            f"two classes are called {name!r}: {known.__module__}.{known.__qualname__} and "
            f"{cls.__module__}.{cls.__qualname__}; rename yours"
        )
    _CLASSES[name] = cls
    _NAMES[cls] = name
    _FIELDS[cls] = dataclasses.fields(cls)  # type: ignore[arg-type]
    return cls


@overload
def value(cls: type[T]) -> type[T]: ...
@overload
def value(*, name: str) -> Callable[[type[T]], type[T]]: ...
@dataclass_transform(frozen_default=True)
def value(cls: type[T] | None = None, *, name: str | None = None) -> Any:
    """Makes a class a frozen dataclass that can be packed, under its own name or `name`.

    >>> @value
    ... class point:
    ...     x: float
    >>> unpack(pack(point(1.5)))
    point(x=1.5)
    """

    def mark(cls: type[T]) -> type[T]:
        return _register(dataclasses.dataclass(frozen=True)(cls), name or cls.__name__)

    return mark if cls is None else mark(cls)


_register(Key, "key")
_register(Keys, "keys")


def find_classes(kind: type) -> dict[str, type[Any]]:
    """Lists the marked classes below `kind`, by name, and imports all for it; `find_class` imports one."""
    load_registering()
    return {name: cls for name, cls in sorted(_CLASSES.items()) if issubclass(cls, kind)}


def find_class(name: str, kind: type = object) -> type[Any] | None:
    """Returns the marked class that a settings file or a message names, or None: none below `kind` has it."""
    if name not in _CLASSES:
        load_registering([name])
    cls = _CLASSES.get(name)
    return cls if cls is not None and issubclass(cls, kind) else None


def has_classes(kind: type) -> bool:
    """Returns whether any marked class is below `kind`."""
    return any(issubclass(cls, kind) for cls in _CLASSES.values()) or bool(find_classes(kind))


def find_class_name(cls: type) -> str | None:
    """Returns the name under which a class is marked, or None if it is not."""
    name = _NAMES.get(cls, "")
    return name if _CLASSES.get(name) is cls else None


def fields(cls: type) -> tuple[dataclasses.Field[Any], ...]:
    """Returns the fields of a class marked with `@value`."""
    found = _FIELDS.get(cls)
    if found is None:
        found = _FIELDS[cls] = dataclasses.fields(cls)
    return found


def brief(obj: Any) -> str:
    """Formats a value of a class marked with `@value` as a user would: without fields left at their defaults.

    >>> from hanse.transforms import quantize
    >>> brief(quantize(2)), brief(quantize(bits=8))
    ('quantize(2)', 'quantize(8)')
    """
    texts = []
    for f in fields(type(obj)):
        held = getattr(obj, f.name)
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        default = f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default
        if required or held != default:
            text = brief(held) if type(held) in _NAMES else repr(held)
            texts.append(text if required and not f.kw_only else f"{f.name}={text}")
    return f"{type(obj).__name__}({', '.join(texts)})"


def flatten(obj: Any) -> tuple[str, dict[str, Array]]:
    """Splits a value into JSON and the tensors that it refers to, by their path in the value.

    Raises: InvalidInput: if something in it is not a value.
    """
    tensors: dict[str, Array] = {}
    skeleton = _flatten(obj, "", tensors, 0)
    return json.dumps(skeleton, separators=(",", ":"), allow_nan=False), tensors


def _flatten(obj: Any, path: str, tensors: dict[str, Array], depth: int, old: int = 0) -> Any:
    """Flattens a value; `old`: as in the version before this one (1), or those before that (2)."""
    kind = type(obj)
    if depth > _MAX_DEPTH:
        raise InvalidInput(f"{path[:50]}... is nested deeper than {_MAX_DEPTH}, which can't be saved or sent")
    if kind in _PLAIN:
        return obj
    if kind is float:
        return obj if math.isfinite(obj) else {"$": "float", "is": repr(obj)}
    if kind is tuple:
        return [_flatten(item, _join(path, str(i)), tensors, depth + 1, old) for i, item in enumerate(obj)]
    if kind in _NAMES:
        tag, names = _former_names(_NAMES[kind]) if old > 1 else (_NAMES[kind], {})
        body = {}
        for f in _FIELDS[kind]:
            if old and _is_added(kind, f, getattr(obj, f.name), old):
                continue
            name, item = names.get(f.name, f.name), getattr(obj, f.name)
            if type(item) not in _PLAIN or depth == _MAX_DEPTH:  # most are plain, and calls cost
                item = _flatten(item, _join(path, name), tensors, depth + 1, old)
            body[name] = item
        return {"$": tag, **body}
    if kind is bytes:
        return {"$": "bytes", "hex": obj.hex()}
    if isinstance(obj, _ARRAYS):
        name = _free(path or "value", tensors)
        tensors[name] = to_sendable(obj, path)
        return {"$": "tensor", "at": name}
    if isinstance(obj, Mapping):
        if all(type(key) is str for key in obj) and "$" not in obj:
            return {
                key: _flatten(item, _join(path, key), tensors, depth + 1, old) for key, item in obj.items()
            }
        return {"$": "map", "items": _flatten(tuple(obj.items()), path, tensors, depth + 1, old)}
    raise InvalidInput(
        f"{path or 'the value'} is a {kind.__module__}.{kind.__qualname__}, which can't be saved or sent: "
        "use numbers, strings, bytes, arrays, tuples, mappings, or a class marked with @value"
    )


def _free(name: str, taken: Mapping[str, Array]) -> str:
    """Returns the name, or one like it: {"a/b": x, "a": {"b": y}} holds two tensors at the path a/b."""
    while name in taken or name == "__metadata__":  # safetensors keeps that one for itself
        name += "'"
    return name


def to_sendable(obj: Any, path: str = "") -> Array:
    """Returns an array as it is sent, in C order and the machine's order of bytes. Raises: InvalidInput."""
    array = np.asarray(obj, order="C")
    if array.dtype not in _DTYPES and array.dtype.newbyteorder("=") not in _DTYPES:
        raise InvalidInput(
            f"{path or 'the value'} is an array of {array.dtype}, which can't be saved or sent: "
            f"use one of {', '.join(sorted(_SENDABLE))}"
        )
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _join(path: str, step: str) -> str:
    return f"{path}/{step}" if path else step


def restore(skeleton: str, tensors: Mapping[str, Array], only: Container[type] | None = None) -> Any:
    """Restores the value that `flatten` split.

    Args:
      only: the marked classes that may be built; None: all.

    Raises: MessageError: if skeleton and tensors don't fit.
    """
    try:
        tree = json.loads(skeleton)
        used: set[str] = set()
        obj = _restore(tree, tensors, used, only, 0)
    except MessageError:
        raise
    except Exception as error:  # a class that is given fields of wrong types may raise anything
        raise MessageError(f"not a packed value: {error!r}") from error
    if len(used) != len(tensors):
        raise MessageError(f"tensors that the value does not use: {sorted(set(tensors) - used)[:5]}")
    return obj


def _restore(
    node: Any, tensors: Mapping[str, Array], used: set[str], only: Container[type] | None, depth: int
) -> Any:
    if depth > _MAX_DEPTH:
        raise MessageError(f"a value nested deeper than {_MAX_DEPTH}")
    if isinstance(node, list):
        return tuple(_restore(item, tensors, used, only, depth + 1) for item in node)
    if not isinstance(node, dict):
        return node
    tag = node.pop("$", None)
    if tag is None and isinstance(tensors, Mapped) and all(map(_is_tensor, node.values())):
        used.update(item["at"] for item in node.values())
        return tensors.rename({key: item["at"] for key, item in node.items()})
    if tag is None:
        return {key: _restore(item, tensors, used, only, depth + 1) for key, item in node.items()}
    if tag == "tensor":
        used.add(node["at"])
        return tensors[node["at"]]
    if tag == "float":
        return float(node["is"])
    if tag == "bytes":
        return bytes.fromhex(node["hex"])
    if tag == "map":
        return _mapping(_restore(node["items"], tensors, used, only, depth + 1))
    cls = _CLASSES.get(tag) or find_class(former.CLASSES.get(tag, tag))
    if cls is None:
        raise MessageError(f"unknown kind of value {str(tag)[:100]!r}: {nearest(str(tag)[:100], _CLASSES)}")
    if only is not None and cls not in only:
        raise MessageError(f"a {tag}, which is not allowed here")
    given = {key: _restore(item, tensors, used, only, depth + 1) for key, item in node.items()}
    given = _renew_fields(cls, given)
    try:
        return cls(**given)
    except TypeError as error:
        differs = _differs(cls, given)
        if not differs:
            raise
        raise MessageError(
            f"a {tag} {differs}: another version of hanse packed it; install the same one on both sides"
        ) from error


def _differs(cls: type, given: Mapping[str, Any]) -> str:
    """Describes how given fields differ from those of a class; empty if they agree."""
    own = {f.name: f for f in fields(cls) if f.init}
    unknown = sorted(set(given) - own.keys())
    if unknown:
        return f"with {', '.join(unknown)[:100]}, which is unknown here"
    empty = dataclasses.MISSING
    due = [n for n, f in own.items() if f.default is f.default_factory is empty and n not in given]
    return f"without {', '.join(due)}" if due else ""


def _renew_fields(cls: type, given: dict[str, Any]) -> dict[str, Any]:
    """Moves fields from their former names to today's, and leaves out those that are gone."""
    names = former.FIELDS.get(_NAMES[cls])
    if names is None:
        return given
    known = {f.name for f in fields(cls)}
    moved = {key if key in known else names.get(key, key): item for key, item in given.items()}
    return {key: item for key, item in moved.items() if key}


def _is_added(cls: type, field: dataclasses.Field[Any], held: Any, old: int) -> bool:
    """Returns whether a field is new since an earlier version, and has its default."""
    if field.name not in (former.ADDED if old > 1 else former.ADDED_LAST).get(_NAMES[cls], ()):
        return False
    factory = field.default_factory
    return bool(held == (field.default if factory is dataclasses.MISSING else factory()))


def _former_names(name: str) -> tuple[str, Mapping[str, str]]:
    """Returns the former name of a class, and the former names of its fields by those of today."""
    tag = next((old for old, new in former.CLASSES.items() if new == name), name)
    return tag, {new: old for old, new in former.FIELDS.get(name, {}).items()}


def renew(tree: Any) -> Any:
    """Puts today's names into plain data that an earlier version wrote of values: see
    `hanse.config`.

    >>> renew({"name": "Close", "goal": 3})
    {'name': 'Close', 'goal': 3}
    """
    if isinstance(tree, list):
        return [renew(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    tree = {key: renew(item) for key, item in tree.items()}
    name = tree.get("name")
    if not isinstance(name, str):
        return tree
    if name not in _CLASSES and name in former.CLASSES:
        tree["name"] = former.CLASSES[name]
    cls = find_class(tree["name"]) if tree["name"] in former.FIELDS else None
    return tree if cls is None else _renew_fields(cls, tree)


def _is_tensor(node: Any) -> bool:
    return isinstance(node, dict) and node.get("$") == "tensor"


def _mapping(items: tuple[tuple[Any, Any], ...]) -> dict[Any, Any]:
    """Builds a mapping. Raises: MessageError: if keys were made to collide, which takes quadratic time."""
    hashes = sorted(hash(key) for key, _ in items)
    if any(one == other for one, other in zip(hashes, hashes[_MAX_EQUAL_HASHES:], strict=False)):
        raise MessageError(f"more than {_MAX_EQUAL_HASHES} keys of one hash")
    return dict(items)


def pack(obj: Any) -> bytes:
    """Packs a value into the bytes that are sent."""
    return b"".join(pieces(obj))


def pieces(obj: Any) -> list[bytes | memoryview]:
    """Returns the pieces that `pack` joins: a header, and the values of each tensor, not copied."""
    return layout.lay_out(*flatten(obj))


def measure_packed_bytes(obj: Any) -> int:
    """Returns the length of `pack(obj)` without packing it.

    >>> point = {"x": np.zeros((2, 3)), "y": "z"}
    >>> measure_packed_bytes(point) == len(pack(point))
    True
    """
    return add_padding(*measure_layout(obj))


def measure_layout(obj: Any) -> tuple[int, int]:
    """Measures the bytes of a packed value's header, before it is padded, and of its tensors.

    Each further character of the value's JSON makes the header a byte longer.
    """
    skeleton, tensors = flatten(obj)
    escaped = len(skeleton) + skeleton.count('"') + skeleton.count("\\")
    places = tuple((name, array.dtype, array.shape) for name, array in tensors.items())
    return _header(places) + escaped, sum(array.nbytes for array in tensors.values())


def add_padding(header: int, tensors: int) -> int:
    """Returns the length of a packed value, from the measured bytes of its header and tensors."""
    return 8 + -(-header // 8) * 8 + tensors


@functools.lru_cache(maxsize=256)
def _header(places: tuple[tuple[str, Any, tuple[int, ...]], ...]) -> int:
    """Returns the bytes of a header without its skeleton."""
    return len(layout.head("", {name: (dtype, shape) for name, dtype, shape in places}))


def unpack(
    data: Packed,
    expect: type[T] | None = None,
    *,
    only: Container[type] | None = None,
    max_head_bytes: int | None = None,
) -> Any:
    """Unpacks `data`, which the caller has bounded in size. Tensors are views that can't be written.

    Args:
      data: bytes, or a file. A mapping of tensors in a large file is mapped name by name, when it is used.
      only: the marked classes that may be built, if a stranger packed it; None: all.
      max_head_bytes: for everything but tensors' values, because JSON takes many times its size in memory.

    Raises: MessageError: if the bytes are not a packed value, or not of the class `expect`.
    """
    try:
        skeleton, tensors = layout.read_layout(data, max_head_bytes)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise MessageError(f"not a packed value: {error!r:.1000}") from error
    obj = restore(skeleton, tensors, only)
    if expect is not None and not isinstance(obj, expect):
        raise MessageError(f"a {type(obj).__name__} where a {expect.__name__} is needed")
    return obj


def digest(obj: Any) -> str:
    """Computes the SHA-256 of a value, in hexadecimal: equal values have equal digests."""
    return _hash(*flatten(obj))


def former_digest(obj: Any, old: int = 2) -> str:
    """Computes the digest that an earlier version gave to the value, which had other names and fields then.

    Args:
      old: 1: the version before this one; 2: those before that.
    """
    tensors: dict[str, Array] = {}
    skeleton = _flatten(obj, "", tensors, 0, old)
    return _hash(json.dumps(skeleton, separators=(",", ":"), allow_nan=False), tensors)


def _hash(skeleton: str, tensors: Mapping[str, Array]) -> str:
    state = hashlib.sha256(skeleton.encode())
    for name, array in tensors.items():
        state.update(f"{name} {array.dtype.str} {array.shape}".encode())
        state.update(array.data if array.size else b"")
    return state.hexdigest()
