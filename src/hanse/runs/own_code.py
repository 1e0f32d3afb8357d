"""The users' own code that a run depends on: it is recorded with the run, and imported again with it."""

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hanse.algorithms import trained_by
from hanse.config import IMPORTS, Experiment
from hanse.core import InvalidInput
from hanse.core.exchange import find_class_name
from hanse.imports import (
    Import,
    describe_changes,
    find_import,
    inspect_again,
    inspect_import,
    is_from,
    load_import,
    load_imports,
    module_of,
)

if TYPE_CHECKING:
    from hanse.store import RunInfo, Runs

__all__ = [
    "ACCEPTED",
    "OwnCode",
    "find_imports",
    "find_needed",
    "import_code",
    "import_unchanged",
    "list_kept",
    "record_imports",
]

ACCEPTED = "accepted_imports"
"""The key, in the settings that are kept of a run, of the changes of its code that a user has accepted."""


# -- recording ---------------------------------------------------------------------------------


def find_imports(experiment: Experiment) -> tuple[Import, ...]:
    """Finds the imports that an experiment depends on.

    These are the modules that its settings name, and those that define other values in it, as far as they
    could be imported elsewhere: a class that was typed into a notebook can't.
    """
    found = {imported.module: imported for imported in experiment.imports}
    for cls in _list_own_code(experiment):
        if not any(is_from(cls, imported) for imported in found.values()):
            other = find_import(cls.__module__)
            if other is not None:
                found[other.module] = other
    return tuple(found.values())


def find_needed(imports: Sequence[Import], *values: Any) -> tuple[Import, ...]:
    """Chooses the imports that define a class of one of these values."""
    classes = [cls for held in values for cls in _list_own_code(held)]
    return tuple(i for i in imports if any(is_from(cls, i) for cls in classes))


def _list_own_code(obj: Any) -> Iterator[Any]:
    """Yields the classes and functions of users that a value needs."""
    kind = type(obj)
    if isinstance(obj, trained_by):
        with suppress(InvalidInput):
            yield obj.find()
    elif dataclasses.is_dataclass(kind):
        if not kind.__module__.startswith("hanse.") and find_class_name(kind) is not None:
            yield kind
        for f in dataclasses.fields(kind):
            yield from _list_own_code(getattr(obj, f.name, None))
    elif isinstance(obj, tuple | list):
        for item in obj:
            yield from _list_own_code(item)
    elif isinstance(obj, Mapping):
        for item in obj.values():
            yield from _list_own_code(item)


def record_imports(imports: Sequence[Import]) -> dict[str, Any]:
    """Returns the entry for imports in the settings that are kept of a run; empty: there are none."""
    return {IMPORTS: [found.to_json() for found in imports]} if imports else {}


def list_kept(info: "RunInfo") -> tuple[Import, ...]:
    """Lists the imports that are recorded with a run."""
    return tuple(map(Import.from_json, info.settings.get(IMPORTS, ())))


# -- importing again ---------------------------------------------------------------------------


@dataclass(frozen=True)
class OwnCode:
    """The code of a run, imported again.

    Args:
      imports: as they are now, under the names that the run has for them.
      before: as they are recorded.
    """

    imports: tuple[Import, ...]
    before: tuple[Import, ...]

    @property
    def changes(self) -> tuple[tuple[Import, Import], ...]:
        """The imports that differ from the record: before, and now."""
        pairs = zip(self.before, self.imports, strict=False)
        return tuple((before, now) for before, now in pairs if not now.is_same_code(before))

    def named_by(self, info: "RunInfo") -> tuple[Import, ...]:
        """Returns the imports that the settings of a run name."""
        names = info.settings["experiment"].get(IMPORTS, ())
        return tuple(found for found in self.imports if found.name in names)

    def record(self, runs: "Runs", info: "RunInfo", command: str, *, replaces: bool = False) -> None:
        """Records with a run that a command has accepted changes of its code.

        Args:
          replaces: whether the run goes on with this code.
        """
        moved = [i.folder for i in self.imports] != [i.folder for i in self.before]
        if not self.changes and not (replaces and moved):
            return
        entry = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": command,
            "round": info.rounds,
            "changes": [
                {
                    "name": now.name,
                    "before": before.digest,
                    "now": now.digest,
                    "what": describe_changes(before, now),
                }
                for before, now in self.changes
            ],
        }

        def amend(settings: dict[str, Any]) -> dict[str, Any]:
            if self.changes:
                settings[ACCEPTED] = [*settings.get(ACCEPTED, ()), entry]
            return {**settings, **record_imports(self.imports)} if replaces else settings

        runs.amend(info.run, amend)


