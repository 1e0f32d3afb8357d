"""A server that lends a client peers, plans or parts of other sums: the client notices, or declines."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_server import (
    EVERYBODY,
    KEY,
    LISTED,
    NUM,
    TRUSTED,
    House,
    RealHouse,
    Server,
    encode,
    listed,
    sign_all,
    signer_of,
)

from benchmarks.privacy.schedules import NUMBERS, emit_numbers, numbers_of
from hanse.core import Declined, PartSpec, Work, value
from hanse.core.exchange import Payload, Task, compute
from hanse.network.protocol.sealed_plan import SealedPlan
from hanse.privacy.secure_sums import secure_sum
from hanse.privacy.secure_sums.reducers import advertise_keys, deal_shares, mask_parts

VICTIMS, FIRST, SECOND = ("v", "w1", "w2"), ("a1", "a2", "a3"), ("b1", "b2", "b3")
NAMES = (*VICTIMS, "m1", "m2", *FIRST, *SECOND)
ROSTER = tuple(signer_of(name).identity.hex() for name in NAMES)
WIDE = secure_sum(colluders=0.0, drop_out=0.2, max_value=1e12, max_weight=1e3, roster=ROSTER)
OF_FIVE = {
    **dict.fromkeys(VICTIMS, ("v", "w1", "w2", "m1", "m2")),
    **dict.fromkeys((*FIRST, "m1"), ("v", "a1", "a2", "m1", "a3")),
    **dict.fromkeys((*SECOND, "m2"), ("v", "b1", "b2", "b3", "m2")),
}
"""The five that each house is told are in the sum. The keys of m1 and m2 are revealed in sums without v."""


@pytest.mark.parametrize("lent", ["at the same time", "earlier"])
def test_peers_whose_keys_are_revealed_elsewhere_hide_nobody(lent: str) -> None:
    """The victim is shown letters of m1 and m2 alone, and three of five suffice to unmask it.

    The first three lose m1, the second three m2, so that the server has the keys with which the two would
    hide the victim. Either they answer in these sums while the victim is in another, or did so before.
    """
    houses = {name: House(number, signer_of(name)) for number, name in enumerate(NAMES)}
    rows = {}
    for name, house in houses.items():
        house.answer(emit_numbers(), WIDE)
        rows[name] = house.answer(advertise_keys(WIDE, "r1", encode(WIDE)))["advert"]["keys"]
    letters: dict[str, dict[str, Any]] = {}
    for name, house in houses.items():
        others = [other for other in OF_FIVE[name] if other != name]
        asked = {"seats": np.arange(5), "keys": np.stack([rows[one] for one in OF_FIVE[name]])}
        if lent == "at the same time" or name in VICTIMS:
            sealed = house.answer(deal_shares(WIDE, "r1", 5), peers=asked)["shares"]["sealed"]
        else:
            sealed = np.zeros((4, 80), np.uint8)
        letters[name] = dict(zip(others, sealed, strict=True))

    def ask(name: str, senders: tuple[str, ...]) -> Any:
        seats = np.array([OF_FIVE[name].index(sender) for sender in senders])
        mail = {"seats": seats, "sealed": np.stack([letters[sender][name] for sender in senders])}
        return houses[name].answer(mask_parts(WIDE, "r1", 5, encode(WIDE)), mail=mail)

    with pytest.raises(Declined, match="only 0 neighbours dealt shares that it can open, and 3 reveal"):
        ask("v", ("m1", "m2"))
    ask("v", ("w1", "w2", "m1", "m2"))


def test_who_has_sent_no_letter_for_a_sum_is_not_counted_in_its_total() -> None:
    """The server says that six are in the total, and of one of them it has old keys alone."""
    five = replace(LISTED, min_clients=5)
    for sums, is_enough in ((five, True), (replace(LISTED, min_clients=6), False)):
        server = Server(sums, listed().houses)
        server.begin()
        server.advertise()
        server.deal()
        server.sealed[5] = server.sealed[5] ^ 1
        server.mask()
        signed = sign_all(server, EVERYBODY, by=(0, 1, 2, 3, 4)) if is_enough else None
        if is_enough:
            revealed = server.reveal(server.houses[0], EVERYBODY, signed)
            assert [bytes(row) == b"\xff" * 32 for row in revealed] == [False] * 4 + [True, False]
        else:
            with pytest.raises(Declined, match="5 clients are in the total, and 6 must be"):
                server.confirm(server.houses[0], EVERYBODY)


@value
class emit_twice(Work[Any, Any]):
    """Emits numbers in two parts."""

    def run(self, learner: Any, shared: Any, data: Any, memory: Any, keys: Any) -> Any:
        return {"numbers": numbers_of(int(data.y[0])), "more": numbers_of(int(data.y[0]) + 1)}, memory


def test_parts_of_one_message_are_in_one_sum() -> None:
    """Else one part could be in two totals of different clients, whose difference is a client's."""
    house = House(0)
    data = type("Data", (), {"y": np.array([0])})()
    spec = PartSpec(NUMBERS, into=TRUSTED)
    payload = Payload(emit_twice(), {}, {"numbers": spec, "more": spec}, {"numbers": (), "more": ()})
    _, fork = compute(Task(1, 0, KEY, None), payload, None, data, {}, KEY)
    house.forks.keep(1, fork)
    house.asked = house.last = 1
    with pytest.raises(Declined, match=r"to add up 'numbers' without \['more'\]"):
        house.answer(advertise_keys(TRUSTED, "r1", encode(TRUSTED)))
    both = {"more": TRUSTED.make_encoding(NUMBERS), **encode(TRUSTED)}
    house.answer(advertise_keys(TRUSTED, "r1", both))


def test_clients_of_other_plans_are_in_no_sum_together(tmp_path: Path) -> None:
    """A plan says which model is trained on which columns: of another one, updates may be 0."""
    houses = [RealHouse(number, tmp_path / str(number)) for number in EVERYBODY]
    for house in houses:
        house.role.plan = "one plan" if house.number == 2 else "another plan"
    server = Server(LISTED, houses)
    server.begin()
    server.advertise()
    assert len({bytes(row[:96]) for row in server.rows}) == NUM
    with pytest.raises(Declined, match="has not signed what it is said to advertise"):
        server.deal()


def test_a_plan_is_named_by_what_clients_compute_by() -> None:
    plan = SealedPlan("r1", '{"data": {"name": "d"}, "rounds": 3}', (), "softmax", b"model", "[]")
    named = plan.name_computation()
    more = replace(plan, run="r2", settings='{"rounds": 9, "data": {"name": "d"}}', envelopes='["e"]')
    assert more.name_computation() == named
    others = (
        {"settings": '{"data": {"name": "e"}, "rounds": 3}'},
        {"packed": b"other"},
        {"model": "cnn"},
    )
    assert len({named, *(replace(plan, **other).name_computation() for other in others)}) == 4
