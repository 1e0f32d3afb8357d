from typing import Any

import numpy as np
import pytest
import scipy.optimize

import hanse
from hanse.algorithms import Subproblem, fed_sgd, newton
from hanse.core import Array, Examples, InvalidInput, Key, LocalProblem, Steps, Stop
from hanse.data import from_clients
from hanse.evaluation import centralised
from hanse.learners import cox
from hanse.learners.linear.concordance import count_concordant

KEY = Key.from_seed(9)

# The first example of Therneau, Grambsch, "Modeling survival data", 2000, appendix E.1: its Breslow partial
# likelihood is 2 b - log(3 e^b + 3) - 2 log(e^b + 3), with its maximum where e^b = (3 + sqrt 33) / 2.
TEXTBOOK = Examples(
    np.array([[1.0], [1], [1], [0], [0], [0]]),
    np.array([[1.0, 1], [1, 0], [6, 1], [6, 1], [8, 0], [9, 1]]),
)


def textbook(b: float) -> float:
    return float(2 * b - np.log(3 * np.exp(b) + 3) - 2 * np.log(np.exp(b) + 3))


@pytest.mark.parametrize("b", [-2.0, 0.0, 1.5])
def test_the_textbooks_likelihood(b: float) -> None:
    learner = cox().bind((1,), None)
    assert learner.evaluate({"weights": np.array([b])}, TEXTBOOK) == {
        "loss": pytest.approx(-textbook(b)),
        "concordant": {-2.0: 2.0, 0.0: 4.5, 1.5: 7.0}[b],
        "comparable": 9.0,
        "count": 6.0,
    }


def test_the_textbooks_estimate() -> None:
    learner = cox().bind((1,), None)
    update = newton().minimise(learner, learner.init(KEY), Subproblem(TEXTBOOK, KEY))
    assert update["weights"][0] == pytest.approx(np.log((3 + np.sqrt(33)) / 2), abs=1e-9)
    assert learner.evaluate(update, TEXTBOOK)["loss"] == pytest.approx(3.824750, abs=1e-6)