class ChangedCode(InvalidInput):
    """The code of a run is not what it was when the run began. `why` says so without the cure."""

    def __init__(self, info: "RunInfo", code: OwnCode) -> None:
        said = "; ".join(describe_changes(*pair) for pair in code.changes)
        self.why = f"run {info.run} began with other code: {said}"
        super().__init__(
            f"{self.why}. Put back the code that it began with, or write --accept-changed-imports (in Python "
            "accept_changed_imports=True), which the run will record"
        )


def import_code(info: "RunInfo", given: Sequence[str] = (), *, accept_changes: bool = False) -> OwnCode:
    """Imports the code of a run: where it was found, or where it is now.

    Args:
      given: names of modules and paths of files, to be imported too. One that is called as one of the run's
        takes its place.
      accept_changes: whether code that differs from the record is imported.

    Raises: InvalidInput: if it can't be found or imported, or differs.
    """
    before, moved = list_kept(info), {module_of(name): name for name in given}
    now = tuple(_find_now(info, kept, moved.pop(kept.module, None)) for kept in before)
    more = load_imports(tuple(moved.values()), Path.cwd())
    code = OwnCode((*now, *more), before)
    known = _list_known_code(info)
    if not accept_changes and any((new.name, new.digest) not in known for _, new in code.changes):
        raise ChangedCode(info, code)
    for found in now:
        load_import(found)
    return code


def _list_known_code(info: "RunInfo") -> set[tuple[str, str]]:
    """Lists the names and digests of the code that a run was ever performed with."""
    entries = [e for e in info.settings.get(ACCEPTED, ()) if e["command"] in ("resume", "serve")]
    changes = [change for entry in entries for change in entry["changes"]]
    return {(change["name"], change[which]) for change in changes for which in ("before", "now")}


def _find_now(info: "RunInfo", kept: Import, moved: str | None) -> Import:
    if moved is not None:
        return replace(inspect_import(moved, Path.cwd()), name=kept.name)
    main = getattr(sys.modules["__main__"], "__file__", None)
    if not kept.folder and kept.kind == "file":  # a script, which may do more than define classes
        if main is not None and Path(main).name == kept.name:
            return inspect_import(kept.name, Path(main).parent)
        raise InvalidInput(
            f"run {info.run} was begun by the script {kept.name}, whose classes it uses; write "
            f'--import PATH/{kept.name}. What the script does belongs below if __name__ == "__main__":, '
            "because it is imported then"
        )
    try:
        return inspect_again(kept)
    except InvalidInput as error:
        raise InvalidInput(
            f"run {info.run} uses {kept.name}, which can't be imported: {error}. If it has moved, write "
            f"--import PATH/{kept.module}{'.py' if kept.kind == 'file' else ''}"
        ) from error


def import_unchanged(info: "RunInfo", given: Sequence[str], warn: Callable[[str], None]) -> None:
    """Imports the code of a run for a command that can do without it: otherwise it says why not."""
    for name in given:
        inspect_import(name, Path.cwd())  # raises, if the user's own words are wrong
    try:
        code = import_code(info, given, accept_changes=bool(given))
    except ChangedCode as error:
        warn(f"{error.why}; what is shown does not use it")
    except InvalidInput as error:
        warn(str(error))
    else:
        if code.changes:
            warn(ChangedCode(info, code).why)
