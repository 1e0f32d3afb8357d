"""Each party's row agrees with arithmetic by hand, masks small cells, and says what it can't tell."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as sk

import hanse
from hanse.algorithms import fed_avg, fed_sgd
from hanse.core import Array, Examples, InvalidInput, Key, Learner, Prediction, Tensors
from hanse.data import FederatedData, arrays, from_clients, iid
from hanse.evaluation import (
    Evaluation,
    auroc,
    centralised,
    describe_gain,
    fold_rows,
    log_loss,
    on_site,
    order_rows,
    tabulate_rows,
)
from hanse.evaluation.parties import PartyRows, compare_marks, describe_rows, show_cell, show_count
from hanse.learners import cox, least_squares, logistic, softmax

KEY = Key.from_seed(0)


def examples(labels: str) -> Examples:
    """Make examples whose only feature is 1 for the label 1, and -1 for the label 0."""
    y = np.array([int(label) for label in labels])
    return Examples(2.0 * y[:, None] - 1.0, y)


def weights(w: float) -> dict[str, Array]:
    return {"weights": np.array([w], np.float32), "bias": np.zeros((), np.float32)}


def four() -> FederatedData:
    """Make four parties with 6, 5, 4 and no test examples."""
    tests = [examples("110010"), examples("10110"), examples("1010"), None]
    clients = [examples("10" * n) for n in (10, 3, 2, 1)]
    return from_clients(clients, client_tests=tests, names=["a", "b <i>&", "c", "d"])


def rows_of(people: FederatedData, metric: str = "accuracy", **more: Any) -> PartyRows:
    """Make rows of a federated model that gets every example right."""
    learner = logistic(intercept=True).bind((1,), 2)
    return PartyRows(learner, people, weights(3.0), metric, KEY, **more)


def test_rows_agree_with_arithmetic_by_hand() -> None:
    rows = rows_of(four())
    rows.add("centralised", None, weights(1.0))
    rows.add("on_site", 0, weights(-1.0))  # it gets everything wrong
    rows.add("on_site", 1, weights(2.0))
    first, second, third, last = rows.list_rows()
    assert [row["party"] for row in (first, second, third, last)] == ["a", "b <i>&", "c", "d"]
    assert (first["examples"], first["test_examples"], first["verdict"]) == (20, 6, "helped")
    assert [first[who]["accuracy"] for who in ("federated", "centralised", "on_site")] == [1.0, 1.0, 0.0]
    assert first["federated"]["loss"] == pytest.approx(np.log1p(np.exp(-3.0)), rel=1e-6)
    # p = 7/8, q = 1/8: 3/4 ± 1.95996 sqrt((1 - 9/16) / 8) = 3/4 ± 0.45835, and no gain exceeds 1
    assert (first["gain"], first["gain_low"], first["gain_high"]) == (
        1.0,
        pytest.approx(0.291655, abs=1e-6),
        1.0,
    )
    assert (second["gain"], second["verdict"]) == (0.0, "no clear difference")
    # p = q = 1/7: 0 ± 1.95996 sqrt(2/7 / 7)
    assert second["gain_high"] == -second["gain_low"] == pytest.approx(0.395973, abs=1e-6)
    assert (third["test_examples"], third["federated"], third["gain"]) == (None, None, None)
    assert third["masked"] == ["examples", "test_examples", "federated", "centralised", "on_site"]
    assert (last["test_examples"], last["examples"], last["masked"]) == (0, None, ["examples"])


def test_a_party_that_loses_is_hurt() -> None:
    rows = PartyRows(logistic(intercept=True).bind((1,), 2), four(), weights(-3.0), "accuracy", KEY)
    rows.add("on_site", 0, weights(1.0))
    assert rows.list_rows()[0]["verdict"] == "hurt"
    assert rows.list_rows()[0]["gain_high"] == pytest.approx(-0.291655, abs=1e-6)
    assert rows.list_rows()[1]["on_site"] is None  # it was not trained


@pytest.mark.parametrize(("first", "second", "gain", "low", "high"), [
    ("1111110000", "0000001000", 0.5, -0.012885, 0.846218),  # b = 6, c = 1
    # the example of ci.prop.ps() in R's package statpsych, by D. G. Bonett
    ("1" * 26 + "0" * 4 + "1" * 6 + "0" * 12, "0" * 26 + "1" * 10 + "0" * 12, 22 / 48, 0.2548067, 0.6251933),
    ("1111", "1111", 0.0, -0.461968, 0.461968),
    ("0", "1", -1.0, -1.0, 0.733536),
])  # fmt: skip
def test_paired_intervals_by_hand(first: str, second: str, gain: float, low: float, high: float) -> None:
    marks = [np.array([mark == "1" for mark in marked]) for marked in (first, second)]
    found = compare_marks(*marks)
    assert (found.gain, found.low, found.high) == (
        pytest.approx(gain), pytest.approx(low, abs=1e-6), pytest.approx(high, abs=1e-6)
    )  # fmt: skip


def test_cells_say_why_they_are_empty() -> None:
    rows = rows_of(four(), measure=lambda params, examples: {"accuracy": 1.0, "auc": None})
    rows.add("on_site", 0, weights(3.0))
    heads, lines = tabulate_rows(rows.list_rows(), "auc")
    assert heads == ["party", "federated", "on-site", "examples", "tests"]
    assert lines == [
        ["a", "undefined", "undefined", "20", "6"],
        ["b <i>&", "undefined", "not trained", "6", "5"],
        ["c", "masked", "masked", "<5", "<5"],
        ["d", "no tests", "no tests", "<5", "0"],
    ]
    assert describe_rows(rows.list_rows())[1] == (
        "masked at 2 parties: counts below 5, and metrics of fewer than 5 examples"
    )


def test_a_metric_that_test_examples_do_not_define_is_undefined() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(24, 2))
    events, censored = (np.column_stack([np.arange(1.0, 25.0), np.full(24, event)]) for event in (1.0, 0.0))
    people = from_clients(
        [Examples(x, events)] * 2, client_tests=[Examples(x, events), Examples(x, censored)], num_classes=None
    )
    params = {"weights": np.array([0.5, -0.5])}
    rows = PartyRows(cox().bind((2,), None), people, params, "concordance", KEY)
    for number in (0, 1):
        rows.add("on_site", number, {"weights": np.array([-0.5, 0.5])})
    known, unknown = rows.list_rows()
    assert known["federated"]["concordance"] + known["on_site"]["concordance"] == pytest.approx(1.0)
    assert known["gain_low"] <= known["gain"] <= known["gain_high"]
    assert (show_cell(unknown, "federated", "concordance"), unknown["verdict"]) == ("undefined", None)
    assert show_cell(unknown, "federated", "loss") != "undefined"


def test_few_test_examples_give_no_interval_of_a_loss() -> None:
    """The paired bootstrap of 19 examples finds differences too often where there are none."""
    x = np.random.default_rng(0).normal(size=(20, 1))
    for count in (19, 20):
        tests = Examples(x[:count], x[:count, 0])
        people = from_clients([Examples(x, x[:, 0])], client_tests=[tests], num_classes=None)
        params = [{"weights": np.array([w]), "bias": np.zeros(())} for w in (1.0, 0.0)]
        rows = PartyRows(least_squares(dtype="float64").bind((1,), None), people, params[0], "loss", KEY)
        rows.add("on_site", 0, params[1])
        (row,) = rows.list_rows()
        assert row["verdict"] == (None if count == 19 else "helped")


def test_a_loss_is_better_when_lower_and_its_interval_is_that_of_the_mean() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(400, 1))
    y = x[:, 0] + rng.normal(size=400)
    people = from_clients([Examples(x, y)], client_tests=[Examples(x, y)], num_classes=None)
    params = {
        name: {"weights": np.array([w]), "bias": np.zeros(())} for name, w in (("good", 1.0), ("bad", 0.0))
    }
    rows = PartyRows(least_squares(dtype="float64").bind((1,), None), people, params["good"], "loss", KEY)
    rows.add("on_site", 0, params["bad"])
    (row,) = rows.list_rows()
    better = (y**2 - (y - x[:, 0]) ** 2) / 2
    half = 1.96 * better.std() / 20
    assert row["gain"] == pytest.approx(better.mean())
    assert row["gain_low"] == pytest.approx(better.mean() - half, abs=0.2 * half)
    assert row["gain_high"] == pytest.approx(better.mean() + half, abs=0.2 * half)
    assert row["verdict"] == "helped"
    assert not row["higher_is_better"]
    again = PartyRows(least_squares(dtype="float64").bind((1,), None), people, params["good"], "loss", KEY)
    again.add("on_site", 0, params["bad"])
    assert again.list_rows() == (row,)


def test_the_interval_of_a_named_metric_is_that_of_a_plain_loop_over_drawn_rows() -> None:
    """scikit-learn measures each draw; the model predicts the rows once, however many draws there are."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(60, 2)).round(1)  # with ties
    y = (x[:, 0] + 0.5 * rng.normal(size=60) > 0.3).astype(int)
    people = from_clients([Examples(x, y)], client_tests=[Examples(x, y)], num_classes=2)
    ours, alone = ({"weights": np.array(w, np.float32), "bias": np.zeros((), np.float32)} for w in
                   ((1.0, 0.0), (0.3, 1.0)))  # fmt: skip
    learner = Counting(logistic(intercept=True).bind((2,), 2))
    named = (auroc(), log_loss())
    rows = PartyRows(learner, people, ours, "auroc", KEY, {"auroc"}, metrics=named)
    rows.add("on_site", 0, alone)
    (row,) = rows.list_rows()
    assert learner.predicted <= 4 * len(y)
    found = [learner.predict(params, x)[:, 1] for params in (ours, alone)]
    drawn = KEY.fold_in(0).rng().integers(60, size=(200, 60))
    gains = [np.subtract(*(sk.roc_auc_score(y[own], one[own]) for one in found)) for own in drawn]
    assert row["gain"] == pytest.approx(np.subtract(*(sk.roc_auc_score(y, one) for one in found)), abs=1e-12)
    assert row["gain_low"] == pytest.approx(np.quantile(gains, 0.025), abs=1e-12)
    assert row["gain_high"] == pytest.approx(np.quantile(gains, 0.975), abs=1e-12)
    assert set(row["federated"]) == {"loss", "accuracy", "auroc", "log_loss"}


