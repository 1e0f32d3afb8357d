"""Where each algorithm ends on unequal clients that differ, as it says; abandoned rounds or not."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np
import pytest
from support import KEYS, Few, Quadratic, program, simulate, simulation

from hanse.algorithms import (
    adding,
    averaging,
    by_examples,
    cocoa,
    dane,
    fed_adagrad,
    fed_avg,
    fed_dyn,
    fed_nova,
    fed_prox,
    fed_sgd,
    giant,
    inverse_time,
    momentum,
    nesterov,
    one_shot,
    scaffold,
    uniform,
)
from hanse.core import Algorithm, Diverged, Examples, InvalidInput, Key, Program, RoundAbandoned, Tensors
from hanse.core.exchange import Progress, drive, training
from hanse.learners import dual, least_squares, linear_svm, logistic
from hanse.simulation import InProcess, Simulation, unstable

FEW = Few()
SIZES = [float(len(part)) for part in FEW.parts]
ALIKE = [1.0] * len(SIZES)
MANY_STEPS: dict[str, Any] = {"fraction": 1.0, "epochs": 20, "batch_size": None}


def optimum(weights: list[float]) -> np.ndarray:
    """Of the weighted mean of the clients' objectives, b last."""
    roots = [np.sqrt(w / len(part)) for w, part in zip(weights, FEW.parts, strict=True)]
    rows = [np.column_stack([p.x, np.ones(len(p))]) * r for p, r in zip(FEW.parts, roots, strict=True)]
    labels = [p.y * r for p, r in zip(FEW.parts, roots, strict=True)]
    return np.linalg.lstsq(np.concatenate(rows), np.concatenate(labels))[0]


def flat(params: Tensors) -> np.ndarray:
    return np.append(params["w"], params["b"])


@dataclass(frozen=True)
class Interrupted(Algorithm[Any]):
    """Every third round is abandoned, after all clients have answered."""

    algorithm: Any
    rounds: Iterator[int]

    def init(self, params: Tensors, key: Key) -> Any:
        return self.algorithm.init(params, key)

    def round(self, state: Any, key: Key) -> Program[Any]:
        state = yield from self.algorithm.round(state, key)
        if next(self.rounds) % 3 == 2:
            raise RoundAbandoned("every third round")
        return state


def interrupted(algorithm: Any) -> Interrupted:
    return Interrupted(algorithm, count())


EXACT = {
    "fed_sgd": (fed_sgd(0.2), 120, SIZES),
    "fed_sgd, uniform": (fed_sgd(0.2, weighting=uniform()), 120, ALIKE),
    "nesterov": (nesterov(0.2, 0.5), 80, SIZES),
    "scaffold": (scaffold(0.1, **MANY_STEPS), 210, SIZES),
    "scaffold, uniform": (scaffold(0.1, **MANY_STEPS, weighting=uniform()), 240, ALIKE),
    "fed_dyn": (fed_dyn(0.2, **MANY_STEPS, alpha=1.0), 200, ALIKE),
    "fed_dyn, by examples": (fed_dyn(0.2, **MANY_STEPS, alpha=1.0, weighting=by_examples()), 200, SIZES),
    "dane": (dane(1.0), 40, SIZES),
}


