"""Importing exactly the files that were digested: their bytes are checked, compiled and executed.

Python itself would execute a byte-compiled file in `__pycache__` instead, which no digest covers.
"""

import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ExtensionFileLoader, ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from hanse.core import InvalidInput
from hanse.imports.found import Import

__all__ = ["CheckedFinder", "check_shared", "expect"]


class _CheckedLoader(SourceFileLoader):
    """Executes a file of Python if it has the contents that were digested, and never a compiled one.

    Args:
      sha256: of the file.
    """

    def __init__(self, fullname: str, path: str, sha256: str) -> None:
        super().__init__(fullname, path)
        self.sha256 = sha256

    def get_code(self, fullname: str) -> CodeType:
        """Compiles the file. Raises: ImportError: if it has changed."""
        contents = self.get_data(self.path)
        _check(contents, self.path, self.sha256)
        code: CodeType = self.source_to_code(contents, self.path)
        return code


def _check(contents: bytes, path: str, sha256: str) -> None:
    if hashlib.sha256(contents).hexdigest() != sha256:
        raise ImportError(f"{path} has changed since it was inspected; begin a new process")


class CheckedFinder(MetaPathFinder):
    """Finds the files that were digested, wherever Python finds them, and refuses others in their place."""

    def __init__(self) -> None:
        self._sums: dict[str, str] = {}
        self._names: dict[str, tuple[str, str]] = {}
        self._packages: dict[str, str] = {}

    def expect(self, found: Import) -> Callable[[], None]:
        """Lets the files of an import be found, and returns a function that undoes it."""
        before = dict(self._sums), dict(self._names), dict(self._packages)

        def undo() -> None:
            self._sums, self._names, self._packages = before

        for path, sha256 in found.files.items():
            file = os.path.realpath(Path(found.folder, path))
            self._sums[file] = sha256
            if path.endswith(".py"):
                steps = path.removesuffix(".py").removesuffix("/__init__").split("/")
                self._names[".".join(steps)] = found.folder, file
        if found.kind == "package":
            self._packages[found.module.partition(".")[0]] = found.folder
        return undo

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Finds a module that was digested. Raises: ImportError: if another would be taken."""
        top = fullname.partition(".")[0]
        root, due = self._names.get(fullname, (self._packages.get(top, ""), ""))
        if root not in sys.path:
            return None
        spec = _find_otherwise(self, fullname, path, target)
        if spec is None or spec.origin is None or not spec.has_location:
            return None
        origin = os.path.realpath(spec.origin)
        if due and origin != due:
            raise ImportError(f"Python takes {spec.origin} for {due}; rename yours")
        if origin not in self._sums:
            if Path(os.path.realpath(Path(root, top))) in Path(origin).parents:
                raise ImportError(
                    f"{spec.origin} was not there when {top} was inspected; begin a new process"
                )
            return None
        if isinstance(spec.loader, ExtensionFileLoader):
            _check(Path(origin).read_bytes(), spec.origin, self._sums[origin])
        else:
            spec.loader = _CheckedLoader(fullname, spec.origin, self._sums[origin])
        return spec


def _find_otherwise(
    without: MetaPathFinder, fullname: str, path: Sequence[str] | None, target: ModuleType | None
) -> ModuleSpec | None:
    """Returns what Python would find without a finder."""
    for finder in sys.meta_path:
        find = None if finder is without else getattr(finder, "find_spec", None)
        spec: ModuleSpec | None = find and find(fullname, path, target)
        if spec is not None:
            return spec
    return None


_FINDER = CheckedFinder()


def expect(found: Import) -> Callable[[], None]:
    """Lets Python import the files of an import exactly as they were digested, now and later.

    Returns: a function that undoes it, for an import that failed.
    """
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
    return _FINDER.expect(found)


def check_shared(found: Import) -> None:
    """Refuses an import if this process has executed other contents of one of its files."""
    held = [getattr(module, "__loader__", None) for module in list(sys.modules.values())]
    sums = {os.path.realpath(one.path): one.sha256 for one in held if isinstance(one, _CheckedLoader)}
    for path, sha256 in found.files.items():
        if sums.get(os.path.realpath(Path(found.folder, path)), sha256) != sha256:
            raise InvalidInput(
                f"imports: {found.name!r}: {path} has changed since this process imported it; "
                "begin a new process"
            )
