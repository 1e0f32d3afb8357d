"""Digests of modules: the files that they consist of, or the record of the distribution they come from."""

import ast
import csv
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import BYTECODE_SUFFIXES, EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

from hanse.core import InvalidInput

__all__ = [
    "check_source",
    "digest",
    "find_beside",
    "find_distribution",
    "follow",
    "hash_file",
    "list_files",
]

SITES = ("site-packages", "dist-packages")
"""The names of folders that installers write to."""

BYTE_CODE = (".pyc", ".pyo")


def digest(about: Any) -> str:
    """Computes the digest of plain data."""
    text = json.dumps(about, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def hash_file(path: Path) -> str:
    """Computes the SHA-256 of a file."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InvalidInput(f"imports: {path} can't be read: {error.strerror}") from None


def find_distribution(root: Path, path: Path) -> list[Any] | None:
    """Returns name, version and files of the distribution that installed a module, or None."""
    if root.name not in SITES:
        return None
    file = path / "__init__.py" if path.is_dir() else path
    wanted = file.relative_to(root).as_posix()
    for found in importlib.metadata.distributions(path=[str(root)]):
        rows = [row for row in csv.reader((found.read_text("RECORD") or "").splitlines()) if len(row) == 3]
        if any(row[0] == wanted for row in rows):
            kept = sorted(row[:2] for row in rows if _is_of_wheel(row[0]))
            return [found.metadata["Name"], found.version, kept]
    return None


def _is_of_wheel(path: str) -> bool:
    """Returns whether a file is the same wherever a wheel is installed, by whatever installer."""
    folder = path.partition("/")[0]
    return not (path.startswith(("../", "/")) or folder.endswith(".dist-info") or path.endswith(BYTE_CODE))


def list_files(folder: Path) -> Iterator[Path]:
    """Yields all files of a package, except hidden ones and those in `__pycache__`.

    Raises: InvalidInput: if there is a byte-compiled file elsewhere, because Python might import it.
    """
    seen = set[str]()
    for where, folders, names in os.walk(folder, followlinks=True):
        if os.path.realpath(where) in seen:  # a link to a folder above it
            folders.clear()
            continue
        seen.add(os.path.realpath(where))
        folders[:] = sorted(name for name in folders if name != "__pycache__" and name[0] != ".")
        for name in sorted(names):
            path = Path(where, name)
            if name[0] != "." and path.suffix in BYTECODE_SUFFIXES:
                raise _refuse(path)
            if name[0] != "." and path.suffix not in BYTE_CODE and path.is_file():
                yield path


def check_source(folder: Path, step: str) -> None:
    """Refuses compiled files that Python might import for a name: no digest covers them."""
    for suffix in (*EXTENSION_SUFFIXES, *BYTECODE_SUFFIXES):
        for path in (folder / f"{step}{suffix}", folder / step / f"__init__{suffix}"):
            if path.is_file():
                raise _refuse(path)


def _refuse(path: Path) -> InvalidInput:
    cure = "delete it" if path.suffix in BYTECODE_SUFFIXES else "move it away, or put it into a package"
    return InvalidInput(f"imports: {path} is compiled, and Python might import it instead of source; {cure}")


def follow(starts: Sequence[Path], root: Path, check: Callable[[str, Path], None]) -> Iterator[Path]:
    """Yields files, and the files of a folder that they import, and that these import.

    Args:
      root: the folder.
      check: is called with the name and the path of each module of the folder.

    Raises: InvalidInput: see `check_source`.
    """
    if root.name in SITES:
        yield from starts
        return
    seen, waiting = set(starts), list(starts)
    while waiting:
        path = waiting.pop()
        yield path
        for module in _find_imported(path, root):
            if module in seen:
                continue
            seen.add(module)
            if module.parent == root:
                check(module.name.removesuffix(".py"), module)
            for file in list_files(module) if module.is_dir() else [module]:
                if file == module or file not in seen:
                    seen.add(file)
                    waiting.append(file)


def _find_imported(path: Path, root: Path) -> Iterator[Path]:
    """Yields the files and packages below the root that a file imports."""
    for base, steps in _read_imports(path):
        folder = root if base is None else base
        if not folder.is_relative_to(root):  # Python refuses it
            continue
        for step in steps:
            if step == "*" or (folder == root and step == "hanse"):
                break
            if not _is_in_package(folder, root):
                check_source(folder, step)
            found = find_beside(folder, step)
            if found is not None:
                yield found
                if not found.is_dir():
                    break
            folder = folder / step


def _is_in_package(folder: Path, root: Path) -> bool:
    """Returns whether a folder belongs to a package below the root, all of whose files count."""
    inner = [place for place in (folder, *folder.parents) if place != root and place.is_relative_to(root)]
    return any((place / "__init__.py").is_file() for place in inner)


def find_beside(folder: Path, step: str) -> Path | None:
    """Returns the package or file of a module in a folder, if there is one."""
    package, file = folder / step, folder / f"{step}.py"
    if (package / "__init__.py").is_file():
        return package
    return file if file.is_file() else None


def _read_imports(path: Path) -> Iterator[tuple[Path | None, list[str]]]:
    """Yields the steps of each name that a file imports, with the folder that a relative one begins at."""
    try:
        tree = ast.parse(path.read_bytes()) if path.suffix == ".py" else ast.Module([], [])
    except (SyntaxError, ValueError):  # importing it will say where
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((None, alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = path.parents[node.level - 1] if 0 < node.level <= len(path.parents) else None
            steps = node.module.split(".") if node.module else []
            yield from ((base, [*steps, alias.name]) for alias in node.names)