class Counting(Learner):
    """A model that counts the rows that it predicts."""

    def __init__(self, learner: Learner) -> None:
        self.learner, self.predicted = learner, 0

    @property
    def metrics(self) -> tuple[str, ...]:
        return self.learner.metrics

    @property
    def prediction(self) -> Prediction:
        return self.learner.prediction

    def init(self, key: Key) -> Tensors:
        return self.learner.init(key)

    def evaluate(self, params: Tensors, data: Examples) -> dict[str, float]:
        return self.learner.evaluate(params, data)

    def predict(self, params: Tensors, x: Array) -> Array:
        self.predicted += len(x)
        return self.learner.predict(params, x)


# -- whole runs --------------------------------------------------------------------------------

RNG = np.random.default_rng(2)
X = RNG.normal(size=(90, 2))
Y = (X[:, 0] + 0.5 * RNG.normal(size=90) > 0).astype(int)
CLIENTS = [Examples(X[i : i + 30], Y[i : i + 30]) for i in (0, 30, 60)]


def predict(params: Mapping[str, Array], x: Array) -> Array:
    found: Array = (x @ params["weights"] + params["bias"]).argmax(axis=1)
    return found


def test_a_run_measures_all_three_models_on_test_rows_that_nobody_trained_on() -> None:
    def perform() -> hanse.Result:
        return hanse.run(
            data=from_clients(CLIENTS), algorithm=fed_sgd(lr=0.5), rounds=4, client_test_fraction=0.3,
            model=softmax(dtype="float64"), baselines=(centralised(), on_site()),
        )  # fmt: skip

    result = perform()
    assert result.parties == perform().parties
    assert [row["party"] for row in result.parties] == ["client 0", "client 1", "client 2"]
    held = from_clients(CLIENTS).holding_out(0.3, hanse_key())
    for number, row in enumerate(result.parties):
        own, test = held.client(number), held.role(f"test/{number}")
        assert (row["examples"], row["test_examples"]) == (len(own), len(test)) == (21, 9)
        alone = {"weights": np.zeros((2, 2)), "bias": np.zeros(2)}
        for _ in range(4):  # descent on its own rows
            scores = own.x @ alone["weights"] + alone["bias"]
            slope = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True) - np.eye(2)[own.y]
            alone["weights"] -= 0.5 * own.x.T @ slope / len(own)
            alone["bias"] -= 0.5 * slope.mean(axis=0)
        for who, params in (("federated", result.params), ("on_site", alone)):
            right = predict(params, test.x) == test.y
            assert row[who]["accuracy"] == pytest.approx(right.mean()), who
        assert row["gain"] == pytest.approx(row["federated"]["accuracy"] - row["on_site"]["accuracy"])
    assert result.to_json()["parties"] == list(result.parties)


