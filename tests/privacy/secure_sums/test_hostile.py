"""A server that lies: what it asks for is refused by the clients, whose halves run here as they are."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks.privacy.schedules import NUMBERS, emit_numbers, numbers_of
from hanse.core import (
    CompositionError,
    Declined,
    Examples,
    InvalidInput,
    Key,
    PartSpec,
    RoundAbandoned,
    Spec,
    Tensors,
    Work,
    each,
)
from hanse.core.exchange import SIGNER, Forks, Payload, Signer, Task, compute, write_certificate
from hanse.privacy.secure_sums import secure_sum, unmask
from hanse.privacy.secure_sums.evidence import PROOF_BYTES
from hanse.privacy.secure_sums.parties import ADVERT_BYTES
from hanse.privacy.secure_sums.promises import bind_round
from hanse.privacy.secure_sums.protocol import _find_usable
from hanse.privacy.secure_sums.reducers import (
    advertise_keys,
    confirm_survivors,
    deal_shares,
    mask_parts,
    reveal_shares,
)

KEY = Key.from_seed(4)
NUM = 6
EVERYBODY = tuple(range(NUM))


def signer_of(name: str) -> Signer:
    """A house's own key, and the key for protocols that it certifies."""
    own, other = (
        Ed25519PrivateKey.from_private_bytes(KEY.fold_in(name, what).digest) for what in ("own", "protocols")
    )
    identity, public = (key.public_key().public_bytes_raw() for key in (own, other))
    return Signer(identity, own.sign(write_certificate(public, identity)), other.private_bytes_raw())


ROSTER = tuple(signer_of(f"house {number}").identity.hex() for number in range(8))
LISTED = secure_sum(colluders=0.125, drop_out=0.0, max_value=1e12, max_weight=1e3, roster=ROSTER)
TRUSTED = secure_sum(max_value=1e12, max_weight=1e3)


class House:
    """A client that answers whatever it is asked, as far as the code of its works goes."""

    def __init__(self, number: int, signer: Signer | None = None) -> None:
        self.number, self.signer, self.forks = number, signer, Forks()
        self.asked, self.last = 0, None

    def answer(self, work: Work[Any, Any], into: Any = None, after: int | None = -1, **own: Tensors) -> Any:
        """Answers a ticket that continues from the last one, or from another."""
        named = {"numbers": PartSpec(NUMBERS, into=into)} if into is not None else {}
        parts = named or {name: PartSpec(Spec({}, kind="coded"), into=each()) for name in OUT[type(work)]}
        payload = Payload(work, {}, parts, dict.fromkeys(parts, ()))
        self.asked += 1
        after = self.last if after == -1 else after
        task = Task(self.asked, self.number, KEY.fold_in(self.number, self.asked), after, own)
        before = self.forks.at(after)
        if work.signs and self.signer is not None:
            before = {**before, SIGNER: self.signer}
        data = Examples(np.zeros((1, 1)), np.array([self.number]))
        secret = KEY.fold_in("secret", self.number, self.asked)
        message, fork = compute(task, payload, None, data, before, secret)
        self.forks.keep(self.asked, fork)
        self.last = self.asked
        return {name: None if part is None else part.values for name, part in message.parts.items()}


OUT: Mapping[type, tuple[str, ...]] = {
    advertise_keys: ("advert",),
    deal_shares: ("shares",),
    mask_parts: ("masked",),
    confirm_survivors: ("confirmed",),
    reveal_shares: ("revealed",),
}