def survival(n: int = 60, strata: int = 3, seed: int = 0) -> Examples:
    """Times of few distinct values, so with many ties."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4))
    time = np.ceil(5 * rng.exponential(np.exp(-x @ np.array([1.0, -0.5, 0.2, 0]))))
    return Examples(x, np.column_stack([time, rng.random(n) < 0.7, rng.integers(strata, size=n)]))


def by_definition(w: Array, data: Examples) -> float:
    total = 0.0
    for i, (t, event, stratum) in enumerate(data.y):
        if event:
            risk = (data.y[:, 0] >= t) & (data.y[:, 2] == stratum)
            total -= data.x[i] @ w - np.log(np.exp(data.x[risk] @ w).sum())
    return total


def test_the_definition() -> None:
    data, w = survival(), np.array([0.3, -1, 2, 0.1])
    learner = cox(0.2).bind((4,), None)
    assert learner.objective({"weights": w}, data) == pytest.approx(
        by_definition(w, data) / 60 + 0.1 * w @ w, rel=1e-12
    )


def test_derivatives() -> None:
    data, w = survival(), np.array([0.3, -1, 2, 0.1])
    learner = cox(0.2).bind((4,), None)
    gradient = scipy.optimize.approx_fprime(w, lambda v: learner.objective({"weights": v}, data), 1e-7)
    np.testing.assert_allclose(learner.gradient({"weights": w}, data)["weights"], gradient, atol=1e-6)
    vector, step = np.array([1.0, 2, -1, 0.5]), 1e-6
    ahead, behind = (
        learner.gradient({"weights": w + sign * step * vector}, data)["weights"] for sign in (1, -1)
    )
    product = learner.hessian_vector({"weights": w}, data, {"weights": vector})["weights"]
    np.testing.assert_allclose(product, (ahead - behind) / (2 * step), atol=1e-7)


def test_strata_add_up() -> None:
    data, w = survival(), {"weights": np.array([0.3, -1, 2, 0.1])}
    learner = cox().bind((4,), None)
    parts = [data.take(np.flatnonzero(data.y[:, 2] == s)) for s in range(3)]
    assert sum(learner.evaluate(w, part)["loss"] for part in parts) == pytest.approx(
        learner.evaluate(w, data)["loss"], rel=1e-12
    )
    pooled = sum(len(part) * learner.gradient(w, part)["weights"] for part in parts) / len(data)
    np.testing.assert_allclose(pooled, learner.gradient(w, data)["weights"], rtol=1e-10)


# Concordance


def concordance_by_definition(risks: Array, labels: Array) -> tuple[float, float]:
    """Looks at every pair."""
    concordant, comparable = 0.0, 0.0
    for i, (time, event, stratum) in enumerate(labels):
        for j, (other_time, other_event, other_stratum) in enumerate(labels):
            outlives = other_time > time or (other_time == time and not other_event)
            if i != j and event and outlives and stratum == other_stratum:
                comparable += 1
                concordant += 1.0 if risks[i] > risks[j] else 0.5 if risks[i] == risks[j] else 0.0
    return concordant, comparable


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("n", "strata"), [(1, 1), (2, 1), (7, 2), (60, 1), (60, 3), (61, 20)])
@pytest.mark.parametrize("num_risks", [1, 2, 5, 1000])
def test_concordance_is_that_of_every_pair(n: int, strata: int, num_risks: int, seed: int) -> None:
    y = survival(n, strata, seed).y
    risks = np.random.default_rng(seed).integers(num_risks, size=n).astype(float) - num_risks / 2
    assert count_concordant(risks, *y.T) == concordance_by_definition(risks, y)


def test_concordance_by_hand() -> None:
    """Time 2: an event. Time 3: an event and a censored row. Time 5: two events. Time 6: a censored row.

    The first is compared with the other 5, and its risk, 3, is above 3 of theirs and equal to one: 3.5.
    The event at 3 is compared with the row censored at 3 and the three after: risk 1 is above 0 once: 1. The
    events at 5 are not compared with each other, but each with the last row: 5 and 0 with 2: 1. Of 11: 5.5.
    """
    times, events = np.array([2.0, 3, 3, 5, 5, 6]), np.array([1.0, 1, 0, 1, 1, 0])
    risks = np.array([3.0, 1, 3, 5, 0, 2])
    assert count_concordant(risks, times, events, np.zeros(6)) == (5.5, 11.0)
    apart = np.array([0.0, 0, 0, 1, 1, 1])  # pairs 1-2, 1-3, 2-3 (2 right or half), 4-6, 5-6
    assert count_concordant(risks, times, events, apart) == (1 + 0.5 + 0 + 1 + 0, 5.0)


def test_concordance_of_many_rows_is_fast() -> None:
    n = 20_000  # to look at every pair would take minutes
    rng = np.random.default_rng(0)
    risks, times = rng.permutation(n).astype(float), rng.permutation(n)
    concordant, comparable = count_concordant(risks, times, np.ones(n), np.zeros(n))
    assert comparable == n * (n - 1) / 2
    assert concordant / comparable == pytest.approx(0.5, abs=0.01)
    assert count_concordant(-times.astype(float), times, np.ones(n), np.zeros(n))[0] == comparable


def test_sums_become_a_concordance() -> None:
    learner, data, params = cox().bind((4,), None), survival(), {"weights": np.ones(4)}
    concordant, comparable = concordance_by_definition(data.x @ np.ones(4), data.y)
    parts = [learner.evaluate(params, data.take(np.flatnonzero(data.y[:, 2] == s))) for s in range(3)]
    sums = {name: sum(part[name] for part in parts) for name in parts[0]}
    assert learner.measured == ("loss", "concordance")
    assert learner.summarise(sums) == {
        "loss": pytest.approx(learner.objective(params, data)),
        "concordance": concordant / comparable,
    }
    mean = np.mean([learner.summarise(part)["concordance"] for part in parts])
    assert learner.summarise(sums)["concordance"] != pytest.approx(mean)  # parties count by their pairs


def test_without_comparable_pairs_there_is_no_concordance() -> None:
    learner, data, params = cox().bind((4,), None), survival(), {"weights": np.ones(4)}
    censored = Examples(data.x, data.y * np.array([1.0, 0, 1]))
    assert learner.summarise(learner.evaluate(params, censored)) == {"loss": 0.0}
    assert learner.summarise(learner.evaluate(params, data.take(np.arange(1)))).keys() == {"loss"}


def test_a_run_stops_at_a_concordance() -> None:
    data = survival(strata=1)
    parts = [data.take(np.arange(k, 60, 3)) for k in range(3)]
    result = hanse.run(
        data=from_clients(parts), model=cox(), algorithm=fed_sgd(lr=0.5), rounds=50,
        stop=Stop(metric="concordance", target=0.697), baselines=[centralised()],
    )  # fmt: skip
    measured = [record.metrics["concordance"] for record in result.records]
    assert result.target_round == len(measured) - 1 > 0
    assert measured[0] == 0.5  # all risks are equal
    assert max(measured[:-1]) < 0.697 <= measured[-1]
    assert result.reason == "concordance reached 0.697"
    sums = [concordance_by_definition(part.x @ result.params["weights"], part_of(part)) for part in parts]
    assert measured[-1] == sum(pair[0] for pair in sums) / sum(pair[1] for pair in sums)
    clients = [pair[0] / pair[1] for pair in sums]
    assert result.clients is not None
    assert result.clients["mean"]["concordance"] == pytest.approx(np.mean(clients))
    assert result.clients["worst_tenth"]["concordance"] == min(clients)
    assert result.baselines[0]["curve"][-1]["concordance"] > 0.65


def part_of(examples: Examples) -> Array:
    return np.column_stack([examples.y[:, :2], np.zeros(len(examples))])


def test_one_stratum_needs_no_number() -> None:
    data, w = survival(strata=1), {"weights": np.ones(4)}
    learner = cox().bind((4,), None)
    assert learner.objective(w, data) == learner.objective(w, Examples(data.x, data.y[:, :2]))


def test_pairs_are_conditional_logistic_regression() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(20, 4))
    y = np.column_stack([np.ones(20), np.arange(20) % 2, np.arange(20) // 2])
    w = np.array([1.0, 2, 3, 4])
    apart = (x[1::2] - x[::2]) @ w
    learner = cox().bind((4,), None)
    assert learner.evaluate({"weights": w}, Examples(x, y))["loss"] == pytest.approx(
        np.logaddexp(0, -apart).sum()
    )


def test_scores_of_any_size_are_fine() -> None:
    data = survival()
    learner = cox().bind((4,), None)
    for scale in (1e3, -1e3):
        params = {"weights": np.full(4, scale)}
        assert np.isfinite(learner.objective(params, data))


def test_nobody_had_an_event() -> None:
    data = survival()
    censored = Examples(data.x, data.y * np.array([1.0, 0, 1]))
    learner = cox().bind((4,), None)
    assert learner.objective({"weights": np.ones(4)}, censored) == 0
    assert not learner.gradient({"weights": np.ones(4)}, censored)["weights"].any()


def test_local_steps_follow_their_definition() -> None:
    data, learner = survival(), cox(0.1).bind((4,), None)
    params, steps = {"weights": np.ones(4)}, Steps(0.1, epochs=2, batch_size=25, proximal=0.3)
    offset = {"weights": np.arange(4.0)}
    now = params["weights"]
    for epoch in range(2):
        order = KEY.fold_in("epoch", epoch).rng().permutation(60)
        for start in range(0, 60, 25):
            gradient = learner.gradient({"weights": now}, data.take(order[start : start + 25]))["weights"]
            now = now - 0.1 * (gradient + 0.3 * (now - params["weights"]) + offset["weights"])
    update = learner.local_sgd(params, LocalProblem(data, steps, KEY, offset=offset))
    np.testing.assert_allclose(update["weights"], now - params["weights"], rtol=1e-12)


def _with(**changes: Any) -> Examples:
    data = survival()
    x, y = data.x.copy(), data.y.copy()
    x[3, 2] = changes.get("feature", x[3, 2])
    y[5] = changes.get("label", y[5])
    return Examples(x, changes.get("y", y))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (_with(y=np.ones(60)), r"labels of shape \(60,\).*column_stack\(\[time, event, stratum\]\)"),
        (_with(y=np.ones((60, 4))), r"labels of shape \(60, 4\)"),
        (_with(label=[1, 2, 0]), "the event in row 5 is 2; write 1 where it happened, 0 where"),
        (_with(label=[np.nan, 1, 0]), "the label in row 5, column 0 is nan"),
        (_with(feature=np.inf), r"the feature in row 3, column 2 \(flattened\) is inf"),
        (Examples(np.ones((0, 4)), np.ones((0, 2))), "no examples; give at least 1"),
        (Examples(np.ones((2, 3)), np.ones((2, 2))), "examples of 3 features.*bound to 4"),
    ],
)
def test_unusable_examples_are_refused(data: Examples, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        cox().bind((4,), None).gradient({"weights": np.ones(4)}, data)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cox(-1.0), r"l2 is -1\.0; write a number of at least 0"),
        (lambda: cox(dtype="float16"), "dtype is 'float16'; did you mean"),
        (lambda: cox().bind((4,), 2), "labels are 2 classes"),
        (lambda: cox().bind((0,), None), r"features of shape \(0,\)"),
    ],
)
def test_wrong_settings(make: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        make()
