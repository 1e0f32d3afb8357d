"""With one full-batch step a round and every client, these are gradient descent on the pooled data."""

from typing import Any

import numpy as np
import pytest
from support import KEYS, Few, Quadratic, simulate

from hanse.algorithms import (
    dane,
    dga,
    fed_avg,
    fed_nova,
    fed_prox,
    fed_sgd,
    local_steps,
    map_reduce,
    momentum,
    nesterov,
    one_shot,
    scaffold,
    uniform,
)
from hanse.core import stack
from hanse.core import sum as sum_
from hanse.core.exchange import digest
from hanse.simulation import unstable

LR = 0.05
ONE_STEP: dict[str, Any] = {"lr": LR, "fraction": 1.0, "epochs": 1, "batch_size": None}
REDUCTIONS = {
    "fed_sgd": fed_sgd(LR),
    "map_reduce": map_reduce(LR),
    "map_reduce by a sum": map_reduce(LR / len(Few().pooled), into=sum_()),
    "map_reduce that collects": map_reduce(LR / len(Few().pooled), into=stack()),
    "dga without delay": dga(LR, 0),
    "fed_avg": fed_avg(**ONE_STEP),
    "fed_avg at a server of another step": fed_avg(**{**ONE_STEP, "lr": LR / 4}, server_lr=4.0),
    "fed_avg with momentum 0": fed_avg(**ONE_STEP, server=momentum(0.0)),
    "fed_prox, whatever mu": fed_prox(**ONE_STEP, mu=7.0),
    "fed_nova, whatever mu": fed_nova(**ONE_STEP, mu=7.0),
    "scaffold": scaffold(**ONE_STEP),
    "nesterov with momentum 0": nesterov(LR, 0.0),
    "one_shot of one step": one_shot(local_steps(LR, epochs=1)),
    "dane of one step, whatever mu": dane(7.0, solver=local_steps(LR, epochs=1)),
}
UNIFORM = {
    "fed_avg": fed_avg(**ONE_STEP, weighting=uniform()),
    "fed_nova": fed_nova(**ONE_STEP, weighting=uniform()),
    "scaffold": scaffold(**ONE_STEP, weighting=uniform()),
    "nesterov": nesterov(LR, 0.0, weighting=uniform()),
}


def descent(weights: list[float], rounds: int) -> np.ndarray:
    """Centralised gradient descent on the weighted mean of the clients' objectives."""
    learner, params = Quadratic(), dict(Quadratic().init(KEYS.public))
    for _ in range(rounds):
        slopes = [learner.gradient(params, part) for part in Few().parts]
        for name in params:
            params[name] = params[name] - LR * np.average([s[name] for s in slopes], axis=0, weights=weights)
    return np.append(params["w"], params["b"])


@pytest.mark.parametrize("algorithm", REDUCTIONS.values(), ids=REDUCTIONS.keys())
def test_by_examples(algorithm: Any) -> None:
    params = simulate(algorithm, 12).params
    expected = descent([len(part) for part in Few().parts], 12)
    np.testing.assert_allclose(np.append(params["w"], params["b"]), expected, rtol=1e-12)


@pytest.mark.parametrize("algorithm", UNIFORM.values(), ids=UNIFORM.keys())
def test_uniformly(algorithm: Any) -> None:
    params = simulate(algorithm, 12).params
    expected = descent([1.0] * len(Few().parts), 12)
    np.testing.assert_allclose(np.append(params["w"], params["b"]), expected, rtol=1e-10)


def test_no_proximal_term_is_fed_avg() -> None:
    held, free = fed_prox(lr=0.02, mu=0.0), fed_avg(lr=0.02)
    np.testing.assert_array_equal(simulate(held, 3).params["w"], simulate(free, 3).params["w"])


def test_equal_steps_are_fed_avg() -> None:
    settings: dict[str, Any] = {"lr": 0.02, "fraction": 1.0, "epochs": 5, "batch_size": None}
    nova, plain = simulate(fed_nova(**settings), 5).params["w"], simulate(fed_avg(**settings), 5).params["w"]
    np.testing.assert_allclose(nova, plain, rtol=1e-12)


@pytest.mark.parametrize("algorithm", [map_reduce(LR), dga(LR, 0)])
def test_fed_sgd_to_the_bit(algorithm: Any) -> None:
    due = simulate(fed_sgd(LR), 5, unstable(0.2)).params
    assert digest(simulate(algorithm, 5, unstable(0.2)).params) == digest(due)
