"""q-FedAvg, as a user would write it beside a settings file.

Li, Sanjabi, Beirami, Smith, "Fair resource allocation in federated learning", ICLR 2020, arXiv 1905.10497,
Algorithm 2.
"""

from collections.abc import Mapping
from dataclasses import field

import numpy as np
from own_norms import squared_norm

from hanse.core import (
    Algorithm,
    Contribution,
    Examples,
    InvalidInput,
    Key,
    Keys,
    Learner,
    LocalProblem,
    Memory,
    Part,
    PartSpec,
    Program,
    Shared,
    Spec,
    Steps,
    Tensors,
    TensorSpec,
    Transform,
    Work,
    gather,
    sample,
    sum,
    tree_map,
    value,
)


@value
class fair_step(Work[Learner, Examples]):
    """Emits "step", F^q L (w_k - w), and "curvature", q F^(q-1) |L (w_k - w)|^2 + L F^q."""

    steps: Steps
    q: float
    lipschitz: float

    def run(
        self, learner: Learner, shared: Shared, data: Examples, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        loss = learner.objective(shared["params"], data)
        update = learner.local_sgd(shared["params"], LocalProblem(data, self.steps, keys.public))
        step = tree_map(lambda u: self.lipschitz * u, update)
        curvature = self.q * loss ** (self.q - 1) * squared_norm(step) + self.lipschitz * loss**self.q
        scaled = tree_map(lambda u: (loss**self.q * u).astype(u.dtype), step)
        return {"step": Part(scaled), "curvature": Part({"h": np.asarray(curvature, np.float64)})}, memory


@value
class FairState:
    """The model, and how often it was changed."""

    params: Tensors
    num_rounds: int = 0


@value
class own_q_fed_avg(Algorithm[FairState]):
    """Clients with a larger loss count more, the more so the larger q is.

    Args:
      q: 0: as FedAvg.
      rates: "lr", the clients' step size, and perhaps "fraction", the share of clients in each round.
      uplink: transforms of the steps.
    """

    q: float = 1.0
    rates: Mapping[str, float] = field(default_factory=lambda: {"lr": 0.1, "fraction": 0.5})
    uplink: tuple[Transform, ...] = ()

    def __post_init__(self) -> None:
        if self.q < 0:
            raise InvalidInput(f"q is {self.q}; write a number of at least 0")

    def init(self, params: Tensors, key: Key) -> FairState:
        return FairState(params)

    def round(self, state: FairState, key: Key) -> Program[FairState]:
        lr = self.rates["lr"]
        work = fair_step(Steps(lr, epochs=1, batch_size=20), self.q, 1 / lr)
        chosen = yield from sample(key, fraction=self.rates.get("fraction", 0.5))
        got = yield from gather(
            work,
            chosen.cohort,
            {"params": state.params},
            key,
            step=PartSpec(Spec.of(state.params), self.uplink, sum()),
            curvature=PartSpec(Spec({"h": TensorSpec((), "float64")}), into=sum()),
        )
        h = float(got["curvature"].values["h"])
        params = tree_map(lambda w, s: w + (s / h).astype(w.dtype), state.params, got["step"].values)
        return FairState(params, state.num_rounds + 1)