def hanse_key() -> Key:
    from hanse.runs.preparation import client_tests

    return client_tests(0)


def test_without_baselines_rows_have_the_federated_model_only() -> None:
    result = hanse.run(
        data=from_clients(CLIENTS), rounds=1, client_test_fraction=0.3, algorithm=fed_sgd(lr=0.1)
    )
    assert "on_site" not in result.parties[0]
    heads, _ = tabulate_rows(result.parties, "accuracy")
    assert heads == ["party", "federated", "examples", "tests"]
    assert not any("party" in line or "parties" in line for line in result.headline)


def test_without_own_test_examples_there_are_no_rows() -> None:
    result = hanse.run(data=arrays(X, Y), partition=iid(3), rounds=1, baselines=[on_site()])
    assert result.parties == ()


def test_settings_name_the_smallest_cell() -> None:
    few: dict[str, Any] = {"data": from_clients(CLIENTS), "rounds": 1, "client_test_fraction": 0.3}
    for min_count, is_masked in ((9, False), (10, True)):
        rows = hanse.run(**few, evaluation=Evaluation(min_count=min_count)).parties
        assert [row["test_examples"] is None for row in rows] == [is_masked] * 3
        assert [show_count(row, "test_examples") for row in rows] == ["<10" if is_masked else "9"] * 3
    with pytest.raises(InvalidInput, match="min_count"):
        Evaluation(min_count=0)


