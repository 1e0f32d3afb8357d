"""CoCoA and CoCoA+: communication-efficient distributed dual coordinate ascent.

Jaggi, Smith, Takac, Terhorst, Krishnan, Hofmann, Jordan, "Communication-efficient distributed dual coordinate
ascent", NeurIPS 2014, arXiv 1409.1458 (averaging). Ma, Smith, Jaggi, Jordan, Richtarik, Takac, "Adding vs.
averaging in distributed primal-dual optimization", ICML 2015, arXiv 1502.03508, Algorithms 1 and 2 (adding).
"""

from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

import numpy as np

from hanse.core import (
    Algorithm,
    Array,
    Close,
    Contribution,
    Examples,
    InvalidInput,
    Key,
    Keys,
    Memory,
    Part,
    PartSpec,
    Program,
    Shared,
    Spec,
    Tensors,
    TensorSpec,
    Work,
    add_scaled,
    check_count,
    check_fraction,
    gather,
    sample,
    value,
)
from hanse.core import sum as sum_

__all__ = ["Combination", "DualLearner", "adding", "averaging", "cocoa"]


@runtime_checkable
class DualLearner(Protocol):
    """A learner of a regularised linear model, with one dual variable for each example.

    The parameters follow from the dual variables: w = (1 / (l2 n)) sum_i alpha_i x_i.
    """

    def dual_ascent(
        self,
        params: Tensors,
        data: Examples,
        dual: Array | None,
        key: Key,
        *,
        epochs: int,
        num_examples: float,
        coupling: float,
    ) -> tuple[Tensors, Array]:
        """Runs passes of coordinate ascent over one client's block of the dual variables.

        Args:
          params: w, which follows from all clients' dual variables.
          data: the client's examples.
          dual: (n_k,) the client's block so far; None: zeros.
          key: draws the order.
          epochs: passes over the block.
          num_examples: n, of all clients together.
          coupling: sigma', which makes the local problem steeper, to allow for what others add meanwhile.

        Returns: what the block's change adds to w, and the change.
        """


class Combination(ABC):
    """The share of each client's change that is applied, gamma."""

    @abstractmethod
    def share(self, num_clients: int) -> float:
        """Returns gamma if this many clients change their blocks; sigma' is gamma times their number."""


@value
class averaging(Combination):
    """CoCoA: the mean of the changes, gamma = 1/K. Each client solves its problem as if it were alone."""

    def share(self, num_clients: int) -> float:
        return 1.0 / num_clients


@value
class adding(Combination):
    """CoCoA+: all of the changes, gamma = 1. Each client takes steps that stay safe when all are added."""

    def share(self, num_clients: int) -> float:
        return 1.0


@value
class count_examples(Work[object, Examples]):
    """Emits "count", the number of the client's examples."""

    def run(
        self, learner: object, shared: Shared, data: Examples, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        return {"count": Part({"examples": np.array(float(len(data)))})}, memory


@value
class dual_ascent(Work[object, Examples]):
    """Runs local SDCA and remembers the client's block of the dual; emits its change of w as "update"."""

    num_examples: float
    share: float
    coupling: float
    epochs: int

    def run(
        self, learner: object, shared: Shared, data: Examples, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        if not isinstance(learner, DualLearner):
            raise InvalidInput(
                f"cocoa() needs a model with a dual, {type(learner).__name__} offers none; write "
                "hanse.learners.dual(model), such as dual(logistic(l2=1e-3, intercept=False))"
            )
        block = memory.get("dual")
        update, change = learner.dual_ascent(
            shared["params"],
            data,
            block,
            keys.public,
            epochs=self.epochs,
            num_examples=self.num_examples,
            coupling=self.coupling,
        )
        change = change * self.share
        kept = {**memory, "dual": change if block is None else block + change}
        return {"update": Part(update)}, kept


@value
class PrimalDual:
    """The model, and the number of all clients' examples (0: not asked yet). Clients keep their own duals."""

    params: Tensors
    num_examples: float = 0.0


@value
class cocoa(Algorithm[PrimalDual]):
    """Each client improves its own block of the dual problem; the changes are averaged or added.

        w = (1 / (l2 n)) sum_i alpha_i x_i
        alpha_[k] += gamma change_k;   w <- w + gamma (1 / (l2 n)) sum_k X_k' change_k

    Converges to the pooled optimum of a regularised linear model, without a step size, however the clients
    differ. The dual variables, one for each example, stay in the clients' memory. Before the first round the
    server asks every client for its number of examples; if one does not answer, the round is abandoned.

    It needs a learner with a dual: `dual(model)` of ridge, logistic or SVM without intercept. It has no
    `uplink`, because w must agree with what the clients remember.

    Args:
      combine: `averaging()` (CoCoA) or `adding()` (CoCoA+).
      epochs: passes over a client's block in each round.
      fraction: of the clients in each round.
      close: when a round closes.
    """

    combine: Combination = adding()
    epochs: int = 1
    fraction: float = 1.0
    close: Close = Close()

    def __post_init__(self) -> None:
        check_count("epochs", self.epochs)
        check_fraction(self.fraction)

    def init(self, params: Tensors, key: Key) -> PrimalDual:
        if any(w.any() for w in params.values()):
            raise InvalidInput("cocoa() starts where all dual variables are 0, so at w = 0; give zeros")
        return PrimalDual(params)

    def round(self, state: PrimalDual, key: Key) -> Program[PrimalDual]:
        num_examples = state.num_examples or (yield from _number_of_examples(key.fold_in("count")))
        cohort = (yield from sample(key, fraction=self.fraction)).cohort
        share = self.combine.share(len(cohort))
        got = yield from gather(
            dual_ascent(num_examples, share, share * len(cohort), self.epochs),
            cohort,
            {"params": state.params},
            key,
            close=self.close,
            update=PartSpec(Spec.of(state.params), into=sum_()),
        )
        return PrimalDual(add_scaled(state.params, share, got["update"].values), num_examples)


def _number_of_examples(key: Key) -> Program[float]:
    everybody = (yield from sample(key, fraction=1.0)).cohort
    counts = PartSpec(Spec({"examples": TensorSpec((), "float64")}), into=sum_())
    got = yield from gather(
        count_examples(), everybody, {}, key, close=Close(minimum_fraction=1.0), count=counts
    )
    return float(got["count"].values["examples"])
