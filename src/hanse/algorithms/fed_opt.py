"""Adaptive federated optimisation: federated averaging with Adagrad, Adam or Yogi at the server.

Reddi, Charles, Zaheer, Garrett, Rush, Konecny, Kumar, McMahan, "Adaptive federated optimization", ICLR 2021,
arXiv 2003.00295, Algorithm 2.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from hanse.algorithms.client_optimisers import adam
from hanse.algorithms.fed_avg import fed_avg
from hanse.algorithms.local import LocalTraining, check_sampling
from hanse.algorithms.optimisers import OptimiserState, ServerOptimiser, adagrad, yogi
from hanse.algorithms.schedules import Rate, check_rate
from hanse.core import Key, Program, Reducer, Tensors, Transform, check_positive, mean, value

__all__ = ["fed_adagrad", "fed_adam", "fed_yogi"]


@dataclass(frozen=True)
class FedOpt(LocalTraining[OptimiserState], ABC):
    """The settings of the three algorithms; those shared with `fed_avg` mean the same.

    Args:
      server_lr: eta, step size at the server: a number or a schedule.
      beta1: how much of the last direction is kept.
      tau: added to the root of the second moment; the smaller, the more adaptive.
      sampling_rate, separation: as in `fed_avg`.
    """

    server_lr: Rate = 0.01
    beta1: float = 0.9
    tau: float = 1e-3
    uplink: tuple[Transform, ...] = ()
    into: Reducer[Any] = mean()
    downlink: tuple[Transform, ...] = ()
    sampling_rate: float | None = field(default=None, kw_only=True)
    separation: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sampling(self.fraction, self.sampling_rate, self.separation)
        check_rate("server_lr", self.server_lr)
        check_positive("tau", self.tau)
        self.server()

    @abstractmethod
    def server(self) -> ServerOptimiser:
        """Returns the optimiser at the server."""

    def averaging(self) -> fed_avg:
        """Returns `fed_avg` with that optimiser, which is what each of the three does."""
        return fed_avg(
            self.lr,
            self.fraction,
            epochs=self.epochs,
            batch_size=self.batch_size,
            weighting=self.weighting,
            close=self.close,
            client=self.client,
            server_lr=self.server_lr,
            server=self.server(),
            uplink=self.uplink,
            into=self.into,
            downlink=self.downlink,
            sampling_rate=self.sampling_rate,
            separation=self.separation,
        )

    def init(self, params: Tensors, key: Key) -> OptimiserState:
        return self.averaging().init(params, key)

    def round(self, state: OptimiserState, key: Key) -> Program[OptimiserState]:
        return (yield from self.averaging().round(state, key))


@value
class fed_adagrad(FedOpt):
    """FedAdagrad: `fed_avg(server=adagrad())`. Each entry's steps shrink with the sum of its squares.

        g = -mean(w_k - w);   m <- beta1 m + (1 - beta1) g;   v <- v + g²
        w <- w - server_lr m / (√v + tau)

    Converges, as `fed_avg` does, to a point near the optimum of the weighted objective: the server's
    optimiser stops where the mean update is 0.

    Args:
      lr, fraction, epochs, batch_size, weighting, close, client, uplink, into, downlink,
        sampling_rate, separation: as in `fed_avg`.
      server_lr: eta, step size at the server: a number or a schedule.
      beta1: how much of the last direction is kept.
      tau: added to the root of the second moment; the smaller, the more adaptive.
    """

    server_lr: Rate = 0.1
    beta1: float = 0.0

    def server(self) -> ServerOptimiser:
        return adagrad(self.beta1, self.tau)


@value
class fed_adam(FedOpt):
    """FedAdam: `fed_avg(server=adam())`. Each entry's steps shrink with a moving mean of its squares.

        g = -mean(w_k - w);   m <- beta1 m + (1 - beta1) g;   v <- beta2 v + (1 - beta2) g²
        w <- w - server_lr m / (√v + tau)

    Converges, with a server_lr that decays, to a point near the optimum of the weighted objective, as
    `fed_avg` does; with a constant one it keeps moving around that point.

    Args:
      lr, fraction, epochs, batch_size, weighting, close, client, uplink, into, downlink,
        sampling_rate, separation: as in `fed_avg`.
      server_lr: eta, step size at the server: a number or a schedule.
      beta1: how much of the last direction is kept.
      beta2: how much of the last second moment is kept.
      tau: added to the root of the second moment; the smaller, the more adaptive.
    """

    beta2: float = 0.99

    def server(self) -> ServerOptimiser:
        return adam(beta1=self.beta1, beta2=self.beta2, eps=self.tau)


@value
class fed_yogi(FedOpt):
    """FedYogi: `fed_avg(server=yogi())`. It is FedAdam with a second moment that changes more slowly.

        g = -mean(w_k - w);   m <- beta1 m + (1 - beta1) g;   v <- v - (1 - beta2) g² sign(v - g²)
        w <- w - server_lr m / (√v + tau)

    Converges, with a server_lr that decays, to a point near the optimum of the weighted objective, as
    `fed_avg` does; with a constant one it keeps moving around that point.

    Args:
      lr, fraction, epochs, batch_size, weighting, close, client, uplink, into, downlink,
        sampling_rate, separation: as in `fed_avg`.
      server_lr: eta, step size at the server: a number or a schedule.
      beta1: how much of the last direction is kept.
      beta2: 1 - beta2 scales the change of the second moment.
      tau: added to the root of the second moment; the smaller, the more adaptive.
    """

    beta2: float = 0.99

    def server(self) -> ServerOptimiser:
        return yogi(self.beta1, self.beta2, self.tau)
