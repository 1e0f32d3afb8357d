"""A ticket that the coordinator has closed is on offer no longer, whatever closed it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from played import KEY, PlayedServer, W, asked_at_length

from hanse.core import Close, PartSpec, Spec, Total, value
from hanse.core import sum as sum_
from hanse.core.exchange import Collect, Commit, Decode, Dispatch
from hanse.network.protocol.errors import Refused


@value
class hidden(sum_):
    """Hides the messages of single clients."""

    hides = True


@pytest.fixture
def server(tmp_path: Path) -> PlayedServer:
    return PlayedServer(tmp_path)


def offered(server: PlayedServer, party: int) -> list[int]:
    return [offer.ticket for offer in server.mailbox.offers(party)]


def collect(server: PlayedServer, tickets: tuple[int, ...], minimum_fraction: float = 0.5) -> Any:
    return server.runtime.perform(Collect(tickets, Close(minimum_fraction=minimum_fraction)))


def test_what_was_built_on_a_dropped_ticket(server: PlayedServer) -> None:
    first, second = server.dispatch(0, 1), server.dispatch(0, 1, step=1)
    server.mailbox.fail(first[0], "it failed")
    server.answer(first[1])
    got = collect(server, first)
    assert [drop.ticket for drop in got.dropped] == [first[0], second[0]]
    assert (offered(server, 0), offered(server, 1)) == ([], [second[1]])
    with pytest.raises(Refused, match=f"ticket {second[0]} is closed"):
        server.mailbox.offer(0, second[0])


def test_what_was_built_on_a_ticket_of_an_abandoned_exchange(server: PlayedServer) -> None:
    first = server.dispatch(0, 1)
    server.dispatch(0, 1, step=1)
    server.mailbox.fail(first[0], "it failed")
    server.answer(first[1])
    assert collect(server, first, minimum_fraction=1.0).abandoned
    assert [offered(server, party) for party in (0, 1)] == [[], []]


@pytest.mark.parametrize("again", [False, True])
def test_what_was_built_on_a_ticket_of_an_abandoned_round(again: bool, server: PlayedServer) -> None:
    first, second = server.dispatch(0, 1), server.dispatch(0, 1, step=1)
    for ticket in first:
        server.answer(ticket)
    assert collect(server, first).counted == first
    assert offered(server, 0) == [second[0]]
    server.runtime.perform(Commit(1, None, {}, "it was abandoned", again=again))
    assert [offered(server, party) for party in (0, 1)] == [[], []]
    outcomes = [server.mailbox.news(party) for party in (0, 1)]
    assert [sorted(own) for own in outcomes] == [[first[0], second[0]], [first[1], second[1]]]
    assert not any(outcome.counted for own in outcomes for outcome in own.values())
    (third,) = server.dispatch(0, step=2)
    assert offered(server, 0) == [third]


def test_what_was_built_on_a_ticket_of_a_party_that_fell_silent(server: PlayedServer) -> None:
    uplink = {"u": PartSpec(Spec.of(W), into=hidden())}
    shared = {"params": W}
    first = server.runtime.perform(Dispatch(asked_at_length(), (0, 1), shared, uplink, KEY)).tickets  # type: ignore[attr-defined]
    for ticket in first:
        server.answer(ticket, None)
    got: Any = server.runtime.perform(Collect(first))
    assert got.counted == first
    second = server.dispatch(0, 1, step=1)
    total = Total({"w": np.zeros(3000)}, 1.0, 1)
    server.runtime.perform(Decode(first[0], "u", total, dropped=(first[0],)))
    assert (offered(server, 0), offered(server, 1)) == ([], [second[1]])
