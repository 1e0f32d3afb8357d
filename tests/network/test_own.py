"""Tensors for one client alone, over the network: nobody else can read them, and the bits are the same."""

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation import NUM_CLIENTS, Federation, federation, job, simulated
from secure import asks_twice, secure_avg, shared_sum
from test_kill import free_port

from hanse.core import (
    Algorithm,
    Key,
    ModelState,
    Part,
    PartSpec,
    Program,
    Spec,
    TensorSpec,
    Work,
    dispatch,
    each,
    gather,
    layout,
    sample,
    value,
)
from hanse.core.exchange import Task, unpack
from hanse.network.client.client import Client
from hanse.network.client.transport import ServerLink
from hanse.network.protocol.errors import Refused
from hanse.network.protocol.wire import News, Poll, WorkOrder
from hanse.network.server.records import Outcome

SHARED_AVG = secure_avg(lr=0.5, into=shared_sum())


def test_a_sum_by_private_messages_ends_in_the_bits_of_the_simulation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "MAPPED_BYTES", 1024)  # as if they were large
    with federation(tmp_path) as here:
        run = here.lead(job(SHARED_AVG, 1))
        here.enter([0], kind=Client)  # it computes in a child process
        here.enter(range(1, NUM_CLIENTS))
        ended = here.ended(run)
        assert [r.abandoned for r in here.records] == [None] * 2
        assert here.records[1].usage.counted == NUM_CLIENTS
        left = list((here.folder / "server" / "runs" / run / "own").iterdir())
        assert left == [], "the server keeps no private message that was answered"
    monkeypatch.undo()
    assert ended.params_sha256 == simulated(SHARED_AVG, 1)


