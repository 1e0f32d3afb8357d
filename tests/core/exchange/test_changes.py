"""Changes of mappings: exactly what was set and removed."""

from collections.abc import Callable
from typing import Any

import pytest

from hanse.core.exchange import pack, unpack
from hanse.core.exchange.changes import Edits, Tracked

WAYS: dict[str, Callable[[Any], Any]] = {
    "set": lambda held: held.__setitem__(1, "new"),
    "add": lambda held: held.__setitem__(9, "new"),
    "delete": lambda held: held.__delitem__(1),
    "pop": lambda held: held.pop(1),
    "pop nothing": lambda held: held.pop(9, None),
    "pop an item": lambda held: held.popitem(),
    "default": lambda held: held.setdefault(9, "new"),
    "default that is not needed": lambda held: held.setdefault(1, "new"),
    "update": lambda held: held.update({1: "new", 9: "newer"}),
    "or": lambda held: held.__ior__({1: "new", 9: "newer"}),
    "clear": lambda held: held.clear(),
}
"""The ways to change a mapping."""


@pytest.mark.parametrize("way", WAYS)
def test_no_change_of_a_mapping_goes_unnoticed(way: str) -> None:
    start = {1: "one", 2: "two", 3: "three"}
    tracked, plain = Tracked(start), dict(start)
    assert WAYS[way](tracked) == WAYS[way](plain) or way == "pop an item"
    if way == "pop an item":
        plain = dict(tracked)
        assert len(plain) == 2
    assert tracked == plain
    edits, other = unpack(pack(tracked.take_edits())), dict(start)
    edits.apply(other)
    assert other == plain
    assert edits.changed.keys() | set(edits.removed) == {
        n for n in (1, 2, 3, 9) if start.get(n) != plain.get(n)
    }
    assert tracked.take_edits() == Edits()


def test_the_last_change_of_a_key_counts() -> None:
    tracked = Tracked({"a": 1, "b": 2})
    del tracked["a"]
    tracked["a"] = 3
    tracked["b"] = 4
    del tracked["b"]
    assert tracked.take_edits() == Edits({"a": 3}, ("b",))
    held = {"b": 0}
    Edits({}, ("b", "c")).apply(held)
    assert held == {}
