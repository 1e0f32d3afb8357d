"""Values as plain data, which TOML and JSON can hold: converted, formatted, merged.

A value such as `fed_avg(lr=0.3)` is a table that names its class, `{"name": "fed_avg", "lr": 0.3}`, or
the name alone where all fields have their defaults.
"""

import dataclasses
import json
import re
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from hanse.config.calls import parse_name
from hanse.core import InvalidInput, Plain, fields
from hanse.core.exchange import find_class, find_class_name

__all__ = [
    "NOTHING",
    "Whole",
    "as_key",
    "format_plain",
    "is_required",
    "join_path",
    "leaves",
    "merge",
    "split_path",
    "to_plain",
    "value_type",
]


NOTHING = "none"
"""The word for None in files, since TOML has none of its own."""


def to_plain(obj: Any) -> Plain:
    """Converts a value to plain data, with every field spelled out.

    >>> from hanse.core import Close
    >>> to_plain(Close(goal=3))
    {'name': 'Close', 'goal': 3, 'deadline_s': None, 'minimum_fraction': 0.5, 'wait_s': None}

    Raises: InvalidInput: if something in it can't be written in a settings file.
    """
    kind = type(obj)
    if obj is None or kind in (bool, int, float, str):
        return obj
    if kind in (tuple, list):
        return [to_plain(item) for item in obj]
    if isinstance(obj, Mapping):
        return _table(obj)
    name = find_class_name(kind)
    if name is None:
        raise InvalidInput(
            f"{obj!r} can't be written down as a setting: use numbers, strings, tuples, mappings, or a class "
            "marked with @value"
        )
    held = {f.name: getattr(obj, f.name) for f in fields(kind)}
    if any(isinstance(item, Mapping) for item in held.values()):
        _check_tables(kind, held)
    return {"name": name, **{key: to_plain(item) for key, item in held.items()}}


def _table(mapping: Mapping[Any, Any]) -> dict[str, Plain]:
    wrong = next((key for key in mapping if not isinstance(key, str) or key == "name"), None)
    if wrong is not None:
        raise InvalidInput(
            f"a mapping with the key {wrong!r} can't be written down as a setting: its keys must be strings, "
            'and "name" is kept for the name of a value; call it otherwise'
        )
    return {key: to_plain(item) for key, item in mapping.items()}


def _check_tables(kind: type, held: Mapping[str, Any]) -> None:
    """Checks that mappings to Any hold nothing that would come back from settings as something else."""
    hints = typing.get_type_hints(kind)
    for name, item in held.items():
        if isinstance(item, Mapping) and not _comes_back(hints[name], item):
            raise InvalidInput(
                f"{kind.__name__}.{name} is {item!r}; a mapping to Any holds bools, numbers, strings, tuples "
                "and mappings of these in settings. Write the type of its values to hold others, such as "
                "Mapping[str, Transform] or Mapping[str, float | None]"
            )


def _comes_back(annotation: Any, item: Any) -> bool:
    """Returns whether settings that name an item give it again, as far as mappings are concerned."""
    if not isinstance(item, Mapping):
        return True
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    options = map(value_type, typing.get_args(annotation) if is_union else [annotation])
    of_values = next((option for option in options if option is not None), None)
    if of_values is Any:
        return _is_plain(item)
    return all(_comes_back(of_values, inner) for inner in item.values())


def _is_plain(obj: Any) -> bool:
    if isinstance(obj, Mapping):
        return all(map(_is_plain, obj.values()))
    if type(obj) in (tuple, list):
        return all(map(_is_plain, obj))
    return type(obj) in (bool, int, float, str)


def value_type(annotation: Any) -> Any:
    """Returns the type of the values of a mapping that settings can hold, or None if it is another type.

    >>> value_type(Mapping[str, float]), value_type(dict), value_type(tuple[int, ...])
    (<class 'float'>, typing.Any, None)
    """
    kind = typing.get_origin(annotation) or annotation
    if kind not in (dict, Mapping):
        return None
    keys, values = typing.get_args(annotation) or (str, Any)
    return values if keys is str else None


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
    if "name" not in tree:
        return "{" + ", ".join(f"{key!r}: {format_plain(item)}" for key, item in tree.items()) + "}"
    cls = find_class(tree["name"])
    said = ", ".join(_format_fields(tree, cls))
    return f"{tree['name']}({said})" if said else str(tree["name"])


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


class Whole(dict[str, Plain]):
    """A table of settings that replaces another, and is not laid over it."""


def merge(base: Plain, over: Plain) -> Plain:
    """Lays the settings in `over` over those in `base`.

    A name, a `Whole` table, and a table that names another class replace what was there.

    >>> merge({"name": "iid", "num_clients": 10}, {"num_clients": 5})
    {'name': 'iid', 'num_clients': 5}
    >>> merge({"name": "iid", "num_clients": 10}, Whole(num_clients=5))
    {'num_clients': 5}
    >>> merge({"name": "iid", "num_clients": 10}, "shards")
    {'name': 'shards'}
    """
    if isinstance(over, str) and isinstance(base, Mapping):
        return over if over == NOTHING else Whole(parse_name(over))
    if isinstance(base, str) and isinstance(over, Mapping):
        base = Whole(parse_name(base))
    if not (isinstance(base, Mapping) and isinstance(over, Mapping)) or isinstance(over, Whole):
        return over
    if "name" in over and over["name"] != base.get("name", over["name"]):
        return over
    merged = {**base, **{key: merge(base[key], v) if key in base else v for key, v in over.items()}}
    return Whole(merged) if isinstance(base, Whole) else merged


def leaves(tree: Plain, path: str = "") -> Iterator[str]:
    """Yields the dotted paths of all settings in a tree."""
    if not isinstance(tree, Mapping):
        yield path
        return
    for key, node in tree.items():
        yield from leaves(node, join_path(path, key))


def join_path(path: str, step: str | int) -> str:
    """Lengthens a dotted path by one step.

    >>> join_path("algorithm.rates", "conv1.weight")
    'algorithm.rates."conv1.weight"'
    """
    if isinstance(step, int):
        return f"{path}[{step}]"
    return f"{path}.{as_key(step)}" if path else as_key(step)


def as_key(step: str) -> str:
    """Writes a key as TOML does: in quotes, unless it consists of letters, digits, "_" and "-"."""
    return step if re.fullmatch(r"[A-Za-z0-9_-]+", step) else json.dumps(step, ensure_ascii=False)


def split_path(path: str) -> list[str]:
    """Splits a dotted path; a step in quotes may hold dots.

    >>> split_path('algorithm.rates."conv1.weight"')
    ['algorithm', 'rates', 'conv1.weight']
    """
    steps = re.findall(r"""\s*("(?:[^"\\]|\\.)*"|'[^']*'|[^.]*?)\s*(?:\.|$)""", path)
    steps = steps[:-1] if not path.endswith(".") else steps
    return [_unquote(step) for step in steps] or [path]


def _unquote(step: str) -> str:
    if len(step) < 2 or step[0] != step[-1] or step[0] not in "\"'":
        return step
    try:
        return str(json.loads(step)) if step[0] == '"' else step[1:-1]
    except ValueError:
        return step


def is_required(f: "dataclasses.Field[Any]") -> bool:
    """Returns whether a field has no default."""
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
