"""What every algorithm owes, whatever it computes: the same bits on every runtime and after every cut."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cases import ALGORITHMS, CASES, Case
from support import Crash, Few, Fragile, converse, simulate

import hanse.algorithms
from hanse.core.exchange import ReplayError, digest

HERE = Path(__file__).parent

NUM_PARTS = 4
"""Of the cases: each part is replayed in a process of its own."""

every_case = pytest.mark.parametrize("name", CASES)


def finish(name: str, disk: bytes | None = None) -> str:
    """The digest of the state in which a case ends, from its beginning or from what a cut has left."""
    case, store = CASES[name], None if disk is None else Fragile.load(disk)
    return digest(simulate(case.algorithm, case.rounds, case.devices, store))


class Filmed(Fragile):
    """Keeps a copy of the disk as it was at first and after each write: all that a cut can leave there."""

    def __init__(self) -> None:
        super().__init__()
        self.disks = [self.dump()]

    def _write(self, write: Callable[[], None]) -> None:
        super()._write(write)
        self.disks.append(self.dump())


@cache
def undisturbed(name: str) -> str:
    return finish(name)


@cache
def cut(name: str) -> list[bytes]:
    """The disks that cuts at each write of a case leave; the first is empty, the last was not cut."""
    case, store = CASES[name], Filmed()
    assert digest(simulate(case.algorithm, case.rounds, case.devices, store)) == undisturbed(name)
    return store.disks


@every_case
def test_both_runtimes_end_in_the_same_bits(name: str) -> None:
    case = CASES[name]
    assert digest(converse(case.algorithm, case.rounds, case.devices)) == undisturbed(name)


def crash(case: Case, at: int, *, before: bool) -> Fragile:
    store = Fragile(at, before=before)
    with pytest.raises(Crash):
        simulate(case.algorithm, case.rounds, case.devices, store)
    return Fragile.load(store.dump())


def test_a_crash_leaves_the_disk_of_the_last_write() -> None:
    """So one run shows what all cuts leave."""
    disks = cut("scaffold")
    for at in range(1, len(disks)):
        left = [crash(CASES["scaffold"], at, before=before).dump() for before in (True, False)]
        assert left == disks[at - 1 : at + 1], f"cut at write {at}"


@every_case
def test_a_cut_replays_on_the_runtime_of_tasks(name: str) -> None:
    case = CASES[name]
    for disk in cut(name)[1::3]:
        ended = converse(case.algorithm, case.rounds, case.devices, Fragile.load(disk))
        assert digest(ended) == undisturbed(name)


@pytest.mark.parametrize("part", range(NUM_PARTS))
def test_every_cut_replays_to_the_same_bits(part: int, tmp_path: Path) -> None:
    """In another process, where hashes have another seed. Journaling changes nothing either."""
    names = list(CASES)[part::NUM_PARTS]
    for name in names:
        assert len(cut(name)) > CASES[name].rounds + 1  # what was there at first, and at least each round
        for at, disk in enumerate(cut(name)):
            (tmp_path / f"{name}.{at}").write_bytes(disk)
    child = subprocess.run(
        [sys.executable, HERE / "replay.py", tmp_path],
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        capture_output=True,
        text=True,
    )
    assert child.returncode == 0, child.stderr
    ended = dict(line.split() for line in child.stdout.splitlines())
    assert ended == {f"{name}.{at}": undisturbed(name) for name in names for at in range(len(cut(name)))}


@pytest.mark.parametrize("case", [pytest.param(c, id=n) for n, c in CASES.items() if c.impatient])
def test_an_abandoned_round_is_recorded_and_the_run_goes_on(case: Case) -> None:
    records: list[Any] = []
    store = Fragile()
    state = simulate(case.impatient, 6, case.unreliable, store, watch=records.append)
    abandoned = [r.abandoned is not None for r in records]
    assert 0 < sum(abandoned) < 6
    assert digest(converse(case.impatient, 6, case.unreliable)) == digest(state)


def test_a_journal_of_another_program_is_refused() -> None:
    case = CASES["fed_avg"]
    store = crash(case, 2, before=False)
    with pytest.raises(ReplayError, match="differs from what the journal holds"):
        simulate(CASES["scaffold"].algorithm, case.rounds, case.devices, store)


def test_cases_cover_all_algorithms() -> None:
    ours = {algorithm.__name__ for algorithm in ALGORITHMS}
    tested = {type(case.algorithm).__name__ for case in CASES.values()}
    assert ours - tested <= {"gossip"}  # peers have their own contract: test_gossip.py
    assert tested - {"private_avg", "secure_avg", "asks_twice"} <= set(hanse.algorithms.__all__)
    assert Few().num_clients > 4
