"""Building values from settings, which are checked strictly against the fields of classes."""

import math
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Literal, Union

from hanse.config.calls import find_fault, parse_name
from hanse.config.plain_data import NOTHING, is_required, join_path, value_type
from hanse.core import Plain, fields, nearest
from hanse.core.exchange import (
    find_class,
    find_class_name,
    find_classes,
    find_renamed_class,
    find_renamed_fields,
    has_classes,
)

__all__ = ["UnknownName", "UnknownSetting", "WrongSetting", "build"]

PYTHON_ONLY = "give it in Python, with hanse.run(...)"


class WrongSetting(Exception):
    """A setting that can't be used. Callers that know where it was written raise InvalidInput instead.

    Args:
      path: dotted; empty: the error concerns all settings together.
      why: the rest of the sentence, " is ..." or ": ...".
    """

    def __init__(self, path: str, why: str) -> None:
        super().__init__((path + why).removeprefix(": "))
        self.path, self.why = path, why

    def among(self, everything: Iterable[str]) -> str:
        """Returns the sentence for a user who may have meant one of these paths."""
        return str(self)


class UnknownSetting(WrongSetting):
    """A key that its table does not have.

    Args:
      path: dotted.
      known: the keys of the same table.
      whose: the name of the table.
      renamed: today's keys by those of earlier versions.
    """

    def __init__(
        self, path: str, known: Iterable[str], whose: str, renamed: Mapping[str, str] | None = None
    ) -> None:
        table = path.rpartition(".")[0]
        self._now = (renamed or {}).get(_leaf(path))
        self._here = [join_path(table, name) for name in known]
        self._takes = f"{whose} takes {', '.join(known) or 'none'}"
        now = f" is called {self._now} now; write that"
        super().__init__(path, f" is unknown; {self._takes}" if self._now is None else now)

    def among(self, everything: Iterable[str]) -> str:
        """Returns the sentence, with the nearest key of the table, or else of all tables."""
        if self._now is not None:
            return str(self)
        key = _leaf(self.path)
        for paths in (self._here, [path for path in everything if path != self.path]):
            close = get_close_matches(key, map(_leaf, paths), n=1)
            if close:
                meant = next(path for path in paths if _leaf(path) == close[0])
                return f"{self.path} is unknown; did you mean {meant}?"
        return str(self)


class UnknownName(WrongSetting):
    """A name that no value has, perhaps because its module was not imported."""

    def among(self, everything: Iterable[str]) -> str:
        """Returns the sentence, with the cure for a user's own value."""
        cure = 'f it is your own, name its module: imports = ["FILE.py"], or --import FILE.py'
        return f"{self} I{cure}" if str(self).endswith("?") else f"{self}; i{cure}"


def _leaf(path: str) -> str:
    return path.rpartition(".")[2]


def build(annotation: Any, given: Plain, path: str) -> Any:
    """Builds a value of an annotated type from plain data.

    An int is accepted for a float; nothing else is converted.

    >>> from hanse.core import Transform
    >>> import hanse.transforms
    >>> build(tuple[Transform, ...], [{"name": "clip", "max_norm": 1}], "algorithm.uplink")
    (clip(max_norm=1.0),)

    Raises: WrongSetting: if the data don't describe such a value.
    """
    origin = typing.get_origin(annotation)
    if origin in (Union, types.UnionType):
        return _any_of(typing.get_args(annotation), given, path)
    if origin is Literal:
        return _one_of(typing.get_args(annotation), given, path)
    if origin is tuple:
        return _tuple(typing.get_args(annotation), given, path)
    if value_type(annotation) is not None:
        return _mapping(value_type(annotation), given, path)
    kind = origin or annotation
    if kind in _SCALARS:
        return _SCALARS[kind](given, path)
    if isinstance(kind, type) and has_classes(kind):
        return _value(kind, given, path)
    raise WrongSetting(path, f" can't be written in settings; {PYTHON_ONLY}")


def _names_values(kind: type) -> bool:
    return kind not in _SCALARS and bool(find_classes(kind))


def _can_be_written(annotation: Any) -> bool:
    kind = typing.get_origin(annotation) or annotation
    if kind in _SCALARS or kind in (Union, types.UnionType, Literal, tuple):
        return True
    return value_type(annotation) is not None or (isinstance(kind, type) and has_classes(kind))


def _is(given: Plain) -> str:
    """Describes the given data."""
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
    """Guesses the number that was meant: TOML wants a digit before the point."""
    try:
        number = float(given)
    except (TypeError, ValueError):
        return 0.1
    return number if math.isfinite(number) and isinstance(given, str) else 0.1


def _is_number(given: Plain) -> bool:
    try:
        float(given)
    except (TypeError, ValueError):
        return False
    return True


def _str(given: Plain, path: str) -> str:
    if isinstance(given, str):
        return given
    raise WrongSetting(path, f'{_is(given)}; write a string, in quotes: "..."')


_EXAMPLES: dict[Any, str] = {int: "10", float: "0.1", str: '"..."'}

_SCALARS: dict[Any, Callable[[Plain, str], Any]] = {bool: _bool, int: _int, float: _float, str: _str}


