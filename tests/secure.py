"""A secure sum in several exchanges: proves that the core can carry one, not that it is safe."""

import hashlib
from typing import Any

import numpy as np

from hanse.core import (
    Algorithm,
    Close,
    CompositionError,
    Contribution,
    Key,
    Keys,
    Memory,
    Part,
    PartSpec,
    PartyId,
    Program,
    Reducer,
    Shared,
    Spec,
    Stage,
    Steps,
    Tensors,
    TensorSpec,
    Total,
    Transform,
    Work,
    gather,
    sample,
    stack,
    tree_map,
    value,
)
from hanse.core import sum as sum_
from hanse.core.exchange import ModelState
from hanse.core.exchange.party import pending

PRIME = 2**521 - 1
SECRET = "~secret"
SCALE = 2**20
EVERYBODY = Close(minimum_fraction=1.0)


@value
class fixed_point(Transform):
    """Real numbers as integers modulo 2^64; commutes with sums."""

    def __call__(self, spec: Spec) -> Stage:
        tensors = {name: TensorSpec(t.shape, "uint64") for name, t in spec.tensors.items()}

        def encode(plan: Any, part: Part, memory: Memory, keys: Keys) -> tuple[Part, Memory]:
            ring = tree_map(lambda x: np.rint(x * SCALE).astype(np.int64).astype(np.uint64), part.values)
            return Part(ring, part.weight), memory

        def decode(state: Any, plan: Any, total: Total, key: Key) -> tuple[Total, Any]:
            real = tree_map(lambda x: x.astype(np.int64) / SCALE, total.values)
            return Total(real, total.weight, total.count), state

        return Stage(spec.like(tensors=tensors, kind="ring"), encode=encode, decode=decode)


def _public(secret: int) -> bytes:
    return pow(3, secret, PRIME).to_bytes(66, "big")


def _mask(mine: int, theirs: bytes, like: Tensors) -> Tensors:
    shared = pow(int.from_bytes(theirs, "big"), mine, PRIME)
    key = Key(hashlib.blake2b(shared.to_bytes(66, "big"), digest_size=32).digest())
    return {
        name: key.fold_in(name).rng().integers(2**64, size=v.shape, dtype=np.uint64)
        for name, v in like.items()
    }


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
    """Second phase: the pending part plus one mask for each other party that is ready."""

    part: str

    def run(
        self, learner: Any, shared: Shared, data: Any, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        secret = int.from_bytes(memory[SECRET], "big")
        mine, total = _public(secret), dict(memory[pending(self.part)].values)
        for theirs in map(bytes, shared["keys"]["key"]):
            if theirs != mine:
                mask = _mask(secret, theirs, total)
                total = tree_map(lambda t, m: t + m if mine < theirs else t - m, total, mask)  # noqa: B023
        return {"masked": Part(total)}, memory


@value
class take_back(Work[Any, Any]):
    """Third phase: the masks shared with those who fell silent in between."""

    part: str

    def run(
        self, learner: Any, shared: Shared, data: Any, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        secret = int.from_bytes(memory[SECRET], "big")
        mine, like = _public(secret), memory[pending(self.part)].values
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

    def protocol(self, part: str, parties: tuple[PartyId, ...], spec: Spec, key: Key) -> Program[Total]:
        of_keys = PartSpec(Spec({"key": TensorSpec((66,), "uint8")}, kind="coded"), into=stack())
        summed = PartSpec(spec, into=sum_())
        ready = yield from gather(advertise(), parties, {}, key.fold_in(1), public=of_keys)
        keys = {"key": ready["public"].values["key"]}
        work = send_masked(part)
        got = yield from gather(work, ready.parties, {"keys": keys}, key.fold_in(2), masked=summed)
        total = got["masked"].values
        silent = [i for i, party in enumerate(ready.parties) if party not in got.parties]
        if silent:
            shared = {"silent": {"key": keys["key"][silent]}}
            masks = yield from gather(
                take_back(part), got.parties, shared, key.fold_in(3), close=EVERYBODY, masks=summed
            )
            total = tree_map(lambda t, m: t - m, total, masks["masks"].values)
        return Total(total, float(len(got.counted)), len(got.counted))


@value
class secure_avg(Algorithm[ModelState]):
    """FedAvg, plain mean, over a reducer that hides."""

    lr: float = 0.02

    def init(self, params: Tensors, key: Key) -> ModelState:
        return ModelState(params)

    def round(self, state: ModelState, key: Key) -> Program[ModelState]:
        from hanse.algorithms import uniform
        from hanse.algorithms.works import local_sgd

        channel = PartSpec(Spec.of(state.params), (fixed_point(),), masked_sum())
        cohort = (yield from sample(key, fraction=1.0)).cohort
        work = local_sgd(Steps(self.lr, 2), uniform())
        got = yield from gather(work, cohort, {"params": state.params}, key, update=channel)
        total = got["update"]
        return ModelState(tree_map(lambda w, u: w + u / total.count, state.params, total.values))
