"""Settings: values as plain data (what TOML and JSON can say), and back, strictly checked.

A value such as `fed_avg(lr=0.3)` is a table that names its class, `{"name": "fed_avg", "lr": 0.3}`, or
just the name where nothing else is said. What a table may hold follows from the fields of the class.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Literal, TypeAlias, TypeVar, Union

from hanse.core.errors import InvalidInput, nearest
from hanse.core.values import fields, registered

__all__ = ["Plain", "UnknownSetting", "WrongSetting", "build", "leaves", "merged", "plain", "worded"]

T = TypeVar("T")

Plain: TypeAlias = Any
"""None, a bool, int, float or str, or a list or dictionary of these."""

IN_PYTHON = "give it in Python, with hanse.run(...)"

NOTHING = "none"
"""What a file says for None, for which TOML has no word."""


class WrongSetting(Exception):
    """One setting that can't be used; whoever knows where it was written makes it an InvalidInput.

    Args:
      path: dotted; empty: of all settings together.
      why: the rest of the sentence, " is ..." or ": ...".
    """

    def __init__(self, path: str, why: str) -> None:
        super().__init__((path + why).removeprefix(": "))
        self.path, self.why = path, why

    def among(self, everything: Iterable[str]) -> str:
        """The sentence, told to somebody who may have meant one of these paths."""
        return str(self)


class UnknownSetting(WrongSetting):
    """A key that means nothing where it stands.

    Args:
      path: dotted.
      known: the keys of the same table.
      whose: what the table is about.
    """

    def __init__(self, path: str, known: Iterable[str], whose: str) -> None:
        table = path.rpartition(".")[0]
        self._here = [_join(table, name) for name in known]
        self._takes = f"{whose} takes {', '.join(known) or 'none'}"
        super().__init__(path, f" is unknown; {self._takes}")

    def among(self, everything: Iterable[str]) -> str:
        """The sentence, with the nearest key of the table, or else of all tables."""
        key = _leaf(self.path)
        for paths in (self._here, [path for path in everything if path != self.path]):
            close = get_close_matches(key, map(_leaf, paths), n=1)
            if close:
                meant = next(path for path in paths if _leaf(path) == close[0])
                return f"{self.path} is unknown; did you mean {meant}?"
        return str(self)


def _leaf(path: str) -> str:
    return path.rpartition(".")[2]


# -- values to plain data ----------------------------------------------------------------------


def plain(obj: Any) -> Plain:
    """A value as plain data, every field spelled out.

    >>> from hanse.core.program import Close
    >>> plain(Close(goal=3))
    {'name': 'Close', 'goal': 3, 'deadline_s': None, 'minimum_fraction': 0.5}

    Raises: InvalidInput: if something in it can't be written in a settings file.
    """
    kind = type(obj)
    if obj is None or kind in (bool, int, float, str):
        return obj
    if kind in (tuple, list):
        return [plain(item) for item in obj]
    name = _name_of(kind)
    if name is None:
        raise InvalidInput(
            f"{obj!r} can't be written down as a setting: use numbers, strings, tuples, or a class "
            "marked with @value"
        )
    return {"name": name, **{f.name: plain(getattr(obj, f.name)) for f in fields(kind)}}


def _name_of(kind: type) -> str | None:
    return next((name for name, cls in registered(kind).items() if cls is kind), None)


def worded(tree: Plain) -> str:
    """Plain data as one would write the value: without what is left at its default.

    >>> from hanse.core.program import Close
    >>> worded(plain((Close(goal=3), "a", 1.0)))
    "[Close(goal=3), 'a', 1.0]"
    """
    if isinstance(tree, list):
        return f"[{', '.join(map(worded, tree))}]"
    if not isinstance(tree, Mapping):
        return repr(tree)
    cls = registered(object).get(tree.get("name", ""))
    said = ", ".join(_worded_fields(tree, cls))
    return f"{tree.get('name', '')}({said})" if said else str(tree.get("name", ""))


def _worded_fields(tree: Mapping[str, Plain], cls: type | None) -> Iterator[str]:
    known = {f.name: f for f in fields(cls)} if cls else {}
    for name, said in tree.items():
        f = known.get(name)
        if name == "name" or (f and not _required(f) and said == _plain_default(f)):
            continue
        positional = f is not None and _required(f) and not f.kw_only
        yield worded(said) if positional else f"{name}={worded(said)}"


def _plain_default(f: "dataclasses.Field[Any]") -> Plain:
    if f.default is not dataclasses.MISSING:
        return plain(f.default)
    return plain(f.default_factory()) if f.default_factory is not dataclasses.MISSING else None


def merged(base: Plain, over: Plain) -> Plain:
    """`base` with what `over` says. A table that names another class drops what was said of the first.

    >>> merged({"name": "iid", "num_clients": 10}, {"num_clients": 5})
    {'name': 'iid', 'num_clients': 5}
    >>> merged({"name": "iid", "num_clients": 10}, "shards")
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
    return {**base, **{key: merged(base[key], v) if key in base else v for key, v in over.items()}}