class Server:
    """A server that may do at each phase what it likes."""

    def __init__(self, sums: secure_sum, houses: list[House], round: str = "r1") -> None:
        self.sums, self.houses, self.round, self.num = sums, houses, round, len(houses)

    def begin(self) -> None:
        for house in self.houses:
            house.answer(emit_numbers(), self.sums)

    def advertise(self) -> Any:
        work = advertise_keys(self.sums, self.round)
        self.rows = np.stack([house.answer(work)["advert"]["keys"] for house in self.houses])
        return self.rows

    def deal(self, rows: Any = None, num: int | None = None) -> None:
        rows = self.rows if rows is None else rows
        self.num = len(rows) if num is None else num
        peers = {"seats": np.arange(len(rows)), "keys": rows}
        work = deal_shares(self.sums, self.round, self.num)
        self.sealed = [house.answer(work, peers=peers)["shares"]["sealed"] for house in self.houses]

    def mail(self, seat: int) -> Any:
        senders = [other for other in range(len(self.houses)) if other != seat]
        rows = [self.sealed[other][seat - (seat > other)] for other in senders]
        return {"seats": np.array(senders), "sealed": np.stack(rows)}

    def mask(self) -> list[Any]:
        work = mask_parts(self.sums, self.round, self.num, {"numbers": self.sums.make_encoding(NUMBERS)})
        masked = [house.answer(work, mail=self.mail(seat)) for seat, house in enumerate(self.houses)]
        return [one["masked"]["integers"] for one in masked]

    def told(self, alive: tuple[int, ...], names: int = 0) -> Any:
        bits = np.array([seat in alive for seat in range(self.num)], np.uint8)
        told = np.arange(self.num, dtype=np.uint8)[:, None] + np.full(16, names, np.uint8)
        return {"seats": bits, "names": told}

    def confirm(self, house: House, alive: tuple[int, ...]) -> Any:
        work = confirm_survivors(self.sums, self.round, self.num)
        return house.answer(work, alive=self.told(alive))["confirmed"]["signature"]

    def reveal(self, house: House, alive: tuple[int, ...], signed: Any = None, **options: Any) -> Any:
        more = {} if signed is None else {"confirmed": signed}
        work, names = reveal_shares(self.sums, self.round, self.num), options.pop("names", 0)
        return house.answer(work, alive=self.told(alive, names), **more, **options)["revealed"]["shares"]

    def lead(self) -> "Server":
        """Leads an honest sum up to the masked vectors."""
        self.begin()
        self.advertise()
        self.deal()
        self.masked = self.mask()
        return self


def trusted() -> Server:
    return Server(TRUSTED, [House(number) for number in EVERYBODY]).lead()


def listed(num: int = NUM) -> Server:
    return Server(LISTED, [House(number, signer_of(f"house {number}")) for number in range(num)])


def sign_all(server: Server, alive: tuple[int, ...], by: tuple[int, ...] = EVERYBODY) -> Any:
    signed = [server.confirm(server.houses[seat], alive) for seat in by]
    return {"seats": np.array(by), "signatures": np.stack(signed)}


def test_an_honest_sum_is_answered() -> None:
    for server in (trusted(), listed().lead()):
        signed = sign_all(server, EVERYBODY) if server.sums.roster else None
        for house in server.houses:
            assert server.reveal(house, EVERYBODY, signed).shape == (NUM, 32)


def test_nobody_reveals_both_shares_of_one_peer() -> None:
    server = trusted()
    house = server.houses[0]
    last = house.last
    server.reveal(house, EVERYBODY)
    for after in (-1, last):  # from its newest fork, and from the one before it had answered
        with pytest.raises(Declined, match="already, for other alive"):
            server.reveal(house, (0, 1, 2, 3, 4), after=after)
    house.forks.settle((), range(1, house.asked + 1))  # the server drops all its tickets
    assert any("alive" in name for name in house.forks.committed)
    assert server.reveal(trusted().houses[0], (0, 1, 2, 3, 4)).shape == (NUM, 32)


def test_nobody_answers_for_two_sets_of_keys_or_shares() -> None:
    server = trusted()
    with pytest.raises(Declined, match="other peers"):
        server.deal(np.concatenate([server.rows[:1], server.rows[1:][::-1]]))
    changed = [sealed.copy() for sealed in server.sealed]
    changed[1][0, 0] ^= 1
    server.sealed = changed
    with pytest.raises(Declined, match="other mail"):
        server.mask()


