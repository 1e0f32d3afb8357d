"""Privacy of examples: noised steps, an account for each client, and what may leave beside them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hanse
from hanse.algorithms import (
    by_examples,
    fed_adagrad,
    fed_adam,
    fed_avg,
    fed_buff,
    fed_prox,
    fed_sgd,
    fed_yogi,
    scaffold,
    sgd,
    trained_by,
    uniform,
)
from hanse.core import (
    CompositionError,
    Declined,
    Examples,
    InvalidInput,
    Key,
    Keys,
    Shared,
    Steps,
    Tensors,
    adam_rule,
    add_scaled,
    l2_norm,
    sgd_rule,
)
from hanse.core.exchange import Fork, Forks, pack, unpack
from hanse.data import digits, iid
from hanse.learners import own, softmax
from hanse.privacy import (
    ExampleBook,
    NoisedSteps,
    compute_epsilon,
    examples,
    make_example_claim,
    private_sgd,
    take_noised_steps,
)
from hanse.runs import describe_claim, existing, plan_messages, prepare_run
from hanse.transforms import quantize

BUDGET = examples(epsilon=8.0, delta=1e-4, max_norm=0.5)
TRAINING = fed_avg(0.5, batch_size=100, epochs=1)
DIGITS = {"data": digits(), "partition": iid(2), "evaluate_every": 50}


def experiment(**given: Any) -> hanse.Experiment:
    return hanse.Experiment(**{**DIGITS, "algorithm": TRAINING, "rounds": 3, "privacy": BUDGET, **given})


def few(n: int = 40) -> Examples:
    rng = Key.from_seed(3).rng()
    return Examples(rng.normal(size=(n, 4)), rng.integers(3, size=n))


LEARNER = softmax(0.1, dtype="float64").bind((4,), 3)
KEYS = Keys.from_seed(5)


# -- steps ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [sgd_rule(), sgd_rule(momentum=0.9), adam_rule()])
def test_a_step_is_the_noised_sum_of_clipped_gradients_over_a_fixed_number(rule: Any) -> None:
    """By the definition: rows and noise by their keys, a loop over rows, and the rule's own steps."""
    data, noised = few(), NoisedSteps(rate=0.3, noise_multiplier=1e-12, num_steps=4)
    steps = Steps(0.2, batch_size=12, num_steps=4, proximal=0.7, rule=rule)
    start = {"weights": np.ones((4, 3)), "bias": np.zeros(3)}
    now, slots = dict(start), rule.start(start)
    for number in range(4):
        rows = KEYS.secret.fold_in("step", number, "rows").secret_rng().poisson_sample(40, 0.3)
        total: Tensors = {name: np.zeros_like(w) for name, w in now.items()}
        for row in rows:
            one = LEARNER.gradient(now, data.take(np.array([row])))
            one = {"weights": one["weights"] - 0.1 * now["weights"], "bias": one["bias"]}
            total = add_scaled(total, min(1.0, 0.5 / l2_norm(one)), one)
        gradient = {name: total[name] / 12 + 0.7 * (now[name] - start[name]) for name in now}
        gradient["weights"] = gradient["weights"] + 0.1 * now["weights"]
        direction, slots = rule.direction(number + 1, now, gradient, slots)
        now = add_scaled(now, -0.2, direction)
    found = take_noised_steps(LEARNER, start, data, steps, noised, 0.5, KEYS)
    for name, update in found.items():
        np.testing.assert_allclose(update, now[name] - start[name], atol=1e-9)


def test_noise_has_its_size_and_is_fresh_in_each_step() -> None:
    data, steps = few(1), Steps(1.0, num_steps=1)
    zero = {"weights": np.zeros((200, 100))}
    noised = NoisedSteps(rate=1e-9, noise_multiplier=2.0, num_steps=1)  # an empty batch releases noise, too

    class Wide(type(LEARNER)):  # type: ignore[misc]
        """A learner of other parameters, which is never asked for a gradient."""

        def regulariser_gradient(self, params: Tensors) -> Tensors:
            return {name: np.zeros_like(w) for name, w in params.items()}

        def clipped_sum(self, *given: Any, **more: Any) -> Tensors:
            raise AssertionError("the batch is empty")

    wide = Wide(4, LEARNER.loss, 0.0, True, "float64")
    one, other = (take_noised_steps(wide, zero, data, steps, noised, 0.5, KEYS.fold_in(i)) for i in range(2))
    drawn = one["weights"] * 1e-9
    assert np.std(drawn) == pytest.approx(2.0 * 0.5, rel=0.02)
    assert abs(np.corrcoef(drawn.ravel(), other["weights"].ravel())[0, 1]) < 0.03
    two = take_noised_steps(wide, zero, data, steps, replace(noised, num_steps=2), 0.5, KEYS)
    assert np.std(two["weights"] * 1e-9) == pytest.approx(2**0.5, rel=0.02)


