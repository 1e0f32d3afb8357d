"""Forms of values without their tensors, and patterns that admit some forms.

A form is plain data. A pattern is a form some of whose leaves are wider, marked by "~":

    {"~": "range", "from": 0.01, "to": 0.1}      a number that changes from round to round
    {"~": "any", "of": "number"}                 a number that depends on what clients answer, or who does
    {"~": "list", "of": pattern}                 a list whose length varies
    {"~": "map", "of": pattern}                  a mapping whose names vary
    {"~": "either", "of": [pattern, ...]}        values of several kinds
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from hanse.core import InvalidInput, Key, Keys, TensorSpec, fields
from hanse.core.exchange import find_class_name

__all__ = [
    "ANY",
    "MISSING",
    "WIDE",
    "Excess",
    "Form",
    "check_pattern",
    "describe_tensor",
    "find_excess",
    "join_patterns",
    "loosen",
    "to_form",
    "write_form",
]

Form: TypeAlias = Any
"""Plain data: None, a bool, int, float or str, or a list or dictionary of these."""

WIDE = "~"
"""The key of a wider leaf of a pattern."""

MOST_WORDS = 8
"""The most words that a pattern names; of more, any is admitted."""

ANY: Form = {WIDE: "any", "of": "value"}
MISSING: Form = {WIDE: "missing"}

# -- forms -------------------------------------------------------------------------------------


def _name_class(cls: type) -> str:
    name = find_class_name(cls)
    if name is None:
        raise InvalidInput(f"{cls.__qualname__} is not marked with @value, so it can't be sent")
    return name


def describe_tensor(dtype: str, shape: Iterable[int | str]) -> Form:
    """Describes a tensor, or the spec of one, by its dtype and shape."""
    return [dtype, *shape]


def to_form(held: Any) -> Form:
    """Describes a value without its tensors and keys.

    >>> from hanse.core import Steps
    >>> to_form({"steps": (1, None), "w": np.zeros((2, 3), np.float32), "lr": np.float64(0.1)})
    {'steps': [1, None], 'w': {'$': 'tensor', 'is': ['float32', 2, 3]}, 'lr': {'$': 'float64', 'is': 0.1}}
    """
    kind = type(held)
    if held is None or kind in (bool, int, str):
        return held
    if kind is float:
        return held if math.isfinite(held) else {"$": "float", "is": repr(held)}
    if kind is bytes:
        return {"$": "bytes", "is": held.hex()}
    if kind in (Key, Keys):
        return {"$": "key"}
    if kind is tuple:
        return [to_form(item) for item in held]
    if isinstance(held, np.ndarray | np.generic):
        if held.ndim == 0:  # a number, however it is written
            return {"$": held.dtype.name, "is": to_form(held.item())}
        return {"$": "tensor", "is": describe_tensor(held.dtype.name, held.shape)}
    if kind is TensorSpec:
        return describe_tensor(held.dtype, held.shape)
    if isinstance(held, Mapping):
        if all(type(name) is str for name in held) and not held.keys() & {"$", WIDE}:
            return {name: to_form(item) for name, item in held.items()}
        items = [[to_form(name), to_form(item)] for name, item in held.items()]
        return {"$": "map", "items": sorted(items, key=lambda item: json.dumps(item[0], sort_keys=True))}
    return {"$": _name_class(kind), **{f.name: to_form(getattr(held, f.name)) for f in fields(kind)}}


# -- patterns ----------------------------------------------------------------------------------


def loosen(form: Form) -> Form:
    """Returns a pattern of all values of the same kind, because the server draws them."""
    if isinstance(form, list):
        return [loosen(item) for item in form]
    if not isinstance(form, dict):
        return _any(_kind(form)) if form is not None else None
    if "$" in form and form["$"] in ("tensor", "key"):
        return form
    return {name: item if name == "$" else loosen(item) for name, item in form.items()}


def _kind(form: Form) -> str:
    """Returns the kind of a form: only forms of one kind are merged."""
    if isinstance(form, dict):
        wide = form.get(WIDE)
        if wide == "range":
            return "number"
        if wide is not None:
            return str({"any": form["of"]}.get(wide, wide)) if isinstance(form["of"], str) else str(wide)
        return f"${form['$']}" if "$" in form else "map"
    names = {bool: "truth", int: "number", float: "number", str: "text", list: "list", type(None): "none"}
    return names[type(form)]


def _any(kind: str) -> Form:
    return {WIDE: "any", "of": kind}


def _is_equal(one: Form, other: Form) -> bool:
    """Returns whether two forms are the same: 1, 1.0 and true differ."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_is_equal(item, other[name]) for name, item in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_is_equal, one, other))
    return bool(one == other)


