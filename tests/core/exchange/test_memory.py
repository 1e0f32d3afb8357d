"""The memory of many parties: recalled when needed, forked for each ticket, bounded if kept elsewhere."""

from typing import Any

import numpy as np
import pytest

from hanse.core import Key, own_test
from hanse.core.exchange import Fork, Forks, PartyMemory, Task, memory

KEY = Key.from_seed(0)


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
    saved = kept.forks({1: 5, 2: 6, 3: 7})
    assert saved == {5: {1: fork(n=1)}}
    again.restore(saved)
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
    again.restore(kept.forks(dict.fromkeys(range(3000), 0)))
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
