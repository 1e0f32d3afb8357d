"""Faces whose names are loaded when they are used, so that importing a room costs next to nothing.

A face lists its names by the module that defines each, once for the type checker and once for `load_from`.
Where modules register values (`@value`), it lists those that it does not show, too. So a value is found by
its name alone, in a settings file, a store or a message, although nothing has imported its module yet.
"""

import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

__all__ = ["load_from", "load_registering"]

_HOMES: dict[str, dict[str, str]] = {}
"""The modules that define the names of each face."""

_WAITING: dict[str, tuple[str, ...]] = {}
"""The names that modules of faces may register, by module, as long as nothing has asked for one of them."""


def load_from(
    package: str,
    homes: Mapping[str, tuple[str, ...]],
    *,
    registers: Mapping[str, tuple[str, ...]] | None = None,
) -> Callable[[str], Any]:
    """Returns the `__getattr__` of a package. It keeps nothing: a name is what its module says at that time.

    Args:
      package: its `__name__`.
      homes: its public names, by the module that defines them.
      registers: the values that its modules register beside those of public names; None: they register none.
    """
    home_of = _HOMES[package] = {name: module for module, names in homes.items() for name in names}
    sys.modules[package].__class__ = _Face
    for module in () if registers is None else {**homes, **registers}:
        _WAITING[module] = (*homes.get(module, ()), *(registers or {}).get(module, ()))

    def load(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(home_of[name]), name)

    return load


class _Face(ModuleType):
    """A package with a lazy face, whose names go before modules of the same name.

    Whoever imports the module `hanse.algorithms.fed_avg` has Python set the package's attribute `fed_avg` to
    it. So `from hanse.algorithms import fed_avg` would depend on what was imported before.
    """

    def __setattr__(self, name: str, held: Any) -> None:
        if name not in _HOMES[self.__name__] or not isinstance(held, ModuleType):
            super().__setattr__(name, held)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_HOMES[self.__name__]})


def load_registering(names: Iterable[str] | None = None) -> None:
    """Imports the modules of all faces that may register values of these names; None: all of them."""
    wanted = None if names is None else set(names)
    while found := [m for m, shown in _WAITING.items() if wanted is None or not wanted.isdisjoint(shown)]:
        for module in found:  # some have a face of their own, whose modules wait then
            import_module(module)
            _WAITING.pop(module, None)