@pytest.mark.parametrize(("algorithm", "rounds", "weights"), EXACT.values(), ids=EXACT.keys())
def test_the_stated_optimum(algorithm: Any, rounds: int, weights: list[float]) -> None:
    ended = simulate(algorithm, rounds).params
    np.testing.assert_allclose(flat(ended), optimum(weights), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("algorithm", "rounds", "weights"),
    [row for name, row in EXACT.items() if "uniform" not in name],
    ids=[name for name in EXACT if "uniform" not in name],
)
def test_abandoned_rounds_do_not_move_it(algorithm: Any, rounds: int, weights: list[float]) -> None:
    ended = simulate(interrupted(algorithm), rounds * 3 // 2).params
    np.testing.assert_allclose(flat(ended), optimum(weights), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["scaffold", "fed_dyn, by examples"])
def test_some_clients_at_a_time_end_there_too(name: str) -> None:
    algorithm, rounds, weights = EXACT[name]
    some = replace(algorithm, lr=algorithm.lr / 2, fraction=0.5)
    ended = simulate(some, 2 * rounds, unstable(0.1)).params
    np.testing.assert_allclose(flat(ended), optimum(weights), rtol=0, atol=1e-6)


@pytest.mark.parametrize("algorithm", [giant(), interrupted(giant())], ids=["undisturbed", "interrupted"])
def test_giant_ends_as_near_as_the_objective_can_tell(algorithm: Any) -> None:
    ended = simulate(algorithm, 90).params
    np.testing.assert_allclose(flat(ended), FEW.optimum(), rtol=0, atol=1e-7)


# CoCoA, with its duals in the clients' memory


class Labelled(Few):
    """The clients of `Few` with labels that a model wants."""

    def __init__(self, classes: bool) -> None:
        super().__init__()
        self.classes = classes

    def client(self, number: int) -> Examples:
        part = self.parts[number]
        return Examples(part.x, (part.y > number).astype(int)) if self.classes else part


DUALS = {
    "ridge": (least_squares(3.0, intercept=False, dtype="float64"), None),
    "logistic": (logistic(0.3, intercept=False, dtype="float64"), 2),
    "linear_svm": (linear_svm(1.0, intercept=False, dtype="float64"), 2),
}


@pytest.mark.parametrize(("model", "num_classes"), DUALS.values(), ids=DUALS.keys())
@pytest.mark.parametrize(
    ("algorithm", "rounds"),
    [
        (cocoa(averaging()), 240),
        (cocoa(adding()), 160),
        (interrupted(cocoa(averaging())), 360),
        (interrupted(cocoa(adding(), fraction=0.7)), 240),
    ],
    ids=["averaging", "adding", "averaging, interrupted", "adding, some, interrupted"],
)
def test_cocoa_reaches_the_pooled_optimum(
    model: Any, num_classes: int | None, algorithm: Any, rounds: int
) -> None:
    learner, population = dual(model).bind((3,), num_classes), Labelled(num_classes is not None)
    clients = InProcess(learner, population, KEYS)
    begin = Progress(0, algorithm.init(learner.init(KEYS.public), KEYS.public))
    led = training(algorithm, begin, KEYS.public, rounds=rounds)
    ended = drive(led, Simulation(clients, population.num_clients, KEYS)).state.params
    parts = [population.client(k) for k in range(population.num_clients)]
    pooled = Examples(np.concatenate([p.x for p in parts]), np.concatenate([p.y for p in parts]))
    assert np.abs(learner.gradient(ended, pooled)["weights"]).max() < 1e-9


def test_cocoa_waits_for_everybody_to_be_counted() -> None:
    records: list[Any] = []
    state = simulate(cocoa(), 6, unstable(0.2), watch=records.append)
    assert "6 are needed" in records[0].abandoned
    assert state.num_examples == sum(SIZES)


def test_cocoa_needs_a_dual_and_a_start_at_zero() -> None:
    learner = logistic(0.1).bind((3,), 2)
    clients = InProcess(learner, Labelled(True), KEYS)
    begin = Progress(0, cocoa().init(learner.init(KEYS.public), KEYS.public))
    with pytest.raises(InvalidInput, match=r"Linear offers none; write hanse\.learners\.dual\(model\)"):
        drive(training(cocoa(), begin, KEYS.public, rounds=1), Simulation(clients, 6, KEYS))
    with pytest.raises(InvalidInput, match="w = 0; give zeros"):
        cocoa().init({"w": np.ones(2)}, KEYS.public)


# DANE and one-shot averaging


def test_dane_diverges_on_clients_that_differ_and_says_so() -> None:
    def pooled(params: Tensors, key: Key) -> Program[dict[str, float]]:
        yield from ()
        return {"loss": Quadratic().objective(params, FEW.pooled)}

    with pytest.raises(Diverged, match=r"diverged in round \d+: the loss is .*, it began at"):
        drive(program(dane(0.0), 40, evaluate=pooled), simulation())


def test_dane_alone_ends_in_one_round() -> None:
    class One(Few):
        def __init__(self) -> None:
            super().__init__()
            self.parts = [self.pooled]

    ended = drive(program(dane(0.0), 1), simulation(population=One()))
    np.testing.assert_allclose(flat(ended.state.params), FEW.optimum(), atol=1e-8)


def test_one_shot_is_the_mean_of_local_optima_and_no_further_round_moves_it() -> None:
    local = [np.linalg.lstsq(np.column_stack([p.x, np.ones(len(p))]), p.y)[0] for p in FEW.parts]
    for rounds in (1, 2):
        ended = flat(simulate(one_shot(), rounds).params)
        np.testing.assert_allclose(ended, np.average(local, axis=0, weights=SIZES), atol=1e-8)


# Client drift


def away(algorithm: Any, rounds: int, weights: list[float] = SIZES) -> float:
    return float(np.abs(flat(simulate(algorithm, rounds).params) - optimum(weights)).max())


def test_fed_avg_plateaus_farther_away_with_more_local_steps() -> None:
    plateaus = [away(fed_avg(0.1, 1.0, epochs=epochs, batch_size=None), 80) for epochs in (1, 2, 5, 20)]
    assert plateaus[0] < 1e-2
    assert plateaus[1] > 0.1
    assert plateaus == sorted(plateaus)
    later = away(fed_avg(0.1, 1.0, epochs=5, batch_size=None), 160)
    assert later == pytest.approx(plateaus[2], rel=1e-9), "it is a fixed point, not slow progress"


def test_abandoned_rounds_do_not_move_the_plateau() -> None:
    algorithm = fed_avg(0.1, **MANY_STEPS)
    ended = [flat(simulate(a, n).params) for a, n in ((algorithm, 40), (interrupted(algorithm), 60))]
    np.testing.assert_allclose(ended[0], ended[1], atol=1e-12)


class Equal(Few):
    """Clients that differ, of 12 examples each: they take equally many steps however small the batches."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(7)
        self.parts = [
            Examples(x := rng.normal(size=(12, 3)) * (1 + 0.1 * k), x @ (rng.normal(size=3) + k / 3) + k)
            for k in range(6)
        ]
        self.pooled = Examples(
            np.concatenate([p.x for p in self.parts]), np.concatenate([p.y for p in self.parts])
        )


@pytest.mark.parametrize(
    ("population", "epochs", "batch_size"),
    [(FEW, 5, None), (Equal(), 2, 4)],
    ids=["unequal clients, full batches", "equal clients, small batches"],
)
def test_with_decaying_steps_fed_avg_converges_as_one_over_t(
    population: Few, epochs: int, batch_size: int | None
) -> None:
    """Li et al. 2020, Theorem 1: with steps as 1/t the gap is O(1/T); a constant step plateaus."""
    *w, b = population.optimum()
    best = Quadratic().objective({"w": np.array(w), "b": np.asarray(b)}, population.pooled)

    def gaps(lr: Any) -> np.ndarray:
        seen: list[float] = []

        def gap(params: Tensors, key: Key) -> Program[dict[str, float]]:
            yield from ()
            seen.append(Quadratic().objective(params, population.pooled) - best)
            return {}

        algorithm = fed_avg(lr, 1.0, epochs=epochs, batch_size=batch_size)
        drive(program(algorithm, 400, evaluate=gap), simulation(population=population))
        return np.array(seen)

    decaying, constant = gaps(inverse_time(0.1, half_life=10)), gaps(0.1)
    early, late = decaying[25:50].mean(), decaying[200:400].mean()
    assert late < early / 6, "eight times later, an eighth or less"
    scaled = [t * decaying[t : 2 * t].mean() for t in (25, 50, 100, 200)]
    assert max(scaled[1:]) < 1.5 * scaled[0], "T times the gap stays bounded"
    assert constant[200:].mean() == pytest.approx(constant[100:200].mean(), rel=0.2)
    assert constant[200:].mean() > 10 * late


def test_fed_prox_holds_clients_nearer_to_the_optimum() -> None:
    plateaus = [away(fed_prox(0.05, **MANY_STEPS, mu=mu), 60) for mu in (0.0, 1.0, 10.0)]
    assert plateaus[0] > plateaus[1] > plateaus[2] > 0.01


def test_fed_nova_does_not_let_those_count_more_who_step_more() -> None:
    settings: dict[str, Any] = {"lr": 1e-5, "fraction": 1.0, "epochs": 1, "batch_size": 1}
    squares = [size**2 for size in SIZES]
    assert away(fed_avg(**settings, server_lr=1000.0), 150, squares) < 0.01
    assert away(fed_avg(**settings, server_lr=1000.0), 150) > 0.05
    assert away(fed_nova(**settings, server_lr=1000.0), 150) < 0.01


@pytest.mark.parametrize(
    ("algorithm", "rounds"),
    [
        (fed_avg(0.1, 1.0, epochs=5, batch_size=None, server=momentum(0.3)), 150),
        (fed_adagrad(0.1, 1.0, epochs=5, batch_size=None, server_lr=1.0), 500),
    ],
)
def test_a_server_optimiser_rests_where_fed_avg_does(algorithm: Any, rounds: int) -> None:
    plain = fed_avg(0.1, 1.0, epochs=5, batch_size=None)
    ended = [flat(simulate(a, n).params) for a, n in ((plain, 100), (algorithm, rounds))]
    np.testing.assert_allclose(ended[0], ended[1], atol=1e-7)
