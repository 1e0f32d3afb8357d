"""Sums of encrypted messages: the server adds ciphertexts, and a key holder decrypts the sum alone.

    1. make_keys        the key holder makes a key pair, and vouches for the public half
    2. encrypt_pending  each client encrypts, and adds a code to its ciphertexts
    -                   the server adds ciphertexts and codes up
    3. decrypt_sum      the key holder checks by the code that it was sent the sum of enough clients, once

The works are in the module of the reducers: by that a client's policy knows them as phases of these.
"""

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, ClassVar

import numpy as np

from hanse.core import (
    HOUSES,
    PROMISED,
    Array,
    Close,
    CompositionError,
    Contribution,
    Declined,
    InvalidInput,
    Key,
    Keys,
    Memory,
    MessageError,
    Part,
    PartSpec,
    PartyId,
    Program,
    Reducer,
    RoundAbandoned,
    Shared,
    Spec,
    Tensors,
    TensorSpec,
    Total,
    Unveiled,
    Work,
    check_positive,
    each,
    gather,
    value,
)
from hanse.core.exchange import MIN_COHORT, digest, pending
from hanse.privacy.encryption.bfv import bfv, decrypt, encrypt, make_key_pair
from hanse.privacy.encryption.evidence import add_pads, compute_codes, name_house, vouch_for
from hanse.privacy.encryption.messages import (
    HOUSE_BYTES,
    MOST_UNUSED,
    NAME_BYTES,
    NAMES,
    add_residues,
    describe_keys,
    describe_message,
    join_primes,
    pad,
    part_by_prime,
    unpad,
)
from hanse.privacy.secure_sums import (
    TOLD_BYTES,
    Encoding,
    encode_parts,
    hash_told,
    make_encoding,
    split_total,
    to_dtype,
)

__all__ = ["KEY_HOLDER", "encrypted_mean", "encrypted_sum"]

KEY_HOLDER = "key_holder"
"""The usual name of the party that holds the secret key."""

BITS = 32
"""The integers that are added up are those of `secure_sum(bits=32)`, so that totals have the same bits."""

OF_HOLDER = f"{PROMISED}{PROMISED}encryption/keys"
"""The name in memory of the key holder's latest keys: public, secret, the digest of the sum that was
decrypted, and the names of all earlier ones that were never used to decrypt."""

OF_CLIENT = f"{PROMISED}{PROMISED}encryption/sent"
"""The name in memory of all that a client has encrypted in a run: key pair, digest, its own name there."""

PARTY = re.compile("[A-Za-z][A-Za-z0-9_-]*")
"""The names of parties that members play beside the clients; "test/0" is a role of a client."""

EVERYBODY = Close(minimum_fraction=1.0)


@value
class SumTerms:
    """The terms to which all evidence is bound: a party that was told others finds that codes do not fit.

    Args:
      scheme: of the encryption.
      min_cohort, max_cohort: the fewest and the most clients in a sum.
    """

    scheme: bfv
    min_cohort: int
    max_cohort: int

    def open_session(self, memory: Memory, public: bytes) -> Key:
        """Derives the secret of the houses for one key pair and these terms."""
        houses: Key | None = memory.get(HOUSES)
        if houses is None:
            raise InvalidInput(
                "encrypted sums need the secret that the houses share and the server does not know, and "
                "there is none here: the party that holds the key makes a file houses.key, and each house "
                "puts a copy into its client's folder"
            )
        return houses.fold_in("encrypted sum", sha256(public).hexdigest(), digest(self))


