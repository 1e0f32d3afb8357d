"""The tickets that failed or were refused lately, kept so that somebody can find out why."""

import os
import shutil
from pathlib import Path

from hanse.core import PartyId
from hanse.core.exchange import Payload, Task, pack, unpack

__all__ = ["FailedTickets"]

MAX_PAYLOADS = 4
"""The number of payloads that are kept. Each is as large as a model, so older ones are removed."""


class FailedTickets:
    """Tickets by round and member, in a folder: ROUND-TICKET-PARTY.case, and their payloads by SHA-256."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, round: int, task: Task, payload: Path) -> None:
        """Keeps a ticket and the payload of its cohort, which is a file named by its SHA-256."""
        self._folder.mkdir(parents=True, exist_ok=True)
        here = self._folder / f"{payload.name}.payload"
        if not here.exists():
            try:
                os.link(payload, here)  # needs no second copy
            except OSError:
                shutil.copyfile(payload, here)
        path = self._folder / f"{round}-{task.ticket}-{task.party}.case"
        path.write_bytes(pack((task, payload.name)))
        self._forget()

    def _forget(self) -> None:
        needed: dict[str, None] = {}
        for path in sorted(self._paths(), key=lambda path: -_numbers(path)[1]):
            _, sha256 = unpack(path.read_bytes())
            if sha256 in needed or len(needed) < MAX_PAYLOADS:
                needed[sha256] = None
            else:
                path.unlink()
        for path in self._folder.glob("*.payload"):
            if path.stem not in needed:
                path.unlink()

    def _paths(self) -> list[Path]:
        return list(self._folder.glob("*.case"))

    def kept(self) -> list[tuple[int, PartyId]]:
        """Returns the rounds and members that have kept tickets."""
        found = {(_numbers(path)[0], _numbers(path)[2]) for path in self._paths()}
        return sorted(found, key=lambda one: (one[0], isinstance(one[1], str), one[1]))

    def find(self, round: int, client: PartyId) -> list[tuple[Task, Payload]]:
        """Returns a client's tickets of a round and their payloads, in order; empty: none is kept."""
        mine = [path for path in self._paths() if _numbers(path)[::2] == (round, client)]
        found = []
        for path in sorted(mine, key=lambda path: _numbers(path)[1]):
            task, sha256 = unpack(path.read_bytes())
            found.append((task, unpack((self._folder / f"{sha256}.payload").read_bytes(), Payload)))
        return found


def _numbers(path: Path) -> tuple[int, int, PartyId]:
    """Returns round, ticket and party of a file. A party's name may have hyphens; it begins with a letter."""
    round, ticket, party = path.stem.split("-", 2)
    return int(round), int(ticket), int(party) if party.isdecimal() else party
