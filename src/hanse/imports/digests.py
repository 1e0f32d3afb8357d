"""Digests of modules: the files that they consist of, or the record of the distribution they come from."""

import ast
import csv
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hanse.core import InvalidInput

__all__ = ["digest", "find_beside", "find_distribution", "follow", "hash_file", "list_files"]

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
    """Yields all files of a package, except byte-compiled and hidden ones."""
    seen = set[str]()
    for where, folders, names in os.walk(folder, followlinks=True):
        if os.path.realpath(where) in seen:  # a link to a folder above it
            folders.clear()
            continue
        seen.add(os.path.realpath(where))
        folders[:] = sorted(name for name in folders if name != "__pycache__" and name[0] != ".")
        for name in sorted(names):
            path = Path(where, name)
            if name[0] != "." and path.suffix not in BYTE_CODE and path.is_file():
                yield path


def follow(file: Path, root: Path, check: Callable[[str, Path], None]) -> Iterator[Path]:
    """Yields a file, and the files of its folder that it imports, and that these import.

    Args:
      root: the folder.
      check: is called with the name and the path of each module of the folder.
    """
    if root.name in SITES:
        yield file
        return
    seen, waiting = {file}, [file]
    while waiting:
        path = waiting.pop()
        yield path
        for found in _find_imported(path, root, check):
            if found not in seen:
                seen.add(found)
                waiting.append(found)


def _find_imported(path: Path, root: Path, check: Callable[[str, Path], None]) -> Iterator[Path]:
    """Yields the files below the root that a file imports; a package is taken with all its files."""
    for base, steps in _read_imports(path):
        folder = root if base is None else base
        for step in steps:
            if folder == root and step == "hanse":
                break
            found = find_beside(folder, step)
            if found is not None and folder == root:
                check(step, found)
            if found is not None and found.is_dir():
                yield from list_files(found)
            elif found is not None:
                yield found
                break
            folder = folder / step


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
