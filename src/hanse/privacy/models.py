"""Settings of differential privacy: who is trusted with what, and how much may be spent."""

from hanse.core import InvalidInput, check_positive, value
from hanse.privacy.accounting import calibrate, calibrate_series
from hanse.privacy.clipping import adaptive_clip
from hanse.privacy.correlated import CorrelatedNoise
from hanse.privacy.local_noise import local_gaussian
from hanse.privacy.noise import gaussian

__all__ = ["PREPROCESSING", "Privacy", "central", "local"]

PREPROCESSING = "preprocessing"
"""The word in `central.open` for the sums over clients by which features are encoded."""


class Privacy:
    """A model of differential privacy: whom a run protects, against whom, and by how much."""

    open: tuple[str, ...]
    """The parts that clients send un-noised all the same, which the claim then names."""


@value
class central(Privacy):
    """Protects each client against whoever sees the released models. The server is trusted.

    Each update is clipped to `max_norm`, the server adds Gaussian noise to their sum and divides it by a
    fixed number, and each client takes part in a round with the same probability, which only the server's
    secret decides. The noise is the smallest with which all rounds together stay within the budget. All
    clients count alike. A run that would spend more is refused, and stopped before the round that would.

    Args:
      epsilon: the budget, for a client that is added or removed.
      delta: the probability with which more may be lost; below one in the number of clients.
      max_norm: the bound on the Euclidean norm of an update. If it is too small, training is slow; if it is
        too large, so is the noise. `adaptive_clip()`: it follows the norms of the updates.
      open: what clients send un-noised all the same, which the claim then names: parts of messages, such as
        "metrics", the measurements of the model at clients, and "preprocessing", the sums by which
        features are encoded.
      mechanism: noise that is correlated over rounds, `tree()` or `banded()`, in place of Poisson samples and
        fresh noise in each round. Then nothing is amplified, and each client rests after it took part.
    References: McMahan, Ramage, Talwar, Zhang, "Learning differentially private recurrent language models",
      ICLR 2018, arXiv 1710.06963, Algorithm 1.

    >>> central(epsilon=3.0).delta
    1e-05
    """

    epsilon: float
    delta: float = 1e-5
    max_norm: float | adaptive_clip = 1.0
    open: tuple[str, ...] = ()
    mechanism: CorrelatedNoise | None = None

    def __post_init__(self) -> None:
        check_positive("epsilon", self.epsilon)
        if not isinstance(self.max_norm, adaptive_clip):
            check_positive("max_norm", self.max_norm)
        if self.mechanism is not None and self.mechanism.noise_multiplier is not None:
            raise InvalidInput(
                f"mechanism is {self.mechanism}, but a budget chooses the noise; leave noise_multiplier out"
            )
        if not 0 < self.delta < 1:
            raise InvalidInput(f"delta is {self.delta}; write a number above 0 and below 1, such as 1e-5")
        if isinstance(self.open, str):
            raise InvalidInput(f"open is {self.open!r}; write names, such as open=({self.open!r},)")

    def choose_noise(self, sampling: float, rounds: int) -> gaussian | CorrelatedNoise:
        """Chooses the smallest noise with which so many rounds stay within the budget.

        Args:
          sampling: the rate of Poisson samples, which a `mechanism` does not use.

        Raises: InvalidInput: if dp-accounting is not installed, or no noise suffices.
        """
        if self.mechanism is not None:
            noise = self.mechanism.settle(rounds)
            return noise.with_multiplier(
                calibrate_series(self.epsilon, self.delta, noise=noise, times=rounds)
            )
        return gaussian(calibrate(self.epsilon, self.delta, sampling=sampling, times=rounds))

    def check_delta(self, num_clients: int) -> None:
        """Checks delta against the number of clients. Raises: InvalidInput: if it allows too much."""
        _check_delta(self.delta, num_clients)


@value
class local(Privacy):
    """Protects the data of each client against everybody, the server included.

    Each client clips its update to `max_norm` and adds Gaussian noise to it before it leaves. The noise is
    the smallest with which a client that takes part in every round stays within the budget; who takes part
    is known to the server, so sampling gains nothing. All clients count alike, because a number of examples
    would leave without noise. What follows, such as `quantize`, changes nothing about the protection.

    Args:
      epsilon: the budget, for a client all of whose data are replaced by any others.
      delta: the probability with which more may be lost; below one in the number of clients.
      max_norm: the bound on the Euclidean norm of an update.
      open: what clients send un-noised all the same, which the claim then names; see `central`.
    References: Kasiviswanathan et al., "What can we learn privately?", FOCS 2008, arXiv 0803.0924.

    >>> local(epsilon=8.0).delta
    1e-05
    """

    epsilon: float
    delta: float = 1e-5
    max_norm: float = 1.0
    open: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_positive("epsilon", self.epsilon)
        check_positive("max_norm", self.max_norm)
        if not 0 < self.delta < 1:
            raise InvalidInput(f"delta is {self.delta}; write a number above 0 and below 1, such as 1e-5")
        if isinstance(self.open, str):
            raise InvalidInput(f"open is {self.open!r}; write names, such as open=({self.open!r},)")

    def choose_noise(self, rounds: int) -> local_gaussian:
        """Chooses the smallest noise with which a client may take part in so many rounds.

        Raises: InvalidInput: if dp-accounting is not installed, or no noise suffices.
        """
        return local_gaussian(calibrate(self.epsilon, self.delta, sampling=1.0, times=rounds))

    def check_delta(self, num_clients: int) -> None:
        """Checks delta against the number of clients. Raises: InvalidInput: if it allows too much."""
        _check_delta(self.delta, num_clients)


def _check_delta(delta: float, num_clients: int) -> None:
    if delta * num_clients >= 1:
        raise InvalidInput(
            f"privacy.delta is {delta:g} with {num_clients} clients, which would allow to publish all that "
            f"one of them holds; write less than 1/{num_clients}: {0.1 / num_clients:.0e}"
        )
