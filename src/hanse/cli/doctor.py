"""Packages that are installed or missing, and how to install them."""

import os
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from rich.padding import Padding
from rich.text import Text

from hanse.cli.consoles import make_pairs, make_stdout
from hanse.columns import Columns
from hanse.core import HanseError, InvalidInput
from hanse.imports import describe_changes, find_registered, inspect_again, load_imports
from hanse.network.protocol import find_readable
from hanse.processes import num_processors
from hanse.version import __version__

__all__ = ["Extra", "check_home", "describe_checks", "describe_imports", "doctor_page", "extras", "facts"]

PURPOSES = {
    "jax": "networks, compiled: MLP, CNN, LSTM, and your own functions",
    "torch": "networks, and your own torch modules, unchanged",
    "report": "hanse report, compare and demo: pages and images",
    "server": "hanse serve and join: real parties over HTTPS",
    "parquet": "Parquet files",
    "ray": "a cluster of machines",
    "privacy": "accounting of privacy",
    "secure": "secure sums in simulations",
    "tensorboard": "files for TensorBoard",
    "huggingface": "data sets of Hugging Face",
    "sklearn": "data sets of scikit-learn",
}


ENDED = ("completed", "incomplete", "diverged")
"""Statuses of runs that are not served again."""


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


def check_home(home: Path) -> list[dict[str, str]]:
    """Checks the code of users in the folder of a server or a client, without executing any of it.

    Returns: for each run of a server that can go on, or each run whose plan a client has: the state of each
      module that it imports.

    Raises: InvalidInput: if it is neither.
    """
    if (home / "runs.db").exists():
        return list(_check_server_home(home))
    if (home / "key.pem").exists():
        return list(_check_client_home(home))
    raise InvalidInput(f"{home} is the folder of neither a client nor a server; see --home of join and serve")


def _check_server_home(home: Path) -> Iterator[dict[str, str]]:
    from hanse.runs import list_kept
    from hanse.store import Runs

    for info in Runs(home / "runs.db").infos():
        for kept in list_kept(info) if info.status not in ENDED else ():
            try:
                now = inspect_again(kept)
                state = "fine" if now.is_same_code(kept) else describe_changes(kept, now)
            except InvalidInput as error:
                state = str(error)
            yield {"run": info.run, "import": kept.name, "state": state}


def _check_client_home(home: Path) -> Iterator[dict[str, str]]:
    from hanse.network.client import ClientHome, waiting_plans

    client_home = ClientHome(home)
    for plan in {plan.run: plan for plan in waiting_plans(client_home) if plan.imports}.values():
        try:
            client_home.own_imports.check(plan)
            state = "fine"
        except HanseError as error:
            state = str(error)
        yield {"run": plan.run, "import": ", ".join(one.name for one in plan.imports), "state": state}


def describe_checks(checked: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """Yields a line about each import that `check_home` found."""
    for found in checked:
        yield f"\nrun {found['run']}, {found['import']}: {found['state']}"
    if not checked:
        yield "\nno run here that can go on imports code of users"


def facts(store: str | Path) -> Iterator[tuple[str, str]]:
    """Yields facts about this machine, and the place where runs are kept."""
    yield "hanse", __version__
    yield "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield "processors", f"{num_processors()} to use"
    yield "isolated tickets", _describe_isolation()
    yield "runs", _kept(store)
    places = [Path(".hanse")] if "://" in str(store) else [Path(".hanse"), Path(store)]
    yield from describe_readable(*dict.fromkeys(places))


def _describe_isolation() -> str:
    try:
        from hanse.network.client import describe_isolation

        return describe_isolation()
    except ModuleNotFoundError:
        return "with hanse[server]"


def describe_readable(*places: Path) -> Iterator[tuple[str, str]]:
    """Yields a fact about each folder or file of runs or keys that others than its owner can read."""
    for place in places:
        found = find_readable(place)
        if found:
            which = f"{found[0]}" if len(found) == 1 else f"{found[0]} and {len(found) - 1} more"
            yield "readable by others", f"{which}; take that away: chmod -R go= {place}"


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


def doctor_page(
    about: Mapping[str, str], extras: Sequence[Extra], own: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Prints which packages are installed, and which are missing. `own`: the modules of the user."""
    out = make_stdout()
    out.print(Padding(make_pairs(about.items()), (0, 0, 1, 0)))
    table = Columns("extra", "for", "state", folded=("for", "state"), first_out=("for",))
    for extra in extras:
        state = Text(f"missing {', '.join(extra.missing)}; run: {extra.remedy}", style="yellow")
        table.add_row(extra.name, extra.purpose, state if extra.missing else ", ".join(extra.installed))
    out.print(table)
    for found in own:
        rows = [("import", f"{found['name']}, {found['kind']}"), ("digest", found["digest"])]
        rows += [("files", ", ".join(found["files"]))] if found["files"] else []
        rows += [("registers", ", ".join(found["registers"]) or "nothing: mark a class with @value")]
        out.print(Padding(make_pairs(rows), (1, 0, 0, 0)))