def _any_of(annotations: tuple[Any, ...], given: Plain, path: str) -> Any:
    options = [annotation for annotation in annotations if annotation is not types.NoneType]
    optional = len(options) < len(annotations)
    if str in options and any(isinstance(one, type) and _names_values(one) for one in options):
        options.remove(str)  # Python takes text for a value, which is the name of one here
    if optional and (given is None or given == NOTHING):
        return None
    errors: list[tuple[bool, WrongSetting]] = []
    for annotation in options:
        try:
            return build(annotation, given, path)
        except WrongSetting as error:
            is_word = typing.get_origin(annotation) is Literal and not _is_number(given)
            is_table = isinstance(given, Mapping) and annotation not in _SCALARS
            errors.append((is_table or (isinstance(given, str) and is_word), error))
    wrong = next((error for is_meant, error in errors if is_meant), errors[0][1])
    says_type = wrong.path == path and not wrong.why.startswith(":") and "; write" in wrong.why
    if optional and says_type:
        raise WrongSetting(path, f'{wrong.why}, or "{NOTHING}"')
    raise wrong


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
    return tuple(build(annotation, item, join_path(path, i)) for i, (annotation, item) in enumerate(pairs))


def _mapping(annotation: Any, given: Plain, path: str) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise WrongSetting(path, f"{_is(given)}; write a table: {{key = ...}}")
    if "name" in given:
        raise WrongSetting(
            path, ' has a key "name", which is kept for the name of a value; call it otherwise'
        )
    steps = {key: join_path(path, key) for key in given}
    if annotation is Any:
        return {key: _anything(item, steps[key]) for key, item in given.items()}
    return {key: build(annotation, item, steps[key]) for key, item in given.items()}


def _anything(given: Plain, path: str) -> Any:
    """Builds an entry of a mapping to Any: plain data, with tuples for lists."""
    if isinstance(given, Mapping):
        return _mapping(Any, given, path)
    if isinstance(given, list | tuple):
        return tuple(_anything(item, join_path(path, i)) for i, item in enumerate(given))
    if isinstance(given, float):
        return _float(given, path)
    if isinstance(given, bool | int | str):
        return given
    raise WrongSetting(path, f"{_is(given)}; write a bool, a number, a string, a list or a table")


def _value(kind: type, given: Plain, path: str) -> Any:
    if isinstance(given, str):
        given = parse_name(given)
    if not isinstance(given, Mapping):
        example = next(iter(find_classes(kind)))
        raise WrongSetting(
            path, f'{_is(given)}; write a name, such as "{example}", or {{name = "{example}"}}'
        )
    cls = _class(kind, given.get("name", find_class_name(kind)), join_path(path, "name"))
    return _make(cls, {key: v for key, v in given.items() if key != "name"}, path)


def _class(kind: type, name: Plain, path: str) -> type:
    found = find_class(name, kind) if isinstance(name, str) else None
    if found is not None and getattr(found, "is_setting", True):
        return found
    known = find_classes(kind)
    if name is None:
        raise WrongSetting(path, f" is missing; write one of {', '.join(known)}")
    if not isinstance(name, str):
        raise WrongSetting(path, f"{_is(name)}; write one of {', '.join(known)}")
    fault = find_fault(name)
    if fault is not None:
        raise WrongSetting(
            path, f' is "{name}", which can\'t be read: {fault}; write it as in fed_avg(lr=0.1)'
        )
    renamed = find_renamed_class(name)
    if renamed in known and name not in known:
        raise WrongSetting(path, f' is "{name}", which is called "{renamed}" now; write that')
    if found is not None:
        raise WrongSetting(
            path, f' is "{name}", which is no setting: only the program of an algorithm names it'
        )
    raise UnknownName(path, f' is "{name}", which names no {_in_words(kind)}; {nearest(name, known)}')


def _in_words(kind: type) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__).lower()


def _make(cls: type, given: Mapping[str, Plain], path: str) -> Any:
    """Makes an instance from the plain data of its fields."""
    known = {f.name: f for f in fields(cls)}
    for key in given:
        if key not in known:
            renamed = find_renamed_fields(cls.__name__)
            raise UnknownSetting(join_path(path, key), known, cls.__name__, renamed)
    hints = _annotations(cls, path)
    arguments = {key: build(hints[key], item, join_path(path, key)) for key, item in given.items()}
    needed = [name for name, f in known.items() if is_required(f) and name not in given]
    if not all(_can_be_written(hints[name]) for name in needed):
        raise WrongSetting(path, f": {cls.__name__} can't be written in settings; {PYTHON_ONLY}")
    if needed:
        raise WrongSetting(
            join_path(path, needed[0]),
            f" is missing; {cls.__name__} needs {' and '.join(needed)}"
            + (
                f", such as {needed[0]} = {_EXAMPLES[hints[needed[0]]]}"
                if hints[needed[0]] in _EXAMPLES
                else ""
            ),
        )
    lacks = " and ".join(sorted(getattr(cls, "__abstractmethods__", ())))
    if lacks:
        raise WrongSetting(path, f": {cls.__name__} can't be used yet, because it does not define {lacks}")
    try:
        return cls(**arguments)
    except ValueError as error:  # InvalidInput is one; users' own classes may raise others
        raise WrongSetting(path, f": {error}") from error


def _annotations(cls: type, path: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls)
    except NameError as error:
        raise WrongSetting(
            path,
            f": the types of {cls.__name__}'s fields can't be read: {error}; import it where it is not only "
            "for the type checker",
        ) from error
