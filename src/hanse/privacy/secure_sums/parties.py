"""The computations of clients and server in a secure sum, as functions without exchanges.

Clients have seats 0, 1, ... in a sum. Client u draws two key pairs and a seed for this sum alone. It adds to
its vector x_u the mask of its seed, and for each neighbour v a mask of their common key, which v subtracts:

    y_u = x_u + PRG(b_u) + sum_{v > u} PRG(s_uv) - sum_{v < u} PRG(s_uv)   mod 2^bits

Shares of the seed b_u and of the masking key are dealt to the neighbours. If u has sent y_u, its neighbours
reveal shares of its seed, and otherwise shares of its masking key; nobody reveals both.

References: Bonawitz et al., "Practical secure aggregation for privacy-preserving machine learning", CCS 2017,
figure 4; Bell et al., CCS 2020, Algorithm 2.
"""

import hashlib
import hmac
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, count
from typing import TypeAlias

from hanse.core import Array, PartyId, RoundAbandoned
from hanse.privacy.secure_sums.masks import (
    KEY_BYTES,
    SEAL_BYTES,
    WINDOW_BYTES,
    add_masks,
    derive_key,
    make_public,
    read_secret,
    seal,
    unseal,
)
from hanse.privacy.secure_sums.shamir import SHARE_BYTES, join_shares, make_shares
from hanse.processes import num_processors

__all__ = [
    "ADVERT_BYTES",
    "MISSING",
    "SEALED_BYTES",
    "SECRET_BYTES",
    "Dealt",
    "Draw",
    "advertise",
    "deal",
    "draw_secrets",
    "mask",
    "reveal",
    "unmask",
]

SECRET_BYTES = 3 * KEY_BYTES
ADVERT_BYTES = 3 * KEY_BYTES
"""The bytes of what a client advertises: two public keys, and a commitment to its seed."""

SEALED_BYTES = 2 * SHARE_BYTES + SEAL_BYTES
"""The bytes of two shares, sealed for one neighbour."""

MOST_LIARS = 2
"""So many wrong shares of a secret are found by trying; more would take too long."""

MISSING = b"\xff" * SHARE_BYTES
"""Stands for a share that a client does not have; no share is as large."""

Draw: TypeAlias = Callable[[int], bytes]
"""Draws so many bytes that nobody can predict."""

Adverts: TypeAlias = Mapping[int, bytes]
"""The public halves that clients advertise, by seat."""


@dataclass(frozen=True)
class _Secrets:
    """The secrets of one client for one sum, read from its 96 bytes."""

    sealing: bytes
    masking: bytes
    seed: bytes

    @classmethod
    def read(cls, secrets: bytes) -> "_Secrets":
        return cls(*(secrets[at : at + KEY_BYTES] for at in range(0, SECRET_BYTES, KEY_BYTES)))


def draw_secrets(draw: Draw) -> bytes:
    """Draws a client's secrets for one sum: a key for sealing, one for masking, and a seed.

    Each is below 2^255, and so below the prime of the shares. X25519 sets the highest bits by itself.
    """
    drawn = [draw(KEY_BYTES) for _ in range(3)]
    return b"".join(bytes([secret[0] & 0x7F]) + secret[1:] for secret in drawn)


def _draw_from(secret: bytes, about: bytes) -> Draw:
    """Returns a draw of bytes that follow from a secret and what they are for, by HMAC-SHA256."""
    numbers = count()

    def draw(length: int) -> bytes:
        text = b"hanse secure sum shares" + next(numbers).to_bytes(8, "big") + about
        return hmac.digest(secret, text, "sha256")[:length]

    return draw


def advertise(secrets: bytes) -> bytes:
    """Makes what a client advertises."""
    own = _Secrets.read(secrets)
    return make_public(own.sealing) + make_public(own.masking) + _commit(own.seed)


def _commit(seed: bytes) -> bytes:
    return hashlib.sha256(b"hanse secure sum seed" + seed).digest()


def _context(
    purpose: bytes, round: bytes, first: int, first_advert: bytes, then: int, advert: bytes
) -> bytes:
    """Binds a key to its purpose, its round and two clients in order. Their keys are fresh in each sum."""
    seats = first.to_bytes(4, "big") + first_advert + then.to_bytes(4, "big") + advert
    return b"hanse secure sum 1 " + purpose + hashlib.sha256(round + seats).digest()