def test_rows_and_noise_follow_the_secret_key_alone() -> None:
    data, noised, steps = few(), NoisedSteps(0.3, 1.0, 2), Steps(0.2, batch_size=12, num_steps=2)
    start = LEARNER.init(Key.from_seed(0))

    def update(keys: Keys) -> Any:
        return take_noised_steps(LEARNER, start, data, steps, noised, 0.5, keys)["weights"]

    other = Keys.from_seed(6)
    np.testing.assert_array_equal(update(KEYS), update(Keys(other.public, KEYS.secret)))
    assert not np.allclose(update(KEYS), update(Keys(KEYS.public, other.secret)), atol=1e-3)


# -- accounts ------------------------------------------------------------------------------------


def test_each_client_has_noise_for_its_own_rows_and_steps() -> None:
    steps = Steps(0.5, epochs=2, batch_size=50)
    large, small = (BUDGET.choose_steps(n, steps, 10) for n in (1000, 120))
    assert (large.rate, large.num_steps) == (0.05, 40)
    assert (small.rate, small.num_steps) == (50 / 120, 6)
    assert large.noise_multiplier < small.noise_multiplier
    assert large.compute_epsilon(10, 1e-4, "rdp") <= 8.0
    assert small.compute_epsilon(10, 1e-4, "rdp") <= 8.0
    less = replace(small, noise_multiplier=small.noise_multiplier - 1e-4)
    assert less.compute_epsilon(10, 1e-4, "rdp") > 8.0
    spent = {(small.rate, small.noise_multiplier): 10 * small.num_steps}
    assert small.compute_epsilon(10, 1e-4) == compute_epsilon(spent, 1e-4, "pld")
    tiny = BUDGET.choose_steps(30, steps, 10)
    assert (tiny.rate, tiny.num_steps) == (1.0, 2), "all rows, without amplification"
    seldom = replace(BUDGET, max_rounds=2).choose_steps(30, steps, 10)
    assert seldom == BUDGET.choose_steps(30, steps, 2) != tiny


def test_delta_must_be_below_one_in_the_number_of_examples() -> None:
    with pytest.raises(InvalidInput, match=r"write less than 1/200: 5e-04"):
        examples(3.0, 0.01).choose_steps(200, Steps(0.1), 1)
    with pytest.raises(InvalidInput, match="no examples"):
        BUDGET.choose_steps(0, Steps(0.1), 1)


@pytest.mark.parametrize("changed", ["row", "label", "params", "steps"])
def test_a_ticket_that_is_replayed_on_something_else_has_other_noise_and_is_booked(changed: str) -> None:
    """The same noise would cancel out, and the difference of two answers would be what changed, exactly."""
    data, params, steps = few(), LEARNER.init(Key.from_seed(0)), Steps(0.2)
    budget = replace(BUDGET, epsilon=1.0)
    work = private_sgd(steps, uniform(), budget, rounds=2)
    x, y = data.x.copy(), data.y.copy()
    x[7] += 5.0 if changed == "row" else 0.0
    y[7] = (y[7] + (changed == "label")) % 3
    nearly = {name: w + (1e-9 if changed == "params" else 0.0) for name, w in params.items()}
    other = replace(work, steps=replace(steps, lr=0.2 + 1e-9)) if changed == "steps" else work
    first, memory = work.run(LEARNER, Shared({"params": params}), data, {}, KEYS)
    second, memory = other.run(LEARNER, Shared({"params": nearly}), Examples(x, y), memory, KEYS)
    assert ExampleBook.find(memory).num_steps == 2
    difference = (second["update"].values["weights"] - first["update"].values["weights"]) * len(data) / 0.2
    assert l2_norm({"weights": difference}) > 5 * 2 * budget.max_norm, "one example changes it by 2 max_norm"