def leaves(tree: Plain, path: str = "") -> Iterator[str]:
    """The dotted paths of all settings in a tree."""
    if not isinstance(tree, Mapping):
        yield path
        return
    for key, node in tree.items():
        yield from leaves(node, _join(path, key))


def _join(path: str, step: str | int) -> str:
    if isinstance(step, int):
        return f"{path}[{step}]"
    return f"{path}.{step}" if path else step


# -- plain data to values ----------------------------------------------------------------------


def build(annotation: Any, given: Plain, path: str) -> Any:
    """The value of an annotated type that plain data stand for.

    An int is fine for a float; nothing else is converted.

    >>> from hanse.core.chain import Transform
    >>> import hanse.transforms
    >>> build(tuple[Transform, ...], [{"name": "clip", "max_norm": 1}], "algorithm.uplink")
    (clip(max_norm=1.0),)

    Raises: WrongSetting: if they don't.
    """
    origin = typing.get_origin(annotation)
    if origin in (Union, types.UnionType):
        return _any_of(typing.get_args(annotation), given, path)
    if origin is Literal:
        return _one_of(typing.get_args(annotation), given, path)
    if origin is tuple:
        return _tuple(typing.get_args(annotation), given, path)
    kind = origin or annotation
    if kind in _SCALARS:
        return _SCALARS[kind](given, path)
    if isinstance(kind, type) and registered(kind):
        return _value(kind, given, path)
    raise WrongSetting(path, f" can't be written in settings; {IN_PYTHON}")


def _can_be_written(annotation: Any) -> bool:
    kind = typing.get_origin(annotation) or annotation
    return kind in _SCALARS or kind in (Union, types.UnionType, Literal, tuple) or bool(registered(kind))


def _is(given: Plain) -> str:
    """What was given, in words."""
    if isinstance(given, Mapping):
        return " is a table"
    if isinstance(given, list):
        return " is a list"
    if isinstance(given, bool):
        return f" is {str(given).lower()}"
    return f' is the string "{given}"' if isinstance(given, str) else f" is {given}"


def _bool(given: Plain, path: str) -> bool:
    if isinstance(given, bool):
        return given
    raise WrongSetting(path, f"{_is(given)}; write true or false")


def _int(given: Plain, path: str) -> int:
    if isinstance(given, int) and not isinstance(given, bool):
        return given
    example = round(given) if isinstance(given, float) and math.isfinite(given) else 10
    raise WrongSetting(path, f"{_is(given)}; write a whole number, such as {example}")


def _float(given: Plain, path: str) -> float:
    if isinstance(given, float | int) and not isinstance(given, bool):
        try:
            number = float(given)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
        raise WrongSetting(path, f" is {number}; write a finite number")
    raise WrongSetting(path, f"{_is(given)}; write a number, such as {_as_number(given)}")


