"""Values as plain data, which TOML and JSON can hold: converted, formatted, merged.

A value such as `fed_avg(lr=0.3)` is a table that names its class, `{"name": "fed_avg", "lr": 0.3}`, or
the name alone where all fields have their defaults.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from hanse.core import InvalidInput, Plain, fields
from hanse.core.exchange import find_classes

__all__ = ["format_plain", "is_required", "join_path", "leaves", "merge", "name_of", "to_plain"]


def to_plain(obj: Any) -> Plain:
    """Converts a value to plain data, with every field spelled out.

    >>> from hanse.core import Close
    >>> to_plain(Close(goal=3))
    {'name': 'Close', 'goal': 3, 'deadline_s': None, 'minimum_fraction': 0.5}

    Raises: InvalidInput: if something in it can't be written in a settings file.
    """
    kind = type(obj)
    if obj is None or kind in (bool, int, float, str):
        return obj
    if kind in (tuple, list):
        return [to_plain(item) for item in obj]
    name = name_of(kind)
    if name is None:
        raise InvalidInput(
            f"{obj!r} can't be written down as a setting: use numbers, strings, tuples, or a class "
            "marked with @value"
        )
    return {"name": name, **{f.name: to_plain(getattr(obj, f.name)) for f in fields(kind)}}


def name_of(kind: type) -> str | None:
    """Returns the name of a class in settings, or None if it is not marked with `@value`."""
    return next((name for name, cls in find_classes(kind).items() if cls is kind), None)


def format_plain(tree: Plain) -> str:
    """Formats plain data as one would write the value, without fields that have their defaults.

    >>> from hanse.core import Close
    >>> format_plain(to_plain((Close(goal=3), "a", 1.0)))
    "[Close(goal=3), 'a', 1.0]"
    """
    if isinstance(tree, list):
        return f"[{', '.join(map(format_plain, tree))}]"
    if not isinstance(tree, Mapping):
        return repr(tree)
    cls = find_classes(object).get(tree.get("name", ""))
    said = ", ".join(_format_fields(tree, cls))
    return f"{tree.get('name', '')}({said})" if said else str(tree.get("name", ""))


def _format_fields(tree: Mapping[str, Plain], cls: type | None) -> Iterator[str]:
    known = {f.name: f for f in fields(cls)} if cls else {}
    for name, said in tree.items():
        f = known.get(name)
        if name == "name" or (f and not is_required(f) and said == _plain_default(f)):
            continue
        positional = f is not None and is_required(f) and not f.kw_only
        yield format_plain(said) if positional else f"{name}={format_plain(said)}"


def _plain_default(f: "dataclasses.Field[Any]") -> Plain:
    if f.default is not dataclasses.MISSING:
        return to_plain(f.default)
    return to_plain(f.default_factory()) if f.default_factory is not dataclasses.MISSING else None


def merge(base: Plain, over: Plain) -> Plain:
    """Lays the settings in `over` over those in `base`.

    A table that names another class replaces the whole table of the first class.

    >>> merge({"name": "iid", "num_clients": 10}, {"num_clients": 5})
    {'name': 'iid', 'num_clients': 5}
    >>> merge({"name": "iid", "num_clients": 10}, "shards")
    {'name': 'shards'}
    """
    if isinstance(over, str) and isinstance(base, Mapping):
        over = {"name": over}
    if isinstance(base, str) and isinstance(over, Mapping):
        base = {"name": base}
    if not (isinstance(base, Mapping) and isinstance(over, Mapping)):
        return over
    if "name" in over and over["name"] != base.get("name", over["name"]):
        return over
    return {**base, **{key: merge(base[key], v) if key in base else v for key, v in over.items()}}


def leaves(tree: Plain, path: str = "") -> Iterator[str]:
    """Yields the dotted paths of all settings in a tree."""
    if not isinstance(tree, Mapping):
        yield path
        return
    for key, node in tree.items():
        yield from leaves(node, join_path(path, key))


def join_path(path: str, step: str | int) -> str:
    """Lengthens a dotted path by one step."""
    if isinstance(step, int):
        return f"{path}[{step}]"
    return f"{path}.{step}" if path else step


def is_required(f: "dataclasses.Field[Any]") -> bool:
    """Returns whether a field has no default."""
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
