"""The server's half of a secure sum: it asks phase after phase, and takes the masks off the total."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from hanse.core import (
    Array,
    Close,
    CompositionError,
    Key,
    PartSpec,
    PartyId,
    Program,
    Reducer,
    RoundAbandoned,
    Spec,
    TensorSpec,
    Total,
    Unveiled,
    each,
    gather,
    player,
    sum,
)
from hanse.privacy.secure_sums.evidence import PROOF_BYTES, SIGNATURE_BYTES, find_members, read_roster
from hanse.privacy.secure_sums.graph import draw_neighbours
from hanse.privacy.secure_sums.masks import KEY_BYTES, is_weak
from hanse.privacy.secure_sums.parties import ADVERT_BYTES, SEALED_BYTES, unmask
from hanse.privacy.secure_sums.promises import (
    NAME_BYTES,
    TOLD_BYTES,
    bind_adverts,
    bind_round,
    hash_adverts,
    to_rows,
)
from hanse.privacy.secure_sums.ring import Encoding, split_total
from hanse.privacy.secure_sums.shamir import SHARE_BYTES
from hanse.privacy.secure_sums.thresholds import FEWEST_CLIENTS, Assumptions, Thresholds

__all__ = ["Phases", "Sums", "perform_phases"]


class Sums(Protocol):
    """The parts of a reducer that the protocol needs."""

    @property
    def bits(self) -> int:
        """The bits of the integers that are added."""

    @property
    def roster(self) -> tuple[str, ...]:
        """The public keys of all members; empty: the server is honest but curious."""

    @property
    def min_clients(self) -> int:
        """The fewest clients in a total."""

    def assume(self) -> Assumptions:
        """Returns the faults that it is built to bear."""

    def find_thresholds(self, num_clients: int) -> Thresholds:
        """Finds neighbours and shares for a number of clients."""

    def make_encoding(self, spec: Spec) -> Encoding:
        """Chooses how a part is written as integers."""

    def finish(self, spec: Spec, values: Mapping[str, Array], weight: float, count: int) -> Total:
        """Makes the total of a part from the sums of its values and weights."""


class Phases(NamedTuple):
    """The works of the phases. They are in the module of the reducers, as a client's policy wants."""

    advertise_keys: Any
    deal_shares: Any
    mask_parts: Any
    confirm_survivors: Any
    reveal_shares: Any


ANYBODY = Close(minimum_fraction=1e-6)
"""Exchanges close with any number of answers: thresholds decide whether those who are left suffice."""


def _part_of(into: Reducer[Any], **tensors: TensorSpec) -> PartSpec:
    return PartSpec(Spec(tensors, kind="ring" if into == sum() else "coded"), into=into)


def _name(party: PartyId) -> bytes:
    """Names a party in the same way in all rounds of a run."""
    return hashlib.sha256(f"{type(party).__name__} {party}".encode()).digest()[:NAME_BYTES]


def _find_usable(
    adverts: Mapping[PartyId, bytes], roster: tuple[str, ...], round: bytes
) -> dict[PartyId, bytes]:
    """Finds what clients advertise with which others can agree on keys.

    These are strong keys that are theirs alone, and with a roster those of proven members.
    """
    if roster:
        proofs = {party: (advert[:ADVERT_BYTES], advert[ADVERT_BYTES:]) for party, advert in adverts.items()}
        members = find_members(read_roster(roster), round, proofs)
        adverts = {party: advert for party, advert in adverts.items() if party in members}
    halves = {
        party: (advert[:KEY_BYTES], advert[KEY_BYTES : 2 * KEY_BYTES]) for party, advert in adverts.items()
    }
    times = Counter(half for both in halves.values() for half in both)
    return {
        party: adverts[party]
        for party, both in halves.items()
        if not any(is_weak(half) or times[half] > 1 for half in both)
    }