@dataclass(frozen=True)
class Dealt:
    """The results of a client's second phase.

    Args:
      sealed: for each neighbour, the shares that only it can read.
      opening: for each neighbour, the key that opens what it seals for this client.
      kept: this client's own two shares.
    """

    sealed: Mapping[int, bytes]
    opening: Mapping[int, bytes]
    kept: bytes


def deal(round: bytes, secrets: bytes, seat: int, adverts: Adverts, needed: int) -> Dealt:
    """Divides a client's secrets into shares, one for each neighbour and one for itself.

    The coefficients of the shares follow from the sealing key, which is never shared, and from who holds
    them. So a client that deals
    twice in a sum seals the same shares: AES-GCM would show the difference of two messages under one key.

    Args:
      adverts: of the neighbours.
      needed: the number of shares that reveal a secret.
    """
    own, mine = _Secrets.read(secrets), advertise(secrets)
    holders = [*adverts, seat]
    # Two polynomials with the same coefficients, for other holders or another number, would tell the secret.
    about = [needed.to_bytes(4, "big"), *(h.to_bytes(4, "big") + adverts.get(h, mine) for h in holders)]
    draw = _draw_from(own.sealing, hashlib.sha256(round + b"".join(about)).digest())
    shares = [
        masking + seed
        for masking, seed in zip(
            make_shares(own.masking, holders, needed, draw),
            make_shares(own.seed, holders, needed, draw),
            strict=True,
        )
    ]
    private, sealed, opening = read_secret(own.sealing), dict[int, bytes](), dict[int, bytes]()
    for other, share in zip(adverts, shares, strict=False):
        theirs = adverts[other][:KEY_BYTES]
        to = derive_key(private, theirs, _context(b"seal", round, seat, mine, other, adverts[other]))
        sealed[other] = seal(to, share)
        opening[other] = derive_key(
            private, theirs, _context(b"seal", round, other, adverts[other], seat, mine)
        )
    return Dealt(sealed, opening, shares[-1])


def _pair_masks(
    round: bytes, masking: bytes, seat: int, mine: bytes, adverts: Adverts
) -> Iterator[tuple[bytes, bool]]:
    """Yields the common masks of a client with others, and whether this client adds them."""
    private = read_secret(masking)
    for other, advert in adverts.items():
        ends = (seat, mine, other, advert) if seat < other else (other, advert, seat, mine)
        theirs = advert[KEY_BYTES : 2 * KEY_BYTES]
        yield derive_key(private, theirs, _context(b"mask", round, *ends)), seat < other


def mask(vector: Array, round: bytes, secrets: bytes, seat: int, adverts: Adverts) -> None:
    """Masks a client's vector, in place.

    Args:
      vector: integers modulo 2^bits of its dtype.
      adverts: of the neighbours that have dealt shares.
    """
    own, mine = _Secrets.read(secrets), advertise(secrets)
    pairs = _pair_masks(round, own.masking, seat, mine, adverts)
    add_masks(vector, [(own.seed, True), *pairs])


def reveal(
    opening: Mapping[int, bytes], mail: Mapping[int, bytes], seat: int, kept: bytes, alive: Collection[int]
) -> dict[int, bytes]:
    """Opens the mail of a client, and reveals one of the two shares of each sender.

    Args:
      opening: keys by sender, from `Dealt`.
      mail: sealed shares by sender.
      kept: the client's own two shares.
      alive: the seats whose masked vectors are in the total.

    Returns: by seat, a share of the seed of those alive, and of the masking key of the others.
    """
    revealed: dict[int, bytes] = {}
    for sender, sealed in mail.items():
        shares = unseal(opening[sender], sealed)
        if shares is None or len(shares) != 2 * SHARE_BYTES:
            revealed[sender] = MISSING
        else:
            revealed[sender] = shares[SHARE_BYTES:] if sender in alive else shares[:SHARE_BYTES]
    if seat in alive:
        revealed[seat] = kept[SHARE_BYTES:]
    return revealed