def join_patterns(one: Form, other: Form, *, free: bool = False) -> Form:
    """Returns the narrowest pattern of this grammar that admits what two patterns admit.

    >>> join_patterns({"lr": 0.1, "epochs": 2}, {"lr": 0.05, "epochs": 2})
    {'lr': {'~': 'range', 'from': 0.05, 'to': 0.1}, 'epochs': 2}
    >>> join_patterns(0.1, 0.05, free=True)
    {'~': 'any', 'of': 'number'}

    Args:
      free: whether a number that differs may be any other, too.
    """
    if _is_equal(one, other):
        return one
    if ANY in (one, other):
        return ANY
    kinds = _kind(one), _kind(other)
    if kinds[0] != kinds[1]:
        return _join_kinds(one, other, free)
    kind = kinds[0]
    if kind == "number":
        ends = _find_ends(one), _find_ends(other)
        if ends[0] is None or ends[1] is None:
            return _any("number")
        least, most = min(ends[0][0], ends[1][0]), max(ends[0][1], ends[1][1])
        for known, own in zip((one, other), ends, strict=True):
            if own == (least, most) and isinstance(known, dict):
                return known  # a range that has the other number in it
        return _any("number") if free else {WIDE: "range", "from": least, "to": most}
    if kind == "list":
        if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
            return [join_patterns(a, b, free=free) for a, b in zip(one, other, strict=True)]
        return {WIDE: "list", "of": _merge_all([*_items(one), *_items(other)], free)}
    if kind == "map":
        if WIDE not in one and WIDE not in other and one.keys() == other.keys():
            return {name: join_patterns(item, other[name], free=free) for name, item in one.items()}
        return {WIDE: "map", "of": _merge_all([*_items(one), *_items(other)], free)}
    if kind == "either":
        found = one
        for item in other["of"]:
            found = _join_kinds(found, item, free)
        return found
    if kind in ("text", "truth"):
        is_known = type(one) is type(other) and type(one) in (str, bool) and not free
        return {WIDE: "either", "of": [one, other]} if is_known else _any(kind)
    if kind == "$bytes":
        return {"$": "bytes", "is": _any("text")}
    if one.keys() != other.keys():
        return ANY
    return {name: join_patterns(item, other[name], free=free) for name, item in one.items()}


def _find_ends(form: Form) -> tuple[float, float] | None:
    """Returns the least and the greatest number that a pattern admits; None: any."""
    if not isinstance(form, dict):
        return form, form
    return (form["from"], form["to"]) if form[WIDE] == "range" else None


def _items(form: Form) -> list[Form]:
    if isinstance(form, list):
        return form
    return [form["of"]] if WIDE in form else list(form.values())


def _merge_all(forms: list[Form], free: bool) -> Form:
    if not forms:
        return ANY
    found = forms[0]
    for form in forms[1:]:
        found = join_patterns(found, form, free=free)
    return found


def _join_kinds(one: Form, other: Form, free: bool) -> Form:
    options = list(one["of"]) if _kind(one) == "either" else [one]
    for item in other["of"] if _kind(other) == "either" else [other]:
        if any(find_excess(option, item) is None for option in options):
            continue
        same = next((i for i, option in enumerate(options) if _kind(option) == _kind(item)), None)
        is_word = type(item) in (str, bool) and not free and len(options) < MOST_WORDS
        if same is None or is_word:
            options.append(item)
        else:
            wider = join_patterns(options[same], item, free=free or type(item) in (str, bool))
            options = [wider, *(option for option in options if find_excess(wider, option) is not None)]
    return options[0] if len(options) == 1 else {WIDE: "either", "of": options}


