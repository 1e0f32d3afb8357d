"""What every algorithm owes, whatever it computes: the same bits on every runtime and after every cut."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cases import ALGORITHMS, CASES, Case
from support import Crash, Few, Fragile, converse, simulate

import hanse.algorithms
from hanse.core.exchange import ReplayError, digest

HERE = Path(__file__).parent

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def finish(case: Case, store: Any = None) -> str:
    return digest(simulate(case.algorithm, case.rounds, case.devices, store))


@every_case
def test_both_runtimes_end_in_the_same_bits(case: Case) -> None:
    assert digest(converse(case.algorithm, case.rounds, case.devices)) == finish(case)


@every_case
def test_journaling_changes_nothing(case: Case) -> None:
    assert finish(case, Fragile()) == finish(case)


def crash(case: Case, at: int, *, before: bool) -> Fragile:
    store = Fragile(at, before=before)
    with pytest.raises(Crash):
        simulate(case.algorithm, case.rounds, case.devices, store)
    return Fragile.load(store.dump())


def num_writes(case: Case) -> int:
    store = Fragile()
    finish(case, store)
    return store.num_writes


@every_case
@pytest.mark.parametrize("before", [True, False], ids=["unwritten", "written"])
def test_every_cut_replays_to_the_same_bits(case: Case, before: bool) -> None:
    undisturbed = finish(case)
    for at in range(1, num_writes(case) + 1):
        assert finish(case, crash(case, at, before=before)) == undisturbed, f"cut at write {at}"


@every_case
def test_a_cut_replays_on_the_runtime_of_tasks(case: Case) -> None:
    undisturbed = finish(case)
    for at in range(1, num_writes(case) + 1, 3):
        store = crash(case, at, before=False)
        assert digest(converse(case.algorithm, case.rounds, case.devices, store)) == undisturbed


def test_every_cut_replays_under_another_hash_seed(tmp_path: Path) -> None:
    for name, case in CASES.items():
        for at in range(1, num_writes(case) + 1):
            (tmp_path / f"{name}.{at}").write_bytes(crash(case, at, before=False).dump())
    child = subprocess.run(
        [sys.executable, HERE / "replay.py", tmp_path],
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        capture_output=True,
        text=True,
        check=True,
    )
    ended = dict(line.split() for line in child.stdout.splitlines())
    assert len(ended) == sum(map(num_writes, CASES.values()))
    assert ended == {file: finish(CASES[file.split(".")[0]]) for file in ended}


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
