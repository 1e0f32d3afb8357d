"""The clients' training as a value: what it means, what it composes with, and what it refuses."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support import KEYS, Few, Quadratic, simulate

import hanse
from hanse.algorithms import (
    adam,
    adamw,
    dane,
    fed_adam,
    fed_avg,
    fed_buff,
    fed_dyn,
    fed_nova,
    fed_prox,
    fed_sgd,
    local_steps,
    momentum,
    one_shot,
    scaffold,
    sgd,
    step_decay,
)
from hanse.algorithms.lengths import measure_length
from hanse.algorithms.local import choose_training
from hanse.config import Experiment
from hanse.core import (
    Algorithm,
    Examples,
    InvalidInput,
    LocalProblem,
    Steps,
    adam_rule,
    adamw_rule,
    nesterov_rule,
    sgd_rule,
)
from hanse.core.exchange import digest, pack, unpack
from hanse.data import from_clients
from hanse.learners import least_squares


def test_short_forms_stand_for_plain_sgd() -> None:
    for make in (fed_avg, fed_prox, fed_nova, fed_dyn, scaffold, fed_adam):
        short = make(lr=0.02, epochs=3, batch_size=4, fraction=0.5)
        long = make(client=sgd(0.02, epochs=3, batch_size=4), fraction=0.5)
        assert digest(simulate(short, 3).params) == digest(simulate(long, 3).params), make
    short, long = fed_buff(lr=0.02, epochs=3), fed_buff(client=sgd(0.02, epochs=3))
    assert digest(simulate(short, 3).params) == digest(simulate(long, 3).params)
    by_steps, by_sgd = (
        one_shot(local_steps(0.02, epochs=3, batch_size=4)),
        one_shot(sgd(0.02, epochs=3, batch_size=4)),
    )
    assert digest(simulate(by_steps, 1).params) == digest(simulate(by_sgd, 1).params)


def test_the_defaults_agree() -> None:
    trainings = [a().training for a in (fed_avg, fed_prox, fed_nova, fed_dyn, scaffold)]
    assert trainings == [sgd(0.5)] * 5
    assert choose_training(fed_buff()) == sgd(0.5)
    assert Experiment().algorithm == fed_avg()


def test_the_rules_and_steps() -> None:
    assert sgd(0.1, momentum=0.9, weight_decay=0.2).rule() == sgd_rule(0.9, 0.2)
    assert sgd(0.1, momentum=0.9, nesterov=True).rule() == nesterov_rule(0.9)
    assert adam(0.1).rule() == adam_rule(0.9, 0.999, 1e-8)
    assert adam(0.1, beta1=0.5, beta2=0.6, eps=0.7, weight_decay=0.8).rule() == adam_rule(0.5, 0.6, 0.7, 0.8)
    assert adamw(0.1).rule() == adamw_rule(0.9, 0.999, 1e-8, 0.01)
    scales = {"w": 0.5}
    given = sgd(step_decay(0.4, every=1), batch_size=3, num_steps=7, proximal=0.1, lr_scales=scales)
    assert given.steps(1) == Steps(0.2, 1, 3, 0.1, 7, sgd_rule(), scales)
    assert given.at(2).lr == 0.1


def test_fed_prox_is_fed_avg_with_a_proximal_term() -> None:
    named, plain = fed_prox(0.02, 0.5, mu=0.3), fed_avg(fraction=0.5, client=sgd(0.02, proximal=0.3))
    assert digest(simulate(named, 3)) == digest(simulate(plain, 3))


def train(algorithm: Any, rounds: int = 1) -> Any:
    """The parameters of a linear regression over unequal clients."""
    people = Few()
    data = from_clients([people.client(k) for k in range(people.num_clients)], test=people.role("server"))
    return hanse.run(
        data=data, model=least_squares(dtype="float64"), algorithm=algorithm, rounds=rounds
    ).params


@pytest.mark.parametrize("client", [sgd(0.02, momentum=0.9), adam(0.01), adamw(0.01)], ids=repr)
def test_a_round_is_the_mean_of_what_clients_train(client: Any) -> None:
    algorithm = fed_avg(fraction=1.0, client=replace(client, batch_size=None, epochs=3))
    learner = least_squares(dtype="float64").bind((3,), None)
    people = Few()
    start = learner.init(KEYS.public)
    problems = [
        LocalProblem(people.client(k), algorithm.steps(0), KEYS.public) for k in range(people.num_clients)
    ]
    updates = [learner.local_sgd(start, problem)["weights"] for problem in problems]
    expected = np.average(updates, axis=0, weights=[len(problem.data) for problem in problems])
    np.testing.assert_allclose(train(algorithm)["weights"], expected, rtol=1e-12)


def brute_length(steps: Steps, count: int) -> float:
    """Each gradient's weight in the update, by a learner whose gradients are one unit, one step at a time."""
    weights = []
    for one in range(count):
        w, slots = {"w": np.zeros(())}, steps.rule.start({"w": np.zeros(())})
        for number in range(count):
            gradient = {"w": np.asarray(float(number == one) + steps.proximal * w["w"])}
            direction, slots = steps.rule.direction(number + 1, w, gradient, slots)
            w = {"w": np.asarray(w["w"] - steps.lr * direction["w"])}
        weights.append(float(-w["w"] / steps.lr))
    return sum(map(abs, weights))


