import numpy as np
import pytest
from cases import CASES
from support import simulate

from hanse.algorithms import ServerOptimiser, adagrad, adam, fed_avg, momentum, sgd, yogi
from hanse.algorithms.optimisers import OptimiserState
from hanse.core.exchange import digest, pack, unpack

OPTIMISERS = [sgd(), momentum(0.7), adagrad(), adam(), yogi()]
every_optimiser = pytest.mark.parametrize("optimiser", OPTIMISERS)


@every_optimiser
def test_an_update_is_followed_and_a_gradient_descended(optimiser: ServerOptimiser) -> None:
    params = {"w": np.array([1.0, -2.0])}
    start = OptimiserState(params, 0, optimiser.init(params))
    update = {"w": np.array([0.5, -0.5])}
    followed = start.advance(optimiser, 0.1, update).params["w"]
    assert (np.sign(followed - params["w"]) == np.sign(update["w"])).all()
    descended = start.descend(optimiser, 0.1, {"w": -update["w"]}).params["w"]
    np.testing.assert_array_equal(followed, descended)


@every_optimiser
def test_what_it_remembers_is_a_value_in_the_dtypes_of_the_model(optimiser: ServerOptimiser) -> None:
    params = {"w": np.ones(3, np.float32), "b": np.asarray(0.5)}
    state = OptimiserState(params, 0, optimiser.init(params))
    for _ in range(2):
        state = state.descend(optimiser, 0.1, {"w": np.full(3, 0.2, np.float32), "b": np.asarray(1.0)})
    assert digest(unpack(pack(state))) == digest(state)
    for tensors in (state.params, *state.moments.values()):
        assert (tensors["w"].dtype, tensors["b"].dtype) == (np.float32, np.float64)


def by_algorithm_2(name: str, deltas: np.ndarray, beta1: float, beta2: float, tau: float) -> np.ndarray:
    """Reddi et al. 2021, Algorithm 2, number by number, with eta = 0.1, from x = 0."""
    x, m, v = np.zeros(deltas.shape[1]), np.zeros(deltas.shape[1]), np.full(deltas.shape[1], tau**2)
    for delta in deltas:
        for i in range(len(x)):
            m[i] = beta1 * m[i] + (1 - beta1) * delta[i]
            square = delta[i] ** 2
            if name == "adagrad":
                v[i] = v[i] + square
            elif name == "yogi":
                v[i] = v[i] - (1 - beta2) * square * np.sign(v[i] - square)
            else:
                v[i] = beta2 * v[i] + (1 - beta2) * square
            x[i] = x[i] + 0.1 * m[i] / (np.sqrt(v[i]) + tau)
    return x


@pytest.mark.parametrize(
    "optimiser",
    [adagrad(0.3, 0.01), adam(beta1=0.8, beta2=0.9, eps=0.01), yogi(0.8, 0.9, 0.01)],
    ids=lambda o: type(o).__name__,
)
def test_the_papers_algorithm(optimiser: adam) -> None:
    deltas = np.random.default_rng(0).normal(size=(6, 4)) * np.array([1e-3, 0.1, 1.0, 10.0])
    beta2, tau = getattr(optimiser, "beta2", 0.0), getattr(optimiser, "tau", 0.01)
    state = OptimiserState({"w": np.zeros(4)}, 0, optimiser.init({"w": np.zeros(4)}))
    for delta in deltas:
        state = state.advance(optimiser, 0.1, {"w": delta})
    expected = by_algorithm_2(type(optimiser).__name__, deltas, optimiser.beta1, beta2, tau)
    np.testing.assert_allclose(state.params["w"], expected, rtol=1e-12)


def test_momentum_adds_up() -> None:
    state = OptimiserState({"w": np.zeros(1)}, 0, momentum(0.5).init({"w": np.zeros(1)}))
    for _ in range(3):
        state = state.advance(momentum(0.5), 1.0, {"w": np.ones(1)})
    np.testing.assert_allclose(state.params["w"], 1 + 1.5 + 1.75)


@pytest.mark.parametrize(
    ("name", "server"), [("fed_adagrad", adagrad()), ("fed_adam", adam()), ("fed_yogi", yogi())]
)
def test_the_named_ones_are_fed_avg_with_that_optimiser(name: str, server: ServerOptimiser) -> None:
    named = CASES[name].algorithm
    plain = fed_avg(lr=0.02, fraction=0.7, batch_size=4, server=server, server_lr=named.server_lr)
    assert digest(simulate(named, 3)) == digest(simulate(plain, 3))


def test_without_momentum_it_is_plain() -> None:
    plain, held = (simulate(fed_avg(lr=0.02, server=server), 3).params for server in (sgd(), momentum(0.0)))
    assert digest(plain) == digest(held)