def test_named_metrics_are_in_rows_and_one_that_a_party_lacks_is_undefined() -> None:
    lacks = Examples(X[:20], np.zeros(20, int))  # no row of class 1
    people = from_clients([CLIENTS[0], lacks], client_tests=[CLIENTS[1], lacks], num_classes=2)
    result = hanse.run(
        data=people, rounds=2, evaluation=Evaluation(metrics=("auroc",)), baselines=[on_site()],
        stop=hanse.Stop(metric="auroc"), algorithm=fed_avg(fraction=1.0),
    )  # fmt: skip
    known, unknown = result.parties
    assert known["metric"] == "auroc"
    assert known["gain"] == pytest.approx(known["federated"]["auroc"] - known["on_site"]["auroc"])
    assert known["gain_low"] <= known["gain"] <= known["gain_high"]
    assert show_cell(unknown, "federated", "auroc") == "undefined"
    assert (unknown["verdict"], unknown["masked"]) == (None, [])


def test_one_party_has_a_row() -> None:
    one = from_clients(CLIENTS[:1], names=["Only"])
    result = hanse.run(
        data=one, rounds=2, client_test_fraction=0.5, algorithm=fed_avg(fraction=1.0), baselines=[on_site()]
    )
    assert [row["party"] for row in result.parties] == ["Only"]
    assert result.headline[0] == "federation made no clear difference to the only party"