def test_a_client_declines_what_would_pass_its_budget() -> None:
    work = private_sgd(Steps(0.2, batch_size=10), uniform(), BUDGET, rounds=2)
    shared, memory, data = Shared({"params": LEARNER.init(Key.from_seed(0))}), {}, few()
    for number in range(2):
        parts, memory = work.run(LEARNER, shared, data, memory, KEYS.fold_in(number))
        assert parts["update"].weight == 1.0
    assert ExampleBook.find(memory).num_steps == 8
    assert ExampleBook.find(memory).compute_epsilon(1e-4) <= 8.0
    memory = unpack(pack(memory))  # as a home keeps it over restarts
    again, same = work.run(LEARNER, shared, data, memory, KEYS.fold_in(1))
    assert ExampleBook.find(same).num_steps == 8, "one question, one answer: nothing more is spent"
    np.testing.assert_array_equal(again["update"].values["weights"], parts["update"].values["weights"])
    with pytest.raises(Declined, match=r"budget of privacy is spent: epsilon of its examples is 7\.\d+ of 8"):
        work.run(LEARNER, shared, data, memory, KEYS.fold_in(2))


@pytest.mark.parametrize(
    "settled",
    [[((), (1,)), ((2,), ())], [((1,), (2,))], [((1,), ()), ((), (2,))], [((), (2,)), ((1,), ())]],
    ids=["dropped, then counted", "together", "the earlier one counted", "the later one dropped"],
)
def test_an_answer_that_was_dropped_is_spent_all_the_same(settled: Any) -> None:
    """The budget is that of two answers, which may be in flight at the same time, and one is not counted."""
    work = private_sgd(Steps(0.2, batch_size=10), uniform(), BUDGET, rounds=2)
    shared, forks = Shared({"params": LEARNER.init(Key.from_seed(0))}), Forks()

    def answer(ticket: int) -> None:
        before = forks.at(None)
        _, after = work.run(LEARNER, shared, few(), before, KEYS.fold_in(ticket))
        forks.keep(ticket, Fork.between(None, before, after))

    answer(1)
    first = settled[0] == ((), (1,))
    for counted, dropped in settled[:first]:
        forks.settle(counted, dropped)
    answer(2)
    for counted, dropped in settled[first:]:
        forks.settle(counted, dropped)
    assert ExampleBook.find(forks.committed).num_steps == 8
    with pytest.raises(Declined):
        answer(3)


# -- runs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "algorithm",
    [
        TRAINING,
        fed_prox(0.5, mu=0.2, batch_size=100, epochs=1),
        *(rule(0.5, batch_size=100, epochs=1) for rule in (fed_adagrad, fed_adam, fed_yogi)),
    ],
)
def test_a_budget_makes_local_training_private(algorithm: Any) -> None:
    ready = prepare_run(experiment(algorithm=algorithm))
    made = ready.experiment.algorithm
    work = made.work(0)
    assert isinstance(work, private_sgd)
    assert work.steps == algorithm.steps(0, proximal=getattr(algorithm, "mu", 0.0))
    assert (work.budget, work.rounds, made.weighting) == (BUDGET, 3, uniform())
    again = prepare_run(hanse.Experiment.from_settings(ready.experiment.settings()))
    assert again.experiment.algorithm == made, "what is stored is what runs"


def test_a_run_spends_what_it_says_and_a_plan_says_it_before(tmp_path: Path) -> None:
    ready = prepare_run(experiment())
    plan = plan_messages(ready)
    planned = plan.claim
    assert {
        "update: the server: each client's own message, which its client has noised to hide each example",
        "update: the world: what is published, such as models; no noise limits what these tell of a client, "
        "but noise at each client what they tell of an example",
    } < set(plan.views)
    plain = plan_messages(prepare_run(experiment(privacy=None))).views
    assert not any("example" in view for view in plain)
    store = tmp_path / "runs.db"
    result = hanse.perform(experiment(), store=store)
    said = result.privacy
    assert said is not None
    sizes = ready.population.sizes()
    clients = [BUDGET.choose_steps(int(n), Steps(0.5, batch_size=100), 3) for n in sizes]
    assert said["epsilon"] == max(one.compute_epsilon(3, 1e-4) for one in clients)
    assert planned is not None
    assert planned.epsilon == said["epsilon"] <= 8.0
    assert "if it is simulated, noise and samples follow from the seed" in str(planned)
    for words in (
        "-differential privacy of one example of one client, against the same client in which that example "
        "counts as zero, against the server, the other clients and whoever sees the models",
        "a person with examples at several clients spends at each of them",
        "amplified by Poisson sampling of rows inside the client at rate 0.139",
        "the choice of clients amplifies nothing",
        "each client keeps its own account, and refuses to pass epsilon 8",
        "beside it un-noised: the number of each client's examples",
        "simulated: noise and samples follow from the seed",
    ):
        assert words in said["claim"]
    assert json.loads(json.dumps(result.to_json()))["privacy"] == said
    assert (result.clients, result.data) == (None, None), "which tell of single examples"
    runs, run = existing(store), str(result.run)
    info, records = runs.info(run), runs.records(run)
    assert describe_claim(runs, info, records) == said["claim"]
    running = describe_claim(runs, replace(info, result=None), records)
    assert running is not None
    assert running.startswith("so far, (8.00, 0.0001)-differential privacy of one example")


