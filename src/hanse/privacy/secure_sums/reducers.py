"""Secure sums as reducers: the exchanges of the protocol, and what each client computes in them.

    advertise_keys     each client draws fresh keys
    deal_shares        it deals sealed shares of its secrets to its neighbours
    mask_parts         it sends its part, masked
    confirm_survivors  with a roster: it signs who is in the total
    reveal_shares      it reveals, of each neighbour, a share of the seed or of the masking key

Works and reducers are in one module, because a client whose policy reveals sums only computes the phases of
this module.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

import numpy as np

from hanse.core import (
    Array,
    Close,
    CompositionError,
    Contribution,
    Declined,
    InvalidInput,
    Key,
    Keys,
    Memory,
    Part,
    PartSpec,
    PartyId,
    Program,
    Reducer,
    RoundAbandoned,
    Shared,
    Spec,
    TensorSpec,
    Total,
    Unveiled,
    Work,
    each,
    gather,
    sum,
    value,
)
from hanse.core.exchange import pending
from hanse.privacy.secure_sums.graph import draw_neighbours
from hanse.privacy.secure_sums.parties import (
    ADVERT_BYTES,
    SEALED_BYTES,
    advertise,
    deal,
    draw_secrets,
    mask,
    reveal,
    unmask,
)
from hanse.privacy.secure_sums.promises import (
    NAME_BYTES,
    answer_once,
    bind_round,
    find_peers,
    hash_arrays,
    name_own,
    promise,
    recall,
    to_rows,
    view_bytes,
)
from hanse.privacy.secure_sums.ring import Encoding, encode_parts, make_encoding, split_total
from hanse.privacy.secure_sums.shamir import SHARE_BYTES
from hanse.privacy.secure_sums.thresholds import Assumptions, Thresholds, find_thresholds

__all__ = ["secure_mean", "secure_sum"]


@value
class advertise_keys(Work[Any, Any]):
    """Draws a client's keys for one sum, and advertises their public halves."""

    sums: "SecureReducer"
    round: str

    def run(
        self, learner: Any, shared: Shared, data: Any, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        secrets = draw_secrets(keys.secret.secret_rng().bytes)
        advert = view_bytes(advertise(secrets))
        return {"advert": Part({"keys": advert})}, {**memory, name_own(self.round, "secrets"): secrets}


@value
class deal_shares(Work[Any, Any]):
    """Deals shares of a client's secrets to its neighbours, sealed for each."""

    sums: "SecureReducer"
    round: str
    num_clients: int

    def run(
        self, learner: Any, shared: Shared, data: Any, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        thresholds = self.sums.find_thresholds(self.num_clients)
        secrets = recall(memory, self.round, "secrets")
        peers = shared["peers"]
        seats, rows = peers["seats"], peers["keys"]
        seat, adverts = find_peers(advertise(secrets), seats, rows, thresholds)
        memory = promise(memory, self.round, "peers", hash_arrays(seats, rows, np.array(seat)))
        draw = keys.secret.secret_rng().bytes
        dealt = deal(bind_round(self.round), secrets, seat, adverts, thresholds.num_shares, draw)
        kept = {
            "seat": seat,
            "seats": np.array(list(adverts), np.int64),
            "adverts": to_rows(list(adverts.values()), ADVERT_BYTES),
            "opening": to_rows(list(dealt.opening.values()), SHARE_BYTES),
            "kept": dealt.kept,
        }
        rows = to_rows(list(dealt.sealed.values()), SEALED_BYTES)
        return {"shares": Part({"sealed": rows})}, {**memory, name_own(self.round, "peers"): kept}


@value
class mask_parts(Work[Any, Any]):
    """Sends the parts that are kept back, as integers under masks that cancel in the sum."""

    sums: "SecureReducer"
    round: str
    num_clients: int
    encodings: Mapping[str, Encoding]

    def run(
        self, learner: Any, shared: Shared, data: Any, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        thresholds = self.sums.find_thresholds(self.num_clients)
        peers = recall(memory, self.round, "peers")
        adverts = dict(zip(peers["seats"].tolist(), map(bytes, peers["adverts"]), strict=True))
        senders, sealed = shared["mail"]["seats"].tolist(), shared["mail"]["sealed"]
        if not set(senders) <= set(adverts) or len(set(senders)) != len(senders):
            raise Declined("it was sent shares of clients that are no neighbours of it")
        if len(senders) + 1 < thresholds.num_shares:
            raise Declined(
                f"only {len(senders)} neighbours dealt shares, and {thresholds.num_shares} reveal a secret"
            )
        memory = promise(memory, self.round, "mail", hash_arrays(shared["mail"]["seats"], sealed))
        whole = encode_parts(self.encodings, {name: memory[pending(name)] for name in self.encodings})
        memory = {
            **memory,
            name_own(self.round, "mail"): {"seats": shared["mail"]["seats"], "sealed": sealed},
            name_own(self.round, "digest"): hash_arrays(whole),
        }
        secrets = recall(memory, self.round, "secrets")
        mask(whole, bind_round(self.round), secrets, peers["seat"], {s: adverts[s] for s in senders})
        return {"masked": Part({"integers": whole})}, memory


@value
class reveal_shares(Work[Any, Any]):
    """Reveals one share of each neighbour: of its seed if it is in the total, else of its masking key."""

    sums: "SecureReducer"
    round: str
    num_clients: int

    def run(
        self, learner: Any, shared: Shared, data: Any, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        thresholds = self.sums.find_thresholds(self.num_clients)
        bits, names = shared["alive"]["seats"], shared["alive"]["names"]
        if len(bits) != self.num_clients or len(names) != self.num_clients:
            raise Declined(f"it was told of {len(bits)} clients, and {self.num_clients} are in this sum")
        alive = set(np.flatnonzero(bits).tolist())
        if len(alive) < self.sums.min_clients:
            raise Declined(f"{len(alive)} clients are in the total, and {self.sums.min_clients} must be")
        peers, mail = recall(memory, self.round, "peers"), recall(memory, self.round, "mail")
        senders = mail["seats"].tolist()
        if peers["seat"] not in alive:
            raise Declined("its own part is not in the total, so it helps nobody to unmask it")
        if len(alive.intersection(senders)) + 1 < thresholds.num_shares:
            raise Declined(
                f"only {len(alive.intersection(senders)) + 1} of its neighbours and it are in the total, and "
                f"{thresholds.num_shares} are needed"
            )
        who = hashlib.sha256(b"".join(sorted(bytes(names[seat]) for seat in alive))).digest()
        memory = promise(memory, self.round, "alive", hash_arrays(bits, names))
        memory = answer_once(memory, recall(memory, self.round, "digest"), who)
        opening = dict(zip(peers["seats"].tolist(), map(bytes, peers["opening"]), strict=True))
        sealed = dict(zip(senders, map(bytes, mail["sealed"]), strict=True))
        revealed = reveal(opening, sealed, peers["seat"], peers["kept"], alive)
        rows = to_rows([revealed[seat] for seat in (*senders, peers["seat"])], SHARE_BYTES)
        return {"revealed": Part({"shares": rows})}, memory


# -- the reducers --------------------------------------------------------------------------------


def _part_of(into: Reducer[Any], **tensors: TensorSpec) -> PartSpec:
    return PartSpec(Spec(tensors, kind="ring" if into == sum() else "coded"), into=into)


@dataclass(frozen=True)
class SecureReducer(Reducer[Any]):
    """A reducer of which the server learns the total and nothing else: `secure_sum` or `secure_mean`.

    Args:
      colluders: the largest share of a round's clients that tell the server all they know.
      drop_out: the largest share that falls silent in the course of a sum. With more, the round is abandoned.
      failure: the probability with which a round fails all the same, if so many fall silent.
      secrecy: the probability with which so many colluders learn the message of one client.
      bits: of the integers that are added up, 32 or 64.
      max_weight: a client of a larger weight takes no part.
      max_value: a client with a larger number takes no part; None: the bound of clip(...) in uplink.
      max_clients: the most clients of a sum; the scale is such that so many can't make it wrap.
      num_neighbours: with whom each client shares its secrets; None: the fewest that suffice.
      min_clients: the fewest clients in a total; with fewer, the clients do not help to unmask it. Noise that
        clients add in shares counts on it.
    """

    hides: ClassVar[bool] = True

    colluders: float = 0.1
    drop_out: float = 0.2
    failure: float = 2.0**-20
    secrecy: float = 2.0**-40
    bits: int = 64
    max_weight: float = 1e6
    max_value: float | None = None
    max_clients: int = 1024
    num_neighbours: int | None = None
    min_clients: int = 0

    @property
    def fewest(self) -> int:
        return self.min_clients

    def __post_init__(self) -> None:
        self._assume()
        if self.bits not in (32, 64):
            raise InvalidInput(f"bits is {self.bits}; write 32 or 64")
        for name in ("max_weight", "max_value", "max_clients", "num_neighbours"):
            given = getattr(self, name)
            if given is not None and not given > 0:
                raise InvalidInput(f"{name} is {given}; write a number above 0")
        if self.num_neighbours is not None and self.num_neighbours % 2:
            raise InvalidInput(
                f"num_neighbours is {self.num_neighbours}; write an even number, half of them on each side"
            )

    def _assume(self) -> Assumptions:
        return Assumptions(self.colluders, self.drop_out, self.failure, self.secrecy)

    def find_thresholds(self, num_clients: int) -> Thresholds:
        """Finds neighbours and shares for a number of clients. Raises: CompositionError: if none suit."""
        if num_clients > self.max_clients:
            raise CompositionError(
                f"{num_clients} clients take part, and the sum is scaled for {self.max_clients}: write "
                f"max_clients={num_clients}"
            )
        return find_thresholds(self._assume(), num_clients, self.num_neighbours)

    def make_encoding(self, spec: Spec) -> Encoding:
        """Chooses how a part is written as integers. Raises: CompositionError: if it can't be."""
        return make_encoding(
            spec,
            self.bits,
            max_value=self.max_value,
            max_weight=self.max_weight,
            max_clients=self.max_clients,
        )

    def accepts(self, spec: Spec) -> None:
        self.make_encoding(spec)

    def check_number(self, num_parts: int) -> None:
        self.find_thresholds(num_parts)
        if num_parts < self.min_clients:
            raise CompositionError(
                f"at most {num_parts} clients answer, and {self.min_clients} must be in a total: ask more "
                "clients, or write a smaller min_clients"
            )

    def lift(self, part: Part) -> NoReturn:
        raise CompositionError(f"{self} hides parts from who adds them up: gather(...) runs its protocol")

    def merge(self, left: Any, right: Any) -> NoReturn:
        self.lift(left)

    def result(self, accumulator: Any) -> NoReturn:
        self.lift(accumulator)

    def finish(self, spec: Spec, values: Mapping[str, Array], weight: float, count: int) -> Total:
        """Makes the total of a part from the sums of its values and weights."""
        raise NotImplementedError

    def protocol(
        self, parts: Mapping[str, Spec], parties: tuple[PartyId, ...], key: Key
    ) -> Program[Unveiled]:
        encodings = {part: self.make_encoding(spec) for part, spec in parts.items()}
        size = 0
        for encoding in encodings.values():
            size += encoding.num_values
        round = key.digest.hex()

        advert = _part_of(each(), keys=TensorSpec((ADVERT_BYTES,), "uint8"))
        work: Work[Any, Any] = advertise_keys(self, round)
        got = yield from gather(work, parties, {}, key.fold_in("advertise"), close=ANYBODY, advert=advert)
        seated = got.parties
        adverts = [bytes(part.values["keys"]) for part in got.by_party("advert").values()]
        try:
            thresholds = self.find_thresholds(len(seated))
        except CompositionError as error:
            raise RoundAbandoned(f"{len(seated)} clients were ready: {error}") from error
        neighbours = draw_neighbours(thresholds, key.fold_in("graph"))
        num, needed = len(seated), thresholds.num_shares
        close = Close(minimum_fraction=needed / num)

        rows = to_rows(adverts, ADVERT_BYTES)
        shared: dict[str, Any] = {}
        own: dict[PartyId, Any] = {}
        if thresholds.is_complete:
            shared = {"peers": {"seats": np.arange(num), "keys": rows}}
        else:
            for seat, party in enumerate(seated):
                around = np.array([seat, *neighbours[seat]])
                own[party] = {"peers": {"seats": around, "keys": rows[around]}}
        shares = _part_of(each(), sealed=TensorSpec(("neighbours", SEALED_BYTES), "uint8"))
        work = deal_shares(self, round, num)
        got = yield from gather(
            work, seated, shared, key.fold_in("deal"), close=close, own=own, shares=shares
        )
        seat_of = {party: seat for seat, party in enumerate(seated)}
        sealed = {
            seat_of[party]: dict(zip(neighbours[seat_of[party]], part.values["sealed"], strict=True))
            for party, part in got.by_party("shares").items()
        }
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
        masked = _part_of(sum(), integers=TensorSpec((size,), f"uint{self.bits}"))
        work = mask_parts(self, round, num, encodings)
        got = yield from gather(
            work, got.parties, {}, key.fold_in("mask"), close=close, own=mail, masked=masked
        )
        if len(got.parties) < self.min_clients:
            raise RoundAbandoned(
                f"{len(got.parties)} clients are left, and {self.min_clients} must be in a total"
            )
        total, alive = np.array(got["masked"].values["integers"]), {seat_of[party] for party in got.parties}

        names = to_rows([_name(party) for party in seated], NAME_BYTES)
        bits = np.array([seat in alive for seat in range(num)], np.uint8)
        told = {"alive": {"seats": bits, "names": names}}
        revealing = _part_of(each(), shares=TensorSpec(("senders", SHARE_BYTES), "uint8"))
        work = reveal_shares(self, round, num)
        last = yield from gather(
            work, got.parties, told, key.fold_in("reveal"), close=ANYBODY, revealed=revealing
        )
        revealed = {
            seat: dict(zip((*partners[seat], seat), map(bytes, part.values["shares"]), strict=True))
            for party, part in last.by_party("revealed").items()
            for seat in (seat_of[party],)
        }
        dealt = {seat: adverts[seat] for seat in sealed}
        unmask(total, bind_round(round), dealt, partners, alive, revealed, needed)
        totals = {
            part: self.finish(parts[part], values, weight, len(alive))
            for part, (values, weight) in split_total(encodings, total).items()
        }
        return Unveiled(totals, got.parties)


ANYBODY = Close(minimum_fraction=1e-6)
"""Of whose own number nothing is wanted: thresholds decide whether those who are left suffice."""


def _name(party: PartyId) -> bytes:
    """Names a party in the same way in all rounds of a run."""
    return hashlib.sha256(f"{type(party).__name__} {party}".encode()).digest()[:NAME_BYTES]


def _like(spec: Spec, name: str, numbers: Array) -> Array:
    """Returns numbers in the dtype of a part, where it is the sum that is wanted."""
    return numbers.astype(spec.tensors[name].dtype)


@value
class secure_sum(SecureReducer):
    """The weighted sum, sum(w x), of which the server learns the total and nothing else.

    See `secure_mean`. Integers modulo 2^bits (kind "ring", such as noised ones) are added as they are.
    """

    def finish(self, spec: Spec, values: Mapping[str, Array], weight: float, count: int) -> Total:
        return Total({name: _like(spec, name, v) for name, v in values.items()}, weight, count)


@value
class secure_mean(SecureReducer):
    """The weighted mean, sum(w x) / sum(w), of which the server learns both sums and nothing else.

        y_u = round(2^f w_u x_u), w_u + PRG(b_u) + sum_{v > u} PRG(s_uv) - sum_{v < u} PRG(s_uv)   mod 2^bits

    Clients that fall silent are no obstacle, up to `drop_out` of them.

    Runs at: clients (masks, shares), server (takes masks off the total).
    Reveals: to the server, the total, who is in it, and who fell silent.
    Raises: CompositionError: if nothing bounds the numbers, or if no threshold suits the clients.
    References: Bonawitz et al., "Practical secure aggregation for privacy-preserving machine learning", CCS
      2017; Bell et al., "Secure single-server aggregation with (poly)logarithmic overhead", CCS 2020.

    >>> secure_mean().find_thresholds(100).num_neighbours
    42
    """

    def accepts(self, spec: Spec) -> None:
        super().accepts(spec)
        if spec.kind == "ring":
            raise CompositionError(
                f"{self} divides, which integers modulo 2^bits do not allow: use secure_sum()"
            )

    def finish(self, spec: Spec, values: Mapping[str, Array], weight: float, count: int) -> Total:
        divided = {
            name: (v / (weight or 1.0)).astype(spec.tensors[name].dtype if v.dtype.kind == "f" else "float64")
            for name, v in values.items()
        }
        return Total(divided, weight, count)
