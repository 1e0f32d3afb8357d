"""Reading settings files and `--set`: a file overrides the defaults, and `--set` overrides the file."""

import codecs
import functools
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hanse.config.audit_plan import AuditPlan, take_audit
from hanse.config.experiment import Experiment
from hanse.config.own_modules import Warn, import_modules, warn_user
from hanse.config.plain_data import Whole, leaves, merge, split_path
from hanse.config.settings import WrongSetting
from hanse.core import InvalidInput, Plain, nearest

__all__ = ["override", "parse", "parse_assignments", "place_files", "read", "read_audit", "written_where"]


def read(
    file: str | Path | None = None,
    sets: Sequence[str] = (),
    *,
    imports: Sequence[str] = (),
    warn: Warn = warn_user,
) -> Experiment:
    """Reads the experiment that a TOML file and assignments describe.

    Settings that they leave out have their defaults. The modules that they name in `imports` are imported.

    >>> read(None, ["rounds=5", "algorithm.name=fed_sgd", "algorithm.into=sum"]).algorithm
    fed_sgd(lr=0.1, fraction=1.0, weighting=by_examples(), uplink=(), into=sum(), close=Close(goal=None, ...))

    Args:
      file: TOML, or None.
      sets: "key.sub=value", with the value as in TOML; text that is not TOML is a string.
      imports: further modules to import, by name or path.
      warn: is called with a warning, such as that a module registers nothing.

    Raises: InvalidInput: naming the setting, where it was written, and what to write instead.
    """
    return read_audit(file, sets, imports=imports, warn=warn)[0]


def read_audit(
    file: str | Path | None = None,
    sets: Sequence[str] = (),
    *,
    imports: Sequence[str] = (),
    warn: Warn = warn_user,
) -> tuple[Experiment, AuditPlan]:
    """Reads an experiment, and the plan of its audit, from the table [audit]. See `read`."""
    from_file, from_sets = parse(file), parse_assignments(sets)
    if "sweep" in from_file:
        raise InvalidInput(
            f"{file} describes a sweep of many runs; write hanse sweep {file}, or remove its table [sweep]"
        )
    place_files(file, from_file, warn)
    plan = take_audit(file, from_file, from_sets)
    imported = import_modules(file, from_file, from_sets, imports, warn)
    settings = override(Experiment().settings(), from_file, from_sets)
    try:
        return Experiment.from_settings(settings, imports=imported), plan
    except WrongSetting as wrong:
        where = written_where(wrong, file, from_file, from_sets)
        raise InvalidInput(where + wrong.among(leaves(settings))) from wrong


def override(settings: Mapping[str, Plain], *layers: Mapping[str, Plain]) -> dict[str, Any]:
    """Lays layers of settings over settings, one after the other.

    A value that a layer writes with its name replaces the value that was there, defaults included.
    """
    return functools.reduce(merge, layers, dict(settings))


def parse(file: str | Path | None) -> dict[str, Any]:
    """Parses a TOML file; without a file there are no settings.

    Raises: InvalidInput: if it can't be read.
    """
    return {} if file is None else {key: _mark(said) for key, said in _parse_file(Path(file)).items()}


def place_files(file: str | Path | None, from_file: dict[str, Any], warn: Warn) -> None:
    """Lets the paths of data in a settings file start at the file's own folder.

    A file that is not there, but in the current folder, is read as before, with a warning.
    """
    data = from_file.get("data")
    if file is None or not isinstance(data, dict) or data.get("name") not in READERS:
        return
    folder = Path(file).parent
    if folder.resolve() == Path.cwd():
        return
    for option in ("path", "test", "validation"):
        said = data.get(option)
        if isinstance(said, str) and not Path(said).is_absolute():
            here = folder / said
            if here.exists() or not Path(said).exists():
                data[option] = str(here)
            else:
                warn(
                    f"{file}: data.{option} is {said!r}, which is in the current folder and not in that of "
                    "the settings file, where paths start; it is read all the same: write where it is"
                )


READERS = ("csv", "parquet", "npz", "libsvm", "text", "party_files")
"""Data sets whose paths are those of files."""


def _mark(said: Plain) -> Plain:
    """Marks the tables in a file that have a name, so that they replace defaults."""
    if not isinstance(said, dict):
        return said
    marked = {key: _mark(inner) for key, inner in said.items()}
    return Whole(marked) if "name" in marked else marked


def parse_assignments(sets: Sequence[str]) -> dict[str, Any]:
    """Parses assignments into one tree. Raises: InvalidInput: at the first that is not an assignment."""
    tree: dict[str, Any] = functools.reduce(merge, map(_assignment, sets), {})
    return tree


def written_where(wrong: WrongSetting, file: str | Path | None, from_file: Plain, from_sets: Plain) -> str:
    """Returns the beginning of the sentence about a wrong setting, which tells where it was written."""
    in_sets = wrong.path and _is_written(wrong.path, from_sets)
    in_file = from_file and (wrong.path or not from_sets)
    return "--set " if in_sets else f"{file}: " if in_file else ""


def _is_written(path: str, tree: Plain) -> bool:
    """Returns whether a tree has a setting at a path, or names the table around it."""
    node = tree
    for step in split_path(re.sub(r"\[\d+\]", "", path)):
        if not isinstance(node, dict):
            return True
        if step not in node:
            return "name" in node or isinstance(node, Whole)
        node = node[step]
    return True


def _parse_file(file: Path) -> dict[str, Any]:
    try:
        content = file.read_bytes()
        marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return tomllib.loads(content.decode("utf-16" if marked else "utf-8-sig"))
    except FileNotFoundError:
        raise InvalidInput(f"no file {str(file)!r}; {_neighbour(file)}") from None
    except OSError as error:
        raise InvalidInput(f"{file} can't be read: {error.strerror}; name a TOML file") from None
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"{file} is not {error.encoding.upper()} text, at byte {error.start}; name a TOML file, saved as "
            "UTF-8"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(_locate(file, str(error))) from None


def _neighbour(file: Path) -> str:
    folder = file.parent
    if not folder.is_dir():
        return f"there is no folder {str(folder)!r} either"
    found = {path.name: path for path in folder.glob("*.toml")}
    hint = nearest(file.name, found)
    return hint if found else f"there is no TOML file in {str(folder.absolute())!r}"


def _locate(file: Path, message: str) -> str:
    """Puts the place in front of the parser's message, as editors expect it."""
    found = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", message, re.DOTALL)
    if found is None:
        return f"{file}: not TOML: {message}"
    what, line, column = found.groups()
    place = f"line {line}, column {column}" if line else "at its end"
    return f"{file}, {place}: not TOML: {what[:1].lower()}{what[1:]}"


def _assignment(text: str) -> Plain:
    key, equals, value = text.partition("=")
    path = split_path(key.strip())
    if not equals or not all(path):
        raise InvalidInput(f"--set {text!r} is not an assignment; write key=value, such as algorithm.lr=0.3")
    tree = _value(value.strip(), key.strip())
    tree = Whole(tree) if isinstance(tree, dict) else tree
    for step in reversed(path):
        tree = {step: tree}
    return tree


def _value(text: str, key: str) -> Plain:
    """Parses a value as TOML, or else takes it as a bare string."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError as error:
        if text[:1] not in ("[", "{", '"', "'"):
            return text
        why = re.sub(r" \(at .*\)$", "", str(error))
        raise InvalidInput(f"--set {key}: {text} is not TOML: {why[:1].lower()}{why[1:]}") from None
    return parsed["value"] if parsed.keys() == {"value"} else text
