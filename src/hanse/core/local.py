"""Local training as values: the steps that a client takes, and the problem that it takes them on."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

import numpy as np

from hanse.core.checks import check_below_one, check_count, check_not_negative, check_positive
from hanse.core.errors import InvalidInput
from hanse.core.keys import Key
from hanse.core.tensors import Array, Tensors, zeros_like
from hanse.core.values import value
from hanse.core.work import Space

__all__ = [
    "Examples",
    "LocalProblem",
    "Slots",
    "StepRule",
    "Steps",
    "adam_rule",
    "adamw_rule",
    "nesterov_rule",
    "sgd_rule",
]


@dataclass(frozen=True)
class Examples:
    """Rows of features and their labels.

    Args:
      x: (n, ...) features.
      y: (n, ...) labels, classes as integers from 0.
    """

    x: Array
    y: Array

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise InvalidInput(
                f"{len(self.x)} rows of features and {len(self.y)} labels; give one label a row"
            )

    def __len__(self) -> int:
        return len(self.x)

    @classmethod
    def join(cls, parts: Iterable["Examples"]) -> "Examples":
        """Joins the examples of several parts, in their order. There has to be one at least."""
        found = list(parts)
        return cls(np.concatenate([one.x for one in found]), np.concatenate([one.y for one in found]))

    def take(self, rows: Array) -> "Examples":
        """Returns the examples at these positions."""
        return Examples(self.x[rows], self.y[rows])


Slots: TypeAlias = tuple[Tensors, ...]
"""The memory of a rule from step to step: so many tensors for each parameter, zero at the start."""


class StepRule(ABC):
    """A rule that turns gradients into steps: w <- w - lr * direction.

    `turn` uses arithmetic only, so it serves arrays of NumPy, of JAX and of PyTorch; a program compiled for
    a rule serves all its settings.
    """

    num_slots: ClassVar[int]
    """The number of tensors that it remembers for each parameter."""

    weight_decay: float
    """The strength with which every parameter is pulled to 0."""

    @property
    def is_plain(self) -> bool:
        """Returns whether the direction is the gradient itself."""
        return False

    @property
    @abstractmethod
    def numbers(self) -> tuple[float, ...]:
        """Its settings, in the form in which `turn` takes them."""

    @staticmethod
    @abstractmethod
    def turn(
        numbers: Any, step: Any, w: Any, gradient: Any, slots: tuple[Any, ...], expm1: Callable[[Any], Any]
    ) -> tuple[Any, tuple[Any, ...]]:
        """Returns the direction for one parameter, and what to remember.

        Args:
          numbers: as `numbers` gives them, or arrays in their place.
          step: the number of this step, from 1.
          w: the parameter before the step.
          expm1: exp(x) - 1, which keeps its digits near 0.
        """

    def start(self, params: Tensors) -> Slots:
        """Returns what is remembered before the first step."""
        return tuple(zeros_like(params) for _ in range(self.num_slots))

    def direction(self, step: int, params: Tensors, gradient: Tensors, slots: Slots) -> tuple[Tensors, Slots]:
        """Returns the directions for all parameters, and what to remember."""
        if self.is_plain:
            return gradient, slots
        return self.turn_all(self.numbers, step, params, gradient, slots, math.expm1)

    @classmethod
    def turn_all(
        cls, numbers: Any, step: Any, params: Any, gradient: Any, slots: Any, expm1: Callable[[Any], Any]
    ) -> tuple[dict[str, Any], tuple[dict[str, Any], ...]]:
        """Applies `turn` to all parameters, by name; returns the directions, and what to remember."""
        turned = {
            name: cls.turn(numbers, step, w, gradient[name], tuple(slot[name] for slot in slots), expm1)
            for name, w in params.items()
        }
        kept = tuple({name: own[i] for name, (_, own) in turned.items()} for i in range(cls.num_slots))
        return {name: direction for name, (direction, _) in turned.items()}, kept


@value
class sgd_rule(StepRule):
    """Gradient descent with momentum and weight decay, as `torch.optim.SGD` has them.

        g <- g + weight_decay w;   v <- momentum v + g;   w <- w - lr v

    Args:
      momentum: how much of the last direction is kept, from 0 to below 1.
      weight_decay: pulls every parameter to 0; unlike a model's l2, biases too.
    """

    momentum: float = 0.0
    weight_decay: float = 0.0

    num_slots = 1

    def __post_init__(self) -> None:
        check_below_one("momentum", self.momentum)
        check_not_negative("weight_decay", self.weight_decay)

    @property
    def is_plain(self) -> bool:
        return not self.momentum and not self.weight_decay

    @property
    def numbers(self) -> tuple[float, ...]:
        return self.momentum, self.weight_decay

    @staticmethod
    def turn(
        numbers: Any, step: Any, w: Any, gradient: Any, slots: tuple[Any, ...], expm1: Callable[[Any], Any]
    ) -> tuple[Any, tuple[Any, ...]]:
        momentum, weight_decay = numbers
        velocity = momentum * slots[0] + (gradient + weight_decay * w)
        return velocity, (velocity,)


@value
class nesterov_rule(sgd_rule):
    """Nesterov's momentum, in the form of `torch.optim.SGD(nesterov=True)`.

    g <- g + weight_decay w;   v <- momentum v + g;   w <- w - lr (g + momentum v)
    """

    momentum: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("momentum", self.momentum)

    @staticmethod
    def turn(
        numbers: Any, step: Any, w: Any, gradient: Any, slots: tuple[Any, ...], expm1: Callable[[Any], Any]
    ) -> tuple[Any, tuple[Any, ...]]:
        momentum, weight_decay = numbers
        gradient = gradient + weight_decay * w
        velocity = momentum * slots[0] + gradient
        return gradient + momentum * velocity, (velocity,)


@value
class adam_rule(StepRule):
    """Adam, as `torch.optim.Adam` has it: weight decay is part of the gradient.

        g <- g + weight_decay w;   m <- beta1 m + (1 - beta1) g;   v <- beta2 v + (1 - beta2) g²
        w <- w - lr (m / (1 - beta1^t)) / (√(v / (1 - beta2^t)) + eps)

    Args:
      beta1: how much of the mean gradient is kept.
      beta2: how much of the mean square is kept.
      eps: added to the root.
      weight_decay: pulls every parameter to 0.
    References: Kingma, Ba, "Adam: A method for stochastic optimization", ICLR 2015, arXiv 1412.6980.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0

    num_slots = 2

    def __post_init__(self) -> None:
        for name in ("beta1", "beta2"):
            check_below_one(name, getattr(self, name))
        check_positive("eps", self.eps)
        check_not_negative("weight_decay", self.weight_decay)

    @property
    def numbers(self) -> tuple[float, ...]:
        betas = (self.beta1, self.beta2)
        logs = (math.log(beta) if beta else -math.inf for beta in betas)
        return (*betas, *(1 - beta for beta in betas), *logs, self.eps, self.weight_decay)

    @staticmethod
    def turn(
        numbers: Any, step: Any, w: Any, gradient: Any, slots: tuple[Any, ...], expm1: Callable[[Any], Any]
    ) -> tuple[Any, tuple[Any, ...]]:
        return _scale_by_moments(numbers, step, gradient + numbers[-1] * w, slots, expm1)


