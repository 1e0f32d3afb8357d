"""The removal of what a server keeps of a member that is gone."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hanse.network.server.failed_tickets import FailedTickets
from hanse.network.server.members import Member, Members
from hanse.network.server.records import find_name
from hanse.store import Runs

__all__ = ["forget_member"]


def forget_member(members: Members, runs: Runs, home: Path, id: str) -> Member:
    """Removes name, key, events and failed tickets of a member that is gone, and returns it as it was.

    The register comes last: if something fails before, the command can be given again.

    What stays: its number, when it joined, in how many rounds it was counted and the bytes that it sent, so
    that the records of runs are whole; and its share in the models, which nobody can take out.

    Raises: InvalidInput: if it is active, or `id` does not name exactly one member that is gone.
    """
    member, until_s = members.find_gone(id)
    if member.party is not None:
        for folder in (home / "runs").glob("*/cases"):
            FailedTickets(folder).forget(member.party, member.joined, until_s)
    named = find_name(member.name)
    if named is not None:
        for info in runs.infos():
            if info.status != "running" and info.result is not None:
                told = _rewrite(info.result, lambda text: named.sub(member.id, text))
                if told != info.result:
                    runs.finish(info.run, info.status, told)
    return members.forget(member.id)


def _rewrite(found: Any, change: Callable[[str], str]) -> Any:
    """Changes the sentences in a result: strings with spaces, that are no keys."""
    if isinstance(found, str):
        return change(found) if re.search(r"\s", found) else found
    if isinstance(found, dict):
        return {key: _rewrite(value, change) for key, value in found.items()}
    if isinstance(found, list):
        return [_rewrite(value, change) for value in found]
    return found
