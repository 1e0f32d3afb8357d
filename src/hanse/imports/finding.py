"""Finding modules, without executing anything of them."""

import importlib
import os
import sys
from dataclasses import dataclass, replace
from importlib.machinery import PathFinder
from pathlib import Path

from hanse.core import InvalidInput
from hanse.imports.checked import CheckedFinder
from hanse.imports.digests import (
    check_source,
    digest,
    find_beside,
    find_distribution,
    follow,
    hash_file,
    list_files,
)
from hanse.imports.found import MAIN, Import, is_path, module_of

__all__ = ["find_import", "inspect_again", "inspect_import", "is_same"]


@dataclass(frozen=True)
class _Place:
    """A module's place: the folder that Python finds it in, and its file there, or a package's folder."""

    name: str
    root: Path
    path: Path

    @property
    def top(self) -> str:
        """The first part of the module's name."""
        return module_of(self.name).partition(".")[0]


def inspect_import(name: str, folder: Path) -> Import:
    """Finds a module and digests it, without executing anything of it.

    Args:
      name: the name of a module, or a path relative to `folder`.
      folder: is also searched for modules, before the places where Python looks.

    Raises: InvalidInput: if there is no such module, or its name is that of another one.
    """
    return _inspect(_find_path(name, folder) if is_path(name) else _find_module(name, folder))


def _inspect(place: _Place) -> Import:
    name = place.name
    recorded = find_distribution(place.root, place.path)
    if recorded is not None:
        return Import(name, "distribution", digest(recorded), {})
    _check_alone(place.top, place.path, place.root, name)
    is_file = place.path.is_file()
    if is_file and place.path.suffix != ".py":
        raise InvalidInput(
            f"imports: {name!r}: {place.path} is compiled, and only source can be read; put it into a "
            "package with __init__.py"
        )
    if is_file:
        check_source(place.root, place.top)
    starts = [place.path] if is_file else list(list_files(place.path))
    paths = follow(starts, place.root, lambda top, path: _check_alone(top, path, place.root, name))
    files = {path.relative_to(place.root).as_posix(): hash_file(path) for path in paths}
    files = dict(sorted(files.items()))
    return Import(name, "file" if is_file else "package", digest(files), files, str(place.root))


def inspect_again(found: Import) -> Import:
    """Inspects an import where it was found before, perhaps by another process.

    A folder must be absolute, and a distribution is not looked for in the current folder: a record that came
    with files of its own, such as in an archive, must not lead to these.
    """
    if found.kind == "distribution":
        return replace(_inspect(_find_module(found.module, None)), name=found.name)
    if not os.path.isabs(found.folder):
        raise InvalidInput(f"imports: where {found.name!r} was found is not known; write where it is now")
    name = f"{found.module}.py" if found.kind == "file" else found.module
    return replace(inspect_import(name, Path(found.folder)), name=found.name)


def _find_path(name: str, folder: Path) -> _Place:
    path = Path(os.path.abspath(folder / Path(name).expanduser()))
    if not path.exists():
        raise InvalidInput(f"imports: there is no {name!r} in {folder.absolute()}; write where it is now")
    if path.is_dir() and not (path / "__init__.py").is_file():
        raise InvalidInput(f"imports: {name!r} is a folder without __init__.py; name a file in it")
    if path.is_file() and path.suffix != ".py":
        raise InvalidInput(f"imports: {name!r} is not a file of Python; its name must end with .py")
    if not module_of(name).isidentifier():
        raise InvalidInput(
            f"imports: {name!r} can't be imported, because {module_of(name)!r} is not a name in Python; "
            f"rename it, to {_as_identifier(module_of(name))!r} for instance"
        )
    return _Place(name, path.parent, path)


def _as_identifier(name: str) -> str:
    word = "".join(letter if letter.isalnum() else "_" for letter in name)
    return word if word[:1].isalpha() else f"my_{word}"


def _find_module(name: str, folder: Path | None) -> _Place:
    steps = name.split(".")
    if not all(step.isidentifier() for step in steps):
        raise InvalidInput(
            f'imports: {name!r} is neither a module nor a file; write "my_module" or "path/file.py"'
        )
    if steps[0] == "hanse":
        raise InvalidInput(f"imports: {name!r} is Hanse's own and needs no import; leave it out")
    root = Path(os.path.abspath(folder or "."))
    path = None if folder is None else find_beside(root, steps[0])
    if path is None:
        if steps[0] in sys.stdlib_module_names:
            raise InvalidInput(f"imports: {name!r} is a module of Python itself; name one of your own")
        found = _installed_file(steps[0], None)
        if found is None:
            raise InvalidInput(
                f"imports: there is no module {name!r}, neither in {root} nor among those installed; "
                'install it, or write the path of its file, "path/file.py"'
            )
        path = found.parent if found.name == "__init__.py" else found
        root = path.parent
    below = path if path.is_dir() else path.parent
    for step in steps[1:]:
        inner = find_beside(below, step) if path.is_dir() else None
        if inner is None:
            raise InvalidInput(f"imports: there is no module {name!r}; {steps[0]} at {path} has no {step!r}")
        below = inner
    return _Place(name, root, path)


def _installed_file(top: str, without: Path | None) -> Path | None:
    """Returns the file that Python would import for a name, if it did not look in a folder."""
    importlib.invalidate_caches()
    skipped = None if without is None else os.path.realpath(without)
    path = [entry for entry in sys.path if os.path.realpath(entry or os.getcwd()) != skipped]
    for finder in sys.meta_path:
        if isinstance(finder, CheckedFinder):  # it would not leave out the folder
            continue
        find = getattr(finder, "find_spec", None)
        spec = PathFinder.find_spec(top, path) if finder is PathFinder else find and find(top, None)
        if spec is not None and spec.origin is not None:
            return Path(spec.origin)
    return None


def _check_alone(top: str, path: Path, root: Path, name: str) -> None:
    """Refuses a module that has the name of another one: Python, or a process, would take that one."""
    cure = f"rename yours, to my_{top}{path.suffix} for instance"
    if top in sys.stdlib_module_names:
        raise InvalidInput(f"imports: {name!r}: {path} has the name of Python's own module {top!r}; {cure}")
    file = path / "__init__.py" if path.is_dir() else path
    other = _installed_file(top, root)
    if other is not None and not is_same(other, file):
        raise InvalidInput(f"imports: {name!r}: {path} has the name of another module, {other}; {cure}")
    loaded = getattr(sys.modules.get(top), "__file__", None)
    if loaded is not None and not is_same(Path(loaded), file):
        raise InvalidInput(
            f"imports: {name!r}: this process has imported {loaded} under the name of {path} already; {cure}"
        )


def is_same(one: Path, other: Path) -> bool:
    """Returns whether two paths lead to one file."""
    return os.path.realpath(one) == os.path.realpath(other)


def find_import(module: str) -> Import | None:
    """Finds the import that would give the values of a module that Python has imported already.

    A script that this process performs has no `folder`, because importing it again might perform it again.

    Returns: None: if they can't be imported elsewhere, such as those of a notebook.
    """
    top = sys.modules.get(module.partition(".")[0])
    file = getattr(top, "__file__", None)
    if file is None or not file.endswith(".py"):
        return None
    path = Path(os.path.abspath(file))
    try:
        if module in MAIN:
            return replace(inspect_import(path.name, path.parent), folder="")
        if path.name == "__init__.py":
            return inspect_import(module, path.parents[1])
        return inspect_import(path.name, path.parent)
    except InvalidInput:
        return None
