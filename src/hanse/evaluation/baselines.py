"""Baselines of a federated run: training on all examples in one place, and of each party alone.

Both begin at the run's initial model, take the algorithm's local steps (step size, batch size), and pass
over each example as often as the run did on average: rounds x clients a round / clients x local epochs.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np

from hanse.algorithms import ClientOptimiser, ClientTraining, rate, sgd
from hanse.core import (
    Algorithm,
    DifferentiableLearner,
    Examples,
    InvalidInput,
    Key,
    LocalProblem,
    Plain,
    Steps,
    Stop,
    Tensors,
    check_count,
    value,
)
from hanse.core.exchange import HIGHER_IS_BETTER
from hanse.data import FederatedData, own_test
from hanse.evaluation.clients import (
    OWN_TEST,
    OWN_TRAINING,
    TEST_SET,
    Pool,
    average,
    measure_held_out,
    measure_spread,
    spread_of,
)
from hanse.evaluation.metrics import Metric

__all__ = ["Baseline", "Budget", "centralised", "on_site", "train_alone"]


@dataclass(frozen=True)
class Budget:
    """The means that a run had, so that its baselines have the same.

    Args:
      learner, population: the model and the data.
      algorithm: the algorithm whose local steps are taken.
      params: the parameters that the run began with.
      passes: the mean number of passes over each example.
      stop: names the metric to watch and its target.
      key: the key of the draws.
      higher_is_better: the names of the metrics that are better when higher.
      metrics: the named metrics, beside the model's own.
      is_open: whether single parties may be measured, as in a run without privacy.
      show: is called with each model that was trained: the baseline's name, the number of the party that
        trained it alone, or None, and its parameters.
    """

    learner: DifferentiableLearner
    population: FederatedData
    algorithm: Algorithm[Any]
    params: Tensors
    passes: float
    stop: Stop
    key: Key
    higher_is_better: Collection[str] = HIGHER_IS_BETTER
    metrics: tuple[Metric, ...] = ()
    is_open: bool = True
    show: Callable[[str, int | None, Tensors], None] = lambda baseline, number, params: None

    @property
    def epochs(self) -> int:
        """The number of whole passes."""
        return max(1, round(self.passes))


def _lend_steps(
    algorithm: Algorithm[Any] | ClientOptimiser, epoch: int, lr: float | None, batch_size: int | None
) -> Steps:
    """Makes the steps of one pass, by default those of the algorithm's clients.

    A rule with momenta starts anew in each pass. A proximal term is left out: there is nothing to hold to.
    """
    client = getattr(algorithm, "client", None)
    own = client if isinstance(client, ClientOptimiser) else algorithm
    if lr is None and isinstance(client, ClientTraining) and own is not client:
        raise InvalidInput(
            f"baselines: {type(client).__name__}() does not show the steps that clients take; write a step "
            'size, {name = "centralised", lr = 0.1}, or centralised(lr=0.1) in Python'
        )
    size = batch_size if batch_size is not None else getattr(own, "batch_size", None)
    given = lr if lr is not None else getattr(own, "lr", None)
    if given is None:
        raise InvalidInput(
            f"baselines: {type(own).__name__} has no step size to use; write one, such as "
            '{name = "centralised", lr = 0.1}, or centralised(lr=0.1) in Python'
        )
    steps = Steps(rate(given, epoch), 1, size)
    if isinstance(own, ClientOptimiser) and lr is None:
        return replace(steps, rule=own.rule(), lr_scales=own.lr_scales)
    return steps


class Baseline(ABC):
    """Training of another kind on the same data, as a value such as `centralised()`."""

    @abstractmethod
    def check(self, algorithm: Algorithm[Any]) -> None:
        """Checks that the algorithm has the steps that are needed. Raises: InvalidInput: if it does not."""

    @abstractmethod
    def train(self, budget: Budget, between: Callable[[], None]) -> dict[str, Plain]:
        """Trains, and returns the outcome as plain data.

        Args:
          budget: what the run had.
          between: called now and then; it may raise KeyboardInterrupt.
        """


def _check(lr: float | None, batch_size: int | None) -> None:
    Steps(1.0 if lr is None else lr, 1, batch_size)


@value
class centralised(Baseline):
    """Training on all clients' examples in one place.

    Args:
      lr: step size; None: the algorithm's.
      batch_size: examples a step; None: the algorithm's.
    Raises: InvalidInput: if one of them is out of range.
    """

    lr: float | None = None
    batch_size: int | None = None

    def __post_init__(self) -> None:
        _check(self.lr, self.batch_size)

    def check(self, algorithm: Algorithm[Any]) -> None:
        _lend_steps(algorithm, 0, self.lr, self.batch_size)

    def train(self, budget: Budget, between: Callable[[], None]) -> dict[str, Plain]:
        """Trains on the pooled examples, and measures the model after each pass."""
        population, learner = budget.population, budget.learner
        pooled = Examples.join(population.client(number) for number in range(population.num_clients))
        tests, tested = pooled, population.find_test_clients()
        if population.test is None and tested:
            tests = Examples.join(population.role(own_test(number)) for number in tested)
        began_s, params = perf_counter(), budget.params
        curve: list[dict[str, Plain]] = [
            {"epoch": 0, **measure_held_out(learner, params, population, tests, budget.metrics)}
        ]
        reached = None
        for epoch in range(1, budget.epochs + 1):
            between()
            steps = _lend_steps(budget.algorithm, epoch - 1, self.lr, self.batch_size)
            params = _after(learner, params, pooled, steps, budget.key.fold_in("centralised", epoch))
            now = measure_held_out(learner, params, population, tests, budget.metrics)
            curve.append({"epoch": epoch, **now})
            watched = now.get(budget.stop.metric)
            if reached is None and watched is not None and budget.stop.is_reached(watched):
                reached = epoch
        seconds = perf_counter() - began_s
        budget.show("centralised", None, params)
        return {
            "name": "centralised",
            "final": _metrics(curve[-1]),
            "epochs": budget.epochs,
            "epochs_to_target": reached,
            "bytes_up": int(pooled.x.nbytes + pooled.y.nbytes),
            "bytes_down": 0,
            "seconds": round(seconds, 6),
            "clients": measure_spread(learner, population, params, budget.higher_is_better, budget.metrics)
            if budget.is_open
            else None,
            "curve": curve,
        }


@value
class on_site(Baseline):
    """Training of each party alone, on its own examples.

    Each row counts once, as in the federated metrics: where parties have test examples of their own, and
    there is no common test set, these are measured together, each predicted by its own party's model. On a
    common test set it is the mean over models, weighted by the examples that each was trained on. The mean
    and the worst tenth over parties stand beside it.

    Args:
      lr: step size; None: the algorithm's.
      batch_size: examples a step; None: the algorithm's.
      parties: the most parties that train; of more, so many are chosen, evenly spread.
    Raises: InvalidInput: if one of them is out of range.
    """

    lr: float | None = None
    batch_size: int | None = None
    parties: int = 100

    def __post_init__(self) -> None:
        _check(self.lr, self.batch_size)
        check_count("parties", self.parties)

    def check(self, algorithm: Algorithm[Any]) -> None:
        _lend_steps(algorithm, 0, self.lr, self.batch_size)

    def lend(self, algorithm: Algorithm[Any]) -> ClientOptimiser:
        """Returns the steps of a party that trains alone, as a value that can be sent to it."""
        size = _lend_steps(algorithm, 0, self.lr, self.batch_size).batch_size
        client = getattr(algorithm, "client", None)
        own = client if isinstance(client, ClientOptimiser) else algorithm
        if isinstance(own, ClientOptimiser) and self.lr is None:
            return replace(own, epochs=1, batch_size=size, num_steps=None, proximal=0.0)
        return sgd(getattr(own, "lr", None) if self.lr is None else self.lr, epochs=1, batch_size=size)

    def train(self, budget: Budget, between: Callable[[], None]) -> dict[str, Plain]:
        """Trains each party, and measures at the end on the common test set and on its own test examples."""
        population, learner, named = budget.population, budget.learner, budget.metrics
        count = min(self.parties, population.num_clients)
        numbers = np.linspace(0, population.num_clients - 1, count).astype(int).tolist()
        tested = set(population.find_test_clients())
        began_s = perf_counter()
        everywhere: list[dict[str, float]] = []
        sizes: list[float] = []
        at_home: list[dict[str, float]] = []
        pool, is_common = Pool(learner, named), population.test is not None
        for number in numbers:
            between()
            own = population.client(number)
            params = train_alone(
                learner, budget.params, own, number, self.lend(budget.algorithm), budget.epochs, budget.key
            )
            paused_s = perf_counter()
            budget.show("on_site", number, params)
            began_s += perf_counter() - paused_s
            if population.test is not None:
                everywhere.append(measure_held_out(learner, params, population, population.test, named))
                sizes.append(len(own))
            if number in tested and (budget.is_open or not is_common):
                at_home.append(pool.add(params, population.role(own_test(number))))
            if not is_common and not tested:
                at_home.append(pool.add(params, own))
        seconds = perf_counter() - began_s
        each, on = (at_home, OWN_TEST) if tested else (everywhere or at_home, TEST_SET)
        if not is_common and not tested:
            on = OWN_TRAINING
        is_one = len(everywhere or at_home) == 1  # its figures are a single party's
        final = average(everywhere, sizes) if is_common else pool.conclude()
        return {
            "name": "on_site",
            "final": final if budget.is_open or not is_one else {},
            "on": TEST_SET if is_common else on,
            "parties": count,
            "epochs": budget.epochs,
            "epochs_to_target": None,
            "bytes_up": 0,
            "bytes_down": 0,
            "seconds": round(seconds, 6),
            "clients": spread_of(on, each, budget.higher_is_better) if budget.is_open else None,
            "curve": [],
        }


def train_alone(
    learner: DifferentiableLearner,
    params: Tensors,
    own: Examples,
    number: int,
    client: ClientOptimiser,
    epochs: int,
    key: Key,
) -> Tensors:
    """Trains a party's own model, from `params`, in so many passes; `key` is that of all baselines."""
    for epoch in range(epochs):
        steps = _lend_steps(client, epoch, None, None)
        params = _after(learner, params, own, steps, key.fold_in("on_site", number, epoch))
    return params


def _after(
    learner: DifferentiableLearner, params: Tensors, examples: Examples, steps: Steps, key: Key
) -> Tensors:
    update = learner.local_sgd(params, LocalProblem(examples, steps, key))
    return {name: params[name] + update[name] for name in params}


def _metrics(row: Mapping[str, Plain]) -> dict[str, Plain]:
    return {name: metric for name, metric in row.items() if name != "epoch"}