def _as_number(given: Plain) -> float:
    """What was meant: TOML wants a digit before the point."""
    try:
        number = float(given)
    except (TypeError, ValueError):
        return 0.1
    return number if math.isfinite(number) and isinstance(given, str) else 0.1


def _str(given: Plain, path: str) -> str:
    if isinstance(given, str):
        return given
    raise WrongSetting(path, f'{_is(given)}; write a string, in quotes: "..."')


_SCALARS: dict[Any, Callable[[Plain, str], Any]] = {bool: _bool, int: _int, float: _float, str: _str}


def _any_of(annotations: tuple[Any, ...], given: Plain, path: str) -> Any:
    options = [annotation for annotation in annotations if annotation is not types.NoneType]
    optional = len(options) < len(annotations)
    if optional and (given is None or given == NOTHING):
        return None
    wrong: WrongSetting | None = None
    for annotation in options:
        try:
            return build(annotation, given, path)
        except WrongSetting as error:
            wrong = wrong or error
    assert wrong is not None
    or_none = f', or "{NOTHING}"' if optional and wrong.path == path and "; write" in wrong.why else ""
    raise WrongSetting(wrong.path, wrong.why + or_none)


def _one_of(words: tuple[Any, ...], given: Plain, path: str) -> Any:
    if given in words:
        return given
    raise WrongSetting(path, f"{_is(given)}; {nearest(str(given), map(str, words))}")


def _tuple(annotations: tuple[Any, ...], given: Plain, path: str) -> tuple[Any, ...]:
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise WrongSetting(path, f"{_is(given)}; write a list: [...]")
    if annotations[-1] is Ellipsis:
        annotations = (annotations[0],) * len(given)
    if len(annotations) != len(given):
        raise WrongSetting(path, f" has {len(given)} entries; write {len(annotations)}")
    pairs = zip(annotations, given, strict=True)
    return tuple(build(annotation, item, _join(path, i)) for i, (annotation, item) in enumerate(pairs))


def _value(kind: type, given: Plain, path: str) -> Any:
    if isinstance(given, str):
        given = {"name": given}
    if not isinstance(given, Mapping):
        example = next(iter(registered(kind)))
        raise WrongSetting(
            path, f'{_is(given)}; write a name, such as "{example}", or {{name = "{example}"}}'
        )
    cls = _class(kind, given.get("name", _name_of(kind)), _join(path, "name"))
    return _made(cls, {key: v for key, v in given.items() if key != "name"}, path)


def _class(kind: type, name: Plain, path: str) -> type:
    known = registered(kind)
    if name is None:
        raise WrongSetting(path, f" is missing; write one of {', '.join(known)}")
    if not isinstance(name, str):
        raise WrongSetting(path, f"{_is(name)}; write one of {', '.join(known)}")
    if name not in known:
        raise WrongSetting(path, f' is "{name}", which is no {kind.__name__.lower()}; {nearest(name, known)}')
    return known[name]


def _made(cls: type, given: Mapping[str, Plain], path: str) -> Any:
    """An instance from the plain data of its fields."""
    known = {f.name: f for f in fields(cls)}
    for key in given:
        if key not in known:
            raise UnknownSetting(_join(path, key), known, cls.__name__)
    hints = typing.get_type_hints(cls)
    arguments = {key: build(hints[key], item, _join(path, key)) for key, item in given.items()}
    needed = [name for name, f in known.items() if _required(f) and name not in given]
    if not all(_can_be_written(hints[name]) for name in needed):
        raise WrongSetting(path, f": {cls.__name__} can't be written in settings; {IN_PYTHON}")
    if needed:
        raise WrongSetting(
            _join(path, needed[0]), f" is missing; {cls.__name__} needs {' and '.join(needed)}"
        )
    try:
        return cls(**arguments)
    except InvalidInput as error:
        raise WrongSetting(path, f": {error}") from error


def _required(f: "dataclasses.Field[Any]") -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