@pytest.mark.parametrize(
    "rule", [sgd_rule(), sgd_rule(0.9), nesterov_rule(0.5), sgd_rule(0.3, 0.2)], ids=repr
)
@pytest.mark.parametrize("proximal", [0.0, 0.4])
def test_the_length_is_the_sum_of_the_gradients_weights(rule: Any, proximal: float) -> None:
    steps = Steps(0.1, 3, 4, proximal, rule=rule)
    assert measure_length(steps, 9) == pytest.approx(brute_length(steps, 9), rel=1e-12)


class Constant(Quadratic):
    """Each client's gradient is the same everywhere: its own number."""

    def gradient(self, params: Any, data: Examples) -> Any:
        return {"w": np.full(3, float(len(data))), "b": np.zeros(())}


@pytest.mark.parametrize("ahead", [False, True])
def test_momentum_leaves_the_control_variate_the_gradient(ahead: bool) -> None:
    """Where gradients are constant, c_k is the gradient, whatever the momentum."""
    from hanse.algorithms.scaffold import controlled_sgd
    from hanse.algorithms.works import uniform
    from hanse.core import Keys, Shared

    class Trained(Constant):
        def local_sgd(self, params: Any, problem: LocalProblem) -> Any:
            from hanse.learners.within import descend_within

            return descend_within(
                params, problem, lambda here, rows, number: self.gradient(here, problem.data)
            )

    steps = sgd(0.1, momentum=0.9, nesterov=ahead, epochs=3, batch_size=2).steps(0)
    params = {"w": np.zeros(3), "b": np.zeros(())}
    data = Examples(np.zeros((5, 3)), np.zeros(5))
    shared = Shared({"params": params, "control": {"w": np.zeros(3), "b": np.zeros(())}})
    _, kept = controlled_sgd(steps, uniform()).run(Trained(), shared, data, {}, Keys.from_seed(0))
    np.testing.assert_allclose(kept["control"]["w"], 5.0, rtol=1e-12)


@pytest.mark.parametrize("make", [scaffold, fed_nova, fed_dyn])
@pytest.mark.parametrize("server", [momentum(0.3), adam(eps=0.1), sgd(momentum=0.3, nesterov=True)], ids=repr)
def test_the_server_has_its_optimiser_everywhere(make: Any, server: Any) -> None:
    """The first round of a server's optimiser, from the plain algorithm's first round, which starts at 0."""
    plain = make(lr=0.02, fraction=1.0)
    step = train(plain)
    direction, _ = server.direction({name: -v for name, v in step.items()}, server.init(step))
    got = train(replace(plain, server=server, server_lr=0.5))
    for name in step:
        np.testing.assert_allclose(got[name], -0.5 * direction[name], rtol=1e-9)


