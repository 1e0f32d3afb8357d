"""Importing modules, so that settings can name the values that they register."""

import functools
import importlib
import os
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from traceback import walk_tb
from types import FunctionType
from typing import Any

from hanse.core import HanseError, InvalidInput, former
from hanse.core.exchange import find_classes
from hanse.imports.checked import check_shared, expect
from hanse.imports.finding import inspect_again, inspect_import, is_same
from hanse.imports.found import MAIN, Import, describe_changes

__all__ = [
    "find_registered",
    "is_from",
    "is_loaded",
    "list_functions",
    "load_import",
    "load_imports",
    "load_same",
]

_LOADED: dict[str, tuple[Import, frozenset[str]]] = {}
"""The imports of this process, by module: as each was then, and the values that it registered."""


def load_imports(names: Sequence[str], folder: Path) -> tuple[Import, ...]:
    """Imports modules, so that settings can name the values that they register. Doing it again does nothing.

    Args:
      names: see `inspect_import`.
      folder: see `inspect_import`.

    Raises: InvalidInput: if one can't be found or imported, has changed since this process imported it, or
      names a value as another module does.
    """
    found: dict[str, Import] = {}
    for name in names:
        inspected = inspect_import(name, folder)
        other = found.setdefault(inspected.module, inspected)
        if (other.folder, other.digest) != (inspected.folder, inspected.digest):
            raise InvalidInput(f"imports: {other.name!r} and {name!r} have the same name; rename one of them")
    for inspected in found.values():
        load_import(inspected)
    return tuple(found.values())


def load_same(imports: Sequence[Import]) -> None:
    """Imports modules that another process has found, such as the one that started this process.

    Raises: InvalidInput: if one is not what that process found.
    """
    for found in imports:
        loaded, _ = _LOADED.get(found.module, (None, frozenset()))
        if found.folder or found.kind == "distribution":
            now = inspect_again(found) if loaded is None else loaded
            if not now.is_same_code(found):
                raise InvalidInput(
                    f"imports: {found.name!r} has changed since the run began: {describe_changes(found, now)}"
                )
            if found.module not in sys.modules:
                load_import(now)


def load_import(found: Import) -> None:
    """Imports a module that was inspected. Raises: InvalidInput: see `load_imports`."""
    earlier = _LOADED.get(found.module)
    if earlier is not None and not earlier[0].is_same_code(found):
        raise InvalidInput(
            f"imports: {found.name!r} is not what this process imported: "
            f"{describe_changes(earlier[0], found)}; begin a new process"
        )
    if earlier is not None:
        return
    known = set(find_classes(object))
    is_new = found.module not in sys.modules and not _is_main(found)
    if is_new:
        _import_new(found)
    _LOADED[found.module] = found, frozenset(find_classes(object)) - known
    if is_new:  # a program that has imported it needs no settings, and may call its classes as it likes
        try:
            _check_names(found)
        except InvalidInput:
            del _LOADED[found.module], sys.modules[found.module]
            raise


def _import_new(found: Import) -> None:
    check_shared(found)
    undo = expect(found)
    added = bool(found.folder) and found.folder not in sys.path
    if added:
        sys.path.append(found.folder)  # last, so that nothing there hides what is installed
    try:
        _execute(found)
    except BaseException:
        undo()
        if added:
            sys.path.remove(found.folder)
        raise


def _check_names(found: Import) -> None:
    """Refuses names of values that Hanse has in modules not loaded yet, or had in an earlier version."""
    ours = _find_ours()
    classes = find_classes(object)
    for name in sorted(ours.keys() & find_registered(found)):
        cls = classes[name]
        if not cls.__module__.startswith("hanse."):
            raise InvalidInput(
                f"imports: {found.name!r}: two classes are called {name!r}: {ours[name]} and "
                f"{cls.__module__}.{cls.__qualname__}; rename yours"
            )


