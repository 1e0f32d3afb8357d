"""The claim of privacy of examples, and the guard that nothing else of clients leaves un-noised."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from hanse.core import InvalidInput, Program
from hanse.core.exchange import Dispatch
from hanse.privacy.accounting import Accountant
from hanse.privacy.claim import PrivacyClaim
from hanse.privacy.example_budget import NoisedSteps, examples
from hanse.privacy.example_steps import PRIVATE_PART, private_sgd
from hanse.privacy.exposure import Exposures
from hanse.privacy.spending import refuse_open

__all__ = ["WEIGHTS", "ExampleClaim", "guard_examples", "make_example_claim"]

WEIGHTS = "weights"
"""The word in `examples.open` for clients that count by their numbers of examples."""

SIZES = "the number of each client's examples, by which it chooses its rate, steps and noise"
"""The number that privacy of examples does not hide."""

MOST_BY_PLD = 10
"""The most numbers of examples for which the claim uses privacy loss distributions, which are tighter."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ExampleClaim(PrivacyClaim):
    """A promise of a run to each example of its clients. Epsilon is that of the client that spends most.

    Args:
      budget: the epsilon that no client's own accountant lets it pass.
    """

    budget: float = 0.0

    unit = "one example of one client, against the same client in which that example counts as zero"
    adversary = "the server, the other clients and whoever sees the models"
    not_against = (
        "the client that holds the example; a person with examples at several clients spends at each of them"
    )

    @property
    def amplification(self) -> str:
        """Describes how sampling lowers epsilon, in words."""
        own = f"each client keeps its own account, and refuses to pass epsilon {self.budget:g}"
        rates = "" if not self.rates else f" at rate {' and '.join(f'{rate:.4g}' for rate in self.rates)}"
        if len(self.rates) > 3:
            rates = f" at rates from {self.rates[0]:.4g} to {self.rates[-1]:.4g}"
        return (
            f"amplified by Poisson sampling of rows inside the client{rates}, which its secret decides; the "
            f"choice of clients amplifies nothing; {own}"
        )


def make_example_claim(
    budget: examples,
    clients: Iterable[NoisedSteps] | None,
    rounds: int,
    *,
    beside: Iterable[str] = (),
    is_simulated: bool | None = False,
) -> ExampleClaim:
    """Makes the claim about so many rounds, as if each client had taken part in as many as it may.

    Args:
      clients: the steps of each client in a round; None: only they know them, so the budget is the bound.
      beside: what else was released of clients, un-noised.
    """
    said, unknown = (*beside, SIZES), None
    epsilon: float | None = budget.epsilon if rounds else 0.0
    most, rates = 0, tuple[float, ...]()
    accountant: Accountant = "rdp"
    if clients is not None and rounds:
        own = list(dict.fromkeys(clients))
        count = rounds if budget.max_rounds is None else min(rounds, budget.max_rounds)
        most = max((each.num_steps for each in own), default=0) * count
        rates = tuple(sorted({each.rate for each in own if each.rate < 1}))
        # PLD takes a second for each client whose number of examples is another
        accountant = "pld" if len(own) <= MOST_BY_PLD else "rdp"
        try:
            spent = (each.compute_epsilon(count, budget.delta, accountant) for each in own)
            epsilon = min(budget.epsilon, max(spent, default=0.0))
        except InvalidInput as error:
            epsilon, unknown = None, str(error)
    return ExampleClaim(
        epsilon=epsilon,
        delta=budget.delta,
        accountant=accountant,
        totals=most,
        rates=rates,
        beside=said,
        is_simulated=is_simulated,
        unknown=unknown,
        budget=budget.epsilon,
    )


def guard_examples(program: Program[T], budget: examples) -> Program[T]:
    """Performs a program as long as clients send nothing un-noised that the settings do not name.

    Raises: CompositionError: before a dispatch in which they would.
    """
    exposures = Exposures()
    try:
        command = next(program)
        while True:
            if isinstance(command, Dispatch):
                is_private = isinstance(command.work, private_sgd) and command.work.budget == budget
                for name in exposures.find_open(command):
                    if not (is_private and name == PRIVATE_PART):
                        refuse_open((name,), budget, type(command.work).__name__)
            event = yield command
            command = program.send(event)
    except StopIteration as end:
        found: T = end.value
        return found
    finally:
        program.close()