def test_a_servers_optimiser_may_have_the_step_size() -> None:
    inside, apart = fed_avg(0.02, server=adam(0.3)), fed_avg(0.02, server=adam(), server_lr=0.3)
    assert digest(simulate(inside, 3)) == digest(simulate(apart, 3))


REFUSED: list[tuple[Any, str]] = [
    (
        lambda: fed_avg(lr=0.3, client=sgd(0.1)),
        r"^fed_avg\(\) has lr=0\.3 and client=sgd\(\.\.\.\).* leave lr out",
    ),
    (lambda: fed_avg(epochs=3, client=adam(0.1)), r"has epochs=3 and client=adam"),
    (lambda: fed_buff(batch_size=3, client=adam(0.1)), r"^fed_buff\(\) has batch_size=3"),
    (lambda: fed_avg(client=sgd()), r"^client = sgd\(\) has no step size; write one, such as sgd\(0\.1\)"),
    (
        lambda: fed_prox(client=sgd(0.1, proximal=0.2)),
        r"^proximal is 0\.2, but the algorithm has .* \(0\.01\)",
    ),
    (lambda: fed_dyn(client=sgd(0.1, proximal=0.2)), r"^proximal is 0\.2, but the algorithm has"),
    (lambda: fed_dyn(client=adamw(0.1)), r"^adamw\(weight_decay=0\.01\) adds a term .* by the model's l2"),
    (lambda: dane(0.1, solver=sgd(0.1, proximal=0.1)), r"^sgd\(proximal=0\.1\) adds a term"),
    (lambda: one_shot(sgd(0.1, weight_decay=0.1)), r"^sgd\(weight_decay=0\.1\) adds a term"),
    (lambda: scaffold(client=adam(0.1)), r"^scaffold\(\) needs updates that are weighted sums .* adam\(\)"),
    (
        lambda: fed_nova(client=adamw(0.1)),
        r"^fed_nova\(\) needs updates .* adamw\(\) does not give: use client=sgd",
    ),
    (lambda: scaffold(client=sgd(0.1, lr_scales={"w": 0.5})), r"^scaffold\(\) needs updates .* lr_scales"),
    (lambda: fed_avg(server=sgd(epochs=3)), r"^server = sgd\(epochs=3\): the server has no examples"),
    (lambda: scaffold(server=adam(num_steps=3)), r"^server = adam\(num_steps=3\): .* leave it out"),
    (lambda: fed_nova(server=sgd(weight_decay=0.1)), r"^server = sgd\(weight_decay=0\.1\)"),
    (
        lambda: fed_dyn(server=adam(0.1), server_lr=0.2),
        r"^server_lr is 0\.2 and server = adam\(0\.1\) has a step",
    ),
    (lambda: fed_sgd(server=adam(0.1)), r"^fed_sgd\(\) has lr=0\.1 and server = adam\(0\.1\)"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_what_does_not_compose_says_why_when_built(make: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        make()


def test_a_client_is_packed_with_its_algorithm() -> None:
    algorithm: Algorithm[Any] = fed_avg(client=adamw(0.1, lr_scales={"w": 0.5}), server=adam(0.3))
    assert unpack(pack(algorithm)) == algorithm


def test_a_local_solver_adds_the_proximal_term_of_its_problem() -> None:
    by_sgd, by_steps = (
        dane(0.7, solver=make(0.02, epochs=2, batch_size=None)) for make in (sgd, local_steps)
    )
    assert digest(simulate(by_sgd, 2).params) == digest(simulate(by_steps, 2).params)
