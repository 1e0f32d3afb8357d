"""Privacy of examples: its settings, the noise of each client, and the book that a client keeps of it."""

from collections import Counter
from functools import lru_cache

from hanse.core import PROMISED, Declined, InvalidInput, Memory, Steps, check_count, check_positive, value
from hanse.privacy.accounting import Accountant, Spent, calibrate, compute_epsilon
from hanse.privacy.models import Privacy

__all__ = ["ExampleBook", "NoisedSteps", "examples"]

BOOK = "privacy of examples"
"""The name of the book in a client's memory; after PROMISED twice, of the one that nothing undoes."""

PROMISED_BOOK = f"{PROMISED}{PROMISED}{BOOK}"


@value
class NoisedSteps:
    """A client's noised steps in one round.

    Args:
      rate: the probability with which each of its examples is in a batch.
      noise_multiplier: the standard deviation of the noise, divided by `max_norm`.
      num_steps: the number of batches.
    """

    rate: float
    noise_multiplier: float
    num_steps: int

    def compute_epsilon(self, rounds: int, delta: float, accountant: Accountant = "pld") -> float:
        """Computes the epsilon of so many rounds, for one example, against its counting as zero."""
        spent: Spent = {(self.rate, self.noise_multiplier): self.num_steps * rounds}
        return compute_epsilon(spent, delta, accountant)


@value
class examples(Privacy):
    """Protects each example of a client against everybody else, the server included (DP-SGD).

    A client draws each of its examples into a batch with the same probability, clips each example's gradient
    to `max_norm`, adds Gaussian noise to their sum, and divides it by the expected size of a batch:

        w <- w - lr (Σ clip(g_i) + N(0, (z max_norm)²)) / batch_size

    Rows and noise come from the client's own secret. Each client chooses z by its own number of examples,
    n, and its own steps, as the smallest with which all rounds together stay within the budget; keeps a
    book of what it spent; and refuses a round that would pass its budget. The algorithm's `batch_size` is
    the expected size, so that the probability is batch_size / n; `epochs` passes are epochs n /
    batch_size steps. What follows the noise, such as momentum or an uplink, costs nothing. All clients
    count alike, because a weight would tell n.

    Args:
      epsilon: the budget of each client, for one example, against its counting as zero; the number of
        examples is known.
      delta: the probability with which more may be lost; below one in the number of a client's examples.
      max_norm: the bound on the Euclidean norm of an example's gradient.
      max_rounds: the most rounds that one client takes part in; it refuses further ones. None: all rounds. A
        smaller number needs less noise.
      open: what clients send un-noised all the same, which the claim then names: parts of messages, such as
        "metrics", "preprocessing", and "weights": a client counts by its number of examples.
    References: Abadi et al., "Deep learning with differential privacy", CCS 2016, arXiv 1607.00133.

    >>> examples(epsilon=3.0).max_norm
    1.0
    """

    epsilon: float
    delta: float = 1e-5
    max_norm: float = 1.0
    max_rounds: int | None = None
    open: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_positive("epsilon", self.epsilon)
        check_positive("max_norm", self.max_norm)
        if not 0 < self.delta < 1:
            raise InvalidInput(f"delta is {self.delta}; write a number above 0 and below 1, such as 1e-5")
        if self.max_rounds is not None:
            check_count("max_rounds", self.max_rounds)
        if isinstance(self.open, str):
            raise InvalidInput(f"open is {self.open!r}; write names, such as open=({self.open!r},)")

    def choose_steps(self, num_examples: int, steps: Steps, rounds: int) -> NoisedSteps:
        """Chooses the noise of a client with so many examples, which takes these steps in each round.

        Args:
          rounds: the number of rounds of the run.

        Raises: InvalidInput: if delta is too large for so many examples, dp-accounting is missing, or no
          noise suffices.

        >>> examples(3.0).choose_steps(60_000, Steps(4.0, batch_size=6_000), 10)
        NoisedSteps(rate=0.1, noise_multiplier=1.7962, num_steps=10)
        """
        if num_examples == 0:
            raise InvalidInput("no examples; give at least 1")
        if self.delta * num_examples >= 1:
            raise InvalidInput(
                f"privacy.delta is {self.delta:g} with {num_examples} examples, which would allow to publish "
                f"one of them; write less than 1/{num_examples}: {0.1 / num_examples:.0e}"
            )
        rate = min(1.0, (steps.batch_size or num_examples) / num_examples)
        num_steps = steps.count_steps(num_examples)
        most = rounds if self.max_rounds is None else min(rounds, self.max_rounds)
        noise = _calibrate(self.epsilon, self.delta, rate, num_steps * max(1, most))
        return NoisedSteps(rate, noise, num_steps)


@lru_cache(maxsize=4096)
def _calibrate(epsilon: float, delta: float, sampling: float, times: int) -> float:
    return calibrate(epsilon, delta, sampling=sampling, times=times)


@value
class ExampleBook:
    """A client's book of its noised steps.

    Args:
      steps: the number of steps by their rate and noise multiplier: (rate, noise multiplier, number).
      last: names the last question that was answered, with the data of the answer. The same one is answered
        again by the same draws, which spends nothing.
    """

    steps: tuple[tuple[float, float, int], ...] = ()
    last: str = ""

    @classmethod
    def find(cls, memory: Memory) -> "ExampleBook":
        """Returns the book in a client's memory that has most in it: answers that were dropped count, too."""
        books = (memory.get(name, cls()) for name in (BOOK, PROMISED_BOOK))
        return max(books, key=lambda book: book.num_steps)  # type: ignore[no-any-return]

    @property
    def num_steps(self) -> int:
        """The number of steps in it."""
        return sum(number for *_, number in self.steps)

    def compute_epsilon(self, delta: float, accountant: Accountant = "rdp") -> float:
        """Computes the epsilon of all that is in it."""
        return compute_epsilon(
            {(rate, noise): number for rate, noise, number in self.steps}, delta, accountant
        )

    def add(self, steps: NoisedSteps, budget: examples, question: str) -> "ExampleBook":
        """Adds the steps of an answer.

        Raises: Declined: if they would pass the budget.
        """
        if question == self.last:
            return self
        spent = Counter({(rate, noise): number for rate, noise, number in self.steps})
        spent[steps.rate, steps.noise_multiplier] += steps.num_steps
        after = ExampleBook(tuple((*how, number) for how, number in sorted(spent.items())), question)
        then = after.compute_epsilon(budget.delta)
        if then > budget.epsilon:
            raise Declined(
                f"this client's budget of privacy is spent: epsilon of its examples is "
                f"{self.compute_epsilon(budget.delta):.4f} of {budget.epsilon:g} for delta = "
                f"{budget.delta:g}, and would be {then:.4f} after this ticket"
            )
        return after

    def keep(self, memory: Memory) -> Memory:
        """Returns a memory with this book, in place of an earlier one."""
        return {**memory, BOOK: self, PROMISED_BOOK: self}