def perform_phases(
    sums: Sums, phases: Phases, parts: Mapping[str, Spec], parties: tuple[PartyId, ...], key: Key
) -> Program[Unveiled]:
    """Performs the protocol of a secure sum with the parties that are ready."""
    times = Counter(map(player, parties))
    if twice := [whose for whose in times if whose is not None and times[whose] > 1]:
        raise CompositionError(
            f"clients {twice} and their own test examples are asked for one sum, in which each would count "
            "twice: gather their parts apart"
        )
    encodings = {part: sums.make_encoding(spec) for part, spec in parts.items()}
    size = 0
    for encoding in encodings.values():
        size += encoding.num_values
    round = key.digest.hex()

    length = ADVERT_BYTES + (PROOF_BYTES if sums.roster else 0)
    keys, what = TensorSpec((length,), "uint8"), TensorSpec((TOLD_BYTES,), "uint8")
    advert = _part_of(each(), keys=keys, told=what)
    work = phases.advertise_keys(sums, round, encodings)
    got = yield from gather(work, parties, {}, key.fold_in("advertise"), close=ANYBODY, advert=advert)
    answers = {party: part.values for party, part in got.by_party("advert").items()}
    # Who was told something else than most, or says so, is lost here: it would agree with them on no key.
    told = Counter(bytes(values["told"]) for values in answers.values()).most_common(1)[0][0]
    bound = bind_round(round, told)
    advertised = {p: bytes(values["keys"]) for p, values in answers.items() if bytes(values["told"]) == told}
    usable = _find_usable(advertised, sums.roster, bound)
    seated, adverts = tuple(usable), list(usable.values())
    try:
        thresholds = sums.find_thresholds(len(seated))
    except CompositionError as error:
        raise RoundAbandoned(f"{len(seated)} clients were ready: {error}") from error
    neighbours = draw_neighbours(thresholds, key.fold_in("graph"))
    num, needed = len(seated), thresholds.num_shares
    close = Close(minimum_fraction=needed / num)

    rows = to_rows(adverts, length)
    bound = bind_adverts(bound, thresholds, hash_adverts(np.arange(num), rows))
    shared: dict[str, Any] = {}
    own: dict[PartyId, Any] = {}
    if thresholds.is_complete:
        shared = {"peers": {"seats": np.arange(num), "keys": rows}}
    else:
        for seat, party in enumerate(seated):
            around = np.array([seat, *neighbours[seat]])
            own[party] = {"peers": {"seats": around, "keys": rows[around]}}
    shares = _part_of(each(), sealed=TensorSpec(("neighbours", SEALED_BYTES), "uint8"))
    work = phases.deal_shares(sums, round, num)
    got = yield from gather(work, seated, shared, key.fold_in("deal"), close=close, own=own, shares=shares)
    seat_of = {party: seat for seat, party in enumerate(seated)}
    # Who answers with a wrong number of rows is lost from here on, and ends nobody's sum.
    sealed = {
        seat_of[party]: dict(zip(neighbours[seat_of[party]], part.values["sealed"], strict=True))
        for party, part in got.by_party("shares").items()
        if len(part.values["sealed"]) == len(neighbours[seat_of[party]])
    }
    dealers = tuple(party for party in got.parties if seat_of[party] in sealed)
    if len(dealers) < needed:
        raise RoundAbandoned(f"{len(dealers)} clients dealt shares, and {needed} have to")
    partners = {seat: [other for other in neighbours[seat] if other in sealed] for seat in sealed}

    mail = {
        seated[seat]: {
            "mail": {
                "seats": np.array(senders, np.int64),
                "sealed": to_rows([bytes(sealed[s][seat]) for s in senders], SEALED_BYTES),
            }
        }
        for seat, senders in partners.items()
    }
    masked = _part_of(sum(), integers=TensorSpec((size,), f"uint{sums.bits}"))
    work = phases.mask_parts(sums, round, num, encodings)
    got = yield from gather(work, dealers, {}, key.fold_in("mask"), close=close, own=mail, masked=masked)
    if len(got.parties) < (fewest := max(sums.min_clients, FEWEST_CLIENTS)):
        raise RoundAbandoned(f"{len(got.parties)} clients are left, and {fewest} must be in a total")
    total, alive = np.array(got["masked"].values["integers"]), {seat_of[party] for party in got.parties}

    names = to_rows([_name(party) for party in seated], NAME_BYTES)
    bits = np.array([seat in alive for seat in range(num)], np.uint8)
    survivors = {"alive": {"seats": bits, "names": names}}
    if sums.roster:
        confirmed = _part_of(each(), signature=TensorSpec((SIGNATURE_BYTES,), "uint8"))
        work = phases.confirm_survivors(sums, round, num)
        got_signed = yield from gather(
            work, got.parties, survivors, key.fold_in("confirm"), close=close, confirmed=confirmed
        )
        signed = {
            seat_of[party]: bytes(part.values["signature"])
            for party, part in got_signed.by_party("confirmed").items()
        }
        signatures = to_rows(list(signed.values()), SIGNATURE_BYTES)
        survivors = {**survivors, "confirmed": {"seats": np.array(list(signed)), "signatures": signatures}}
    revealing = _part_of(each(), shares=TensorSpec(("senders", SHARE_BYTES), "uint8"))
    work = phases.reveal_shares(sums, round, num)
    last = yield from gather(
        work, got.parties, survivors, key.fold_in("reveal"), close=ANYBODY, revealed=revealing
    )
    revealed = {
        seat: dict(zip((*partners[seat], seat), map(bytes, part.values["shares"]), strict=True))
        for party, part in last.by_party("revealed").items()
        for seat in (seat_of[party],)
        if len(part.values["shares"]) == len(partners[seat]) + 1
    }
    dealt = {seat: adverts[seat][:ADVERT_BYTES] for seat in sealed}
    num_liars = max(1, sums.assume().count_colluders(num))
    unmask(total, bound, dealt, partners, alive, revealed, needed, parties=seated, num_liars=num_liars)
    totals = {
        part: sums.finish(parts[part], values, weight, len(alive))
        for part, (values, weight) in split_total(encodings, total, len(alive)).items()
    }
    return Unveiled(totals, got.parties)