@pytest.mark.parametrize("engine", ["jax", "torch"])
def test_other_engines_have_rows(engine: str) -> None:
    pytest.importorskip(engine)
    from hanse.learners import mlp, torch_module

    def make_module() -> Any:
        from torch import nn

        return nn.Linear(2, 2)

    model: Any = mlp((4,)) if engine == "jax" else torch_module(make_module)
    result = hanse.run(
        data=from_clients(CLIENTS), model=model, rounds=1, client_test_fraction=0.3,
        algorithm=fed_avg(lr=0.3, fraction=1.0, epochs=1, batch_size=None), baselines=[on_site()],
    )  # fmt: skip
    assert all(row["verdict"] is not None and 0 <= row["on_site"]["accuracy"] <= 1 for row in result.parties)
    assert result.parties[0]["federated"]["accuracy"] == result.clients["each"]["accuracy"][0]  # type: ignore[index]


# -- tables ------------------------------------------------------------------------------------


def gained(number: int, gain: float | None, federated: float = 0.5) -> dict[str, Any]:
    verdict = (
        None if gain is None else "helped" if gain > 0.1 else "hurt" if gain < -0.1 else "no clear difference"
    )
    return {
        "party": f"p{number}", "number": number, "examples": 1234, "test_examples": 50,
        "federated": {"accuracy": federated}, "metric": "accuracy", "higher_is_better": True,
        "gain": gain, "gain_low": gain, "gain_high": gain, "verdict": verdict, "masked": [], "min_count": 5,
    }  # fmt: skip


def test_few_rows_are_all_shown_in_the_order_of_the_data() -> None:
    rows = [gained(number, -number / 20) for number in range(12)]
    assert fold_rows(rows) == (rows, "")


def test_of_many_rows_the_ends_are_shown_and_the_others_are_counted() -> None:
    rows = [gained(number, ((37 * number) % 100 - 50) / 100) for number in range(100)]
    rows[3]["gain"] = rows[3]["verdict"] = None
    shown, said = fold_rows(rows)
    gains = [row["gain"] for row in shown]
    assert gains == [-0.5, -0.49, -0.48, -0.47, -0.46, -0.45, 0.44, 0.45, 0.46, 0.47, 0.48, 0.49]
    assert said == (
        "of 100 parties, the 6 that federation helped least and the 6 that it helped most are shown; 87 "
        "between them are not, nor 1 that can't be compared"
    )


def test_rows_that_were_not_compared_are_ordered_by_their_metric() -> None:
    rows = [gained(number, None, (7 * number % 20) / 20) for number in range(20)]
    assert [row["federated"]["accuracy"] for row in order_rows(rows)][:3] == [0.0, 0.05, 0.1]
    losses = [row | {"higher_is_better": False} for row in rows]
    assert [row["federated"]["accuracy"] for row in order_rows(losses)][:2] == [0.95, 0.9]
    assert (
        "the 6 that are worst and the 6 that are best are shown; 8 between them are not" in fold_rows(rows)[1]
    )


def test_gains_are_points_of_accuracy_and_counts_have_commas() -> None:
    row = gained(0, -0.031)
    assert describe_gain(row) == "−3.1 (−3.1 to −3.1)"
    assert describe_gain(row | {"metric": "loss"}) == "−0.0310 (−0.0310 to −0.0310)"
    assert describe_gain(gained(0, -0.0004)) == "+0.0 (+0.0 to +0.0)"
    assert show_count(row, "examples") == "1,234"
