from typing import Any

import numpy as np
import pytest

from hanse.core.exchange.downlink import Broadcast
from hanse.core.exchange.party import Payload
from hanse.core.exchange.tickets import DispatchRecord, TicketBook
from hanse.core.keys import Key
from hanse.core.program import Drop, PartSpec
from hanse.core.spec import Spec
from hanse.core.values import pack, value
from hanse.core.work import Work

KEY = Key.from_seed(1)
CHANNELS = {"u": PartSpec(Spec.of({"w": np.zeros(2)}))}


@value
class asked_from_the_book(Work):
    def run(self, learner: Any, shared: Any, data: Any, memory: Any, keys: Any) -> Any:
        raise AssertionError("a book computes nothing")


def record(*editions: Any, **holds: int) -> DispatchRecord:
    return DispatchRecord(Payload(asked_from_the_book(), {}, CHANNELS, {"u": ()}), KEY, 0, editions, holds)


def booked(book: TicketBook, *cohort: Any, bytes_down: int = 0, **holds: int) -> list[int]:
    number = book.record(record(**holds))
    tasks = book.issue(cohort, KEY)
    for task in tasks:
        book.book(task, number, bytes_down, None)
    return [task.ticket for task in tasks]


def nothing_heard(ticket: int) -> int:
    return 0


@pytest.fixture
def book() -> TicketBook:
    return TicketBook(10, {}, {})


def test_tickets_and_dispatches_share_one_sequence_of_numbers(book: TicketBook) -> None:
    assert booked(book, 1, 2) == [10, 11]
    assert booked(book) == []
    assert booked(book, 3) == [13]  # 12 is the number of the dispatch to nobody
    assert list(book.dispatches) == [10, 12, 13]
    assert book.next_number == 14


def test_a_cohort_is_drawn_among_those_who_are_free_and_here(book: TicketBook) -> None:
    booked(book, 0, 3, "server")
    for i in range(100):
        assert sorted(book.draw(KEY.fold_in(i), 9, 6, {5})) == [1, 2, 4]
        assert len(book.draw(KEY.fold_in(i), 2, 6, {5})) == 2


def test_a_chain_leads_on_from_the_last_ticket_that_was_not_dropped(book: TicketBook) -> None:
    first, second = booked(book, 1), booked(book, 1)
    assert [book[n].task.after for n in (*first, *second)] == [None, *first]
    book.drop(dict.fromkeys(second, "late"), nothing_heard)
    (third,) = booked(book, 1)
    assert book[third].task.after == first[0]
    book.count((*first, third), nothing_heard)
    book.begin_round()
    assert book[booked(book, 1)[0]].task.after is None


def test_a_chain_goes_on_in_a_book_that_is_opened_again(book: TicketBook) -> None:
    (first,), (second,) = booked(book, 1), booked(book, 1)
    book.drop({second: "late"}, nothing_heard)
    again = TicketBook(book.next_number, book.tickets, book.dispatches)
    assert again[booked(again, 1)[0]].task.after == first


def test_a_drop_takes_along_the_open_tickets_that_were_built_on_it(book: TicketBook) -> None:
    (a,), (other,), (b,), (c,) = (booked(book, party) for party in (1, 2, 1, 1))
    drops = book.drop({a: "late"}, {a: 5, b: 7, c: 0}.__getitem__)
    assert drops == (
        Drop(a, 1, "late"),
        Drop(b, 1, f"it was built on ticket {a}, which was dropped"),
        Drop(c, 1, f"it was built on ticket {b}, which was dropped"),
    )
    assert [book.closed[n].bytes_up for n in (a, b, c)] == [5, 7, 0]
    assert book.open_numbers() == (other,)
    assert [book.is_open(n) for n in (a, other, 99)] == [False, True, False]
    assert book.drop({}, nothing_heard) == ()


def test_the_latest_dispatch_in_a_chain_says_which_version_its_party_will_hold(book: TicketBook) -> None:
    assert book.pending_version(1, "params") is None
    booked(book, 1, 2, params=3)
    (second,) = booked(book, 1, params=4)
    booked(book, 1, other=0)
    assert [book.pending_version(party, "params") for party in (1, 2, 3)] == [4, 3, None]
    book.drop({second: "late"}, nothing_heard)
    assert book.pending_version(1, "params") == 3


def test_a_payload_is_built_and_packed_once_for_each_edition(book: TicketBook) -> None:
    editions = [{"params": Broadcast((), sha256)} for sha256 in ("a", "b")]
    number = book.record(record(*editions))
    for task, edition in zip(book.issue((1, 2, 3), KEY), (0, 1, 0), strict=True):
        book.book(task, number, 0, edition)
    at = [book.edition(number + i) for i in range(3)]
    assert at == [(number, 0), (number, 1), (number, 0)]
    assert [book.payload(edition).broadcasts for edition in at] == [editions[0], editions[1], editions[0]]
    assert book.payload(at[0]) is book.payload(at[2])
    assert book.pack_payload(at[0]) is book.pack_payload(at[2])
    assert book.pack_payload(at[1]) == pack(book.payload(at[1]))
    assert book.payload((number, None)) is book.record_of(number).payload


def test_a_new_round_forgets_what_is_closed_and_what_the_rest_has_cost(book: TicketBook) -> None:
    a, b, c = booked(book, 1, 2, 3, bytes_down=100)
    (d,) = booked(book, 1, bytes_down=50)
    book.drop({c: "late"}, nothing_heard)
    book.count([a], {a: 9}.__getitem__)
    assert [(number, ticket.counted) for number, ticket in book.list_closed_tickets()] == [
        (a, True),
        (c, False),
    ]
    assert book.group_by_party() == {1: ((a,), ()), 3: ((), (c,))}
    assert (book.closed[a].bytes_up, book.closed[a].bytes_down) == (9, 100)
    book.begin_round()
    assert list(book.tickets) == [b, d]
    assert [ticket.bytes_down for ticket in book.tickets.values()] == [0, 0]
    assert list(book.dispatches) == [a, d]
    book.count([b], nothing_heard)
    assert list(book.dispatches) == [d]
    book.begin_round()
    assert book.group_by_party() == {}
