"""The modules that a client's owner has approved: a record, and copies of their files as they were then."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hanse.core import InvalidInput
from hanse.imports import Import
from hanse.network.protocol.house import change_file
from hanse.network.protocol.spool import durably

__all__ = ["ApprovedImports", "Contents", "read_contents"]


@dataclass(frozen=True)
class Contents:
    """A module's files as they were read once, so that what is shown is what is approved.

    Args:
      found: the import that they make up.
      files: by path below the folder of the import; a distribution has none.
    """

    found: Import
    files: Mapping[str, bytes]


def read_contents(found: Import, folder: Path | None = None) -> Contents:
    """Reads the files of an import, in its own folder or in another one.

    Raises: InvalidInput: if they are not those that were inspected.
    """
    files = {path: Path(folder or found.folder, path).read_bytes() for path in found.files}
    for path, data in files.items():
        if hashlib.sha256(data).hexdigest() != found.files[path]:
            raise InvalidInput(f"{folder or found.folder}/{path} has changed in the meantime; try again")
    return Contents(found, files)


class ApprovedImports:
    """The last approval of each module.

    Args:
      folder: the client home.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "approved-imports.json"
        self._copies = folder / "approved-imports"  # no name in Python, so that nothing can import it

    def list_all(self) -> tuple[Import, ...]:
        """Lists the imports as they were approved, with the places of the owner's copies."""
        said = json.loads(self._path.read_text(encoding="utf-8")) if self._path.exists() else []
        return tuple(map(Import.from_json, said))

    def find(self, module: str) -> Import | None:
        """Returns a module as it was approved last; None: it never was."""
        return next((found for found in self.list_all() if found.module == module), None)

    def locate_copy(self, found: Import) -> Path:
        """Returns the folder of the copy of an approved import."""
        return self._copies / found.digest.removeprefix("sha256:")

    def read_copy(self, module: str) -> Contents | None:
        """Returns the files of a module as they were approved last; None: there is no whole copy."""
        found = self.find(module)
        try:
            return None if found is None else read_contents(found, self.locate_copy(found))
        except (OSError, InvalidInput):
            return None

    def approve(self, contents: Contents) -> None:
        """Keeps an approval, in place of an earlier one of the module, and a copy of the files."""
        found, folder = contents.found, self.locate_copy(contents.found)
        for path, data in contents.files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            durably(folder / path, data)
        with change_file(self._path):
            others = [other for other in self.list_all() if other.module != found.module]
            said = [one.to_json() for one in (*others, found)]
            durably(self._path, json.dumps(said, indent=1).encode())
