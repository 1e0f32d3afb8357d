"""Changes: what was set in mappings and removed from them, so that a journal keeps nothing else."""

from collections.abc import Mapping, MutableMapping
from dataclasses import field
from typing import Any, TypeVar

from hanse.core.values import value

__all__ = ["Changes", "Edits", "Tracked"]

K = TypeVar("K")
V = TypeVar("V")


class Changes:
    """A base class of values that describe what has changed in a runtime since it was last asked.

    Whatever else stands in an entry of the journal is a whole snapshot.
    """


@value
class Edits:
    """The items that were set in a mapping, and the keys that were removed from it."""

    changed: Mapping[Any, Any] = field(default_factory=dict)
    removed: tuple[Any, ...] = ()

    def apply(self, held: MutableMapping[Any, Any]) -> None:
        """Makes the same changes to a mapping."""
        held.update(self.changed)
        for key in self.removed:
            held.pop(key, None)


class Tracked(dict[K, V]):
    """A mapping that knows which of its keys were set or removed since it was last asked.

    >>> tracked = Tracked({"a": 1, "b": 2})
    >>> tracked["c"] = tracked.pop("a")
    >>> tracked.take_edits()
    Edits(changed={'c': 1}, removed=('a',))
    >>> tracked.take_edits()
    Edits(changed={}, removed=())
    """

    def __init__(self, held: Mapping[K, V] | None = None) -> None:
        super().__init__(held or {})
        self._touched: dict[K, None] = {}

    def __setitem__(self, key: K, item: V) -> None:
        super().__setitem__(key, item)
        self._touched[key] = None

    def __delitem__(self, key: K) -> None:
        super().__delitem__(key)
        self._touched[key] = None

    def __ior__(self, more: Any) -> Any:  # type: ignore[misc]
        self.update(more)
        return self

    def pop(self, key: K, *default: Any) -> Any:
        if key not in self and default:
            return default[0]
        item = self[key]
        del self[key]
        return item

    # In terms of the methods above; those of `dict` would pass them by.
    clear = MutableMapping.clear
    popitem = MutableMapping.popitem
    setdefault = MutableMapping.setdefault
    update = MutableMapping.update

    @property
    def is_touched(self) -> bool:
        """Returns whether an item was set or removed since `take_edits` was last asked."""
        return bool(self._touched)

    def take_edits(self) -> Edits:
        """Returns what was set and removed since `take_edits` was last asked."""
        touched, self._touched = self._touched, {}
        changed = {key: self[key] for key in touched if key in self}
        return Edits(changed, tuple(key for key in touched if key not in self))