@pytest.mark.parametrize("server", [lambda: Server(TRUSTED, [House(n) for n in EVERYBODY]), listed])
def test_masks_hide_one_vector_alone(server: Any) -> None:
    """A client that trains again, or writes its numbers in another scale, masks nothing a second time."""
    one = server().lead()
    house, dealt = one.houses[2], one.houses[2].last - 1
    encoding = one.sums.make_encoding(NUMBERS)
    for finer in (0, 1):
        scale = replace(encoding, fraction_bits=encoding.fraction_bits - finer)
        if not finer:
            house.number = 4  # its numbers are others now, as if it had trained from another model
            house.answer(emit_numbers(), one.sums, after=dealt)
        mask = mask_parts(one.sums, one.round, NUM, {"numbers": scale})
        with pytest.raises(Declined, match="already, for other numbers"):
            house.answer(mask, mail=one.mail(2), after=-1 if not finer else dealt)
    again = mask_parts(one.sums, one.round, NUM, {"numbers": encoding})
    masked = house.answer(again, mail=one.mail(2), after=dealt)["masked"]["integers"]
    assert np.array_equal(masked, one.masked[2])  # a ticket that is computed twice has the same answer


def test_shares_are_sealed_once_under_a_key() -> None:
    """A client that is asked to deal a second time answers with the same bytes."""
    server = listed()
    server.begin()
    server.advertise()
    house = server.houses[2]
    advertised, asked = house.last, {"seats": np.arange(NUM), "keys": server.rows}
    deal = deal_shares(LISTED, "r1", NUM)
    first, again = (house.answer(deal, peers=asked, after=advertised)["shares"]["sealed"] for _ in range(2))
    assert np.array_equal(first, again)
    with pytest.raises(Declined, match="other number of clients"):
        house.answer(deal_shares(LISTED, "r1", NUM + 1), peers=asked, after=advertised)


def test_the_number_of_clients_is_that_of_the_beginning() -> None:
    """A larger number would move the thresholds, and with it what is revealed."""
    server = trusted()
    server.num = NUM + 1
    with pytest.raises(Declined, match="other number of clients"):
        server.mask()
    with pytest.raises(Declined, match="other number of clients"):
        server.reveal(server.houses[0], EVERYBODY)


@pytest.mark.parametrize("num_new", [2, 3, 4, 5])
def test_a_total_with_repeated_numbers_needs_the_threshold_of_new_ones(num_new: int) -> None:
    """Clients that repeat their numbers among others help with nothing: t with new ones have to unmask."""
    houses, needed = [House(number) for number in EVERYBODY], TRUSTED.find_thresholds(NUM).num_shares
    for round in ("r1", "r2"):
        for house in houses[NUM - num_new :] if round == "r2" else ():
            house.number += NUM  # it trains something else
        server, revealed = Server(TRUSTED, houses, round), dict[int, dict[int, bytes]]()
        for house in houses:
            house.last = None
        server.lead()
        for seat, house in enumerate(houses):
            with suppress(Declined):
                rows = server.reveal(house, EVERYBODY, names=round == "r2")
                seats = [*(other for other in EVERYBODY if other != seat), seat]
                revealed[seat] = dict(zip(seats, map(bytes, rows), strict=True))
    assert sorted(revealed) == list(range(NUM - num_new, NUM))
    total = np.sum(np.stack(server.masked), axis=0, dtype=np.uint64)
    adverts = {seat: bytes(row) for seat, row in enumerate(server.rows)}
    partners = {seat: [other for other in EVERYBODY if other != seat] for seat in EVERYBODY}
    if num_new < needed:
        with pytest.raises(RoundAbandoned, match=f"{num_new} clients revealed .* and {needed} are needed"):
            unmask(total, b"r2", adverts, partners, EVERYBODY, revealed, needed)
        return
    unmask(total, b"r2", adverts, partners, EVERYBODY, revealed, needed)
    encoding = TRUSTED.make_encoding(NUMBERS)
    clear = [encoding.encode(numbers_of(house.number)) for house in houses]
    assert np.array_equal(total, np.sum(np.stack(clear), axis=0, dtype=np.uint64))