@functools.cache
def _find_ours() -> dict[str, str]:
    """Finds all values of Hanse by name: the module of each, or the name that it has today."""
    root = Path(__file__).parents[1]
    ours = {name: f"the former name of Hanse's {now}" for name, now in former.CLASSES.items()}
    for path in root.rglob("*.py"):
        module = ".".join(path.relative_to(root.parent).with_suffix("").parts)
        for name in re.findall(r"^@value\nclass (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE):
            ours[name] = f"{module}.{name}"
    return ours


def _is_main(found: Import) -> bool:
    """Returns whether a file is the script that this process performs, which registers its values itself."""
    main = getattr(sys.modules["__main__"], "__file__", None)
    file = Path(found.folder, f"{found.module}.py")
    return bool(main and found.kind == "file" and is_same(Path(main), file))


def _execute(found: Import) -> None:
    """Imports a module; its errors say where in the user's code they arose."""
    try:
        with redirect_stdout(sys.stderr):  # a command may print one JSON object, and nothing else
            importlib.invalidate_caches()
            importlib.import_module(found.module)
    except SyntaxError as error:
        place = f"{error.filename}, line {error.lineno}: " if error.filename else _locate(found, error)
        raise InvalidInput(f"imports: {found.name!r}: {place}not Python: {error.msg}") from error
    except (Exception, SystemExit) as error:
        where = f"imports: {found.name!r}: {_locate(found, error)}"
        if isinstance(error, HanseError):
            raise InvalidInput(f"{where}{error}") from error
        why = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        if isinstance(error, ModuleNotFoundError):
            why += f"; install {error.name}, or put {error.name}.py beside the file"
        if isinstance(error, SystemExit):
            why += '; what a script does belongs below if __name__ == "__main__":'
        raise InvalidInput(f"{where}{why}") from error
    top = found.module.partition(".")[0]
    taken = getattr(sys.modules[top], "__file__", None)
    due = [Path(found.folder, f"{top}.py"), Path(found.folder, top, "__init__.py")][found.kind == "package"]
    if found.kind != "distribution" and not is_same(Path(taken or ""), due):
        raise InvalidInput(f"imports: {found.name!r}: Python takes {taken} for {due}; rename yours")


def _locate(found: Import, error: BaseException) -> str:
    """Returns the innermost line of the user's files that an error came through, or else of any file."""
    places = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
    own = {os.path.realpath(Path(found.folder, path)) for path in found.files}
    inner = [place for place in places if os.path.realpath(place[0]) in own]
    outer = [place for place in places[1:] if "importlib" not in place[0] and not _is_ours(place[0])]
    file, line = next(iter(reversed(inner or outer)), ("", 0))
    return f"{file}, line {line}: " if file else ""


def _is_ours(file: str) -> bool:
    return Path(file).parent == Path(__file__).parent


def find_registered(found: Import) -> tuple[str, ...]:
    """Lists the values that an import has registered in this process, and those that its files define."""
    own, brought = _find_own(found), _list_brought(found)
    return tuple(
        name
        for name, cls in find_classes(object).items()
        if cls.__module__.partition(".")[0] in own or cls in brought
    )


def list_functions(found: Import) -> tuple[FunctionType, ...]:
    """Lists the functions that an import defines at its top level."""
    module = sys.modules.get("__main__" if _is_main(found) else found.module)
    held = [] if module is None else vars(module).values()
    name = getattr(module, "__name__", "")
    return tuple(obj for obj in held if isinstance(obj, FunctionType) and obj.__module__ == name)


def is_loaded(module: str) -> bool:
    """Returns whether a module is one that settings had this process import, or a part or a file of one."""
    top = module.partition(".")[0]
    return any(
        top == name.partition(".")[0]
        or any(top == path.partition("/")[0].removesuffix(".py") for path in found.files)
        for name, (found, _) in _LOADED.items()
    )


def is_from(cls: Any, found: Import) -> bool:
    """Returns whether an import gives a function, or a registered class: its files define it, or bring it."""
    return cls.__module__.partition(".")[0] in _find_own(found) or cls in _list_brought(found)


def _find_own(found: Import) -> set[str]:
    """Finds the modules, without their packages' parts, that are files of an import."""
    own = {path.partition("/")[0].removesuffix(".py") for path in found.files}
    own.add(found.module.partition(".")[0])
    own.update(MAIN if _is_main(found) else ())
    return own


def _list_brought(found: Import) -> list[type]:
    """Lists the classes that were registered while an import was loaded, in whatever file they are."""
    _, registered = _LOADED.get(found.module, (None, frozenset[str]()))
    classes = find_classes(object) if registered else {}
    return [classes[name] for name in registered if name in classes]