@value
class make_keys(Work[Any, Any]):
    """The key holder makes a new key pair and keeps the secret half. An earlier pair is gone.

    It says which earlier pairs it never decrypted with, so that clients may encrypt again what they have
    encrypted under these.
    """

    terms: SumTerms
    needs_data: ClassVar[bool] = False
    needs_houses: ClassVar[bool] = True

    def run(
        self, learner: Any, shared: Shared, data: Any, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        unused = b""
        if OF_HOLDER in memory:
            public, _, answered, before = memory[OF_HOLDER]
            unused = before if answered else before + sha256(public).digest()
        unused = unused[-32 * MOST_UNUSED :]
        public, secret = make_key_pair(self.terms.scheme)
        rows = np.zeros((MOST_UNUSED, 32), np.uint8)
        rows.reshape(-1)[: len(unused)] = np.frombuffer(unused, np.uint8)
        vouch = vouch_for(self.terms.open_session(memory, public), rows)
        told = {"public": pad(public, self.terms.scheme.public_bytes), "unused": rows, "vouch": vouch}
        return {"keys": Part(told)}, {**memory, OF_HOLDER: (public, secret, "", unused)}


@value
class encrypt_pending(Work[Any, Any]):
    """Each client encrypts what it holds back, once for each pair of keys.

    It promises not to encrypt the same again under other keys, unless the holder vouches that it never
    decrypted with the ones before: of two sums with and without a client, the difference is that client's.
    """

    sums: "_Encrypted"
    encodings: Mapping[str, Encoding]
    needs_data: ClassVar[bool] = False
    needs_houses: ClassVar[bool] = True
    signs: ClassVar[bool] = True

    def run(
        self, learner: Any, shared: Shared, data: Any, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        told, terms = shared["keys"], self.sums.terms
        scheme = terms.scheme
        if terms.min_cohort < (wanted := memory.get(MIN_COHORT, 0)):
            raise Declined(
                f"its owner wants {wanted} clients in a total, and this sum takes {terms.min_cohort}"
            )
        alike = hash_told(self.sums, self.encodings, memory)
        public = unpad(told["public"])
        session = terms.open_session(memory, public)
        if not hmac.compare_digest(told["vouch"].tobytes(), vouch_for(session, told["unused"]).tobytes()):
            raise MessageError(
                "the public key is not vouched for by the party that holds the secret one, or for other "
                "terms: the server may have made it, or this house has another secret"
            )
        parts = {name: memory[pending(name)] for name in self.encodings}
        house = name_house(session, memory, keys)
        house, sent = self._promise(digest(parts), public, told["unused"], memory, house)
        residues = encrypt(scheme, public, self._write(parts))
        # A ticket that is computed twice is encrypted anew, so each ciphertext needs a pad of its own.
        name = house + sha256(residues.tobytes()).digest()[: NAME_BYTES - HOUSE_BYTES - TOLD_BYTES] + alike
        codes = add_pads(scheme, session, compute_codes(scheme, session, residues), [name])
        answer = {
            "sum": Part(part_by_prime(residues, codes)),
            "names": Part({"name": np.frombuffer(name, np.uint8)}),
        }
        return answer, {**memory, OF_CLIENT: sent}

    def _write(self, parts: Mapping[str, Part]) -> Array:
        """Writes parts as integers that a sum has room for. Raises: Declined: if one is too large."""
        whole = encode_parts(self.encodings, parts).view(np.int32).astype(np.int64)
        room = self.sums.scheme.most // self.sums.max_cohort
        if (largest := int(np.abs(whole).max(initial=0))) > room:
            raise Declined(
                f"a number of its part is {largest} as an integer, and sums of {self.sums.max_cohort} "
                f"clients have room for {room} of each: write a smaller max_cohort, or less noise"
            )
        return whole

    def _promise(
        self, what: str, public: bytes, unused: Array, memory: Memory, own: bytes
    ) -> tuple[bytes, tuple[tuple[bytes, str, bytes], ...]]:
        """Returns this house's name under a key pair, and what it has sent under which pairs."""
        pair, never_used = sha256(public).digest(), {row.tobytes() for row in unused}
        sent: tuple[tuple[bytes, str, bytes], ...] = memory.get(OF_CLIENT, ())
        for earlier, other, name in sent:
            if earlier == pair and other == what:
                return name, sent
            if earlier == pair:
                raise Declined("it was asked to encrypt something else under the same keys")
            if other == what and earlier not in never_used:
                raise Declined("it was asked to encrypt the same under other keys, for another sum")
        return own, (*sent, (pair, what, own))


@value
class decrypt_sum(Work[Any, Any]):
    """The key holder decrypts a sum of enough clients, one for each pair of keys."""

    terms: SumTerms
    num_values: int
    needs_data: ClassVar[bool] = False
    needs_houses: ClassVar[bool] = True

    def run(
        self, learner: Any, shared: Shared, data: Any, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        if OF_HOLDER not in memory:
            raise Declined("it holds no keys for this sum")
        public, secret, answered, unused = memory[OF_HOLDER]
        asked = digest(dict(shared["sum"]))
        if answered not in ("", asked):
            raise Declined("it has decrypted another sum with these keys")
        sent = dict(shared["sum"])
        names = [row.tobytes() for row in sent.pop("names")]
        houses = {name[:HOUSE_BYTES] for name in names}
        if len(houses) != len(names) or len(names) < self.terms.min_cohort:
            raise MessageError(
                f"a sum of {len(houses)} clients; at least {self.terms.min_cohort} are needed, each once"
            )
        if len(names) > self.terms.max_cohort:
            raise MessageError(f"a sum of {len(names)} clients; at most {self.terms.max_cohort} have room")
        if len({name[-TOLD_BYTES:] for name in names}) > 1:
            raise MessageError(
                "the clients of this sum were sent different models or settings, so the total may be one's"
            )
        residues, codes = join_primes(sent)
        session = self.terms.open_session(memory, public)
        own = compute_codes(self.terms.scheme, session, residues)
        expected = add_pads(self.terms.scheme, session, own, names)
        if not hmac.compare_digest(expected.tobytes(), codes.astype(np.uint64).tobytes()):
            raise MessageError(
                f"what was sent is not the sum of the messages of these {len(names)} clients, or they were "
                "told other terms"
            )
        values = decrypt(self.terms.scheme, secret, residues)[: self.num_values]
        return {"total": Part({"values": values})}, {**memory, OF_HOLDER: (public, secret, asked, unused)}


@dataclass(frozen=True)
class _Encrypted(Reducer[Any]):
    """A reducer of encrypted messages; what becomes of their sum is left to `is_mean`.

    Args:
      min_cohort: the fewest clients in a sum.
      max_weight: a client that weighs more takes no part.
      max_value: a client with a larger number takes no part; None: the bound of clip(...) in uplink.
      max_cohort: the most clients in a sum; numbers are the coarser the more there are.
      key_holder: the name of the party that holds the secret key.
      scheme: the parameters of the encryption, `bfv(...)`.
    """

    min_cohort: int
    max_weight: float = 1.0
    max_value: float | None = None
    max_cohort: int = 256
    key_holder: str = KEY_HOLDER
    scheme: bfv = bfv()

    hides: ClassVar[bool] = True
    is_mean: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_positive("max_weight", self.max_weight)
        if type(self.min_cohort) is not int or self.min_cohort < 2:
            raise InvalidInput(
                f"min_cohort is {self.min_cohort}; write at least 2: a sum of one is a single message"
            )
        if not self.min_cohort <= self.max_cohort <= self.scheme.max_terms:
            raise InvalidInput(
                f"max_cohort is {self.max_cohort}; write {self.min_cohort} to {self.scheme.max_terms}"
            )
        if self.key_holder == "server" or not PARTY.fullmatch(self.key_holder):
            raise InvalidInput(
                f"key_holder is {self.key_holder!r}; write the name of a party of its own, a letter and then "
                f"letters, digits, hyphens or underscores, such as {KEY_HOLDER!r}: neither the server, which "
                "adds up and must not hold the key, nor a role of a client"
            )

    @property
    def disclosure(self) -> str:
        what = "mean" if self.is_mean else "sum"
        return (
            f"an encrypted {what} of at least {self.min_cohort} clients, which {self.key_holder} decrypts: "
            "it and the server see the total and no single message, unless they work together, or the server "
            "works with a client"
        )

    @property
    def condition(self) -> str:
        return f"unless it works with {self.key_holder} or with a client that takes part"

    @property
    def parties(self) -> tuple[str, ...]:
        return (self.key_holder,)

    @property
    def terms(self) -> SumTerms:
        """The terms to which its evidence is bound."""
        return SumTerms(self.scheme, self.min_cohort, self.max_cohort)

    @property
    def fewest(self) -> int:
        return self.min_cohort

    @property
    def most(self) -> int:
        return self.max_cohort

    def accepts(self, spec: Spec) -> None:
        if spec.kind == "ring" and self.is_mean:
            raise CompositionError(
                f"{self} divides, which integers modulo 2^bits do not allow: use encrypted_sum"
            )
        self.make_encoding(spec)

    def make_encoding(self, spec: Spec) -> Encoding:
        """Chooses how a part is written as integers. Raises: CompositionError: if it can't be."""
        return make_encoding(
            spec, BITS, max_value=self.max_value, max_weight=self.max_weight, max_clients=self.max_cohort
        )

    def check_number(self, num_parts: int) -> None:
        if num_parts < self.min_cohort:
            raise CompositionError(
                f"{self} decrypts no sum of fewer than {self.min_cohort} clients, and at most {num_parts} "
                "answer: ask more clients, or write a smaller min_cohort"
            )

    def lift(self, part: Part) -> Any:
        raise CompositionError(
            f"{self} folds nothing itself: clients hold their messages back for its protocol"
        )

    def merge(self, left: Any, right: Any) -> Any:
        raise CompositionError(f"{self} folds nothing itself")

    def result(self, accumulator: Any) -> Total:
        raise CompositionError(f"{self} folds nothing itself")

    def protocol(
        self, parts: Mapping[str, Spec], parties: tuple[PartyId, ...], key: Key
    ) -> Program[Unveiled]:
        if not self.min_cohort <= len(parties) <= self.max_cohort:
            raise RoundAbandoned(
                f"{len(parties)} clients are ready, and {self} decrypts sums of {self.min_cohort} to "
                f"{self.max_cohort}"
            )
        encodings = {name: self.make_encoding(spec) for name, spec in parts.items()}
        num_values = int(np.sum([encoding.num_values for encoding in encodings.values()]))
        terms, holder = self.terms, (self.key_holder,)
        answer = describe_keys(self.scheme)
        made = yield from gather(
            make_keys(terms), holder, {}, key.fold_in("keys"), close=EVERYBODY, keys=answer
        )
        told = made.by_party("keys")[self.key_holder].values
        got = yield from gather(
            encrypt_pending(self, encodings),
            parties,
            {"keys": told},
            key.fold_in("encrypt"),
            close=Close(minimum_fraction=self.min_cohort / len(parties)),
            sum=PartSpec(describe_message(self.scheme, num_values), into=add_residues(self.scheme)),
            names=NAMES,
        )
        question: Tensors = {**got["sum"].values, "names": got["names"].values["name"]}
        total = Spec({"values": TensorSpec((num_values,), "int64")}, kind="coded")
        done = yield from gather(
            decrypt_sum(terms, num_values),
            holder,
            {"sum": question},
            key.fold_in("decrypt"),
            close=EVERYBODY,
            total=PartSpec(total, into=each()),
        )
        row = done.by_party("total")[self.key_holder].values["values"]
        sums = split_total(encodings, row.astype(np.uint32), len(got.parties))
        totals = {name: self._finish(parts[name], *found, len(got.parties)) for name, found in sums.items()}
        return Unveiled(totals, got.parties)

    def _finish(self, spec: Spec, values: Tensors, weight: float, count: int) -> Total:
        divided = {name: v / (weight or 1.0) if self.is_mean else v for name, v in values.items()}
        return Total({name: to_dtype(spec, name, v) for name, v in divided.items()}, weight, count)


@value
class encrypted_sum(_Encrypted):
    """The weighted sum of encrypted messages, sum(w x). Only a key holder can decrypt, and only the sum.

    Real numbers become integers, as fine as sums of `max_cohort` messages have room for in 32 bits; the rest
    is exact, and the total has the bits of `secure_sum(bits=32)`. Integers modulo 2^32 are added as they are.

    The key holder is a party of its own, which joins with `hanse invite --party key_holder`. It decrypts one
    sum for each pair of keys, and only if it is the sum of the messages of at least `min_cohort` clients: a
    code beside the ciphertexts proves that, under a secret that the houses share and the server lacks.

    Reveals: to the server and the key holder, the sums of values and weights; to fellow clients, nothing.
      The two together could decrypt single messages. A client that works with the server could cancel the
      messages of others.
    Spec: real or table, or ring of 32 bits; summable.
    References: Brakerski 2012; Fan, Vercauteren, ePrint 2012/144; Agrawal, Boneh, ACNS 2009.

    >>> encrypted_sum(3).parties, encrypted_sum(3).fewest
    (('key_holder',), 3)
    """

    def moves(self, max_weight: float) -> float | None:
        return self.max_weight

    def zero(self, spec: Spec) -> Total | None:
        zeros = {n: np.zeros([int(dim) for dim in t.shape], t.dtype) for n, t in spec.tensors.items()}
        return Total(zeros, 0.0, 0)


@value
class encrypted_mean(_Encrypted):
    """The weighted mean of encrypted messages, sum(w x) / sum(w). See `encrypted_sum`.

    >>> encrypted_mean(1)
    Traceback (most recent call last):
    hanse.core.errors.InvalidInput: min_cohort is 1; write at least 2: a sum of one is a single message
    """

    is_mean: ClassVar[bool] = True