def test_nobody_unmasks_its_numbers_twice_among_others() -> None:
    """Also in another round, and when the server has dropped and counted tickets in between."""
    house = House(0)
    for round, alive, names in (("r1", EVERYBODY, 0), ("r2", EVERYBODY, 0), ("r3", (0, 1, 2, 3, 4), 0)):
        server = Server(TRUSTED, [house, *(House(number) for number in range(1, NUM))], round)
        first = house.asked + 1
        house.answer(emit_numbers(), TRUSTED, after=None)
        server.houses, rest = server.houses[1:], server.houses
        server.begin()
        server.houses = rest
        server.advertise()
        server.deal()
        server.mask()
        if round == "r3":
            with pytest.raises(Declined, match="the same numbers into a total of other clients"):
                server.reveal(house, alive, names=names)
        else:
            server.reveal(house, alive, names=names)
            house.forks.settle(range(first, house.asked), [house.asked])
            house.last = None
        if round != "r3":
            assert [name for name in house.forks.committed if name.startswith("!")] == ["!!secure sums"]


@pytest.mark.parametrize("num", [1, 2])
def test_cohorts_of_one_or_two_are_refused(num: int) -> None:
    server = Server(TRUSTED, [House(number) for number in range(num)])
    server.begin()
    server.advertise()
    with pytest.raises(Declined, match="hides nothing"):
        server.deal()


@pytest.mark.parametrize("roster", [(), ROSTER[:3]], ids=["trusted", "listed"])
def test_totals_of_two_of_three_are_refused(roster: tuple[str, ...]) -> None:
    """Each of the two would know what the other one sent."""
    signers = [signer_of(f"house {number}") if roster else None for number in range(3)]
    sums = replace(TRUSTED, colluders=0.0, drop_out=0.0, roster=roster)
    server = Server(sums, [House(number, signer) for number, signer in enumerate(signers)]).lead()
    with pytest.raises(Declined, match="2 clients are in the total, and 3 must be"):
        server.reveal(server.houses[0], (0, 1))
    signed = sign_all(server, (0, 1, 2), by=(0, 1, 2)) if roster else None
    assert server.reveal(server.houses[0], (0, 1, 2), signed).shape == (3, 32)


def test_a_cohort_of_one_and_colluders_is_refused() -> None:
    """One of the eight in the roster may collude, and the server chooses who takes part."""
    sums = replace(LISTED, colluders=0.5)
    server = Server(sums, listed(5).houses)
    server.begin()
    server.advertise()
    with pytest.raises(Declined, match=r"4 may collude .* at least 6 shares"):
        server.deal()


def test_survivors_below_the_threshold_are_refused() -> None:
    server = trusted()
    needed = TRUSTED.find_thresholds(NUM).num_shares
    with pytest.raises(Declined, match=f"only {needed - 1} of its neighbours and it"):
        server.reveal(server.houses[0], tuple(range(needed - 1)))
    with pytest.raises(Declined, match="its own part is not in the total"):
        server.reveal(server.houses[0], (1, 2, 3, 4, 5))


def test_settings_are_those_of_the_beginning() -> None:
    server = trusted()
    server.sums = replace(TRUSTED, colluders=0.0, drop_out=0.0)
    with pytest.raises(Declined, match="other settings"):
        server.reveal(server.houses[0], EVERYBODY)
    server = listed()
    server.begin()
    server.advertise()
    server.sums = TRUSTED
    with pytest.raises(Declined, match="other settings"):
        server.deal(server.rows[:, :96])


def test_a_client_goes_on_with_nothing_that_it_has_not_begun() -> None:
    server = trusted()
    server.round = "another"
    with pytest.raises(Declined, match="knows no peers"):
        server.reveal(server.houses[0], EVERYBODY)


def rows_with(server: Server, other: House) -> Any:
    """What all advertise, with another one's in place of the last."""
    work = advertise_keys(server.sums, server.round)
    return np.concatenate([server.rows[:-1], other.answer(work)["advert"]["keys"][None]])


def begun() -> Server:
    server = listed()
    server.begin()
    server.advertise()
    return server


