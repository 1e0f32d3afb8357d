from typing import Any

import numpy as np
import pytest

from hanse.core.chain import Chain
from hanse.core.exchange.downlink import Broadcast, Change, Editions
from hanse.core.exchange.fold import Block
from hanse.core.exchange.party import Task
from hanse.core.exchange.tickets import Ticket
from hanse.core.exchange.traffic import TrafficLedger
from hanse.core.keys import Key
from hanse.core.program import Dispatch, PartSpec
from hanse.core.spec import Spec
from hanse.core.usage import Flow, Usage
from hanse.core.values import value
from hanse.core.work import Part, Work
from hanse.transforms import cast

KEY = Key.from_seed(1)
W = {"w": np.ones(4, np.float32)}
CHAINS = {"u": Chain.bind(Spec.of(W), ()), "v": Chain.bind(Spec.of(W), (cast("float16"),))}


@value
class asked_for_bytes(Work):
    def run(self, learner: Any, shared: Any, data: Any, memory: Any, keys: Any) -> Any:
        raise AssertionError("a ledger computes nothing")


def ticket(party: Any, number: int = 0, *, up: int = 0, down: int = 0) -> Ticket:
    return Ticket(Task(number, party, KEY, None), 0, "open", up, down)


@pytest.fixture
def ledger() -> TrafficLedger:
    return TrafficLedger("server", Usage())


def test_clients_are_metered_but_neither_roles_nor_the_owner() -> None:
    assert [TrafficLedger(2, Usage()).is_metered(party) for party in (1, 2, "server")] == [True, False, False]
    named = TrafficLedger("bank", Usage(), {"bank", "hospital"})
    assert [named.is_metered(party) for party in ("bank", "hospital", "server")] == [False, True, False]


def test_amounts_are_added_up(ledger: TrafficLedger) -> None:
    ledger.add(bytes_down=10, counted=2)
    ledger.add(bytes_down=5, dropped=1, virtual_s=0.5)
    ledger.hear(3, 7)
    assert ledger.usage == Usage(7, 15, 2, 1, 0.5)
    again = TrafficLedger("server", ledger.usage)
    again.add(virtual_s=1.0)
    assert again.usage == Usage(7, 15, 2, 1, 1.5)
    again.begin_round()
    assert again.usage == Usage()


def test_what_was_heard_of_a_ticket_is_taken_once(ledger: TrafficLedger) -> None:
    ledger.hear(3, 7)
    ledger.hear(3, 2)
    assert [ledger.take_heard(n) for n in (3, 3, 4)] == [9, 0, 0]
    assert ledger.usage.bytes_up == 9


def test_each_partys_bytes_are_those_of_its_tickets(ledger: TrafficLedger) -> None:
    ledger.hear(2, 7)
    tickets = {1: ticket(8, up=1, down=100), 2: ticket(8, down=50), 3: ticket(9), 4: ticket(5, down=2)}
    assert ledger.sum_by_party(tickets) == {8: (8, 150), 5: (0, 2)}


def test_whole_broadcasts_are_booked_for_each_metered_reader(ledger: TrafficLedger) -> None:
    channels = {"u": PartSpec(Spec.of(W))}
    ledger.add_broadcasts(Dispatch(asked_for_bytes(), (1, "server", 2), {"p": W}, channels, KEY), Editions())
    assert ledger.usage.flows == (Flow("down", "p", (), 2, (32,)),)
    ledger.begin_round()
    ledger.add_broadcasts(Dispatch(asked_for_bytes(), ("server",), {"p": W}, channels, KEY), Editions())
    assert ledger.usage.flows == ()


def test_differences_are_booked_beside_what_they_stand_for(ledger: TrafficLedger) -> None:
    downlink = (cast("float16"),)
    command = Dispatch(
        asked_for_bytes(), (1, 2, "server"), {"p": W}, {"u": PartSpec(Spec.of(W))}, KEY, downlink=downlink
    )
    half = {"w": np.ones(4, np.float16)}
    change = Broadcast(downlink, "b", "a", (Change((None,), KEY, 1.0, half),))
    editions = Editions(
        ({"p": Broadcast(downlink, "b", whole=W)}, {"p": change}), {}, {1: 0, 2: 1, "server": 1}
    )
    ledger.add_broadcasts(command, editions)
    stages = ("downlink(cast('float16'))",)
    assert ledger.usage.flows == (Flow("down", "p", stages, 2, (32, 16 + 8)),)


def test_a_block_costs_what_its_messages_would_have(ledger: TrafficLedger) -> None:
    other = TrafficLedger("server", Usage())
    for number in (0, 1):
        other.hear(number, 100 + number)
        other.add_parts({"u": Part(W), "v": Part({"w": W["w"].astype(np.float16)})}, CHAINS)
    other.hear(2, 50)  # refused
    sizes = ((0, 100), (1, 101), (2, 50), (3, 60))
    block = Block((0, 1, 3), {}, sizes, {2: "too large"}, {"u": (16, 16, 16), "v": (8, 8, 8)})
    parties = {n: ticket(party, n) for n, party in enumerate((7, 8, 9, "server"))}
    ledger.add_block(block, parties, CHAINS)
    assert ledger.usage == other.usage
    assert ledger.usage.flows == (
        Flow("up", "u", (), 2, (32,)),
        Flow("up", "v", ("cast('float16')",), 2, (32, 16)),
    )
    assert [ledger.take_heard(n) for n in range(4)] == [100, 101, 50, 0]


def test_flows_go_on_from_those_that_were_kept(ledger: TrafficLedger) -> None:
    ledger.add_parts({"u": Part(W), "hidden": None}, CHAINS)
    again = TrafficLedger("server", ledger.usage)
    again.add_parts({"u": Part(W)}, CHAINS)
    assert again.usage.flows == (Flow("up", "u", (), 2, (32,)),)