def unmask(
    total: Array,
    round: bytes,
    adverts: Adverts,
    partners: Mapping[int, Collection[int]],
    alive: Collection[int],
    revealed: Mapping[int, Mapping[int, bytes]],
    needed: int,
    *,
    parties: Sequence[PartyId] = (),
    num_liars: int = 1,
) -> None:
    """Takes the masks off the sum of masked vectors, in place: the server's part.

    Args:
      total: the sum of the masked vectors of those alive.
      adverts: of all clients that dealt shares.
      partners: for each of them, the neighbours that dealt shares, too.
      alive: the seats whose vectors are in the total.
      revealed: by seat of who reveals, the shares by seat of whom they are.
      needed: the number of shares that reveal a secret.
      parties: who sits at each seat, for messages.
      num_liars: so many clients, at most, are taken to lie together. A client that dealt shares which more
        would have to deny, if it were honest, is convicted.

    One or two wrong shares of a secret are found out by what its client advertised, and are left out; that
    takes some more shares than are needed.

    Raises: RoundAbandoned: if there are too few shares of one client, or if they are wrong.
    """
    shares: dict[int, dict[int, bytes]] = {}
    for holder, own in sorted(revealed.items()):
        for seat, share in own.items():
            shares.setdefault(seat, {})[holder] = share
    masks: list[tuple[bytes, bool]] = []
    suspects = set[int]()

    def join(seat: int, *, is_seed: bool) -> bytes:
        # Who is suspected comes last. It may be honest, and have been dealt a wrong share.
        held = dict(sorted(shares.get(seat, {}).items(), key=lambda item: item[0] in suspects))
        party = parties[seat] if parties else None
        return _join(held, seat, party, adverts[seat], needed, suspects, num_liars=num_liars, is_seed=is_seed)

    for seat in sorted(adverts):
        if seat in alive:
            masks.append((join(seat, is_seed=True), False))
            continue
        with_whom = {other: adverts[other] for other in partners[seat] if other in alive}
        if with_whom:
            masking = join(seat, is_seed=False)
            masks += list(_pair_masks(round, masking, seat, adverts[seat], with_whom))
    # What a lost client would have added is what cancels its neighbours' masks.
    num_threads = num_processors() if total.nbytes > WINDOW_BYTES else 1
    add_masks(total, masks, num_threads=num_threads)


def _join(
    revealed: Mapping[int, bytes],
    seat: int,
    party: PartyId | None,
    advert: bytes,
    needed: int,
    suspects: set[int],
    *,
    num_liars: int,
    is_seed: bool,
) -> bytes:
    """Joins the shares of a client's secret, and adds holders of wrong ones to the suspects.

    Raises: RoundAbandoned: if they do not fit what it advertised. It convicts the client if more than
      `num_liars` of the holders must have lied in case that it is honest.
    """
    held = {holder: share for holder, share in revealed.items() if share != MISSING}
    num_tried = min(MOST_LIARS, len(held) - needed)
    for num_wrong in range(num_tried + 1):
        for wrong in combinations(list(held)[: needed + num_wrong], num_wrong):
            left = [holder for holder in list(held)[: needed + num_wrong] if holder not in wrong]
            secret = join_shares({holder: held[holder] for holder in left})
            if is_seed:
                is_right = hmac.compare_digest(_commit(secret), advert[2 * KEY_BYTES :])
            else:
                is_right = make_public(secret) == advert[KEY_BYTES : 2 * KEY_BYTES]
            if is_right:
                suspects.update(wrong)
                return secret
    who = f"client {party}" if party is not None else f"the client at seat {seat}"
    num_missing = len(revealed) - len(held)
    if num_tried < 0:
        num_denying = num_missing
        fault = f"{len(held)} clients revealed a share of {who}, and {needed} are needed"
    else:
        num_denying = num_missing + num_tried + 1
        fault = (
            f"the shares of {who} do not fit what it advertised: it dealt wrong ones, or more than "
            f"{num_tried} clients revealed wrong ones"
        )
    if num_denying <= num_liars:
        raise RoundAbandoned(fault)
    raise RoundAbandoned(
        f"{fault}. It takes more than {num_liars} that lie together to accuse it wrongly, so {who} is left "
        "out of further rounds",
        convicted=() if party is None else (party,),
    )