def test_a_second_question_is_declined_after_the_first_ones_tickets_were_dropped(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        run = here.lead(job(asks_twice(), 1))
        here.enter()
        ended = here.ended(run, status="incomplete")
        assert (
            here.events().count("declined: its work declines, for example because of a promise (promise)")
            >= 1
        )
        assert [r.abandoned for r in here.records] == [None] * 2
    assert ended.params_sha256 == simulated(asks_twice(), 1)


@value
class opens_mail(Work[Any, Any]):
    """Emits what it was sent alone."""

    def run(self, learner: Any, shared: Any, data: Any, memory: Any, keys: Any) -> Any:
        return {"read": Part(shared["mail"])}, memory


@value
class writes_mail(Algorithm[ModelState]):
    """Writes to each client, and adds up nothing."""

    def init(self, params: Any, key: Key) -> ModelState:
        return ModelState(params)

    def round(self, state: ModelState, key: Key) -> Program[ModelState]:
        cohort = (yield from sample(key, fraction=1.0)).cohort
        own = {k: {"mail": {"x": np.full(3, k)}} for k in cohort}
        read = PartSpec(Spec({"x": TensorSpec((3,), "int64")}), into=each())
        yield from gather(opens_mail(), cohort, {}, key, own=own, read=read)
        return state


def kept_tasks(here: Federation) -> list[Path]:
    """Returns the files of private messages that clients and the server have kept."""
    at_server = [path for path in here.folder.glob("server/runs/*/own/*") if path.is_file()]
    return [*here.folder.glob("client-*/runs/*/*.own*"), *at_server]


def test_a_private_message_goes_with_its_ticket(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        run = here.lead(job(writes_mail(), 2))
        here.enter()
        here.ended(run)
        assert here.records[-1].usage.counted == NUM_CLIENTS
        assert kept_tasks(here) == []


@value
class writes_into_the_void(writes_mail):
    """Writes to each client, and does not wait for answers."""

    def round(self, state: ModelState, key: Key) -> Program[ModelState]:
        cohort = (yield from sample(key, fraction=1.0)).cohort
        own = {k: {"mail": {"x": np.full(3, k)}} for k in cohort}
        read = PartSpec(Spec({"x": TensorSpec((3,), "int64")}), into=each())
        yield from dispatch(opens_mail(), cohort, {}, key, own=own, read=read)
        return state


def test_a_private_message_goes_with_its_run(tmp_path: Path) -> None:
    with federation(tmp_path, stay=True) as here:
        run = here.lead(job(writes_into_the_void(), 1))
        here.show_up()
        here.client_home(0)
        for number in range(1, NUM_CLIENTS):
            here.client_home(number)
        here.end(run)
        led = here.server.run(run)
        assert [led.mailbox.offers(number) for number in range(NUM_CLIENTS)] == [[]] * NUM_CLIENTS
        assert kept_tasks(here) == []
        folder = here.client_home(0).run(run)
        (folder / f"3.{'0' * 64}.own.part").write_bytes(b"cut off when the client was killed")
        led.mailbox.announce({0: {3: Outcome(False, "not counted", 0)}})
        here.enter([0])
        here.wait_until(lambda: not kept_tasks(here), "an outcome leaves the message of its ticket")
        (folder / f"4.{'0' * 64}.own").write_bytes(b"of a ticket that was never settled")
        here.server.over = True
        here.server.presence.wake_all()
        here.threads[0].join(20.0)
        assert kept_tasks(here) == []


def test_no_private_message_is_fetched_for_a_work_that_the_policy_forbids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    download = ServerLink.download

    def note(link: ServerLink, path: str, *rest: Any) -> None:
        asked.append(path.split("/")[-1])
        download(link, path, *rest)

    monkeypatch.setattr(ServerLink, "download", note)
    with federation(tmp_path) as here:
        run = here.lead(job(writes_mail(), 1))
        for number in range(NUM_CLIENTS):
            works = "opens_mail" if number == 0 else "sequential"
            (here.client_home(number).folder / "policy.toml").write_text(f'works = ["{works}"]')
        here.enter()
        here.end(run, status="incomplete")
        assert asked.count("task") == 1
        assert kept_tasks(here) == []


@contextmanager
def links(here: Federation) -> Iterator[list[ServerLink]]:
    with ExitStack() as stack:
        yield [stack.enter_context(closing(here.client_home(k).link())) for k in range(NUM_CLIENTS)]


def find_order(link: ServerLink) -> WorkOrder:
    (order,) = link.ask("POST", "/v1/work", News, Poll(wait_s=20.0)).work
    return order


def refusal(link: ServerLink, path: str, order: WorkOrder, to: Path) -> str:
    with pytest.raises(Refused) as refused:
        link.download(path, order.own, order.own_bytes, to)
    return refused.value.code


def test_a_private_message_is_for_its_holder_alone_also_after_a_restart(tmp_path: Path) -> None:
    port = free_port()
    with federation(tmp_path, port=port, stay=True) as here:
        run = here.lead(job(writes_mail(), 1))
        with links(here) as clients:
            here.show_up()
            orders = [find_order(link) for link in clients]
            tasks = [f"/v1/runs/{run}/tickets/{order.ticket}/task" for order in orders]
            assert {order.task for order in orders} == {""}
            mine, to = orders[0], tmp_path / "mine"
            for _ in range(2):  # it may ask again
                clients[0].download(tasks[0], mine.own, mine.own_bytes, to)
                assert unpack(to.read_bytes(), Task).own["mail"]["x"].tolist() == [0, 0, 0]
            assert refusal(clients[1], tasks[0], mine, tmp_path / "other") == "not-yours"
            objects = f"/v1/runs/{run}/objects/{mine.own}"
            assert refusal(clients[1], objects, mine, tmp_path / "other") == "no-object"
            assert refusal(clients[0], objects, mine, tmp_path / "other") == "no-object"
            short = mine.model_copy(update={"own_bytes": mine.own_bytes - 1})
            with pytest.raises(Exception, match="does not have its SHA-256"):
                clients[0].download(tasks[0], short.own, short.own_bytes, tmp_path / "short")
    with federation(tmp_path, port=port) as here:
        here.lead(job(writes_mail(), 1), run)
        with links(here) as clients:
            here.show_up()
            here.wait_until(lambda: bool(here.server.run(run).mailbox.offers(4)), "no offer came back")
            assert [find_order(link) for link in clients] == orders
            clients[4].download(tasks[4], orders[4].own, orders[4].own_bytes, tmp_path / "again")
            assert unpack((tmp_path / "again").read_bytes(), Task).own["mail"]["x"].tolist() == [4, 4, 4]
        here.enter()
        here.end(run)
        assert here.records[-1].usage.bytes_down >= sum(order.own_bytes for order in orders)
        with links(here) as clients:
            assert refusal(clients[0], tasks[0], mine, tmp_path / "late") == "late"