@dataclass(frozen=True)
class Excess:
    """A field of a ticket that is not as the approved plan says.

    Args:
      path: the names and positions that lead to it.
      given: its form in the ticket, or `MISSING`.
      allowed: the pattern of it in the plan, or `MISSING`.
    """

    path: tuple[str, ...]
    given: Form
    allowed: Form


def find_excess(pattern: Form, form: Form, path: tuple[str, ...] = ()) -> Excess | None:
    """Returns the first field of a form that a pattern does not admit; None: it admits all.

    >>> find_excess({"lr": {"~": "range", "from": 0.05, "to": 0.1}}, {"lr": 1000.0})
    Excess(path=('lr',), given=1000.0, allowed={'~': 'range', 'from': 0.05, 'to': 0.1})
    """
    here = Excess(path, form, pattern)
    if isinstance(pattern, dict):
        if WIDE in pattern:
            return None if _is_wide_enough(pattern, form) else here
        if not isinstance(form, dict) or pattern.get("$") != form.get("$"):
            return here
        for name in (*form, *(name for name in pattern if name not in form)):
            if name not in form or name not in pattern:
                return Excess((*path, name), form.get(name, MISSING), pattern.get(name, MISSING))
            found = find_excess(pattern[name], form[name], (*path, name))
            if found is not None:
                return found
        return None
    if isinstance(pattern, list):
        if not isinstance(form, list) or len(pattern) != len(form):
            return here
        pairs = enumerate(zip(pattern, form, strict=True))
        return next((e for i, (p, f) in pairs if (e := find_excess(p, f, (*path, str(i))))), None)
    return None if _is_equal(pattern, form) else here


def _is_wide_enough(pattern: Form, form: Form) -> bool:
    kind, of = pattern[WIDE], pattern.get("of")
    if kind == "range":
        return type(form) in (int, float) and bool(pattern["from"] <= form <= pattern["to"])
    if kind == "any":
        return of in ("value", _kind(form))
    if kind == "either":
        return any(find_excess(option, form) is None for option in of)
    if _kind(form) != kind:
        return False
    return all(find_excess(of, item) is None for item in _items(form))


_KINDS_OF_ANY = ("value", "number", "text", "truth")


def check_pattern(pattern: Form) -> None:
    """Checks a pattern that a stranger sent. Raises: ValueError."""
    if isinstance(pattern, dict) and WIDE in pattern:
        kind, of = pattern[WIDE], pattern.get("of")
        if kind == "range":
            if not {type(pattern["from"]), type(pattern["to"])} <= {int, float}:
                raise ValueError("a range of what are no numbers")
        elif kind == "any":
            if of not in _KINDS_OF_ANY:
                raise ValueError(f"any {of!r:.40}")
        elif kind not in ("list", "map", "either") or (kind == "either") != isinstance(of, list):
            raise ValueError(f"a pattern {kind!r:.40}")
        else:
            for item in of if isinstance(of, list) else [of]:
                check_pattern(item)
    elif isinstance(pattern, dict | list):
        for item in pattern.values() if isinstance(pattern, dict) else pattern:
            check_pattern(item)


def write_form(form: Form) -> str:
    """Writes a form, or a pattern, as a user would.

    >>> write_form({"$": "clip", "max_norm": 1.0}), write_form({"~": "range", "from": 0.05, "to": 0.1})
    ('clip(max_norm=1.0)', '0.05 to 0.1')
    """
    if isinstance(form, list):
        return f"[{', '.join(map(write_form, form))}]"
    if not isinstance(form, dict):
        return "none" if form is None else str(form)
    if WIDE in form:
        kind, of = form[WIDE], form.get("of")
        if kind == "range":
            return f"{form['from']} to {form['to']}"
        if kind == "any":
            return f"any {of}"
        if kind == "either":
            return " or ".join(map(write_form, of or ()))
        return f"any {kind} of {write_form(of)}"
    if "$" not in form:
        return "{" + ", ".join(f"{name}: {write_form(item)}" for name, item in form.items()) + "}"
    if form.keys() == {"$", "is"}:
        return write_form(form["is"])
    inside = ", ".join(f"{name}={write_form(item)}" for name, item in form.items() if name != "$")
    return f"{form['$']}({inside})"
