"""Server optimisers as values: they turn a round's mean update into a step of the server.

    g = -(mean update)                       the pseudo-gradient
    direction, memory = optimiser(g, memory)
    w <- w - server_lr * direction

An update is the client's parameters less the server's, so it points downhill; its negative takes the
place of a gradient. A true gradient (`fed_sgd`) is used as it is.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import field
from typing import Any, TypeAlias

import numpy as np

from hanse.algorithms.schedules import Rate, rate
from hanse.core import (
    Array,
    Tensors,
    add,
    add_scaled,
    check_below_one,
    check_positive,
    negate,
    scale,
    tree_map,
    value,
    zeros_like,
)

__all__ = ["OptimiserState", "ServerOptimiser", "adagrad", "adam", "momentum", "sgd", "yogi"]

Moments: TypeAlias = Mapping[str, Tensors]


class ServerOptimiser(ABC):
    """Turns the (pseudo-)gradients of rounds into directions to descend along."""

    @abstractmethod
    def init(self, params: Tensors) -> Moments:
        """Returns what the optimiser remembers before the first round."""

    @abstractmethod
    def direction(self, gradient: Tensors, moments: Moments) -> tuple[Tensors, Moments]:
        """Returns the direction, which the server subtracts, and what to remember."""


@value
class OptimiserState:
    """The model, the number of rounds that led to it, and the memory of the server's optimiser."""

    params: Tensors
    num_rounds: int = 0
    moments: Moments = field(default_factory=dict)

    def advance(self, optimiser: ServerOptimiser, lr: Rate, update: Tensors) -> "OptimiserState":
        """Returns the state after one more round, in which the clients' mean update was `update`."""
        return self.descend(optimiser, lr, negate(update))

    def descend(self, optimiser: ServerOptimiser, lr: Rate, gradient: Tensors) -> "OptimiserState":
        """Returns the state after one more round, whose gradient, or pseudo-gradient, was `gradient`."""
        direction, moments = optimiser.direction(gradient, self.moments)
        params = add_scaled(self.params, -rate(lr, self.num_rounds), direction)
        return OptimiserState(params, self.num_rounds + 1, moments)


@value
class sgd(ServerOptimiser):
    """The gradient itself as the direction.

    >>> sgd().direction({"w": np.array([2.0])}, {})
    ({'w': array([2.])}, {})
    """

    def init(self, params: Tensors) -> Moments:
        return {}

    def direction(self, gradient: Tensors, moments: Moments) -> tuple[Tensors, Moments]:
        return gradient, moments


@value
class momentum(ServerOptimiser):
    """Heavy-ball momentum; with `fed_avg`, FedAvgM.

        v <- beta v + g;   w <- w - server_lr v

    >>> g = {"w": np.array([1.0])}
    >>> v, moments = momentum(0.5).direction(g, momentum(0.5).init(g))
    >>> momentum(0.5).direction(g, moments)[0]
    {'w': array([1.5])}

    Args:
      beta: how much of the last direction is kept, from 0 to below 1.
    References: Hsu, Qi, Brown, "Measuring the effects of non-identical data distribution for federated
      visual classification", arXiv 1909.06335, section 4.2.
    """

    beta: float = 0.9

    def __post_init__(self) -> None:
        check_below_one("beta", self.beta)

    def init(self, params: Tensors) -> Moments:
        return {"velocity": zeros_like(params)}

    def direction(self, gradient: Tensors, moments: Moments) -> tuple[Tensors, Moments]:
        velocity = add(scale(moments["velocity"], self.beta), gradient)
        return velocity, {"velocity": velocity}


class _Adaptive(ServerOptimiser):
    """A mean of past gradients, divided entry by entry by the root of a second moment.

    m <- beta1 m + (1 - beta1) g;   v <- second(v, g²);   w <- w - server_lr m / (√v + tau)
    """

    beta1: float
    tau: float

    def __post_init__(self) -> None:
        check_below_one("beta1", self.beta1)
        check_positive("tau", self.tau)

    @abstractmethod
    def second(self, v: Array, square: Array) -> Any:
        """Returns the second moment after one more squared gradient."""

    def init(self, params: Tensors) -> Moments:
        floor = tree_map(lambda w: np.full_like(w, self.tau**2), params)
        return {"first": zeros_like(params), "second": floor}

    def direction(self, gradient: Tensors, moments: Moments) -> tuple[Tensors, Moments]:
        first = add_scaled(scale(moments["first"], self.beta1), 1 - self.beta1, gradient)
        second = tree_map(lambda v, g: self.second(v, g * g), moments["second"], gradient)
        scaled = tree_map(lambda m, v: m / (np.sqrt(v) + v.dtype.type(self.tau)), first, second)
        return scaled, {"first": first, "second": second}


@value
class adagrad(_Adaptive):
    """Steps shrink, entry by entry, with the sum of squares: v <- v + g². See `fed_adagrad`."""

    beta1: float = 0.0
    tau: float = 1e-3

    def second(self, v: Array, square: Array) -> Any:
        return v + square


@value
class adam(_Adaptive):
    """Steps shrink, entry by entry, with a moving mean of squares. See `fed_adam`.

    v <- beta2 v + (1 - beta2) g²
    """

    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_below_one("beta2", self.beta2)

    def second(self, v: Array, square: Array) -> Any:
        return v.dtype.type(self.beta2) * v + v.dtype.type(1 - self.beta2) * square


@value
class yogi(_Adaptive):
    """Adam whose second moment changes only by steps of the size of the square. See `fed_yogi`.

    v <- v - (1 - beta2) g² sign(v - g²)
    """

    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_below_one("beta2", self.beta2)

    def second(self, v: Array, square: Array) -> Any:
        return v - v.dtype.type(1 - self.beta2) * square * np.sign(v - square)
