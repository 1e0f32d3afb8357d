"""The tickets that failed or were refused lately, kept so that somebody can find out why."""

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from hanse.core import MessageError, PartyId
from hanse.core.exchange import Payload, Task, pack, unpack

__all__ = ["FailedTickets"]

MAX_PAYLOADS = 4
"""The number of payloads that are kept. Each is as large as a model, so older ones are removed."""

MAX_CASES_BYTES = 16 * 2**20
"""The most bytes of tickets that are kept, without payloads. The last one is kept even if it is larger.

A ticket may hold tensors for its party alone.
"""

BLOCK_BYTES = 4096
"""The space that the smallest file takes."""

_CASE = re.compile(r"(\d+)-(\d+)-(\d+|[A-Za-z][A-Za-z0-9_-]{0,39})\.case")
_PAYLOAD = re.compile(r"([0-9a-f]{64})\.payload")


class FailedTickets:
    """Tickets by round and member, in a folder: ROUND-TICKET-PARTY.case, and their payloads by SHA-256.

    One object at a time writes to the folder: it remembers what is kept there. Files with other names are
    left alone.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cases: dict[Path, tuple[str, int]] | None = None

    def keep(self, round: int, task: Task, payload: Path) -> None:
        """Keeps a ticket and the payload of its cohort, which is a file named by its SHA-256."""
        self._folder.mkdir(parents=True, exist_ok=True)
        cases = self._read_cases()
        here = self._folder / f"{payload.name}.payload"
        if not here.exists():
            try:
                os.link(payload, here)  # needs no second copy
            except OSError:
                shutil.copyfile(payload, here)
        path = self._folder / f"{round}-{task.ticket}-{task.party}.case"
        cases.pop(path, None)
        cases[path] = payload.name, path.write_bytes(pack((task, payload.name)))
        self._forget(cases)

    def _read_cases(self) -> dict[Path, tuple[str, int]]:
        """Returns the payload's SHA-256 and the size of each case, the oldest first. It reads them once."""
        if self._cases is None:
            self._cases = {}
            for path in sorted(self._list(_CASE), key=lambda path: _numbers(path)[1]):
                packed = path.read_bytes()
                try:
                    self._cases[path] = unpack(packed)[1], len(packed)
                except MessageError:  # the disk was full, or the server was killed
                    path.unlink()
            named = {sha256 for sha256, _ in self._cases.values()}
            for path in self._list(_PAYLOAD):
                if path.stem not in named:
                    path.unlink()
        return self._cases

    def _forget(self, cases: dict[Path, tuple[str, int]]) -> None:
        """Removes cases, so that they and their payloads take no more than they may.

        Each party's last case comes first, then the last but one of each: who fails in each round does not
        evict the only case of another.
        """
        needed, gone, num_bytes = dict[str, None](), set[str](), 0
        for path in _rank(cases):
            sha256, size = cases[path]
            num_bytes += max(size, BLOCK_BYTES)
            is_last, has_payload = not needed, sha256 in needed or len(needed) < MAX_PAYLOADS
            if is_last or (has_payload and num_bytes <= MAX_CASES_BYTES):
                needed[sha256] = None
            else:
                del cases[path]
                path.unlink(missing_ok=True)
                gone.add(sha256)
        for sha256 in gone - needed.keys():
            (self._folder / f"{sha256}.payload").unlink(missing_ok=True)

    def _list(self, named: re.Pattern[str]) -> list[Path]:
        if not self._folder.is_dir():
            return []
        return [path for path in self._folder.iterdir() if named.fullmatch(path.name)]

    def find_foreign(self) -> list[Path]:
        """Returns the files and folders here that hold neither a ticket nor a payload."""
        return sorted(
            {*self._list(re.compile(".*", re.DOTALL))} - {*self._list(_CASE), *self._list(_PAYLOAD)}
        )

    def forget(self, party: PartyId, since_s: float, until_s: float) -> None:
        """Removes the tickets of a party that were kept between two times, by the clock on the wall.

        A party may have been played by others before and afterwards, and their tickets stay.
        """
        for path in self._list(_CASE):
            if _numbers(path)[2] == party and since_s <= path.stat().st_mtime < until_s:
                path.unlink(missing_ok=True)

    def kept(self) -> list[tuple[int, PartyId]]:
        """Returns the rounds and members that have kept tickets."""
        found = {(_numbers(path)[0], _numbers(path)[2]) for path in self._list(_CASE)}
        return sorted(found, key=lambda one: (one[0], isinstance(one[1], str), one[1]))

    def find(self, round: int, client: PartyId) -> list[tuple[Task, Payload]]:
        """Returns a client's tickets of a round and their payloads, in order; empty: none is kept."""
        mine = [path for path in self._list(_CASE) if _numbers(path)[::2] == (round, client)]
        found = []
        for path in sorted(mine, key=lambda path: _numbers(path)[1]):
            task, sha256 = unpack(path.read_bytes())
            found.append((task, unpack((self._folder / f"{sha256}.payload").read_bytes(), Payload)))
        return found


def _rank(paths: Iterable[Path]) -> list[Path]:
    """Orders cases, given oldest first, by how many newer ones their party has, then the newest first."""
    newer, ranked = Counter[PartyId](), list[tuple[int, int, Path]]()
    for age, path in enumerate(reversed(list(paths))):
        party = _numbers(path)[2]
        ranked.append((newer[party], age, path))
        newer[party] += 1
    return [path for _, _, path in sorted(ranked)]


def _numbers(path: Path) -> tuple[int, int, PartyId]:
    """Returns round, ticket and party of a file. A party's name may have hyphens; it begins with a letter."""
    round, ticket, party = path.stem.split("-", 2)
    return int(round), int(ticket), int(party) if party.isdecimal() else party