def test_invented_peers_are_refused() -> None:
    server = begun()
    with pytest.raises(Declined, match="seat 5 is not in the roster"):
        server.deal(rows_with(server, House(5, signer_of("nobody"))))
    server = begun()
    with pytest.raises(Declined, match="seat 5 has the key of another one"):
        server.deal(rows_with(server, House(5, signer_of("house 1"))))
    forged = replace(signer_of("nobody"), identity=signer_of("house 7").identity)
    server = begun()
    with pytest.raises(Declined, match="seat 5 has not signed"):
        server.deal(rows_with(server, House(5, forged)))
    server = begun()
    rows = server.rows.copy()
    rows[5, :96] = House(5).answer(advertise_keys(TRUSTED, "r1"))["advert"]["keys"]  # another key, old proof
    with pytest.raises(Declined, match="seat 5 has not signed"):
        server.deal(rows)
    server, old = begun(), begun()
    old.round = "r0"
    old.advertise()  # of another round
    with pytest.raises(Declined, match="has not signed"):
        server.deal(np.concatenate([server.rows[:-1], old.rows[-1:]]))


@pytest.mark.parametrize("begin", [0, 32], ids=["sealing", "masking"])
def test_keys_with_which_all_agree_on_nothing_are_refused(begin: int) -> None:
    server = Server(TRUSTED, [House(number) for number in EVERYBODY])
    server.begin()
    server.advertise()
    rows = server.rows.copy()
    rows[5, begin : begin + 32] = 0
    with pytest.raises(Declined, match="everybody would agree on 0"):
        server.deal(rows)


def test_a_client_outside_the_roster_takes_no_part() -> None:
    server = begun()
    server.houses[0].signer = signer_of("nobody")
    with pytest.raises(Declined, match="its own key is not in the roster"):
        server.deal()


@pytest.mark.parametrize("server", [trusted, listed], ids=["trusted", "listed"])
def test_a_graph_that_surrounds_a_client_is_refused(server: Any) -> None:
    """It is shown fewer neighbours than it computes, or keys that are not of so many clients."""
    one = server()
    if one.sums.roster:
        one.begin()
    else:
        one = Server(TRUSTED, [House(number) for number in EVERYBODY])
        one.begin()
    one.advertise()
    with pytest.raises(Declined, match="keys of 2 neighbours, and has to have 5"):
        one.deal(one.rows[:3], num=6)
    for rows in (one.rows[[0, 1, 1, 3, 4, 5]], one.rows[[0, 0, 2, 3, 4, 5]], one.rows[[1, 1, 2, 3, 4, 5]]):
        with pytest.raises(Declined, match="its own once"):
            one.deal(rows)


def test_two_lists_of_survivors_get_no_answers() -> None:
    """Half of the clients are told that client 5 is lost: neither half has enough signatures."""
    server = listed().lead()
    without = (0, 1, 2, 3, 4)
    some = sign_all(server, EVERYBODY, by=(0, 1, 5))
    others = sign_all(server, without, by=(2, 3, 4))
    both = {name: np.concatenate([some[name], others[name]]) for name in some}
    needed = LISTED.find_thresholds(NUM).num_shares
    for seat, alive in ((0, EVERYBODY), (2, without)):
        with pytest.raises(Declined, match=f"2 others have signed .* and {needed - 1} have to"):
            server.reveal(server.houses[seat], alive, both)
    with pytest.raises(Declined, match="for other alive"):  # who has signed one list signs no other
        server.confirm(server.houses[0], without)
    with pytest.raises(Declined, match="for other alive"):
        server.reveal(server.houses[0], without, both)


def test_signatures_are_those_of_different_survivors() -> None:
    server = listed().lead()
    signed = sign_all(server, EVERYBODY)
    repeated = {"seats": np.arange(NUM), "signatures": signed["signatures"][[1] * NUM]}
    with pytest.raises(Declined, match="1 others have signed"):
        server.reveal(server.houses[0], EVERYBODY, repeated)
    server.reveal(server.houses[0], EVERYBODY, signed)


