"""The modules that settings name: they are imported before anything else of the settings is read."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from hanse.algorithms import can_train
from hanse.config.experiment import IMPORTS
from hanse.config.settings import WrongSetting, build
from hanse.core import InvalidInput
from hanse.imports import Import, find_registered, list_functions, load_imports, module_of

__all__ = ["Warn", "import_modules", "warn_user"]

Warn: TypeAlias = Callable[[str], None]


def warn_user(message: str) -> None:
    """Warns the caller of a function of Hanse."""
    warnings.warn(message, stacklevel=4)


def import_modules(
    file: str | Path | None,
    from_file: dict[str, Any],
    from_sets: dict[str, Any],
    given: Sequence[str] = (),
    warn: Warn = warn_user,
) -> tuple[Import, ...]:
    """Takes the setting `imports` out of both trees, and imports the modules that it names.

    Args:
      file: the settings file, whose folder its paths are relative to.
      from_file, from_sets: what it says, and what assignments say in its place.
      given: further modules. One that is called as one of the settings takes its place.
      warn: is called where a module registers nothing.

    Raises: InvalidInput: if one can't be imported.
    """
    in_file, in_sets = from_file.pop(IMPORTS, []), from_sets.pop(IMPORTS, None)
    where, named = ("", in_sets) if in_sets is not None else (f"{file}: ", in_file)
    folder = Path.cwd() if in_sets is not None or file is None else Path(file).parent
    moved = set(map(module_of, given))
    try:
        names = build(tuple[str, ...], named, IMPORTS)
        found = load_imports([name for name in names if module_of(name) not in moved], folder)
    except (WrongSetting, InvalidInput) as error:
        raise InvalidInput(f"{where or '--set '}{error}") from error
    found += load_imports(given, Path.cwd())
    for imported in found:
        if not find_registered(imported) and not any(map(can_train, list_functions(imported))):
            warn(
                f"{imported.name} marks no class with @hanse.core.value and defines no training "
                "function, so settings can name nothing of it"
            )
    return found
