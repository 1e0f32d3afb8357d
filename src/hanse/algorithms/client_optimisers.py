"""Clients' training as values: the step size, the number of steps and the rule that each step follows.

    fed_avg(client=sgd(0.01, momentum=0.9, epochs=10, batch_size=64), server=adam(0.001))

`sgd` and `adam` also serve the server, which has no examples: there they take a step size and their rule.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import KW_ONLY, MISSING, dataclass, field, replace
from typing import Any

from hanse.algorithms.optimisers import Moments, ServerOptimiser, scale_by_moments, start_moments
from hanse.algorithms.schedules import Rate, check_rate, rate
from hanse.algorithms.solvers import Solver, Subproblem
from hanse.algorithms.works import Weighting, local_sgd
from hanse.core import (
    DifferentiableLearner,
    Examples,
    InvalidInput,
    LocalProblem,
    StepRule,
    Steps,
    Tensors,
    Work,
    adam_rule,
    adamw_rule,
    add,
    add_scaled,
    fields,
    nesterov_rule,
    scale,
    sgd_rule,
    value,
    zeros_like,
)

__all__ = ["EPOCHS", "LR", "ClientOptimiser", "ClientTraining", "adam", "adamw", "sgd"]

LR = 0.5
"""The step size of clients, where an algorithm is given none."""

EPOCHS = 5
"""The passes over a client's examples, where nothing else is said."""


class ClientTraining(ABC):
    """The training of a client in a round."""

    @abstractmethod
    def work(self, num_rounds: int, weighting: Weighting, *, proximal: float = 0.0) -> Work[Any, Examples]:
        """Returns the work after this many closed rounds: from "params" to an "update".

        Args:
          weighting: the weight of a client's update.
          proximal: strength of a proximal term that the algorithm adds.
        """


@dataclass(frozen=True)
class ClientOptimiser(ClientTraining, Solver):
    """Local training by gradient steps. Its momenta begin at zero in each round.

    Args:
      lr: step size: a number or a schedule over rounds. A client needs one.
      epochs: passes over the client's examples.
      batch_size: examples a step; None: all of the client's.
      num_steps: the number of steps, in place of `epochs`: all clients then take equally many.
      proximal: mu of a term mu/2 |w - w0|² that holds the client near the server's model.
      lr_scales: factors of the step size for single layers or parameters, by name: {"hidden1": 0.1} holds
        for "hidden1.weight" and "hidden1.bias"; 0 freezes them.
    """

    lr: Rate | None = None
    _: KW_ONLY
    epochs: int = EPOCHS
    batch_size: int | None = 10
    num_steps: int | None = None
    proximal: float = 0.0
    lr_scales: Mapping[str, float] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        self.rule()
        if self.lr is not None:
            check_rate("lr", self.lr)
            self.steps(0)

    @abstractmethod
    def rule(self) -> StepRule:
        """Returns the rule of each step."""

    def steps(self, num_rounds: int, *, proximal: float = 0.0) -> Steps:
        """Returns the local steps after this many closed rounds; an algorithm may add a proximal term."""
        if self.lr is None:
            name = type(self).__name__
            raise InvalidInput(f"client = {name}() has no step size; write one, such as {name}(0.1)")
        if proximal and self.proximal:
            raise InvalidInput(
                f"proximal is {self.proximal}, but the algorithm has a proximal term of its own "
                f"({proximal}); leave one of them out"
            )
        return Steps(
            rate(self.lr, num_rounds),
            1 if self.num_steps and self.epochs == EPOCHS else self.epochs,  # the default makes room
            self.batch_size,
            proximal or self.proximal,
            self.num_steps,
            self.rule(),
            self.lr_scales,
        )

    def work(self, num_rounds: int, weighting: Weighting, *, proximal: float = 0.0) -> Work[Any, Examples]:
        return local_sgd(self.steps(num_rounds, proximal=proximal), weighting)

    def minimise(self, learner: DifferentiableLearner, start: Tensors, problem: Subproblem) -> Tensors:
        steps = self.steps(0, proximal=problem.proximal)
        return learner.local_sgd(start, LocalProblem(problem.data, steps, problem.key, problem.offset))

    def at(self, num_rounds: int) -> "ClientOptimiser":
        return self if self.lr is None else replace(self, lr=rate(self.lr, num_rounds))

    def check_server(self) -> None:
        """Raises InvalidInput if a setting is used that only clients have."""
        client_only = {"epochs", "batch_size", "num_steps", "proximal", "lr_scales", "weight_decay"}
        for f in fields(type(self)):
            default = f.default if f.default is not MISSING else {}
            if f.name in client_only and getattr(self, f.name) != default:
                raise InvalidInput(
                    f"server = {type(self).__name__}({f.name}={getattr(self, f.name)!r}): the server has no "
                    f"examples and takes one step a round, so {f.name} is for clients; leave it out"
                )