def test_names_of_a_lying_server_do_not_hide_other_survivors() -> None:
    """With a roster, clients know the survivors by their keys: the server's names count for nothing."""
    house = House(0, signer_of("house 0"))
    for round, last in (("r1", 5), ("r2", 6)):
        others = [House(number, signer_of(f"house {number}")) for number in (1, 2, 3, 4, last)]
        server = Server(LISTED, [house, *others], round)
        house.answer(emit_numbers(), LISTED, after=None)
        for other in others:
            other.answer(emit_numbers(), LISTED)
        server.advertise()
        server.deal()
        server.mask()
        signed = sign_all(server, EVERYBODY)
        if round == "r1":
            server.reveal(house, EVERYBODY, signed)
        else:
            with pytest.raises(Declined, match="the same numbers into a total of other clients"):
                server.reveal(house, EVERYBODY, signed)


def test_what_the_server_sees_holds_no_number_of_a_client() -> None:
    """Neither as it is, nor as the integer that is masked, in any message of the whole protocol."""
    server = listed()
    server.begin()
    messages = [server.advertise()]
    server.deal()
    messages += [*server.sealed, *server.mask()]
    signed = sign_all(server, EVERYBODY)
    messages += [signed["signatures"], *(server.reveal(house, EVERYBODY, signed) for house in server.houses)]
    seen = b"".join(message.tobytes() for message in messages)
    for number in EVERYBODY:
        part = numbers_of(number)
        whole = LISTED.make_encoding(NUMBERS).encode(part)
        canaries = [entry.tobytes() for entry in (*whole, *part.values["r"].ravel(), *part.values["x"])]
        assert not [canary for canary in canaries if len(canary.strip(b"\0\xff")) > 3 and canary in seen]


def test_rosters_are_checked_when_they_are_written() -> None:
    with pytest.raises(InvalidInput, match="write the 64 hexadecimal digits"):
        secure_sum(roster=("c0ffee",))
    with pytest.raises(InvalidInput, match="2 keys, and only 1 different"):
        secure_sum(roster=(ROSTER[0], ROSTER[0]))
    with pytest.raises(InvalidInput, match="min_clients is -4; write 0 or more"):
        secure_sum(min_clients=-4)
    with pytest.raises(InvalidInput, match="all clients are neighbours"):
        secure_sum(roster=ROSTER, num_neighbours=4)
    with pytest.raises(CompositionError, match="one list of survivors signed"):
        replace(LISTED, drop_out=0.5).check_number(6)
    assert "honest but curious" in TRUSTED.disclosure
    assert ROSTER[0][:16] in LISTED.disclosure
    assert "that lies" in LISTED.explain(6)


def test_a_total_in_which_too_few_may_be_honest_is_not_unmasked() -> None:
    """One of five may collude, and two of eight: a total of five of these has three honest clients only."""
    sums = secure_sum(colluders=0.25, drop_out=0.25, max_value=1e12, max_weight=1e3, min_clients=5)
    assert sums.fewest == 4
    server = Server(sums, [House(number) for number in range(8)])
    server.begin()
    server.advertise()
    server.deal()
    server.mask()
    with pytest.raises(Declined, match="fewer than 4 of 5 clients in the total may be honest"):
        server.reveal(server.houses[0], tuple(range(5)))
    server.reveal(server.houses[0], tuple(range(6)))


def test_a_member_that_proves_nothing_is_left_out_and_the_others_go_on() -> None:
    houses = [House(number, signer_of(f"house {number}")) for number in range(NUM)]
    houses.append(House(NUM, signer_of("house 5")))  # a second seat of one house
    houses.append(House(NUM + 1, signer_of("a stranger")))
    server = Server(LISTED, houses)
    server.begin()
    adverts = {number: bytes(row) for number, row in enumerate(server.advertise())}
    adverts[1] = adverts[1][:-1] + bytes([adverts[1][-1] ^ 1])
    usable = _find_usable(adverts, LISTED.roster, bind_round("r1"))
    assert sorted(usable) == [0, 2, 3, 4]
    unproven = {number: advert[:ADVERT_BYTES] + bytes(PROOF_BYTES) for number, advert in adverts.items()}
    assert len(_find_usable(unproven, LISTED.roster, bind_round("r1"))) == NUM + 2, "simulated: no proofs"
