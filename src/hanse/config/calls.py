"""Values that are written as calls, such as "fed_avg(lr=0.1)": the form in which Hanse prints them."""

import ast
from collections.abc import Mapping

from hanse.core import Plain, fields
from hanse.core.exchange import find_class

__all__ = ["find_fault", "parse_name"]

WORDS: Mapping[str, Plain] = {"true": True, "false": False}
"""The words of TOML that Python does not know."""


def parse_name(text: str) -> dict[str, Plain]:
    """Parses the name of a value, or a call of it, into a table. What is neither is taken as a name.

    >>> parse_name("fed_avg(lr=0.1, uplink=[rotate, quantize(2)])")
    {'name': 'fed_avg', 'lr': 0.1, 'uplink': ['rotate', {'name': 'quantize', 'bits': 2}]}
    >>> parse_name("softmax")
    {'name': 'softmax'}
    """
    try:
        return _parse(text) if "(" in text else {"name": text}
    except ValueError:
        return {"name": text}


def find_fault(text: str) -> str | None:
    """Returns why a text is no call that can be parsed; None: it is one, or does not look like one."""
    try:
        if "(" in text:
            _parse(text)
    except ValueError as error:
        return str(error)
    return None


def _parse(text: str) -> dict[str, Plain]:
    try:
        body = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(getattr(error, "msg", "") or "it is nested too deeply") from None
    if not isinstance(body, ast.Call):
        raise ValueError("it is not one name with arguments")
    return _call(body)


def _call(node: ast.Call) -> dict[str, Plain]:
    if not isinstance(node.func, ast.Name):
        raise ValueError(f"{ast.unparse(node.func)} is not a name")
    name = node.func.id
    cls = find_class(name)
    places = [] if cls is None else [f.name for f in fields(cls) if not f.kw_only]
    if cls is not None and len(node.args) > len(places):
        takes = f"{len(places)} arguments" if places else "no arguments"
        raise ValueError(f"{name} takes {takes} without a name, and {len(node.args)} are given")
    given: dict[str, Plain] = {"name": name}
    for place, argument in zip(places, node.args, strict=False):
        given[place] = _plain(argument)
    for keyword in node.keywords:
        if keyword.arg is None or keyword.arg in given:
            raise ValueError(f"{ast.unparse(keyword)} can't be given here")
        given[keyword.arg] = _plain(keyword.value)
    return given


def _plain(node: ast.expr) -> Plain:
    if isinstance(node, ast.Call):
        return _call(node)
    if isinstance(node, ast.Name):
        return WORDS.get(node.id, node.id)
    if isinstance(node, ast.List | ast.Tuple):
        return [_plain(item) for item in node.elts]
    if isinstance(node, ast.Dict) and all(isinstance(key, ast.Constant) for key in node.keys):
        keys = [key.value for key in node.keys if isinstance(key, ast.Constant)]
        return {str(key): _plain(item) for key, item in zip(keys, node.values, strict=True)}
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        number = _plain(node.operand)
        if type(number) in (int, float):
            return -number if isinstance(node.op, ast.USub) else number
    if isinstance(node, ast.Constant) and (node.value is None or type(node.value) in (bool, int, float, str)):
        return node.value
    raise ValueError(f"{ast.unparse(node)} is no number, string, list or value")
