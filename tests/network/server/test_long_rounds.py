"""A round of many exchanges at the server: what it keeps stays as small as after the first."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hanse.core import Close, Key, Part, PartSpec, Spec, Work, value
from hanse.core.exchange import (
    Collect,
    Commit,
    Dispatch,
    Message,
    PartyMemory,
    Sample,
    digest,
    pack,
    unpack,
)
from hanse.network.protocol.spool import Objects, Spool, hash_chunks
from hanse.network.server.mailbox import Mailbox, Outcome
from hanse.network.server.runtime import NetworkRuntime, Patience

KEY = Key.from_seed(1)
W = {"w": np.zeros(3000)}
UPLINK = {"u": PartSpec(Spec.of(W))}


@value
class asked_at_length(Work[Any, Any]):
    def run(self, learner: Any, shared: Any, data: Any, memory: Any, keys: Any) -> Any:
        raise AssertionError("the test answers itself")


class Server:
    """A runtime on a disk, with three clients that the test plays."""

    def __init__(self, disk: Path) -> None:
        members = frozenset(range(3)), 3
        self.mailbox = Mailbox(lambda parties: None, lambda party: 0.0, lambda: members, lambda: members[0])
        self.spool, self.objects = Spool(disk / "spool"), Objects(disk / "objects")
        self.disk, patience = disk, Patience(over_select=1.5)
        self.runtime = NetworkRuntime(
            self.mailbox,
            self.spool,
            self.objects,
            Objects(disk / "own"),
            KEY,
            self.play,
            PartyMemory(),
            patience,
        )

    def play(self, role: str) -> Any:
        raise AssertionError("the server plays no role here")

    def dispatch(self, cohort: tuple[int, ...], step: int = 0) -> tuple[int, ...]:
        shared = {"params": {"w": W["w"] + step}}
        event = self.runtime.perform(Dispatch(asked_at_length(), cohort, shared, UPLINK, KEY.fold_in(step)))
        return event.tickets  # type: ignore[attr-defined, no-any-return]

    def answer(self, ticket: int) -> None:
        data = pack(Message(ticket, {"u": Part(W)}))
        name = hash_chunks([data])
        chunk = self.spool.writing(ticket, name, len(data), 0)
        chunk.write(data)
        chunk.keep(hashlib.sha256(data).digest())
        chunk.close()
        assert self.spool.finish(ticket, name, len(data))
        self.mailbox.arrive(ticket)

    def files(self) -> int:
        return sum(len(list((self.disk / folder).iterdir())) for folder in ("spool", "objects"))


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


def test_files_and_entries_of_a_long_round_stay_as_few_and_as_small(server: Server) -> None:
    sizes = []
    for step in range(30):
        (ticket,) = server.dispatch((step % 3,), step=step)
        sent = len(pack(server.runtime.changes()))
        server.answer(ticket)
        assert server.files() == 2  # the payload and the message of the open ticket
        assert server.runtime.perform(Collect((ticket,))).counted == (ticket,)  # type: ignore[attr-defined]
        sizes.append((sent, len(pack(server.runtime.changes()))))
    assert all(abs(last - early) < 50 for early, last in zip(sizes[9], sizes[-1], strict=True))
    assert sizes[-1][1] < 1000
    state = server.runtime.snapshot().coordinator
    assert (state.tickets, state.dispatches, len(state.closed)) == ({}, {}, 30)


def test_a_payload_goes_with_the_last_ticket_that_needs_it(server: Server) -> None:
    first, second = server.dispatch((0, 1,))
    server.answer(first)
    server.runtime.perform(Collect(None, Close(goal=1)))
    payload = server.mailbox.offer(1, second).payload
    server.runtime.perform(Sample(KEY, count=0))
    assert server.objects.path(payload).exists()
    server.answer(second)
    server.runtime.perform(Collect((second,)))
    server.runtime.perform(Sample(KEY, count=0))
    assert not server.objects.path(payload).exists()


def test_a_server_goes_on_from_the_changes_of_a_cut_round(server: Server, tmp_path: Path) -> None:
    """Over-selection, offers and outcomes too."""
    runtime, changes = server.runtime, []
    runtime.perform(Sample(KEY, fraction=0.6))
    (old,) = server.dispatch((2,))
    server.answer(old)
    runtime.perform(Collect((old,)))
    runtime.perform(Commit(1, None, {}))
    saved = pack(runtime.snapshot())
    cohort = runtime.perform(Sample(KEY.fold_in(1), fraction=0.6)).cohort  # type: ignore[attr-defined]
    changes.append(pack(runtime.changes()))
    tickets = server.dispatch(cohort, step=1)
    changes.append(pack(runtime.changes()))
    runtime.perform(Sample(KEY, count=0))
    changes.append(pack(runtime.changes()))
    assert len(changes[2]) < len(changes[1])
    wanted = runtime.snapshot()
    assert (wanted.over_selection, wanted.wanted) == (None, {tickets[0]: 2})

    again = Server(tmp_path)
    again.runtime.restore(unpack(saved), [unpack(each) for each in changes])
    assert digest(again.runtime.snapshot()) == digest(wanted)
    assert again.mailbox.news(2) == {old: Outcome(True)}
    assert [again.mailbox.offer(n, t).ticket for n, t in zip(cohort, tickets, strict=True)] == [*tickets]
    for ticket in tickets[:2]:
        again.answer(ticket)
    got = again.runtime.perform(Collect(tickets))
    assert got.counted == tickets[:2]  # type: ignore[attr-defined]
    assert again.runtime.snapshot().wanted == {}


def test_a_server_that_has_no_checkpoint_goes_on_from_changes_alone(server: Server, tmp_path: Path) -> None:
    (ticket,) = server.dispatch((1,))
    changes = [unpack(pack(server.runtime.changes()))]
    again = Server(tmp_path)
    again.runtime.restore(None, changes)
    assert digest(again.runtime.snapshot()) == digest(server.runtime.snapshot())
    assert again.mailbox.offer(1, ticket).ticket == ticket
