"""One-shot averaging: each client solves its own problem, and the solutions are averaged once.

Zhang, Duchi, Wainwright, "Communication-efficient algorithms for statistical optimization", JMLR 2013,
arXiv 1209.4129, section 2.1 (AVGM).
"""

from typing import Any, ClassVar

from hanse.algorithms.client_optimisers import sgd
from hanse.algorithms.optimisers import OptimiserState
from hanse.algorithms.solvers import PROGRESS, Solver, Subproblem, check_solver, measure_progress, newton
from hanse.algorithms.works import Weighting, by_examples, exchange
from hanse.core import (
    Algorithm,
    Close,
    Contribution,
    DifferentiableLearner,
    Examples,
    Key,
    Keys,
    Memory,
    Part,
    PartSpec,
    Program,
    Reducer,
    Shared,
    Spec,
    Tensors,
    Transform,
    Work,
    check_fraction,
    mean,
    value,
)
from hanse.core.exchange import TRAINING

__all__ = ["one_shot"]


@value
class local_minimum(Work[DifferentiableLearner, Examples]):
    """Minimises the client's own objective; emits "update", the minimum less the broadcast "params"."""

    solver: Solver
    weighting: Weighting

    def run(
        self, learner: DifferentiableLearner, shared: Shared, data: Examples, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        params, problem = shared["params"], Subproblem(data, keys.public)
        update = self.solver.minimise(learner, params, problem)
        solved = measure_progress(learner, params, update, problem)
        return {"update": Part(update, self.weighting.of(len(data))), TRAINING: solved}, memory


@value
class one_shot(Algorithm[OptimiserState]):
    """The mean of the clients' own optima, found in one round.

        w = sum_k n_k argmin F_k / sum_k n_k

    Ends near the optimum of the weighted objective if the clients' data are alike and many; it is the
    optimum of the pooled data only if all clients have the same one. With exact local solutions, further
    rounds change nothing: run it for one.

    Args:
      solver: how a client minimises its objective: `newton()`, or `local_steps()` on any learner.
      fraction: of the clients; at least one.
      weighting: `by_examples()` or `uniform()`.
      uplink: transforms of the updates, first to last.
      into: the reducer.
      close: when the round closes.
    """

    remedy: ClassVar[str] = "take fed_avg(): the clients' own optima differ too much for their mean"

    solver: Solver = newton()
    fraction: float = 1.0
    weighting: Weighting = by_examples()
    uplink: tuple[Transform, ...] = ()
    into: Reducer[Any] = mean()
    close: Close = Close()

    def __post_init__(self) -> None:
        check_fraction(self.fraction)
        check_solver("one_shot", self.solver)

    def init(self, params: Tensors, key: Key) -> OptimiserState:
        return OptimiserState(params)

    def round(self, state: OptimiserState, key: Key) -> Program[OptimiserState]:
        got = yield from exchange(
            local_minimum(self.solver.at(state.num_rounds), self.weighting),
            {"params": state.params},
            key,
            fraction=self.fraction,
            close=self.close,
            update=PartSpec(Spec.of(state.params), self.uplink, self.into),
            training=PROGRESS,
        )
        return state.advance(sgd(), 1.0, got["update"].values)
