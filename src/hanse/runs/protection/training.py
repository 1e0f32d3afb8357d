"""Local training by noised steps, in place of the clients' training that an algorithm has."""

from dataclasses import replace
from typing import Any, ClassVar

from hanse.algorithms import ClientOptimiser, ClientTraining, Weighting, by_examples, uniform
from hanse.core import Algorithm, CompositionError, Examples, InvalidInput, Work, fields, value
from hanse.privacy import WEIGHTS, examples, private_sgd

__all__ = ["private_training", "protect_examples"]


@value
class private_training(ClientTraining):
    """Local training by DP-SGD. `privacy = examples(...)` makes it of an algorithm's own training.

    Args:
      client: the training whose steps are noised.
      budget: of each client.
      rounds: the number of rounds of the run.
    """

    is_written: ClassVar[bool] = False
    """Whether people write it in settings; a run only stores it."""

    client: ClientOptimiser
    budget: examples
    rounds: int

    def work(self, num_rounds: int, weighting: Weighting, *, proximal: float = 0.0) -> Work[Any, Examples]:
        steps = self.client.steps(num_rounds, proximal=proximal)
        return private_sgd(steps, weighting, self.budget, self.rounds)


def protect_examples(algorithm: Algorithm[Any], budget: examples, rounds: int) -> Algorithm[Any]:
    """Returns an algorithm whose clients train by noised steps, and count alike unless the budget says else.

    Raises: CompositionError: if it can't be protected.
    """
    own: Any = algorithm
    name = type(algorithm).__name__
    if not hasattr(own, "client") or not hasattr(own, "training"):
        raise CompositionError(
            f"privacy = examples(...) makes local training private, and {name}() has none; write fed_avg, "
            "fed_prox, fed_adagrad, fed_adam or fed_yogi"
        )
    if isinstance(own.client, private_training):
        if own.client.budget != budget or own.client.rounds < rounds:
            raise CompositionError(
                f"algorithm.client was made for {own.client.budget} and {own.client.rounds} rounds, but "
                f"privacy is {budget} and there are {rounds} rounds; leave algorithm.client out"
            )
        return algorithm
    if not isinstance(own.training, ClientOptimiser):
        raise CompositionError(
            f"privacy = examples(...) noises each gradient step, which {type(own.training).__name__}() does "
            "not show; write client = sgd(...), adam(...) or adamw(...)"
        )
    if own.weighting not in (by_examples(), uniform()):
        raise CompositionError(
            f"algorithm.weighting is {own.weighting}, and a weight that depends on a client's examples tells "
            "of them; write weighting = uniform()"
        )
    settled = {
        f.name: f.default
        for f in fields(type(own))
        if own.client is None and f.name in ("lr", "epochs", "batch_size")
    }
    changes: dict[str, Any] = {
        **settled,
        "client": private_training(own.training, budget, rounds),
        "weighting": own.weighting if WEIGHTS in budget.open else uniform(),
    }
    try:
        protected: Algorithm[Any] = replace(own, **changes)
    except InvalidInput as error:
        raise CompositionError(f"privacy = examples(...) does not protect {name}(): {error}") from None
    return protected
