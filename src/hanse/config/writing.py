"""Settings as a TOML file that gives them again when it is read."""

import json
from collections.abc import Iterator, Mapping

from hanse.config.plain_data import NOTHING, as_key
from hanse.core import Plain

__all__ = ["as_toml", "inline"]


def as_toml(settings: Mapping[str, Plain]) -> str:
    """Writes a file with one table for each mapping; deeper mappings are inline tables.

    >>> print(as_toml({"rounds": 3, "model": {"name": "softmax", "l2": 0.0}}))
    rounds = 3
    <BLANKLINE>
    [model]
    name = "softmax"
    l2 = 0.0
    <BLANKLINE>
    """
    return "\n".join(_lines(settings)) + "\n"


def _lines(settings: Mapping[str, Plain]) -> Iterator[str]:
    tables = {key: said for key, said in settings.items() if isinstance(said, Mapping)}
    for key, said in settings.items():
        if key not in tables and said is not None:
            yield f"{as_key(key)} = {inline(said)}"
    for key, table in tables.items():
        yield from ("", f"[{key}]")
        for name, said in table.items():
            yield f"{as_key(name)} = {inline(said)}"


def inline(said: Plain) -> str:
    """Writes one value on one line.

    >>> inline({"name": "clip", "max_norm": 1.0}), inline([None, True])
    ('{name = "clip", max_norm = 1.0}', '["none", true]')
    """
    if isinstance(said, Mapping):
        return "{" + ", ".join(f"{as_key(key)} = {inline(item)}" for key, item in said.items()) + "}"
    if isinstance(said, list | tuple):
        return "[" + ", ".join(map(inline, said)) + "]"
    return json.dumps(NOTHING if said is None else said, ensure_ascii=False).replace("\x7f", "\\u007f")