@value
class sgd(ClientOptimiser, ServerOptimiser):
    """Stochastic gradient descent, with momentum and weight decay as `torch.optim.SGD` has them.

        v <- momentum v + (g + weight_decay w);   w <- w - lr v

    >>> sgd(0.1, momentum=0.9, epochs=5).steps(0).rule
    sgd_rule(momentum=0.9, weight_decay=0.0)

    Args:
      lr: step size: a number or a schedule over rounds. At the server, None stands for `server_lr`.
      epochs: passes over the client's examples.
      batch_size: examples a step; None: all of the client's.
      num_steps: the number of steps, in place of `epochs`: all clients then take equally many.
      proximal: mu of a term mu/2 |w - w0|² that holds the client near the server's model.
      lr_scales: factors of the step size for single layers or parameters, by name; 0 freezes them.
      momentum: how much of the last direction is kept, from 0 to below 1.
      weight_decay: pulls every parameter of a client to 0; unlike a model's l2, biases too.
      nesterov: whether the step is Nesterov's: w <- w - lr (g + momentum v).
    """

    _: KW_ONLY
    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False

    def rule(self) -> StepRule:
        if self.nesterov and not self.momentum:
            raise InvalidInput("nesterov is true and momentum is 0; write a momentum, such as 0.9")
        if self.nesterov:
            return nesterov_rule(self.momentum, self.weight_decay)
        return sgd_rule(self.momentum, self.weight_decay)

    def init(self, params: Tensors) -> Moments:
        return {"velocity": zeros_like(params)} if self.momentum else {}

    def direction(self, gradient: Tensors, moments: Moments) -> tuple[Tensors, Moments]:
        """Returns the direction, which the server subtracts, and what to remember.

        >>> import numpy as np
        >>> sgd().direction({"w": np.array([2.0])}, {})
        ({'w': array([2.])}, {})
        """
        if not self.momentum:
            return gradient, moments
        velocity = add(scale(moments["velocity"], self.momentum), gradient)
        direction = add_scaled(gradient, self.momentum, velocity) if self.nesterov else velocity
        return direction, {"velocity": velocity}


@value
class adam(ClientOptimiser, ServerOptimiser):
    """Adam: steps shrink, entry by entry, with a moving mean of squared gradients.

        m <- beta1 m + (1 - beta1) g;   v <- beta2 v + (1 - beta2) g²

        at a client:  w <- w - lr m̂ / (√v̂ + eps),   m̂ = m / (1 - beta1^t),   v̂ = v / (1 - beta2^t)
        at a server:  w <- w - lr m / (√v + eps),    v begins at eps²

    At clients it is `torch.optim.Adam`; at the server it is FedAdam of Reddi et al. (see `fed_adam`), whose
    eps, called tau there, is larger, and whose moments are not corrected.

    Args:
      lr: step size: a number or a schedule over rounds. At the server, None stands for `server_lr`.
      epochs, batch_size, num_steps, proximal, lr_scales: of clients, as in `sgd`.
      beta1: how much of the mean gradient is kept.
      beta2: how much of the mean square is kept. None: 0.999 at clients, 0.99 at the server.
      eps: added to the root. None: 1e-8 at clients, 1e-3 at the server.
      weight_decay: pulls every parameter of a client to 0, as part of the gradient.
    References: Kingma, Ba, "Adam: A method for stochastic optimization", ICLR 2015, arXiv 1412.6980.
    """

    _: KW_ONLY
    beta1: float = 0.9
    beta2: float | None = None
    eps: float | None = None
    weight_decay: float = 0.0

    def rule(self) -> StepRule:
        beta2 = 0.999 if self.beta2 is None else self.beta2
        eps = 1e-8 if self.eps is None else self.eps
        return adam_rule(self.beta1, beta2, eps, self.weight_decay)

    @property
    def _tau(self) -> float:
        return 1e-3 if self.eps is None else self.eps

    def init(self, params: Tensors) -> Moments:
        return start_moments(params, self._tau)

    def direction(self, gradient: Tensors, moments: Moments) -> tuple[Tensors, Moments]:
        beta2 = 0.99 if self.beta2 is None else self.beta2
        return scale_by_moments(
            self.beta1,
            self._tau,
            lambda v, square: v.dtype.type(beta2) * v + v.dtype.type(1 - beta2) * square,
            gradient,
            moments,
        )


@value
class adamw(ClientOptimiser):
    """AdamW at clients, as `torch.optim.AdamW`: Adam whose weight decay is apart from the gradient.

        w <- w - lr (m̂ / (√v̂ + eps) + weight_decay w)

    Args:
      lr: step size: a number or a schedule over rounds.
      epochs, batch_size, num_steps, proximal, lr_scales: as in `sgd`.
      beta1: how much of the mean gradient is kept.
      beta2: how much of the mean square is kept.
      eps: added to the root.
      weight_decay: pulls every parameter to 0.
    References: Loshchilov, Hutter, "Decoupled weight decay regularization", ICLR 2019, arXiv 1711.05101.
    """

    _: KW_ONLY
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.01

    def rule(self) -> StepRule:
        return adamw_rule(self.beta1, self.beta2, self.eps, self.weight_decay)
