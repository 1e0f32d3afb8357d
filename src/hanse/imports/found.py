"""An import as a value: its name, its digest and its files."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

__all__ = ["MAIN", "Import", "Kind", "describe_changes", "is_path", "module_of"]

Kind: TypeAlias = Literal["file", "package", "distribution"]

MAIN = ("__main__", "__mp_main__")
"""The names under which a process knows the script that it performs."""


@dataclass(frozen=True)
class Import:
    """A module that settings name, as it was when it was found.

    Args:
      name: as the settings write it: "my_module" or "path/file.py".
      kind: "file", "package" or "distribution".
      digest: "sha256:" and hexadecimal digits; it depends on the contents and not on where they are.
      files: the SHA-256 of each file by its path below `folder`; a distribution has none.
      folder: the folder that Python finds the module in, on this machine; empty: it is not known.
    """

    name: str
    kind: Kind
    digest: str
    files: Mapping[str, str]
    folder: str = field(default="", compare=False)

    @property
    def module(self) -> str:
        """The name by which Python imports it."""
        return module_of(self.name)

    def is_same_code(self, other: "Import") -> bool:
        """Returns whether another import is of the same code, wherever it is."""
        return (self.kind, self.digest) == (other.kind, other.digest)

    def to_json(self) -> dict[str, Any]:
        """Returns the import as plain data, with its folder."""
        return {**asdict(self), "files": dict(self.files)}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> "Import":
        """Makes an import of plain data."""
        return cls(said["name"], said["kind"], said["digest"], dict(said["files"]), said.get("folder", ""))


def module_of(name: str) -> str:
    """Returns the name by which Python imports what settings name.

    >>> module_of("path/file.py"), module_of("my_package.parts")
    ('file', 'my_package.parts')
    """
    if not is_path(name):
        return name
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return last.removesuffix(".py")


def is_path(name: str) -> bool:
    """Returns whether a name is a path rather than that of a module."""
    return name.endswith(".py") or "/" in name or os.sep in name


def describe_changes(before: Import, now: Import) -> str:
    """Describes how an import differs from what it was.

    >>> before = Import("own.py", "file", "sha256:1", {"own.py": "1", "gone.py": "2"})
    >>> describe_changes(before, Import("own.py", "file", "sha256:2", {"own.py": "3", "new.py": "4"}))
    'gone.py is gone, new.py is new, own.py has changed'
    """
    if before.kind != now.kind:
        return f"it was a {before.kind} and is a {now.kind}"
    words = []
    for path in sorted({**before.files, **now.files}):
        if before.files.get(path) != now.files.get(path):
            what = "is new" if path not in before.files else "has changed"
            words.append(f"{path} {what if path in now.files else 'is gone'}")
    return ", ".join(words) or "another version or build of it is installed"