def test_a_client_that_may_take_part_in_fewer_rounds_declines_the_rest() -> None:
    result = hanse.perform(experiment(privacy=replace(BUDGET, max_rounds=2)))
    counted = [record.usage.counted for record in result.records if record.round]
    assert counted == [2, 2, 0]
    assert result.records[-1].abandoned is not None


def test_a_resumed_run_goes_on_with_the_books(tmp_path: Path) -> None:
    whole = hanse.perform(experiment())
    store = tmp_path / "runs.db"
    begun = hanse.rounds(**{**DIGITS, "algorithm": TRAINING, "rounds": 3, "privacy": BUDGET}, store=store)
    for done in begun:
        if done.record.round == 1:
            break
    ended = hanse.resume(begun.result.run, store=store)
    assert ended.params_sha256 == whole.params_sha256
    assert ended.privacy == whole.privacy


def test_settings_say_it_and_uplinks_may_follow_the_noise(tmp_path: Path) -> None:
    settings = tmp_path / "private.toml"
    settings.write_text(
        """rounds = 2
        evaluate_every = 2
        data = "digits"
        partition = { name = "iid", num_clients = 2 }
        privacy = { name = "examples", epsilon = 8.0, delta = 1e-4, max_norm = 0.5, open = ["weights"] }
        [algorithm]
        name = "fed_avg"
        lr = 0.5
        batch_size = 100
        epochs = 1
        uplink = [{ name = "quantize", bits = 8 }]
        """
    )
    result = hanse.perform(hanse.read(settings))
    assert result.privacy is not None
    assert "clients' numbers of examples, as weights" in result.privacy["claim"]
    made = prepare_run(hanse.read(settings)).experiment.algorithm
    assert (made.uplink, made.weighting) == ((quantize(8),), by_examples())


def train_own(params: Any, data: Any) -> None:
    """Trains nothing."""


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"algorithm": scaffold(0.5)}, r"does not protect scaffold\(\).*does not show"),
        ({"algorithm": fed_sgd(0.5)}, r"fed_sgd\(\) has none; write fed_avg"),
        ({"algorithm": fed_buff(0.5)}, r"fed_buff\(\) has none; write fed_avg, .*fed_adam or fed_yogi$"),
        ({"algorithm": fed_avg(client=trained_by(train_own))}, r"trained_by\(\) does not show; write client"),
        ({"data": digits(test_fraction=0.0)}, r'privacy.open = \["metrics"\]'),
        ({"stop": hanse.Stop("objective"), "evaluate_every": 1}, r'privacy.open = \["objective"\]'),
    ],
)
def test_what_is_not_protected_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(CompositionError, match=words):
        prepare_run(experiment(**given))


def test_models_that_mix_examples_are_refused_before_a_run_begins() -> None:
    torch = pytest.importorskip("torch")

    def factory() -> Any:
        return torch.nn.Sequential(torch.nn.Linear(64, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 10))

    with pytest.raises(InvalidInput, match=r"'1' is BatchNorm1d, which mixes.*GroupNorm, LayerNorm"):
        prepare_run(experiment(model=own.torch_module(factory)))


def test_bounds_are_checked() -> None:
    for wrong in (
        {"epsilon": 0.0},
        {"delta": 1.0},
        {"max_norm": -1.0},
        {"max_rounds": 0},
        {"open": "metrics"},
    ):
        with pytest.raises(InvalidInput, match=next(iter(wrong))):
            examples(**{"epsilon": 1.0, **wrong})


def test_a_claim_without_the_clients_numbers_is_their_budget() -> None:
    claim = make_example_claim(BUDGET, None, 3)
    assert (claim.epsilon, claim.totals) == (8.0, 0)
    assert make_example_claim(BUDGET, None, 0).epsilon == 0.0


def test_momenta_are_those_of_the_client() -> None:
    client = sgd(0.5, momentum=0.9, batch_size=100, epochs=1)
    made = prepare_run(experiment(algorithm=fed_avg(client=client))).experiment.algorithm
    assert made.work(0).steps == client.steps(0)
