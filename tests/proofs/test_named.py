"""Parties with names are waited for, and the rounds in which one fails are attempted again."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from houses import (
    EVERYBODY,
    KEYS,
    ROUNDS,
    around,
    begin,
    lead_on,
    program,
    sha256,
    simulation,
    visit_house,
)
from support import Crash, Fragile

import hanse
from hanse.algorithms import fed_avg
from hanse.core import Close, InvalidInput, Key, PartSpec, Program, Spec, Stalled, Tensors, gather
from hanse.core.exchange import InMemory, Progress, drive, training
from hanse.runs.judgement import find_problems
from hanse.simulation import ideal, unstable
from hanse.store import Runs

FAILING = around(visit_house(fails=0.1))
"""Of five tickets in a round one is refused so often that most rounds need several attempts."""


def performed(algorithm: Any, devices: Any = ideal(), rounds: int = ROUNDS) -> tuple[Any, InMemory]:
    store = InMemory()
    return drive(lead_on(algorithm, store, rounds), simulation(store, devices), store), store


def visits(store: InMemory) -> list[int]:
    return [store.memory(party).get("visits", 0) for party in (*EVERYBODY, "server")]


# -- a member with a name is a client without a number --------------------------------------------


def test_a_member_costs_bytes_and_a_role_of_the_server_costs_none() -> None:
    _, store = performed(around(), rounds=1)
    usage = store.records[-1].usage
    assert set(usage.clients) == set(EVERYBODY)
    assert sum(up for up, _ in usage.clients.values()) == usage.bytes_up
    assert sum(down for _, down in usage.clients.values()) == usage.bytes_down
    assert usage.clients["hospital"][0] == usage.clients[0][0], "equal tables make equal messages"
    assert usage.counted == 4
    assert {flow.messages for flow in usage.flows} == {4}
    assert usage.virtual_s == 2.0, "the hospital's device takes as long as a client's"
    unnamed = InMemory()
    drive(lead_on(around(), unnamed, 1), simulation(unnamed, parties=()), unnamed)
    assert set(unnamed.records[-1].usage.clients) == {0, 1, 2}
    assert unnamed.records[-1].usage.virtual_s == 1.0


# -- absence ---------------------------------------------------------------------------------------


def test_whoever_drops_out_is_waited_for_and_changes_no_bit() -> None:
    undisturbed, calm = performed(around())
    disturbed, store = performed(around(), unstable(0.5))
    assert sha256(disturbed.state.params) == sha256(undisturbed.state.params)
    assert [record.abandoned for record in store.records] == [None] * (ROUNDS + 1)
    assert [record.usage.dropped for record in store.records] == [0] * (ROUNDS + 1)
    assert visits(store) == visits(calm) == [ROUNDS] * 5
    _, impatient = performed(around(close=Close(minimum_fraction=1.0)), unstable(0.5))
    assert any(record.abandoned for record in impatient.records), "the devices do drop out"


def test_whoever_never_comes_back_stalls_the_run_by_name() -> None:
    with pytest.raises(Stalled, match=r"'hospital' dropped out 100 times"):
        performed(around(cohorts=(("server",), ("hospital",))), unstable(1.0))


@pytest.mark.parametrize("wait_s", [0.0, -1.0, float("nan")])
def test_a_wait_is_longer_than_nothing(wait_s: float) -> None:
    with pytest.raises(InvalidInput, match=r"wait_s is .*; write seconds above 0"):
        Close(wait_s=wait_s)


# -- failure ---------------------------------------------------------------------------------------


def test_a_round_that_fails_is_attempted_again_and_counts_once() -> None:
    ended, store = performed(FAILING)
    attempts = Counter(record.round for record in store.records)
    assert attempts == {0: 1, 1: 2, 2: 1, 3: 3, 4: 1}, "or this seed shows nothing"
    last = {record.round: record for record in store.records}
    assert all(record.abandoned is None for record in last.values())
    failed = [record.abandoned for record in store.records if record.abandoned]
    assert len(failed) == 3
    assert any("0 of 1 contributions" in why for why in failed), (
        "in its second exchange, after the first closed"
    )
    assert (ended.round, ended.attempts) == (ROUNDS, 0)
    assert visits(store) == [ROUNDS] * 5, "a failed attempt leaves no trace in memory"
    assert find_problems(store.records) == ()
    calm, _ = performed(around())
    assert sha256(ended.state.params) != sha256(calm.state.params), "each attempt draws anew"


def test_attempts_are_replayed_wherever_the_run_is_cut() -> None:
    due, whole = performed(FAILING)
    for cut in range(1, 1000, 2):
        dying = Fragile(cut)
        try:
            drive(lead_on(FAILING, dying), simulation(dying), dying)
            break
        except Crash:
            store = Fragile.load(dying.dump())
        ended = drive(lead_on(FAILING, store), simulation(store), store)
        assert sha256(ended.state.params) == sha256(due.state.params), cut
        assert visits(store) == visits(whole), cut
        rounds = [*dying.records, *store.records]
        assert [record.abandoned for record in rounds] == [record.abandoned for record in whole.records], cut
    assert cut > 3 * ROUNDS


def test_a_round_that_fails_again_and_again_stalls_the_run_which_goes_on_from_there() -> None:
    hopeless, store = around(visit_house(fails=1.0)), InMemory()
    for expected in (3, 6):
        with pytest.raises(Stalled, match=r"round 1 was attempted 3 times: 0 of 4 contributions") as stalled:
            drive(lead_on(hopeless, store), simulation(store), store)
        assert "weight" in str(stalled.value)
        checkpoint = store.checkpoint()
        assert checkpoint is not None
        assert (checkpoint.state.round, checkpoint.state.attempts) == (0, expected)
        assert [record.round for record in store.records] == [0] + [1] * expected
    assert visits(store) == [0] * 5
    ended = drive(lead_on(around(), store), simulation(store), store)
    later = InMemory()
    again = Progress(0, begin(around()).state, first={"norm": 0.0}, attempts=6)
    assert sha256(ended.state.params) == sha256(
        drive(program(around(), again), simulation(later), later).state.params
    )


def test_without_a_wait_a_failed_round_is_lost_as_before() -> None:
    hasty = around(visit_house(fails=0.1), Close(minimum_fraction=1.0))
    ended, store = performed(hasty)
    assert [record.round for record in store.records] == list(range(ROUNDS + 1))
    assert any(record.abandoned for record in store.records)
    assert ended.attempts == 0
    (finding,) = find_problems(store.records)
    assert finding.code == "rounds_abandoned"


@pytest.mark.parametrize("close", [Close(wait_s=600.0), Close()], ids=["waiting", "hasty"])
def test_a_round_that_can_not_be_measured_is_kept_by_the_server_and_by_its_parties(close: Close) -> None:
    def fail(params: Tensors, key: Key) -> Program[Mapping[str, float]]:
        update = PartSpec(Spec.of(params))
        yield from gather(visit_house(fails=1.0), (0,), {"params": params}, key, close=close, update=update)
        raise AssertionError("its only answer is refused")

    store = InMemory()
    unmeasured = Progress(0, begin(around()).state, first={"norm": 0.0})
    run = training(around(), unmeasured, KEYS.public, rounds=ROUNDS, evaluate=fail)
    ended = drive(run, simulation(store), store)
    assert [record.round for record in store.records] == [1, 2, 3, 4], "it is not measured again"
    assert {str(record.abandoned)[:27] for record in store.records} == {"evaluation: 0 of 1 contribu"}
    calm, _ = performed(around())
    assert sha256(ended.state.params) == sha256(calm.state.params)
    assert visits(store) == [ROUNDS] * 5
    assert [finding.code for finding in find_problems(store.records)] == ["rounds_abandoned"]
    assert [(r.usage.counted, r.usage.dropped) for r in store.records] == [(4, 1)] * ROUNDS


def test_a_run_that_stalls_is_interrupted_and_kept(tmp_path: Any) -> None:
    patient = fed_avg(lr=0.1, fraction=1.0, close=Close(minimum_fraction=1.0, wait_s=1.0))
    with pytest.raises(Stalled, match="dropped out 100 times") as stalled:
        hanse.run(algorithm=patient, devices=unstable(1.0), rounds=2, store=tmp_path / "runs.db")
    result = stalled.value.result  # type: ignore[attr-defined]
    assert (result.status, result.rounds) == ("interrupted", 0)
    runs = Runs(tmp_path / "runs.db")
    assert [info.status for info in runs.infos()] == ["interrupted"]
    with pytest.raises(Stalled):
        hanse.resume(runs.infos()[0].run, store=tmp_path / "runs.db")
