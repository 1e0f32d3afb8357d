"""A server that lies: what it asks for is refused by the clients, whose halves run here as they are."""

from contextlib import suppress
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
    ROSTER,
    TRUSTED,
    House,
    RealHouse,
    Server,
    encode,
    listed,
    sign_all,
    signer_of,
    trusted,
)

from benchmarks.privacy.schedules import NUMBERS, emit_numbers, numbers_of
from hanse.algorithms.works import local_sgd
from hanse.core import (
    CompositionError,
    Declined,
    Examples,
    InvalidInput,
    PartSpec,
    RoundAbandoned,
    Spec,
    Steps,
    Tensors,
)
from hanse.core.exchange import (
    MIN_COHORT,
    Payload,
    Task,
    compute,
    pending,
)
from hanse.learners import softmax
from hanse.network.client.role import read_forks
from hanse.privacy.secure_sums import add_masks, secure_sum, unmask
from hanse.privacy.secure_sums.evidence import PROOF_BYTES
from hanse.privacy.secure_sums.parties import ADVERT_BYTES
from hanse.privacy.secure_sums.promises import recall
from hanse.privacy.secure_sums.protocol import _find_usable
from hanse.privacy.secure_sums.reducers import (
    advertise_keys,
    deal_shares,
    mask_parts,
)
from hanse.transforms import clip


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
        with pytest.raises(Declined, match="in another way" if finer else "already, for other numbers"):
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
            unmask(total, server.keyed, adverts, partners, EVERYBODY, revealed, needed)
        return
    unmask(total, server.keyed, adverts, partners, EVERYBODY, revealed, needed)
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
    work = advertise_keys(server.sums, server.round, encode(server.sums))
    other.answer(emit_numbers(), server.sums)
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
    rows[5, :96] = rows_with(server, House(5))[-1, :96]  # another key, old proof
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
    usable = _find_usable(adverts, LISTED.roster, server.bound)
    assert sorted(usable) == [0, 2, 3, 4]
    unproven = {number: advert[:ADVERT_BYTES] + bytes(PROOF_BYTES) for number, advert in adverts.items()}
    assert len(_find_usable(unproven, LISTED.roster, server.bound)) == NUM + 2, "simulated: no proofs"


def test_a_sum_that_is_begun_again_has_other_masks(tmp_path: Path) -> None:
    """The server says that all is counted, so promises end, and asks for the same round once more.

    Each client trains from another model under the numbers of the old tickets. With the same keys, the server
    would see the difference of two updates, and could have both shares of one peer, one in each round.
    """
    server = Server(LISTED, [RealHouse(number, tmp_path / str(number)) for number in EVERYBODY]).lead()
    first, rows = server.masked, server.rows
    encoding = LISTED.make_encoding(NUMBERS)
    for house in server.houses:
        house.role.settle(list(range(1, house.asked + 1)), [])
        assert not house.role.forks.forks
        house.number, house.asked, house.last = house.number + NUM, 0, None
    again = Server(LISTED, server.houses).lead()
    for seat in EVERYBODY:
        assert not np.array_equal(again.rows[seat][:32], rows[seat][:32])
        clear = encoding.encode(numbers_of(seat)) - encoding.encode(numbers_of(seat + NUM))
        assert (first[seat] - again.masked[seat] != clear).all()


def test_a_sum_that_is_begun_anew_in_a_ticket_has_one_set_of_keys_to_answer_for(tmp_path: Path) -> None:
    """As long as promises hold, new keys in the same round are of no use, also after a restart."""
    server = Server(LISTED, [RealHouse(number, tmp_path / str(number)) for number in EVERYBODY]).lead()
    house = server.houses[2]
    house.role = replace(
        house.role, forks=read_forks(tmp_path / "2")
    )  # the client is killed, and starts again
    alive = sign_all(server, EVERYBODY)
    assert server.reveal(house, EVERYBODY, alive).shape == (NUM, 32)
    rows = server.rows.copy()
    house.role.note(Task(99, house.seat, KEY, house.last), "00", "own")
    noted = (tmp_path / "2" / "99.task").read_bytes()
    assert b"pending/numbers" in noted, "of another exchange in the same round, which can be replayed"
    assert b"~secure sum/" not in noted
    advert = house.answer(advertise_keys(LISTED, "r1", encode(LISTED)), after=1)["advert"]
    assert not np.array_equal(advert["keys"], rows[2])
    rows[2] = advert["keys"]
    with pytest.raises(Declined, match="already, for other peers"):
        house.answer(deal_shares(LISTED, "r1", NUM), peers={"seats": np.arange(NUM), "keys": rows})


def train(house: House, params: Tensors, into: Any, lr: float) -> None:
    """Lets a house train a softmax from a model that the server has chosen for it."""
    learner: Any = softmax().bind(feature_shape=(4,), num_classes=3)
    rng = np.random.default_rng(house.number)
    data = Examples(rng.normal(size=(30, 4)), rng.integers(0, 3, 30))
    part = PartSpec(Spec.of(params), (clip(1.0),), into=into)
    work = local_sgd(Steps(lr=lr, epochs=1, batch_size=10))
    payload = Payload(work, {"params": params}, {"update": part}, {"update": (None,)})
    house.asked += 1
    task = Task(house.asked, house.number, KEY.fold_in(house.number, house.asked), house.last)
    _, fork = compute(task, payload, learner, data, house.forks.at(house.last), KEY)
    house.forks.keep(house.asked, fork)
    house.last = house.asked