@value
class adamw_rule(adam_rule):
    """AdamW, as `torch.optim.AdamW` has it: Adam with weight decay apart from the gradient.

    w <- w - lr (Adam's direction + weight_decay w)

    References: Loshchilov, Hutter, "Decoupled weight decay regularization", ICLR 2019, arXiv 1711.05101.
    """

    weight_decay: float = 0.01

    @staticmethod
    def turn(
        numbers: Any, step: Any, w: Any, gradient: Any, slots: tuple[Any, ...], expm1: Callable[[Any], Any]
    ) -> tuple[Any, tuple[Any, ...]]:
        direction, slots = _scale_by_moments(numbers, step, gradient, slots, expm1)
        return direction + numbers[-1] * w, slots


def _scale_by_moments(
    numbers: Any, step: Any, gradient: Any, slots: tuple[Any, ...], expm1: Callable[[Any], Any]
) -> tuple[Any, tuple[Any, ...]]:
    beta1, beta2, rest1, rest2, log1, log2, eps, _ = numbers
    mean = beta1 * slots[0] + rest1 * gradient
    square = beta2 * slots[1] + rest2 * (gradient * gradient)
    root = (square / -expm1(step * log2)) ** 0.5
    return mean / -expm1(step * log1) / (root + eps), (mean, square)


