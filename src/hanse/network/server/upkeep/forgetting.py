"""The removal of what a server keeps of a member that is gone."""

import json
import re
from pathlib import Path

from hanse.core import PartyId
from hanse.network.server.members import Member, Members
from hanse.store import Runs

__all__ = ["forget_member"]


def forget_member(members: Members, runs: Runs, home: Path, id: str) -> Member:
    """Removes name, key, events and failed tickets of a member that is gone, and returns it as it was.

    What stays: its number, when it joined, in how many rounds it was counted and the bytes that it sent, so
    that the records of runs are whole; and its share in the models, which nobody can take out.

    Raises: InvalidInput: if it is active, or `id` does not name exactly one member that is gone.
    """
    member = members.forget(id)
    for path in (home / "runs").glob(f"*/cases/*-{_as_in_a_path(member.party)}.case"):
        path.unlink(missing_ok=True)
    named = re.compile(rf"\b{re.escape(member.name)}\b")
    for info in runs.infos():
        if info.status != "running" and info.result is not None and member.name != f"client {member.number}":
            text = json.dumps(info.result, ensure_ascii=False)
            if named.search(text):
                runs.finish(info.run, info.status, json.loads(named.sub(member.id, text)))
    return member


def _as_in_a_path(party: PartyId | None) -> str:
    return "none" if party is None else str(party)
