"""A secure sum in several exchanges: proves that the core can carry one, not that it is safe."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from hanse.core import (
    PROMISED,
    VOLATILE,
    Algorithm,
    Close,
    CompositionError,
    Contribution,
    Declined,
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
    Stage,
    Steps,
    Tensors,
    TensorSpec,
    Total,
    Transform,
    Unveiled,
    Work,
    ask_each,
    collect,
    dispatch,
    each,
    gather,
    sample,
    stack,
    tree_map,
    value,
)
from hanse.core import sum as sum_
from hanse.core.exchange import ModelState
from hanse.core.exchange.party import pending

PRIME = 2**127 - 1
NUM_BYTES = 16
SECRET = f"{VOLATILE}secret"
EVERYBODY = Close(minimum_fraction=1.0)


@value
class fixed_point(Transform):
    """Real numbers as integers modulo 2^64, in steps of 2^-bits; commutes with sums."""

    bits: int = 20

    def __call__(self, spec: Spec) -> Stage:
        scale = 2**self.bits
        tensors = {name: TensorSpec(t.shape, "uint64") for name, t in spec.tensors.items()}

        def encode(plan: Any, part: Part, memory: Memory, keys: Keys) -> tuple[Part, Memory]:
            ring = tree_map(lambda x: np.rint(x * scale).astype(np.int64).astype(np.uint64), part.values)
            return Part(ring, part.weight), memory

        def decode(state: Any, plan: Any, total: Total, key: Key) -> tuple[Total, Any]:
            real = tree_map(lambda x: x.astype(np.int64) / scale, total.values)
            return Total(real, total.weight, total.count), state

        return Stage(spec.like(tensors=tensors, kind="ring"), encode=encode, decode=decode)


def _public(secret: int) -> bytes:
    return pow(3, secret, PRIME).to_bytes(NUM_BYTES, "big")


def _mask(mine: int, theirs: bytes, like: Tensors) -> Tensors:
    shared = pow(int.from_bytes(theirs, "big"), mine, PRIME)
    key = Key(hashlib.blake2b(shared.to_bytes(NUM_BYTES, "big"), digest_size=32).digest())
    return {
        name: key.fold_in(name).rng().integers(2**64, size=v.shape, dtype=np.uint64)
        for name, v in like.items()
    }


def find_pending(memory: Memory, parts: tuple[str, ...]) -> dict[str, Any]:
    """The tensors of all hidden parts, by part and name."""
    return {f"{part}/{name}": v for part in parts for name, v in memory[pending(part)].values.items()}


@value
class advertise(Work[Any, Any]):
    """First phase: a public key for this round; the secret one stays in volatile memory."""

    def run(
        self, learner: Any, shared: Shared, data: Any, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        drawn = keys.secret.rng().bytes(64)
        public = np.frombuffer(_public(int.from_bytes(drawn, "big")), np.uint8)
        return {"public": Part({"key": public})}, {**memory, SECRET: drawn}


@value
class send_masked(Work[Any, Any]):
    """Second phase: the pending parts plus one mask for each other party that is ready."""

    parts: tuple[str, ...]

    def run(
        self, learner: Any, shared: Shared, data: Any, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        secret = int.from_bytes(memory[SECRET], "big")
        mine, total = _public(secret), find_pending(memory, self.parts)
        for theirs in map(bytes, shared["keys"]["key"]):
            if theirs != mine:
                mask = _mask(secret, theirs, total)
                total = tree_map(lambda t, m: t + m if mine < theirs else t - m, total, mask)  # noqa: B023
        return {"masked": Part(total)}, memory


@value
class take_back(Work[Any, Any]):
    """Third phase: the masks shared with those who fell silent in between."""

    parts: tuple[str, ...]

    def run(
        self, learner: Any, shared: Shared, data: Any, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        secret = int.from_bytes(memory[SECRET], "big")
        mine, like = _public(secret), find_pending(memory, self.parts)
        total = {name: np.zeros_like(v) for name, v in like.items()}
        for theirs in map(bytes, shared["silent"]["key"]):
            mask = _mask(secret, theirs, like)
            total = tree_map(lambda t, m: t + m if mine < theirs else t - m, total, mask)  # noqa: B023
        return {"masks": Part(total)}, memory


@value
class masked_sum(Reducer[Any]):
    """The sum of those who answer the second phase; the server sees only masked values."""

    hides = True

    def accepts(self, spec: Spec) -> None:
        if spec.kind != "ring":
            raise CompositionError(
                f"{self} adds integers modulo 2^64, these are {spec.kind}: use fixed_point()"
            )

    def lift(self, part: Part) -> Any:
        raise AssertionError("a hidden part reached the server")

    merge = result = lift

    def protocol(
        self, parts: Mapping[str, Spec], parties: tuple[PartyId, ...], key: Key
    ) -> Program[Unveiled]:
        of_keys = PartSpec(Spec({"key": TensorSpec((NUM_BYTES,), "uint8")}, kind="coded"), into=stack())
        tensors = {f"{part}/{name}": t for part, spec in parts.items() for name, t in spec.tensors.items()}
        summed = PartSpec(Spec(tensors, kind="ring"), into=sum_())
        ready = yield from gather(advertise(), parties, {}, key.fold_in(1), public=of_keys)
        keys = {"key": ready["public"].values["key"]}
        work = send_masked(tuple(parts))
        got = yield from gather(work, ready.parties, {"keys": keys}, key.fold_in(2), masked=summed)
        total = got["masked"].values
        silent = [i for i, party in enumerate(ready.parties) if party not in got.parties]
        if silent:
            shared = {"silent": {"key": keys["key"][silent]}}
            masks = yield from gather(
                take_back(tuple(parts)), got.parties, shared, key.fold_in(3), close=EVERYBODY, masks=summed
            )
            total = tree_map(lambda t, m: t - m, total, masks["masks"].values)
        count = len(got.counted)
        totals = {
            part: Total({name: total[f"{part}/{name}"] for name in spec.tensors}, float(count), count)
            for part, spec in parts.items()
        }
        return Unveiled(totals, got.parties)


# The same by secret shares: each client is sent messages of its own, and promises what it answers.


@value
class deal(Work[Any, Any]):
    """First phase: the pending parts as a sum of random shares, one for each party that is ready."""

    parts: tuple[str, ...]
    num_shares: int

    def run(
        self, learner: Any, shared: Shared, data: Any, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        secret = np.concatenate([v.reshape(-1) for v in find_pending(memory, self.parts).values()])
        shares = keys.secret.rng().integers(2**64, size=(self.num_shares, len(secret)), dtype=np.uint64)
        shares[-1] += secret - shares.sum(axis=0, dtype=np.uint64)
        return {"shares": Part({"rows": shares})}, memory


def keep_promise(memory: Memory, name: str, asked: bytes) -> Memory:
    """The memory with the promise to answer nothing else under this name."""
    if memory.get(PROMISED + name, asked) != asked:
        raise Declined(f"it was asked something else under {name!r} before")
    return {**memory, PROMISED + name: asked}


@value
class add_shares(Work[Any, Any]):
    """Second phase: the sum of the shares that were dealt to this client. It adds up only one set of them."""

    round: str

    def run(
        self, learner: Any, shared: Shared, data: Any, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        rows = shared["shares"]["rows"]
        memory = keep_promise(memory, f"added/{self.round}", hashlib.sha256(rows.tobytes()).digest())
        return {"sum": Part({"row": rows.sum(axis=0, dtype=np.uint64)})}, memory


@value
class shared_sum(Reducer[Any]):
    """The sum of those who answer the first phase. All of them have to answer the second."""

    hides = True
    accepts = masked_sum.accepts
    lift = merge = result = masked_sum.lift

    def protocol(
        self, parts: Mapping[str, Spec], parties: tuple[PartyId, ...], key: Key
    ) -> Program[Unveiled]:
        shapes = {(part, n): t.shape for part, spec in parts.items() for n, t in spec.tensors.items()}
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])
        many = PartSpec(Spec({"rows": TensorSpec(("n", int(ends[-1])), "uint64")}, kind="ring"), into=each())
        one = PartSpec(Spec({"row": TensorSpec((int(ends[-1]),), "uint64")}, kind="ring"), into=each())
        got = yield from gather(deal(tuple(parts), len(parties)), parties, {}, key.fold_in(1), shares=many)
        dealt = np.stack([part.values["rows"] for part in got.by_party("shares").values()])
        to = {party: dealt[:, i] for i, party in enumerate(parties)}
        lost = [rows for party, rows in to.items() if party not in got.parties]
        mail = {party: to[party] for party in got.parties}
        mail[got.parties[0]] = np.concatenate([mail[got.parties[0]], *lost])  # it adds these, too
        work = add_shares(key.digest.hex())
        asked = {party: (work, {"shares": {"rows": rows}}) for party, rows in mail.items()}
        answers = yield from ask_each(asked, key.fold_in(2), close=EVERYBODY, sum=one)
        whole = np.sum([answer["sum"].values["row"] for answer in answers.values()], axis=0, dtype=np.uint64)
        count, totals = len(got.parties), dict[str, dict[str, Any]]()
        for (part, name), values in zip(shapes, np.split(whole, ends[:-1]), strict=True):
            totals.setdefault(part, {})[name] = values.reshape(shapes[part, name])
        return Unveiled({p: Total(v, float(count), count) for p, v in totals.items()}, got.parties)


@value
class secure_avg(Algorithm[ModelState]):
    """FedAvg, plain mean, over a reducer that hides."""

    lr: float = 0.02
    into: Reducer[Any] = masked_sum()

    def init(self, params: Tensors, key: Key) -> ModelState:
        return ModelState(params)

    def round(self, state: ModelState, key: Key) -> Program[ModelState]:
        from hanse.algorithms import uniform
        from hanse.algorithms.works import local_sgd

        channel = PartSpec(Spec.of(state.params), (fixed_point(),), self.into)
        cohort = (yield from sample(key, fraction=1.0)).cohort
        work = local_sgd(Steps(self.lr, 2), uniform())
        got = yield from gather(work, cohort, {"params": state.params}, key, update=channel)
        total = got["update"]
        return ModelState(tree_map(lambda w, u: w + u / total.count, state.params, total.values))


# A server that asks twice.


@value
class keep_secret(Work[Any, Any]):
    """Keeps a secret of this round."""

    def run(
        self, learner: Any, shared: Shared, data: Any, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        return {"ready": Part({})}, {**memory, SECRET: keys.secret.rng().bytes(8)}


@value
class unmask(Work[Any, Any]):
    """Reveals a half of the secret, which depends on who is still there. Both halves would be too much."""

    round: int

    def run(
        self, learner: Any, shared: Shared, data: Any, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        first = bool(shared["alive"]["first"])
        memory = keep_promise(memory, f"unmask/{self.round}", b"first" if first else b"second")
        half = memory[SECRET][:4] if first else memory[SECRET][4:]
        return {"half": Part({"half": np.frombuffer(half, np.uint8)})}, memory


HALF = PartSpec(Spec({"half": TensorSpec((4,), "uint8")}, kind="coded"), into=each())
REFUSED = replace(HALF, max_weight=0.0)
"""The part in a dispatch whose answers are all refused once they are computed: their tickets are dropped."""


@value
class asks_twice(Algorithm[ModelState]):
    """Asks for one half of each secret, drops the tickets, asks for the other half, and for the first again.

    The parameters grow by the number of answers to the second question and, in 64ths, to the third.
    """

    abandons: bool = False

    def init(self, params: Tensors, key: Key) -> ModelState:
        return ModelState(params)

    def round(self, state: ModelState, key: Key) -> Program[ModelState]:
        cohort = (yield from sample(key, fraction=1.0)).cohort
        ready = PartSpec(Spec({}), into=each())
        parties = (yield from gather(keep_secret(), cohort, {}, key.fold_in(0), ready=ready)).parties
        counted = []
        for number, (first, half) in enumerate([(True, REFUSED), (False, HALF), (True, HALF)]):
            shared = {"alive": {"first": np.array(first)}}
            work = unmask(int.from_bytes(key.digest[:4], "big"))
            asked = yield from dispatch(work, parties, shared, key.fold_in(1, number), half=half)
            got = yield from collect(asked.tickets)
            counted.append(len(got.counted))
        if self.abandons:
            raise RoundAbandoned(f"counted {counted}")
        _, second, third = counted
        return ModelState(tree_map(lambda w: w + second + third / 64, state.params))
