"""Packages that are installed or missing, and how to install them."""

import os
import platform
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from hanse.imports import find_registered, load_imports
from hanse.simulation import num_processors
from hanse.version import __version__

__all__ = ["Extra", "describe_imports", "extras", "facts"]

PURPOSES = {
    "jax": "networks, compiled: MLP, CNN, LSTM, and your own functions",
    "torch": "networks, and your own torch modules, unchanged",
    "report": "hanse report, compare and demo: pages and images",
    "server": "hanse serve and join: real parties over HTTPS",
    "parquet": "Parquet files",
    "ray": "a cluster of machines",
    "privacy": "accounting of privacy",
    "huggingface": "data sets of Hugging Face",
    "sklearn": "data sets of scikit-learn",
}


@dataclass(frozen=True)
class Extra:
    """An extra, which can be installed in addition to the core.

    Args:
      name: the name of the extra.
      purpose: the use of the extra.
      installed: the installed packages with their versions.
      missing: the packages that are not installed.
    """

    name: str
    purpose: str
    installed: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def remedy(self) -> str:
        """The command that installs what is missing; empty if nothing is."""
        return f"pip install 'hanse[{self.name}]'" if self.missing else ""


def extras() -> tuple[Extra, ...]:
    """Lists all extras for users, from the metadata of the installed package."""
    needs: dict[str, list[str]] = {}
    for requirement in requires("hanse") or ():
        found = re.match(r"([A-Za-z0-9._-]+).*extra\s*==\s*['\"]([^'\"]+)", requirement)
        if found and found[1].lower() != "hanse" and found[2] not in ("dev", "mutants", "all"):
            needs.setdefault(found[2], []).append(found[1])
    return tuple(_extra(name, packages) for name, packages in needs.items())


def _extra(name: str, packages: list[str]) -> Extra:
    installed, missing = [], []
    for package in packages:
        try:
            installed.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            missing.append(package)
    return Extra(name, PURPOSES.get(name, ""), tuple(installed), tuple(missing))


def describe_imports(names: Sequence[str]) -> list[dict[str, Any]]:
    """Imports modules of the user, and describes what they are and what they register."""
    import hanse.config  # noqa: F401  (our own values come first, so that theirs can't take a name of ours)

    found = load_imports(names, Path.cwd())
    return [{**one.to_json(), "registers": list(find_registered(one))} for one in found]


def facts(store: str | Path) -> Iterator[tuple[str, str]]:
    """Yields facts about this machine, and the place where runs are kept."""
    yield "hanse", __version__
    yield "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield "processors", f"{num_processors()} to use"
    yield "runs", _kept(store)


def _kept(store: str | Path) -> str:
    if "://" in str(store):
        return str(store)
    path = Path(store)
    if path.exists():
        size = path.stat().st_size / 1e6
        return f"{path} ({size:.1f} MB)" + ("" if os.access(path, os.W_OK) else ", which can't be written")
    folder = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    if os.access(folder, os.W_OK):
        return f"{path}, which the first run makes"
    return f"{path} can't be made, because {folder} can't be written; set $HANSE_STORE or write --store"
