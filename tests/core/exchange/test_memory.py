"""The memory of many parties: recalled when needed, forked for each ticket, bounded if kept elsewhere."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pytest

from hanse.core import Key, Memory, PartyId, own_test
from hanse.core.exchange import Fork, Forks, PartyMemory, Task, memory, pack

KEY = Key.from_seed(0)


class Kept(NamedTuple):
    """Forks and promises, as runtimes keep them."""

    forks: Mapping[PartyId, Mapping[int, Fork]]
    promises: Mapping[PartyId, Memory]


def task(ticket: int, party: Any = 0, after: int | None = None) -> Task:
    return Task(ticket, party, KEY, after)


def fork(after: int | None = None, **changed: Any) -> Fork:
    return Fork(after, changed, ())


def test_tickets_continue_each_other_and_only_counted_ones_last() -> None:
    kept = PartyMemory()
    kept.keep(task(1), fork(n=1))
    kept.keep(task(2, after=1), fork(1, m=2))
    assert kept.at(task(2, after=1)) == {"n": 1}
    assert kept.at(task(3, after=2)) == {"n": 1, "m": 2}
    assert kept.at(task(4)) == kept.at(task(1, party="server")) == {}
    assert kept.settle({0: ((1,), (2,)), 1: ((), (7,))}) == {0: {"n": 1}}
    assert kept.at(task(4)) == {"n": 1}
    assert kept.settle({0: ((), ())}) == {}


def test_forks_of_unsettled_tickets_are_saved_and_restored() -> None:
    kept, again = PartyMemory(), PartyMemory(lambda party: {"n": party})
    kept.keep(task(1, 5), fork(n=1))
    kept.keep(task(2, 6), fork())  # changes nothing
    saved = Kept(*kept.snapshot({1: 5, 2: 6, 3: 7}))
    assert saved == Kept({5: {1: fork(n=1)}}, {})
    again.restore([saved])
    assert again.at(task(9, 5, after=1)) == {"n": 1}
    assert again.at(task(9, 5)) == {"n": 5}


def test_a_party_is_recalled_once_until_others_need_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    disk: dict[Any, Any] = {party: {"w": np.zeros(100)} for party in range(3)}
    monkeypatch.setattr(memory, "KEPT_BYTES", 2000)

    def recall(party: Any) -> Any:
        asked.append(party)
        return disk[party]

    kept = PartyMemory(recall)
    for ticket, party in enumerate((0, 1, 0, 2, 0, 1)):
        kept.at(task(ticket, party))
        kept.keep(task(ticket, party), fork(w=np.full(100, ticket)))
        disk |= kept.settle({party: ((ticket,), ())})
    assert asked == [0, 1, 2, 1]  # the one heard longest ago had to go
    assert [disk[party]["w"][0] for party in range(3)] == [4, 5, 3]


def test_a_test_role_reads_what_its_client_has_committed_and_changes_nothing_of_it() -> None:
    kept, test = PartyMemory(), own_test(0)
    kept.keep(task(1), Fork(None, {"head": 1, "~secret": 2, "stages/up": 3, "held/params": 4}, ()))
    assert kept.at(task(2, test)) == {}, "nothing is committed yet"
    kept.settle({0: ((1,), ())})
    kept.keep(task(3), fork(head=5))
    assert kept.at(task(4, test)) == {"head": 1}
    kept.keep(task(4, test), Fork(None, {"head": 6, "new": 7, "stages/up": 8, "~secret": 9}, ("gone",)))
    assert kept.at(task(5, test, after=4)) == {"head": 1, "stages/up": 8, "~secret": 9}
    kept.keep(task(5, test, after=4), Fork(4, {}, ("head", "stages/up")))
    assert kept.at(task(6, test, after=5)) == {"head": 1, "~secret": 9}
    assert kept.settle({0: ((), (3,)), test: ((4,), (5,))}) == {test: {"stages/up": 8}}
    assert kept.at(task(7, test)) == {"head": 1, "stages/up": 8}
    assert kept.at(task(8)) == {"head": 1, "stages/up": 3, "held/params": 4}
    assert kept.at(task(9, own_test(1))) == {}


def test_an_earlier_version_kept_something_for_a_test_role(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not read any more: a client's own value is."""
    kept = PartyMemory(lambda party: {"head": 1} if party == 0 else {"head": 2, "stages/up": 3})
    assert kept.at(task(1, own_test(0))) == {"head": 1, "stages/up": 3}


