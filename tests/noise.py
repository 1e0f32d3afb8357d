"""Noise on a total, of a Gaussian that only tests have: proves that the core can carry it."""

from dataclasses import replace
from typing import Any

from hanse.core import (
    Algorithm,
    Close,
    CompositionError,
    Key,
    ModelState,
    PartSpec,
    Plan,
    Program,
    Release,
    Spec,
    Stage,
    Steps,
    Tensors,
    Total,
    Transform,
    fixed_mean,
    gather,
    sample,
    tree_map,
    value,
)
from hanse.transforms import clip

EVEN_EMPTY = Close(minimum_fraction=0.0)


@value
class normal_noise(Transform):
    """Normal noise on the total, z times as large as one client can move it."""

    z: float

    def __call__(self, spec: Spec) -> Stage:
        if spec.l2_bound is None or spec.moves is None:
            raise CompositionError(
                f"{self} must know how far one client moves the total: clip first, and use fixed_mean(...)"
            )
        std = self.z * spec.l2_bound * spec.moves

        def decode(state: Any, plan: Plan, total: Total, secret_key: Key) -> tuple[Total, Any]:
            rng = secret_key.secret_rng()
            values = tree_map(
                lambda v: (v + std * rng.standard_normal(v.shape)).astype(v.dtype), total.values
            )
            return replace(total, values=values), state

        return Stage(spec.like(sealed=True), decode=decode, release=Release("gaussian", self.z))


@value
class private_avg(Algorithm[ModelState]):
    """FedAvg with Poisson sampling, a bound on each update and noise on their sum."""

    rate: float = 0.3
    z: float = 0.5
    lr: float = 0.02
    close: Close = EVEN_EMPTY

    def init(self, params: Tensors, key: Key) -> ModelState:
        return ModelState(params)

    def round(self, state: ModelState, key: Key) -> Program[ModelState]:
        from hanse.algorithms import uniform
        from hanse.algorithms.works import local_sgd

        spec = Spec.of(state.params)
        noisy = PartSpec(spec, (clip(1.0), normal_noise(self.z)), fixed_mean(6 * self.rate), max_weight=1.0)
        cohort = (yield from sample(key, rate=self.rate)).cohort
        work = local_sgd(Steps(self.lr, 2), uniform())
        got = yield from gather(work, cohort, {"params": state.params}, key, close=self.close, update=noisy)
        update = got["update"].values
        return ModelState(tree_map(lambda w, u: w + u, state.params, update))
