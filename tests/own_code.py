"""Files of users for tests, and a way to let this process forget them again."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hanse.core import values
from hanse.imports import loading


@contextmanager
def forget_imports(folder: Path) -> Iterator[None]:
    """Undo, at the end, all imports of files below a folder."""
    try:
        yield
    finally:
        forget(folder)


def forget(folder: Path) -> None:
    """Let this process be one that has imported nothing from a folder."""
    own = {name for name, module in sys.modules.items() if _file_of(module).startswith(str(folder))}
    for name in own:
        del sys.modules[name]
    for name, cls in list(values._CLASSES.items()):
        if cls.__module__ in own:
            del values._CLASSES[name]
            values._NAMES.pop(cls, None)
    for module, (found, _) in list(loading._LOADED.items()):
        if module in own or found.folder.startswith(str(folder)):
            del loading._LOADED[module]
    sys.path[:] = [path for path in sys.path if not path.startswith(str(folder))]


def _file_of(module: object) -> str:
    return getattr(module, "__file__", None) or ""


def write(folder: Path, **files: str) -> None:
    """Write files of Python, by their names without the ending; `__` in a name is a slash."""
    for name, code in files.items():
        end = "__init__" if name.endswith("__init__") else ""
        path = folder / f"{name.removesuffix(end).replace('__', '/')}{end}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code, encoding="utf-8")
