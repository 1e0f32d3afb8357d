"""A round of many exchanges at the server: what it keeps stays as small as after the first."""

from pathlib import Path

import pytest
from played import KEY, PlayedServer

from hanse.core import Close
from hanse.core.exchange import Collect, Commit, Sample, digest, pack, unpack
from hanse.network.server.records import Outcome


@pytest.fixture
def server(tmp_path: Path) -> PlayedServer:
    return PlayedServer(tmp_path)


def test_files_and_entries_of_a_long_round_stay_as_few_and_as_small(server: PlayedServer) -> None:
    sizes = []
    for step in range(30):
        (ticket,) = server.dispatch(step % 3, step=step)
        sent = len(pack(server.runtime.changes()))
        server.answer(ticket)
        assert server.files() == 2  # the payload and the message of the open ticket
        assert server.runtime.perform(Collect((ticket,))).counted == (ticket,)  # type: ignore[attr-defined]
        sizes.append((sent, len(pack(server.runtime.changes()))))
    assert all(abs(last - early) < 50 for early, last in zip(sizes[9], sizes[-1], strict=True))
    assert sizes[-1][1] < 1100
    state = server.runtime.snapshot().coordinator
    assert (state.tickets, state.dispatches, len(state.closed)) == ({}, {}, 30)


def test_offers_of_an_attempt_are_withdrawn_when_it_is_made_again(server: PlayedServer) -> None:
    (failing,) = server.dispatch(0)
    other, answered = server.dispatch(1, 2, step=1)
    server.answer(answered)
    server.mailbox.fail(failing, "it failed")
    assert server.runtime.perform(Collect((failing,))).abandoned  # type: ignore[attr-defined]
    server.runtime.perform(Commit(1, None, {}, "too few", again=True))
    assert [server.mailbox.offers(party) for party in range(3)] == [[], [], []]
    assert server.mailbox.count_offers()["orders"] == 0
    assert server.mailbox.news(1) == {other: Outcome(False, "not counted", 1)}
    server.runtime.perform(Sample(KEY, count=0))
    assert server.files() == 0


def test_clients_hear_that_they_counted_in_a_round_that_could_not_be_measured(server: PlayedServer) -> None:
    (counted,) = server.dispatch(0)
    server.answer(counted)
    server.runtime.perform(Collect((counted,)))
    server.runtime.perform(Commit(1, None, {}, "evaluation: too few"))
    assert server.mailbox.news(0) == {counted: Outcome(True, party=0, member="")}


def test_a_payload_goes_with_the_last_ticket_that_needs_it(server: PlayedServer) -> None:
    first, second = server.dispatch(0, 1)
    server.answer(first)
    server.runtime.perform(Collect(None, Close(goal=1)))
    payload = server.mailbox.offer(1, second).payload
    server.runtime.perform(Sample(KEY, count=0))
    assert server.objects.path(payload).exists()
    server.answer(second)
    server.runtime.perform(Collect((second,)))
    server.runtime.perform(Sample(KEY, count=0))
    assert not server.objects.path(payload).exists()


def test_a_server_goes_on_from_the_changes_of_a_cut_round(server: PlayedServer, tmp_path: Path) -> None:
    """Over-selection, offers and outcomes too."""
    runtime, changes = server.runtime, []
    runtime.perform(Sample(KEY, fraction=0.6))
    (old,) = server.dispatch(2)
    server.answer(old)
    runtime.perform(Collect((old,)))
    runtime.perform(Commit(1, None, {}))
    saved = pack(runtime.snapshot())
    cohort = runtime.perform(Sample(KEY.fold_in(1), fraction=0.6)).cohort  # type: ignore[attr-defined]
    changes.append(pack(runtime.changes()))
    tickets = server.send(cohort, step=1)
    changes.append(pack(runtime.changes()))
    runtime.perform(Sample(KEY, count=0))
    changes.append(pack(runtime.changes()))
    assert len(changes[2]) < len(changes[1])
    wanted = runtime.snapshot()
    assert (wanted.over_selection, wanted.wanted) == (None, {tickets[0]: 2})

    again = PlayedServer(tmp_path)
    again.runtime.restore(unpack(saved), [unpack(each) for each in changes])
    assert digest(again.runtime.snapshot()) == digest(wanted)
    assert again.mailbox.news(2) == {old: Outcome(True, party=2, member="")}
    assert [again.mailbox.offer(n, t).ticket for n, t in zip(cohort, tickets, strict=True)] == [*tickets]
    for ticket in tickets[:2]:
        again.answer(ticket)
    got = again.runtime.perform(Collect(tickets))
    assert got.counted == tickets[:2]  # type: ignore[attr-defined]
    assert again.runtime.snapshot().wanted == {}


def test_a_server_that_has_no_checkpoint_goes_on_from_changes_alone(
    server: PlayedServer, tmp_path: Path
) -> None:
    (ticket,) = server.dispatch(1)
    changes = [unpack(pack(server.runtime.changes()))]
    again = PlayedServer(tmp_path)
    again.runtime.restore(None, changes)
    assert digest(again.runtime.snapshot()) == digest(server.runtime.snapshot())
    assert again.mailbox.offer(1, ticket).ticket == ticket