def test_what_was_recalled_for_test_roles_makes_room_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "KEPT_BYTES", 2000)
    kept = PartyMemory(lambda party: {"w": np.zeros(100)} if isinstance(party, int) else {})
    for number in range(20):
        assert kept.at(task(number, own_test(number)))["w"].shape == (100,)
        kept.keep(task(number, own_test(number)), fork())
        kept.settle({own_test(number): ((number,), ())})
    assert len(kept._forks) == 2


def test_a_long_chain_of_tickets_is_followed_once_and_stays_true() -> None:
    kept, last = PartyMemory(), None
    for ticket in range(3000):  # more than Python lets functions call each other
        before = kept.at(task(ticket, after=last))
        assert before.get("n") == last
        kept.keep(task(ticket, after=last), fork(last, n=ticket))
        last = ticket
    kept.keep(task(2998, after=2997), fork(2997, m="computed again"))
    assert kept.at(task(3000, after=2999)) == {"n": 2999, "m": "computed again"}
    again = PartyMemory()
    again.restore([Kept(*kept.snapshot(dict.fromkeys(range(3000), 0)))])
    assert again.at(task(3000, after=2999)) == {"n": 2999, "m": "computed again"}


def test_a_memory_that_was_asked_for_is_not_that_of_a_fork_that_was_dropped() -> None:
    forks = Forks({"n": 0})
    forks.keep(1, fork(n=1))
    forks.keep(2, fork(1, m=2))
    assert forks.at(2) == {"n": 1, "m": 2}
    assert (forks.drop(1), forks.drop(1)) == (True, False)
    assert forks.at(2) == {"n": 0, "m": 2}
    assert forks.at(2) == {"n": 0, "m": 2}
    forks.settle([2], [])
    assert forks.at(2) == {"n": 0, "m": 2}


def test_what_promises_add_to_a_journal_stays_as_small_as_at_first() -> None:
    kept, last, sizes, entries = PartyMemory(), None, list[int](), list[Kept]()
    for ticket in range(50):
        kept.keep(task(ticket, after=last), Fork(last, {f"!q{ticket}": np.full(100, ticket)}, ()))
        entries.append(Kept(*kept.changes({ticket: 0})))
        sizes.append(len(pack(entries[-1].promises)))
        last = ticket
    assert max(sizes) - min(sizes) < 20
    assert [[*entry.promises[0]] for entry in entries[:2]] == [["!q0"], ["!q1"]]
    assert kept.changes({}) == ({}, {})
    again, snapshot = PartyMemory(), Kept(*kept.snapshot({}))
    assert len(snapshot.promises[0]) == 50
    again.restore([Kept({}, {}), *entries])
    assert again.at(task(50, after=49)).keys() == snapshot.promises[0].keys()
    assert again.changes({}) == ({}, {}), "what was restored is in the journal already"
    assert again.snapshot({})[1].keys() == {0}


def test_a_promise_that_has_ended_is_in_no_later_entry() -> None:
    kept = PartyMemory()
    kept.keep(task(1), Fork(None, {"!asked": 1}, ()))
    assert kept.settle({0: ((1,), ())}) == {}
    assert kept.changes({}) == kept.snapshot({}) == ({}, {})


def test_a_promise_is_journaled_when_it_is_made_whatever_becomes_of_its_ticket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its ticket may be open for a while; it holds nonetheless, also if others need the room."""
    monkeypatch.setattr(memory, "KEPT_BYTES", 0)
    kept, again = PartyMemory(), PartyMemory(lambda party: {"w": np.zeros(1)})
    kept.keep(task(1), Fork(None, {"!asked": 1}, ()))
    again.restore([Kept(*kept.changes({}))])
    again.keep(task(2, 1), fork(n=1))
    again.settle({1: ((2,), ())})
    assert again.snapshot({})[1] == {0: {"!asked": 1}}
    assert again.at(task(3))["!asked"] == 1