@pytest.mark.parametrize("lie", ["model", "settings", ""])
@pytest.mark.parametrize("sums", [LISTED, TRUSTED], ids=["listed", "trusted"])
def test_clients_that_were_told_different_things_add_nothing_up(sums: Any, lie: str) -> None:
    """All but one are sent parameters so large that their updates are 0: the total would be that one's.

    With a roster each client sees it; without, keys do not fit and the server sees rubbish.
    """
    learner: Any = softmax().bind(feature_shape=(4,), num_classes=3)
    params = learner.init(KEY)
    far = {name: np.full_like(values, 1e20) for name, values in params.items()}
    server = Server(sums, [House(number, signer_of(f"house {number}")) for number in EVERYBODY])
    encodings = {"update": sums.make_encoding(PartSpec(Spec.of(params), (clip(1.0),)).chain().out)}
    for house in server.houses:
        is_other = lie and house.number != 2
        train(house, far if is_other and lie == "model" else params, sums, 1e-30 if is_other else 0.5)
    adverts = [h.answer(advertise_keys(sums, "r1", encodings))["advert"] for h in server.houses]
    server.rows = np.stack([advert["keys"] for advert in adverts])
    if sums.roster and lie:
        with pytest.raises(Declined, match="has not signed what it is said to advertise"):
            server.deal()
        return
    server.deal()
    mask = mask_parts(sums, "r1", NUM, encodings)
    if lie:  # what is sealed for others does not open, and what masks two parties share does not cancel
        assert len({bytes(advert["told"]) for advert in adverts}) == 2
        with pytest.raises(Declined, match="only 0 neighbours dealt shares that it can open"):
            server.houses[2].answer(mask, mail=server.mail(2))
    others = [(seat, house) for seat, house in enumerate(server.houses) if not lie or seat != 2]
    masked = [h.answer(mask, mail=server.mail(seat))["masked"]["integers"] for seat, h in others]
    total = np.sum(np.stack(masked), axis=0, dtype=np.uint64)
    seeds = [(recall(h.forks.at(h.last), "r1", "secrets")[64:], False) for _, h in others]
    add_masks(total, seeds)
    clear = [encodings["update"].encode(h.forks.at(h.last)[pending("update")]) for _, h in others]
    assert np.array_equal(total, np.sum(np.stack(clear), axis=0, dtype=np.uint64)) == (not lie)


def test_the_scale_is_that_of_the_settings() -> None:
    """A house that is told a scale of 2^-300 would send 0, and the total would be the others'."""
    server, dealt = listed(), listed().lead()
    server.begin()
    encoding = encode(LISTED)["numbers"]
    wider = Spec(NUMBERS.tensors, NUMBERS.kind, l2_bound=1e30)
    for lie in (
        replace(encoding, fraction_bits=-300, weight_bits=-300),
        replace(encoding, bound=encoding.bound / 2),
        replace(encoding, max_weight=1.0),
        replace(encoding, spec=wider),
    ):
        with pytest.raises(Declined, match="to write 'numbers' in another way"):
            server.houses[0].answer(advertise_keys(LISTED, "r1", {"numbers": lie}))
        with pytest.raises(Declined, match="to write 'numbers' in another way"):
            dealt.houses[0].answer(mask_parts(LISTED, "r1", NUM, {"numbers": lie}), mail=dealt.mail(0))


def test_numbers_go_into_the_sum_for_which_they_were_made() -> None:
    """A plan that trains for a sum with a roster is not unmasked by phases without one."""
    server = listed()
    server.begin()
    for lie in (TRUSTED, replace(LISTED, colluders=0.0), replace(LISTED, min_clients=1)):
        with pytest.raises(Declined, match="for a sum of other settings"):
            server.houses[0].answer(advertise_keys(lie, "r1", encode(lie)))
    with pytest.raises(Declined, match="holds nothing back"):
        server.houses[0].answer(advertise_keys(LISTED, "r1", {"others": encode(LISTED)["numbers"]}))


def test_an_owner_wants_more_clients_in_a_total_than_the_server(tmp_path: Path) -> None:
    server = Server(LISTED, [RealHouse(number, tmp_path / str(number)) for number in EVERYBODY]).lead()
    signed = sign_all(server, EVERYBODY)
    one, other = (house.role for house in server.houses[:2])
    one.min_cohort = lambda: NUM + 1
    other.min_cohort = lambda: NUM
    with pytest.raises(Declined, match="6 clients are in the total, and 7 must be"):
        server.reveal(server.houses[0], EVERYBODY, signed)
    assert server.reveal(server.houses[1], EVERYBODY, signed).shape == (NUM, 32)
    assert MIN_COHORT not in {name for fork in other.forks.forks.values() for name in fork.changed}


def test_nobody_takes_two_seats_in_a_sum() -> None:
    phases = TRUSTED.protocol({"numbers": NUMBERS}, (0, 1, 2, "test/1"), KEY)
    with pytest.raises(CompositionError, match=r"clients \[1\] and their own test examples"):
        next(phases)
