"""Backups of a server's folder, made while it serves, and their restoration."""

import json
import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path

from hanse.core import InvalidInput
from hanse.network.protocol.spool import durably, sync_folder
from hanse.network.server.members import Members
from hanse.version import __version__

__all__ = ["back_up", "note_restoration", "restore_backup"]

MADE, RESTORED = "backup.json", "restored.json"
"""The file that makes a folder a backup, and the file that says that a folder was restored."""

RUNS, MEMBERS, MEMBERS_HEAD, OUTCOMES = "runs.db", "members.db", "members.head", "outcomes.db"

LINKED = {
    "spool": re.compile(r"\d+\.[0-9a-f]{64}\.message"),
    "cases": re.compile(r"\d+-\d+-.+\.case|[0-9a-f]{64}\.payload"),
}
"""The names of a run's files that never change, by folder. The server writes those of other folders again."""

MAX_NAMED = 50
"""After a restoration so many active members are named."""


def back_up(home: Path, to: Path) -> str:
    """Copies a server's folder, also while it serves; returns when that was, in UTC.

    The messages of open rounds are copied before the runs and once more after them, so that a message that
    the copied runs still need is there, whether it came or was counted in between. The outcomes of tickets
    come after the runs: a run that goes on forgets those that it decides again. The register of members
    comes last, so that nobody in a copied run is unknown. A backup has its name once it is complete.

    Raises: InvalidInput: if `home` is no server's folder, or `to` exists.
    """
    if not (home / MEMBERS).exists():
        raise InvalidInput(f"{home} is not the folder of a server; name it with --home")
    part = _begin(to)
    at = datetime.now(UTC).isoformat(timespec="seconds")
    for path in sorted(home.iterdir()):
        if path.is_dir() and path.name != "runs":
            shutil.copytree(path, part / path.name, copy_function=_copy)
        elif path.is_file() and not path.name.startswith((RUNS, MEMBERS, MEMBERS_HEAD)):
            _copy(path, part / path.name)
    _link_messages(home, part)
    _copy_database(home / RUNS, part / RUNS)
    _link_messages(home, part)
    for path in home.glob(f"runs/*/{OUTCOMES}"):
        _copy_database(path, part / path.relative_to(home))
    _copy_database(home / MEMBERS, part / MEMBERS)
    durably(part / MADE, json.dumps({"at": at, "hanse": __version__}).encode())
    _end(part, to)
    return at


def restore_backup(backup: Path, home: Path) -> str:
    """Copies a backup to a folder that a server can go on with; returns when the backup was made, in UTC.

    It leaves a note there, since clients may remember later rounds: see `note_restoration`.

    Raises: InvalidInput: if it is no backup, is damaged, or `home` exists.
    """
    if not (backup / MADE).exists():
        raise InvalidInput(f"{backup} is not a complete backup; name a folder that `hanse backup` made")
    made = json.loads((backup / MADE).read_text())
    part = _begin(home)
    for path in sorted(backup.iterdir()):
        if path.is_dir():
            shutil.copytree(path, part / path.name, copy_function=_copy)
        elif path.name != MADE:
            _copy(path, part / path.name)
    for path in (part / RUNS, part / MEMBERS, *part.glob(f"runs/*/{OUTCOMES}")):
        _check_database(path)
    durably(part / RESTORED, json.dumps({"backup": made["at"]}).encode())
    _end(part, home)
    return str(made["at"])


def note_restoration(home: Path, members: Members, say: Callable[[str], None] = lambda line: None) -> None:
    """Tells the operator, once, that a server's folder was restored from a backup, and what that undid."""
    path = home / RESTORED
    if path.exists():
        made = json.loads(path.read_text())["backup"]
        what = (
            f"restored from the backup of {made}: later rounds are lost, and are performed again. Clients "
            "that took part in them may remember more than this server"
        )
        for line in (what, *_describe_register(members)):
            members.note("server", line)
            say(line)
        path.rename(home / f"{RESTORED}.noted")


def _describe_register(members: Members) -> list[str]:
    """Describes who belongs to a restored server, since the backup knows nothing of what happened later."""
    active = [f"{one.id} ({one.name})" for one in members.all() if one.state == "active"]
    more = f", and {len(active) - MAX_NAMED} more (`hanse clients` lists all)" if active[MAX_NAMED:] else ""
    return [
        "active are, as in the backup, also if they have left or were revoked since: "
        f"{', '.join(active[:MAX_NAMED]) or 'nobody'}{more}. Revoke again whom you have revoked since",
        f"who has joined since is unknown; {members.open_invitations()} invitations are open, also those "
        "that were used since",
    ]


def _begin(to: Path) -> Path:
    """Makes an empty folder beside the place of a new one."""
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise InvalidInput(f"{to} exists already; name a folder that does not")
    part = to.with_name(f"{to.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True, mode=0o700)
    return part


def _end(part: Path, to: Path) -> None:
    for folder, _, _ in os.walk(part):
        os.chmod(folder, 0o700)
        sync_folder(Path(folder))
    part.replace(to)
    sync_folder(to.absolute().parent)


def _copy(source: str | Path, to: str | Path) -> str:
    """Copies a file, readable for its owner only, and waits until it has reached the disk."""
    with (
        open(source, "rb") as old,
        open(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as new,
    ):
        shutil.copyfileobj(old, new)
        new.flush()
        os.fsync(new.fileno())
    shutil.copystat(source, to)
    os.chmod(to, 0o600)
    return str(to)


def _link_messages(home: Path, part: Path) -> None:
    """Links or copies the complete messages and failed tickets of all runs that are not there yet."""
    for path in (home / "runs").glob("*/*/*"):
        to, named = part / path.relative_to(home), LINKED.get(path.parent.name)
        if named is None or not named.fullmatch(path.name) or to.exists():
            continue
        to.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # its round was counted in the meantime
            try:
                os.link(path, to)  # whole messages never change
            except FileNotFoundError:
                raise
            except OSError:
                _copy(path, to)


def _copy_database(source: Path, to: Path) -> None:
    """Copies a database as it is at one moment, whatever is written to it meanwhile."""
    if not source.exists():
        return
    to.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(to)) as new:
        old.backup(new)
    os.chmod(to, 0o600)
    _check_database(to)
    with open(to, "rb") as file:
        os.fsync(file.fileno())


def _check_database(path: Path) -> None:
    """Checks that a database is whole. Raises: InvalidInput."""
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(path)) as database:
            found = database.execute("PRAGMA integrity_check").fetchone()[0]
    except sqlite3.DatabaseError as error:
        found = str(error)
    if found != "ok":
        raise InvalidInput(f"{path.name} of the backup is damaged ({found}); take another backup")
