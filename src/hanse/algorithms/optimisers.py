"""Server optimisers as values: they turn a round's mean update into a step of the server.

    g = -(mean update)                       the pseudo-gradient
    direction, memory = optimiser(g, memory)
    w <- w - server_lr * direction

An update is the client's parameters less the server's, so it points downhill; its negative takes the
place of a gradient. A true gradient (`fed_sgd`) is used as it is.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field, replace
from typing import Any, TypeAlias

import numpy as np

from hanse.algorithms.schedules import Rate, check_rate, rate
from hanse.core import (
    Array,
    InvalidInput,
    PartyId,
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

__all__ = [
    "Moments",
    "OptimiserState",
    "ServerOptimiser",
    "adagrad",
    "check_server",
    "momentum",
    "scale_by_moments",
    "start_moments",
    "yogi",
]

Moments: TypeAlias = Mapping[str, Tensors]


class ServerOptimiser(ABC):
    """Turns the (pseudo-)gradients of rounds into directions to descend along."""

    lr: Rate | None = None
    """Step size; None: the algorithm's `server_lr`."""

    def check_server(self) -> None:  # noqa: B027  (most are for servers only)
        """Raises InvalidInput if it has settings that a server can't use."""

    @abstractmethod
    def init(self, params: Tensors) -> Moments:
        """Returns what the optimiser remembers before the first round."""

    @abstractmethod
    def direction(self, gradient: Tensors, moments: Moments) -> tuple[Tensors, Moments]:
        """Returns the direction, which the server subtracts, and what to remember."""


def check_server(server: ServerOptimiser, server_lr: Rate) -> None:
    """Raises InvalidInput if a server can't use this optimiser and this step size together."""
    check_rate("server_lr", server_lr)
    server.check_server()
    if server.lr is None:
        return
    check_rate("lr", server.lr)
    if server_lr != 1.0:
        raise InvalidInput(
            f"server_lr is {server_lr} and server = {type(server).__name__}({server.lr}) has a step size "
            "too; write one of them"
        )


@value
class OptimiserState:
    """The model, the number of rounds that led to it, and the memory of the server's optimiser.

    Args:
      last_rounds: the round that each client last took part in, from 0, of those that rest since then.
    """

    params: Tensors
    num_rounds: int = 0
    moments: Moments = field(default_factory=dict)
    last_rounds: Mapping[PartyId, int] = field(default_factory=dict)

    def find_resting(self, separation: int | None) -> tuple[PartyId, ...]:
        """Returns the clients that took part in one of the last rounds, and so rest in this one."""
        if separation is None:
            return ()
        return tuple(party for party, last in self.last_rounds.items() if self.num_rounds - last < separation)

    def let_rest(self, parties: Iterable[PartyId], separation: int | None) -> "OptimiserState":
        """Returns the state that remembers who took part in this round, if clients have to rest."""
        if separation is None:
            return self
        resting = {party: self.last_rounds[party] for party in self.find_resting(separation)}
        return replace(self, last_rounds={**resting, **dict.fromkeys(parties, self.num_rounds)})

    def advance(self, optimiser: ServerOptimiser, lr: Rate, update: Tensors) -> "OptimiserState":
        """Returns the state after one more round, in which the clients' mean update was `update`."""
        return self.descend(optimiser, lr, negate(update))

    def descend(self, optimiser: ServerOptimiser, lr: Rate, gradient: Tensors) -> "OptimiserState":
        """Returns the state after one more round, whose gradient, or pseudo-gradient, was `gradient`."""
        direction, moments = optimiser.direction(gradient, self.moments)
        step = rate(lr if optimiser.lr is None else optimiser.lr, self.num_rounds)
        params = add_scaled(self.params, -step, direction)
        return replace(self, params=params, num_rounds=self.num_rounds + 1, moments=moments)


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


def start_moments(params: Tensors, tau: float) -> Moments:
    """Returns the first moment, zero, and the second, tau²."""
    return {"first": zeros_like(params), "second": tree_map(lambda w: np.full_like(w, tau**2), params)}


def scale_by_moments(
    beta1: float, tau: float, second: Callable[[Array, Array], Any], gradient: Tensors, moments: Moments
) -> tuple[Tensors, Moments]:
    """Divides a mean of past gradients, entry by entry, by the root of a second moment.

    m <- beta1 m + (1 - beta1) g;   v <- second(v, g²);   m / (√v + tau)
    """
    first = add_scaled(scale(moments["first"], beta1), 1 - beta1, gradient)
    squares = tree_map(lambda v, g: second(v, g * g), moments["second"], gradient)
    scaled = tree_map(lambda m, v: m / (np.sqrt(v) + v.dtype.type(tau)), first, squares)
    return scaled, {"first": first, "second": squares}


class _Adaptive(ServerOptimiser):
    """An optimiser at the server whose steps shrink with a second moment."""

    beta1: float
    tau: float

    def __post_init__(self) -> None:
        check_below_one("beta1", self.beta1)
        check_positive("tau", self.tau)

    @abstractmethod
    def second(self, v: Array, square: Array) -> Any:
        """Returns the second moment after one more squared gradient."""

    def init(self, params: Tensors) -> Moments:
        return start_moments(params, self.tau)

    def direction(self, gradient: Tensors, moments: Moments) -> tuple[Tensors, Moments]:
        return scale_by_moments(self.beta1, self.tau, self.second, gradient, moments)


@value
class adagrad(_Adaptive):
    """Steps shrink, entry by entry, with the sum of squares: v <- v + g². See `fed_adagrad`.

    Args:
      beta1: how much of the last direction is kept.
      tau: added to the root of the second moment; the smaller, the more adaptive.
    """

    beta1: float = 0.0
    tau: float = 1e-3

    def second(self, v: Array, square: Array) -> Any:
        return v + square


@value
class yogi(_Adaptive):
    """Adam whose second moment changes only by steps of the size of the square. See `fed_yogi`.

    v <- v - (1 - beta2) g² sign(v - g²)

    Args:
      beta1: how much of the last direction is kept.
      beta2: how much of the last second moment is kept.
      tau: added to the root of the second moment; the smaller, the more adaptive.
    """

    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_below_one("beta2", self.beta2)

    def second(self, v: Array, square: Array) -> Any:
        return v - v.dtype.type(1 - self.beta2) * square * np.sign(v - square)
