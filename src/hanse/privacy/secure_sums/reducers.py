"""Secure sums as reducers: the exchanges of the protocol, and what each client computes in them.

    advertise_keys     each client draws fresh keys
    deal_shares        it deals sealed shares of its secrets to its neighbours
    mask_parts         it sends its part, masked
    confirm_survivors  with a roster: it signs who is in the total, as it was told
    reveal_shares      it reveals, of each neighbour, a share of the seed or of the masking key

Works and reducers are in one module, because a client whose policy reveals sums only computes the phases of
this module.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

import numpy as np

from hanse.core import (
    Array,
    CompositionError,
    Contribution,
    Declined,
    InvalidInput,
    Key,
    Keys,
    Memory,
    Part,
    PartyId,
    Program,
    Reducer,
    Shared,
    Spec,
    Total,
    Unveiled,
    Work,
    value,
)
from hanse.core.exchange import digest, pending
from hanse.privacy.secure_sums.evidence import (
    check_members,
    check_signatures,
    find_signer,
    make_proof,
    read_roster,
    sign_survivors,
)
from hanse.privacy.secure_sums.masks import unseal
from hanse.privacy.secure_sums.parties import (
    ADVERT_BYTES,
    SEALED_BYTES,
    advertise,
    deal,
    draw_secrets,
    mask,
    reveal,
)
from hanse.privacy.secure_sums.promises import (
    answer_once,
    bind_adverts,
    bind_round,
    check_survivors,
    find_peers,
    hash_adverts,
    hash_arrays,
    hash_told,
    name_own,
    promise,
    recall,
    to_rows,
    view_bytes,
)
from hanse.privacy.secure_sums.protocol import Phases, perform_phases
from hanse.privacy.secure_sums.ring import Encoding, encode_parts, make_encoding, to_dtype
from hanse.privacy.secure_sums.shamir import SHARE_BYTES
from hanse.privacy.secure_sums.thresholds import Assumptions, Thresholds, find_thresholds

__all__ = ["SecureReducer", "secure_mean", "secure_sum"]


@value
class advertise_keys(Work[Any, Any]):
    """Draws a client's keys for one sum, and advertises their public halves, and what it was told.

    A sum that is begun again has other keys at a real client; those of a simulated one follow from the seed.
    """

    signs: ClassVar[bool] = True

    sums: "SecureReducer"
    round: str
    encodings: Mapping[str, Encoding]

    def run(
        self, learner: Any, shared: Shared, data: Any, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        signer = find_signer(memory)
        told = hash_told(self.sums, self.encodings, memory)
        secrets = draw_secrets(keys.secret.secret_rng().bytes if signer is None else os.urandom)
        advert = advertise(secrets)
        if self.sums.roster:
            advert += make_proof(signer, bind_round(self.round, told), advert)
        memory = promise(memory, self.round, "settings", bytes.fromhex(digest(self.sums)))
        own = {name_own(self.round, "secrets"): secrets, name_own(self.round, "told"): told}
        return {"advert": Part({"keys": view_bytes(advert), "told": view_bytes(told)})}, {**memory, **own}


@value
class deal_shares(Work[Any, Any]):
    """Deals shares of a client's secrets to its neighbours, sealed for each."""

    signs: ClassVar[bool] = True

    sums: "SecureReducer"
    round: str
    num_clients: int

    def run(
        self, learner: Any, shared: Shared, data: Any, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        thresholds, memory = self.sums.begin_phase(memory, self.round, self.num_clients)
        secrets, told = recall(memory, self.round, "secrets"), recall(memory, self.round, "told")
        peers, bound = shared["peers"], bind_round(self.round, told)
        seats, rows = peers["seats"], peers["keys"]
        seat, adverts = find_peers(advertise(secrets), seats, rows[:, :ADVERT_BYTES], thresholds)
        signer, signing, proofs = find_signer(memory), dict[int, bytes](), dict[int, bytes]()
        if self.sums.roster and signer is not None:
            proofs = dict(zip(seats.tolist(), map(bytes, rows[:, ADVERT_BYTES:]), strict=True))
            proven = {other: (advert, proofs[other]) for other, advert in adverts.items()}
            roster = read_roster(self.sums.roster)
            signing = check_members(signer, roster, bound, proven)
        memory = promise(memory, self.round, "peers", hash_arrays(seats, rows, np.array(seat)))
        everybody = hash_adverts(seats, rows)
        bound = bind_adverts(bound, thresholds, everybody)
        dealt = deal(bound, secrets, seat, adverts, thresholds.num_shares)
        kept = {
            "seat": seat,
            "seats": np.array(list(adverts), np.int64),
            "adverts": to_rows(list(adverts.values()), ADVERT_BYTES),
            "opening": to_rows(list(dealt.opening.values()), SHARE_BYTES),
            "kept": dealt.kept,
            "all": everybody,
            "identities": to_rows([proofs[other][:SHARE_BYTES] for other in adverts if signing], SHARE_BYTES),
            "signing": to_rows([signing[other] for other in adverts if signing], SHARE_BYTES),
        }
        rows = to_rows(list(dealt.sealed.values()), SEALED_BYTES)
        return {"shares": Part({"sealed": rows})}, {**memory, name_own(self.round, "peers"): kept}


@value
class mask_parts(Work[Any, Any]):
    """Sends the parts that are kept back, as integers under masks that cancel in the sum."""

    signs: ClassVar[bool] = True

    sums: "SecureReducer"
    round: str
    num_clients: int
    encodings: Mapping[str, Encoding]

    def run(
        self, learner: Any, shared: Shared, data: Any, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        thresholds, memory = self.sums.begin_phase(memory, self.round, self.num_clients)
        peers = recall(memory, self.round, "peers")
        adverts = dict(zip(peers["seats"].tolist(), map(bytes, peers["adverts"]), strict=True))
        senders, sealed = shared["mail"]["seats"].tolist(), shared["mail"]["sealed"]
        if not set(senders) <= set(adverts) or len(set(senders)) != len(senders):
            raise Declined("it was sent shares of clients that are no neighbours of it")
        # Who has sealed shares for this client's new keys is in this sum, and answers for no other one.
        opening = dict(zip(peers["seats"].tolist(), map(bytes, peers["opening"]), strict=True))
        letters = zip(senders, map(bytes, sealed), strict=True)
        opened = [sender for sender, letter in letters if unseal(opening[sender], letter) is not None]
        if len(opened) + 1 < thresholds.num_shares:
            raise Declined(
                f"only {len(opened)} neighbours dealt shares that it can open, and {thresholds.num_shares} "
                "reveal a secret"
            )
        told = recall(memory, self.round, "told")
        if hash_told(self.sums, self.encodings, memory) != told:
            raise Declined("it has made its part of something else than it has told the others")
        whole = encode_parts(self.encodings, {name: memory[pending(name)] for name in self.encodings})
        # The masks of a sum hide one vector: of two under the same masks, the server sees the difference.
        memory = promise(memory, self.round, "mail", hash_arrays(shared["mail"]["seats"], sealed))
        memory = promise(memory, self.round, "numbers", hash_arrays(whole))
        memory = {
            **memory,
            name_own(self.round, "mail"): {
                "seats": shared["mail"]["seats"],
                "sealed": sealed,
                "opened": np.array(opened, np.int64),
            },
            name_own(self.round, "digest"): hash_arrays(whole),
        }
        secrets = recall(memory, self.round, "secrets")
        bound = bind_adverts(bind_round(self.round, told), thresholds, peers["all"])
        mask(whole, bound, secrets, peers["seat"], {s: adverts[s] for s in senders})
        return {"masked": Part({"integers": whole})}, memory


@value
class confirm_survivors(Work[Any, Any]):
    """Signs who is in the total, as this client was told, before anybody unmasks it."""

    signs: ClassVar[bool] = True

    sums: "SecureReducer"
    round: str
    num_clients: int

    def run(
        self, learner: Any, shared: Shared, data: Any, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        _, told, _, memory = check_survivors(self, shared, memory)
        signature = view_bytes(sign_survivors(find_signer(memory), told))
        return {"confirmed": Part({"signature": signature})}, memory


@value
class reveal_shares(Work[Any, Any]):
    """Reveals one share of each neighbour: of its seed if it is in the total, else of its masking key."""

    signs: ClassVar[bool] = True

    sums: "SecureReducer"
    round: str
    num_clients: int

    def run(
        self, learner: Any, shared: Shared, data: Any, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        alive, told, who, memory = check_survivors(self, shared, memory)
        peers, mail = recall(memory, self.round, "peers"), recall(memory, self.round, "mail")
        seats, senders = peers["seats"].tolist(), mail["seats"].tolist()
        if self.sums.roster and find_signer(memory) is not None:
            confirmed = shared["confirmed"]
            signatures = zip(confirmed["seats"].tolist(), map(bytes, confirmed["signatures"]), strict=True)
            signing = zip(seats, map(bytes, peers["signing"]), strict=True)
            needed = self.sums.find_thresholds(self.num_clients).num_shares
            check_signatures(told, {s: key for s, key in signing if s in alive}, dict(signatures), needed)
        memory = answer_once(memory, recall(memory, self.round, "digest"), who)
        opening = dict(zip(seats, map(bytes, peers["opening"]), strict=True))
        sealed = dict(zip(senders, map(bytes, mail["sealed"]), strict=True))
        revealed = reveal(opening, sealed, peers["seat"], peers["kept"], alive)
        rows = to_rows([revealed[seat] for seat in (*senders, peers["seat"])], SHARE_BYTES)
        return {"revealed": Part({"shares": rows})}, memory


# -- the reducers --------------------------------------------------------------------------------


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
      roster: the public keys of all members that may take part, against a server that lies; empty: the
        server is taken to be honest but curious.
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
    roster: tuple[str, ...] = ()
    min_clients: int = 0

    @property
    def fewest(self) -> int:
        return self.assume().count_honest(self.min_clients)

    @property
    def most(self) -> int:
        return self.max_clients

    @property
    def condition(self) -> str:
        return self.assume().condition

    def __post_init__(self) -> None:
        self.assume()
        read_roster(self.roster)
        if self.roster and self.num_neighbours is not None:
            raise InvalidInput("with a roster all clients are neighbours: leave num_neighbours out")
        if self.bits not in (32, 64):
            raise InvalidInput(f"bits is {self.bits}; write 32 or 64")
        for name in ("max_weight", "max_value", "max_clients", "num_neighbours"):
            given = getattr(self, name)
            if given is not None and not given > 0:
                raise InvalidInput(f"{name} is {given}; write a number above 0")
        if not self.min_clients >= 0:
            raise InvalidInput(f"min_clients is {self.min_clients}; write 0 or more clients")
        if self.num_neighbours is not None and self.num_neighbours % 2:
            raise InvalidInput(
                f"num_neighbours is {self.num_neighbours}; write an even number, half of them on each side"
            )

    def assume(self) -> Assumptions:
        """Returns the faults that it is built to bear."""
        listed = len(self.roster) or None
        return Assumptions(self.colluders, self.drop_out, self.failure, self.secrecy, listed)

    def find_thresholds(self, num_clients: int) -> Thresholds:
        """Finds neighbours and shares for a number of clients. Raises: CompositionError: if none suit."""
        if num_clients > self.max_clients:
            raise CompositionError(
                f"{num_clients} clients take part, and the sum is scaled for {self.max_clients}: write "
                f"max_clients={num_clients}"
            )
        return find_thresholds(self.assume(), num_clients, self.num_neighbours)

    def begin_phase(self, memory: Memory, round: str, num_clients: int) -> tuple[Thresholds, Memory]:
        """Checks at a client that a phase belongs to the sum that it has begun. Raises: Declined."""
        promise(memory, round, "settings", bytes.fromhex(digest(self)))
        memory = promise(memory, round, "number of clients", num_clients.to_bytes(8, "big"))
        try:
            return self.find_thresholds(num_clients), memory
        except CompositionError as error:
            raise Declined(str(error)) from error

    def make_encoding(self, spec: Spec) -> Encoding:
        """Chooses how a part is written as integers. Raises: CompositionError: if it can't be."""
        return make_encoding(
            spec,
            self.bits,
            max_value=self.max_value,
            max_weight=self.max_weight,
            max_clients=self.max_clients,
        )

    @property
    def disclosure(self) -> str:
        if not self.roster:
            return f"{super().disclosure}, which learns the total and nothing else {self.condition}"
        return (
            f"a sum that hides single updates from the server, also from one that lies: only these "
            f"{len(self.roster)} members take part: {', '.join(key[:16] for key in self.roster)}"
        )

    def explain(self, num_clients: int) -> str:
        """Explains a sum of so many clients. Raises: CompositionError: if no thresholds suit them."""
        thresholds, assumed = self.find_thresholds(num_clients), self.assume()
        server = "lies" if self.roster else "is honest but curious"
        return (
            f"{thresholds}; up to {assumed.count_colluders(num_clients)} may collude with a server that "
            f"{server}, and up to {assumed.count_lost(num_clients)} fall silent"
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
        phases = Phases(advertise_keys, deal_shares, mask_parts, confirm_survivors, reveal_shares)
        return perform_phases(self, phases, parts, parties, key)


@value
class secure_sum(SecureReducer):
    """The weighted sum, sum(w x), of which the server learns the total and nothing else.

    See `secure_mean`. Integers modulo 2^bits (kind "ring", such as noised ones) are added as they are.
    """

    def finish(self, spec: Spec, values: Mapping[str, Array], weight: float, count: int) -> Total:
        return Total({name: to_dtype(spec, name, v) for name, v in values.items()}, weight, count)


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
        divided = {name: to_dtype(spec, name, v / (weight or 1.0)) for name, v in values.items()}
        return Total(divided, weight, count)
