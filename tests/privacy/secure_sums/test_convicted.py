"""Who deals wrong shares is left out of further rounds, and no honest client that liars accuse."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from support import Few, simulate

from hanse.algorithms import fed_avg
from hanse.core import Key, Part, RoundAbandoned
from hanse.core.exchange import InMemory
from hanse.privacy.secure_sums import (
    advertise,
    deal,
    draw_secrets,
    mask,
    parties,
    reveal,
    secure_mean,
    unmask,
)
from hanse.privacy.secure_sums.parties import MISSING
from hanse.privacy.secure_sums.reducers import deal_shares
from hanse.privacy.secure_sums.shamir import make_shares
from hanse.transforms import clip

NUM, NEEDED = 7, 4
SEATS = frozenset(range(NUM))
NOISE = Key.from_seed(8).rng()


def lead(wrong: dict[int, frozenset[int]], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets all clients send 5; some deal wrong shares to others. Returns a total, and all to unmask it."""
    secrets = [
        draw_secrets(Key.from_seed(5).fold_in("client", seat).secret_rng().bytes) for seat in range(NUM)
    ]
    adverts = {seat: advertise(own) for seat, own in enumerate(secrets)}
    dealt, total = [], np.zeros(4, np.uint32)
    for seat, own in enumerate(secrets):

        def share(secret: bytes, holders: Any, *more: Any, seat: int = seat) -> list[bytes]:
            shares = make_shares(secret, holders, *more)
            return [
                NOISE.bytes(31) + b"0" if holder in wrong.get(seat, ()) else one
                for holder, one in zip(holders, shares, strict=True)
            ]

        with monkeypatch.context() as change:
            change.setattr(parties, "make_shares", share)
            others = {other: advert for other, advert in adverts.items() if other != seat}
            dealt.append(deal(b"r", own, seat, others, NEEDED))
        vector = np.full(4, 5, np.uint32)
        mask(vector, b"r", own, seat, others)
        total += vector
    partners = {seat: [other for other in range(NUM) if other != seat] for seat in range(NUM)}
    revealed = {}
    for seat in range(NUM):
        mail = {other: dealt[other].sealed[seat] for other in partners[seat]}
        revealed[seat] = reveal(dealt[seat].opening, mail, seat, dealt[seat].kept, SEATS)
    return total, b"r", adverts, partners, SEATS, revealed


def try_to_unmask(given: Any, num_liars: int) -> tuple[Any, ...] | None:
    """Returns who is convicted; None: the sum ended, and its total is right."""
    total, *rest = given
    total = total.copy()
    try:
        unmask(total, *rest, NEEDED, parties=range(10, 10 + NUM), num_liars=num_liars)
    except RoundAbandoned as reason:
        return reason.convicted
    assert total.tolist() == [5 * NUM] * 4
    return None


@pytest.mark.parametrize("num_liars", [1, 2])
def test_who_deals_wrong_shares_to_more_than_may_lie_is_convicted(
    num_liars: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = lead({3: frozenset({0, 1, 5, 6})}, monkeypatch)
    assert try_to_unmask(given, num_liars) == (13,)
    assert try_to_unmask(given, 3) == (), "three may lie together: they may have accused an honest one"


def test_wrong_shares_to_two_frame_neither_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are left out for one secret alone: their shares of others still count."""
    given = lead({0: frozenset({5, 6}), 1: frozenset({2, 3})}, monkeypatch)
    assert try_to_unmask(given, 1) is None


@pytest.mark.parametrize("num_liars", [1, 2, 3])
def test_liars_who_are_as_many_as_may_lie_get_nobody_convicted(
    num_liars: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They deny that they got shares, or reveal wrong ones, of one honest client or of all."""
    honest = lead({}, monkeypatch)
    for liars in list(combinations(range(NUM), num_liars))[:: num_liars**2]:
        for how in range(2**num_liars):
            for about in ([2], range(NUM)):
                revealed = {seat: dict(shares) for seat, shares in honest[-1].items()}
                for bit, liar in enumerate(liars):
                    denies = how >> bit & 1
                    lie = MISSING if denies else NOISE.bytes(31) + b"0"
                    revealed[liar] |= {seat: lie for seat in about if seat in revealed[liar]}
                assert not try_to_unmask((*honest[:-1], revealed), num_liars)


def test_who_deals_letters_that_nobody_can_read_is_not_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after the run was stopped and went on; the others finish each later round."""
    answer = deal_shares.run

    def run(self: Any, learner: Any, shared: Any, data: Any, memory: Any, keys: Any) -> Any:
        contribution, after = answer(self, learner, shared, data, memory, keys)
        if np.array_equal(data.y, liar.y):
            sealed = contribution["shares"].values["sealed"] ^ 1
            contribution = {"shares": Part({"sealed": sealed})}
        return contribution, after

    monkeypatch.setattr(deal_shares, "run", run)
    algorithm = fed_avg(0.05, fraction=1.0, uplink=(clip(1.0),), into=secure_mean())
    store, records, liar, num = InMemory(), list[Any](), Few().client(2), Few().num_clients
    simulate(algorithm, 2, store=store, watch=records.append)
    saved = store.checkpoint()
    assert saved is not None
    assert saved.state.convicted == (2,)
    simulate(algorithm, 3, store=store, watch=records.append)
    told = [record.abandoned for record in records]
    assert [reason is None for reason in told] == [False, True, True]
    assert "client 2 is left out of further rounds" in str(told[0])
    assert [record.usage.counted for record in records[1:]] == [num - 1, num - 1]