@value
class Steps:
    """The settings of local training by gradient steps.

    Args:
      lr: step size.
      epochs: passes over the client's examples, each in a fresh order.
      batch_size: examples a step; the last batch of an epoch may be smaller. None: all of them.
      proximal: mu of a term mu/2 |w - w0|^2 that holds the client near where it started.
      num_steps: the number of steps, in place of `epochs`; passes begin as they are needed.
      rule: turns gradients into steps; what it remembers lasts for one local training.
      lr_scales: factors of the step size for parameters, by their names or the part before a dot:
        {"hidden1": 0.1} holds for "hidden1.weight" too. The longest name that fits decides; 0 freezes.
    """

    lr: float
    epochs: int = 1
    batch_size: int | None = None
    proximal: float = 0.0
    num_steps: int | None = None
    rule: StepRule = sgd_rule()
    lr_scales: Mapping[str, float] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise InvalidInput(f"lr is {self.lr}; write a step size above 0")
        check_count("epochs", self.epochs)
        if self.batch_size is not None and self.batch_size < 1:
            raise InvalidInput(
                f"batch_size is {self.batch_size}; write at least 1, or leave it out for full batches"
            )
        if not self.proximal >= 0:
            raise InvalidInput(f"proximal is {self.proximal}; write a number of at least 0")
        if self.num_steps is not None:
            check_count("num_steps", self.num_steps)
            if self.epochs != 1:
                raise InvalidInput(
                    f"epochs is {self.epochs} and num_steps is {self.num_steps}; write one of them"
                )
        for name, scale in self.lr_scales.items():
            check_not_negative(f"lr_scales[{name!r}]", scale)

    def count_steps(self, num_examples: int) -> int:
        """Returns the number of steps on this many examples."""
        return self.num_steps or self.epochs * self._steps_per_epoch(num_examples)

    def count_visits(self, num_examples: int) -> float:
        """Returns the number of examples that all steps visit together."""
        if self.num_steps is None:
            return float(self.epochs * num_examples)
        return self.num_steps * num_examples / self._steps_per_epoch(num_examples)

    def count_epochs(self, num_examples: int) -> int:
        """Returns the number of passes over this many examples, the last of which may be cut."""
        if self.num_steps is None:
            return self.epochs
        return -(-self.num_steps // self._steps_per_epoch(num_examples))

    def _steps_per_epoch(self, num_examples: int) -> int:
        batch = self.batch_size or max(1, num_examples)
        return max(1, -(-num_examples // batch))

    @property
    def is_plain(self) -> bool:
        """Returns whether each step is w <- w - lr * gradient, for all parameters alike."""
        return self.rule.is_plain and not self.lr_scales

    def lr_of(self, params: Tensors) -> dict[str, float]:
        """Returns the step size of each parameter. Raises: InvalidInput: if a scale fits none of them."""
        rates = dict.fromkeys(params, self.lr)
        for prefix in sorted(self.lr_scales, key=len):
            fits = [name for name in params if name == prefix or name.startswith(f"{prefix}.")]
            if not fits:
                raise InvalidInput(
                    f"lr_scales names {prefix!r}, which is no parameter; they are {', '.join(params)}"
                )
            rates.update(dict.fromkeys(fits, self.lr * self.lr_scales[prefix]))
        return rates


@dataclass(frozen=True)
class LocalProblem:
    """A client's problem: what it trains on, how, and with which draws.

    Args:
      data: the client's examples.
      steps: the settings of its steps.
      key: epoch e visits the examples in the order `key.fold_in("epoch", e).rng().permutation(n)`. A full
        batch needs no order and draws none.
      offset: added to each gradient (a control variate).
      space: the space to train in; the gradient step is then taken on its coordinates.
    """

    data: Examples
    steps: Steps
    key: Key
    offset: Tensors | None = None
    space: Space | None = None
