"""Settings that all algorithms share whose clients train locally."""

from abc import ABC
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, TypeVar

from hanse.algorithms.client_optimisers import EPOCHS, LR, ClientOptimiser, ClientTraining, sgd
from hanse.algorithms.schedules import Rate, check_rate
from hanse.algorithms.works import Weighting, by_examples
from hanse.core import (
    Algorithm,
    Close,
    Examples,
    InvalidInput,
    Key,
    Steps,
    Work,
    check_count,
    check_fraction,
    fields,
)
from hanse.core.exchange import Sample

__all__ = ["LocalTraining", "check_sampling", "choose_training", "settle_fraction"]

S = TypeVar("S", bound=Any)


@dataclass(frozen=True)
class LocalTraining(Algorithm[S], ABC):
    """Each round, some clients take several local steps of stochastic gradient descent.

    Args:
      lr: the clients' step size: a number or a schedule.
      fraction: of the clients that each round trains; at least one. None: a tenth of them, but at least 10,
        or all if they are fewer. A run stores the number that this comes to.
      epochs: local passes over the data.
      batch_size: examples a local step; None: all of a client's.
      weighting: how much a client counts: `by_examples()` or `uniform()`.
      close: when a round closes.
      client: the clients' training, in place of lr, epochs and batch_size, which stand for
        `sgd(lr, epochs=epochs, batch_size=batch_size)`.
    """

    lr: Rate = LR
    fraction: float | None = None
    _: KW_ONLY
    epochs: int = EPOCHS
    batch_size: int | None = 10
    weighting: Weighting = by_examples()
    close: Close = Close()
    client: ClientTraining | None = None

    def __post_init__(self) -> None:
        check_rate("lr", self.lr)
        if self.fraction is not None:
            check_fraction(self.fraction)
        self.work(0)

    @property
    def training(self) -> ClientTraining:
        """The clients' training."""
        return choose_training(self)

    def work(self, num_rounds: int) -> Work[Any, Examples]:
        """Returns the clients' work after this many closed rounds, which emits an "update"."""
        return self.training.work(num_rounds, self.weighting)

    def steps(self, num_rounds: int, *, proximal: float = 0.0) -> Steps:
        """Returns the local steps after this many closed rounds.

        Raises: InvalidInput: if the clients train in a way that has no such steps.
        """
        training = self.training
        if not isinstance(training, ClientOptimiser):
            raise InvalidInput(
                f"{type(self).__name__}() counts its clients' gradient steps, which "
                f"{type(training).__name__}() does not show; use sgd(), or fed_avg()"
            )
        return training.steps(num_rounds, proximal=proximal)


def settle_fraction(algorithm: Algorithm[S], num_clients: int) -> Algorithm[S]:
    """Returns the algorithm with the fraction that a cohort of the usual size comes to, where it has none.

    >>> from hanse.algorithms import fed_avg
    >>> settle_fraction(fed_avg(), 20).fraction, settle_fraction(fed_avg(), 1000).fraction
    (0.5, 0.1)
    """
    if not isinstance(algorithm, LocalTraining) or algorithm.fraction is not None:
        return algorithm
    if getattr(algorithm, "sampling_rate", None) is not None:
        return algorithm
    size = Sample(Key.from_seed(0)).size(num_clients)
    return replace(algorithm, fraction=size / num_clients)


def check_sampling(
    fraction: float | None, sampling_rate: float | None, separation: int | None = None
) -> None:
    """Checks how clients are chosen. Raises: InvalidInput: if it is said twice, or out of range."""
    if separation is not None:
        check_count("separation", separation)
        if sampling_rate is not None:
            raise InvalidInput(
                f"separation is {separation} and sampling_rate is {sampling_rate}; write one of them: "
                "clients that rest between their rounds, or each client with this probability in every round"
            )
    if sampling_rate is None:
        return
    if not 0 < sampling_rate <= 1:
        raise InvalidInput(f"sampling_rate is {sampling_rate}; write a probability above 0 and at most 1")
    if fraction is not None:
        raise InvalidInput(
            f"fraction is {fraction} and sampling_rate is {sampling_rate}; write one of them: a cohort of a "
            "fixed size, or each client with this probability"
        )


def choose_training(algorithm: Any) -> ClientTraining:
    """Returns an algorithm's `client`, or the one that its lr, epochs and batch_size stand for.

    Raises: InvalidInput: if both are given.
    """
    if algorithm.client is None:
        return sgd(algorithm.lr, epochs=algorithm.epochs, batch_size=algorithm.batch_size)
    name = type(algorithm).__name__
    for f in fields(type(algorithm)):
        given = getattr(algorithm, f.name)
        if f.name in ("lr", "epochs", "batch_size") and given != f.default:
            raise InvalidInput(
                f"{name}() has {f.name}={given!r} and client={type(algorithm.client).__name__}(...), which "
                f"has settings of its own; leave {f.name} out of {name}"
            )
    training: ClientTraining = algorithm.client
    return training
