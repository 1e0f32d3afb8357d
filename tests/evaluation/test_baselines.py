"""Baselines have the budget of the run, and report what they did."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as sk
from safetensors.numpy import save_file

import hanse
from hanse.algorithms import fed_avg, fed_sgd, giant
from hanse.core import Examples, InvalidInput, Stop
from hanse.data import arrays, csv, digits, dirichlet, from_clients, generate, iid, own_test
from hanse.evaluation import Evaluation, describe_on_site
from hanse.evaluation.baselines import centralised, on_site
from hanse.evaluation.clients import OWN_TEST, OWN_TRAINING, TEST_SET, spread_of
from hanse.learners import least_squares, logistic, softmax
from hanse.runs import prepare_run

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3))
Y = (X[:, 0] > 0).astype(int)


def compared(**more: Any) -> hanse.Result:
    settings: dict[str, Any] = {
        "rounds": 20,
        "baselines": (centralised(), on_site()),
        "client_test_fraction": 0.2,
        "partition": dirichlet(20, 0.5),
    }
    return hanse.run(**settings | more)


def test_the_budget_is_the_runs_passes_over_each_example() -> None:
    result = compared(algorithm=fed_avg(lr=0.3, fraction=0.5, epochs=3), rounds=8)
    assert [row["epochs"] for row in result.baselines] == [12, 12]  # 8 rounds x 1/2 x 3 epochs
    assert len(result.baselines[0]["curve"]) == 13


def test_clients_that_measure_cost_no_budget() -> None:
    mine = from_clients([Examples(X[:30], Y[:30]), Examples(X[30:], Y[30:])])
    result = hanse.run(data=mine, algorithm=fed_sgd(lr=0.1), rounds=7, baselines=[centralised()])
    assert result.baselines[0]["epochs"] == 7


def test_centralised_full_batches_are_gradient_descent_on_the_pooled_data() -> None:
    result = hanse.run(
        partition=iid(10), algorithm=fed_sgd(lr=0.5), rounds=15, baselines=(centralised(),), model=softmax()
    )
    (row,) = result.baselines
    assert result.final is not None
    assert row["final"]["loss"] == pytest.approx(result.final.metrics["loss"], rel=1e-5)


def test_pooled_data_help_and_being_alone_does_not() -> None:
    result = compared(rounds=60)
    pooled, alone = result.baselines
    assert result.clients is not None
    assert pooled["final"]["accuracy"] > alone["final"]["accuracy"] + 0.2
    assert result.clients["mean"]["accuracy"] > alone["clients"]["mean"]["accuracy"]
    for row in (result.clients, pooled["clients"], alone["clients"]):
        assert row["on"] == OWN_TEST
        assert row["worst_tenth"]["accuracy"] <= row["mean"]["accuracy"]
        assert row["worst_tenth"]["loss"] >= row["mean"]["loss"]
    assert pooled["bytes_up"] > 0 == alone["bytes_up"]


def test_without_own_test_examples_it_says_what_was_measured_on() -> None:
    result = compared(client_test_fraction=0.0, rounds=2)
    assert result.clients is not None
    assert result.clients["on"] == OWN_TRAINING
    assert [row["clients"]["on"] for row in result.baselines] == [OWN_TRAINING, TEST_SET]


def test_the_worst_tenth_is_the_mean_of_those_worst_off() -> None:
    each = [{"accuracy": n / 20, "loss": float(n)} for n in range(20)]
    spread = spread_of(OWN_TEST, each)
    assert spread["worst_tenth"] == {"accuracy": 0.025, "loss": 18.5}
    assert spread_of(OWN_TEST, [{"loss": float("inf")}])["mean"] == {"loss": None}


def test_rounds_to_target_beside_epochs_to_target() -> None:
    result = compared(stop=Stop(target=0.5), rounds=50)
    assert result.target_round is not None
    assert 1 <= result.baselines[0]["epochs_to_target"] <= result.baselines[0]["epochs"]


def test_few_parties_stand_for_many() -> None:
    result = compared(baselines=[on_site(parties=5)], rounds=2)
    assert (result.baselines[0]["parties"], result.baselines[0]["clients"]["num_clients"]) == (5, 5)


def test_numbers_to_predict_have_no_accuracy() -> None:
    data = arrays(X, X @ np.array([1.0, -1.0, 2.0]))
    result = hanse.run(
        data=data, partition=iid(4), model=least_squares(), algorithm=fed_sgd(lr=0.1), rounds=3,
        baselines=(centralised(), on_site()),
    )  # fmt: skip
    assert set(result.baselines[1]["final"]) == {"loss", "squared_error"}


def test_a_million_clients_are_not_asked_one_by_one() -> None:
    def make(number: int) -> Examples:
        return Examples(X[:5], Y[:5])

    data = generate(1_000_000, make, test=Examples(X, Y), num_classes=2)
    result = hanse.run(data=data, rounds=1, algorithm=fed_avg(fraction=1e-6))
    assert result.clients is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"baselines": ("centralized",)}, "names no baseline; did you mean 'centralised'"),
        ({"baselines": (3,)}, "baselines holds 3; write values, such as"),
        ({"baselines": [centralised()], "algorithm": giant()}, "giant has no step size to use; write one"),
        ({"client_test_fraction": 1.0}, "client_test_fraction is 1.0; write a number"),
        ({"initial": "nowhere.safetensors"}, "no file 'nowhere.safetensors'; name a safetensors file"),
        ({"preprocessing": "tabula"}, "names no preprocessing; did you mean 'tabular'"),
        ({"preprocessing": 3}, "preprocessing is of type int; write a value"),
    ],
)
def test_what_can_not_be_used_is_explained(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        compared(**{"rounds": 1, **given})


def test_settings_say_them_and_bring_them_back() -> None:
    sets = ["baselines=['centralised', {name = 'on_site', parties = 3}]", "client_test_fraction=0.1"]
    experiment = hanse.read(None, [*sets, "preprocessing.name=tabular", "preprocessing.min_count=2"])
    assert experiment.baselines == (centralised(), on_site(parties=3))
    assert hanse.Experiment.from_settings(experiment.settings()) == experiment
    assert str(experiment).endswith("tabular(min_count=2) · beside centralised and on_site(parties=3)")


def test_a_table_is_prepared_by_itself(tmp_path: Path) -> None:
    rows = [
        f"{30 + i % 40},{'cook' if i % 3 else 'clerk'},{'h' + str(i % 4)},{'yn'[i % 2]}" for i in range(80)
    ]
    (tmp_path / "a.csv").write_text("\n".join(["age,job,where,sick", *rows]) + "\n")
    data = csv(str(tmp_path / "a.csv"), label="sick", key="where")
    result = hanse.run(data=data, partition=hanse.data.by_key(), rounds=2, algorithm=fed_sgd())
    assert result.params["weights"].shape == (3, 2)  # age, job=clerk, job=cook
    assert result.data is not None
    assert result.data["names"] == ["h0", "h1", "h2", "h3"]


# -- a start that was trained before -----------------------------------------------------------


def test_training_goes_on_from_a_file(tmp_path: Path) -> None:
    first = hanse.run(rounds=5)
    path = tmp_path / "model.safetensors"
    save_file(dict(first.params), path)
    second = hanse.run(rounds=1, initial=path)
    assert first.final is not None
    assert second.records[0].metrics == pytest.approx(first.final.metrics)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"weights": np.zeros((64, 10), np.float32)}, "has no tensor 'bias'"),
        ({"weights": np.zeros((3, 10)), "bias": np.zeros(10)}, r"'weights' has shape \(3, 10\) in .*64, 10"),
        ({"weights": np.zeros((64, 10)), "bias": np.zeros(10), "more": np.zeros(1)}, "holds 'more'"),
        ({"weights": np.full((64, 10), np.nan), "bias": np.zeros(10)}, "'weights' in .* is not finite"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(tmp_path: Path, tensors: dict[str, Any], message: str) -> None:
    save_file(tensors, tmp_path / "other.safetensors")
    with pytest.raises(InvalidInput, match=message):
        hanse.run(data=digits(), rounds=1, initial=tmp_path / "other.safetensors")


def test_a_start_that_is_no_safetensors_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(InvalidInput, match="can't be read as safetensors"):
        hanse.run(rounds=1, initial=tmp_path / "a.txt")


def train_alone(data: Any, **more: Any) -> tuple[Any, list[Any]]:
    """Run on-site training, and return its row and each party's own model."""
    models: list[Any] = []
    common: dict[str, Any] = {"data": data, "model": logistic(), "algorithm": fed_sgd(lr=1.0), "rounds": 5}
    experiment = hanse.Experiment(**common, **more)
    ready = prepare_run(experiment)
    budget = replace(ready.budget(()), passes=5.0, show=lambda name, number, params: models.append(params))
    return on_site().train(budget, lambda: None), models


def make_unequal_parties() -> list[Examples]:
    rng = np.random.default_rng(3)
    parties = []
    for count, sign in ((150, 1), (40, -1), (24, 1)):
        x = rng.normal(size=(count, 3))
        parties.append(Examples(x, (sign * x[:, 0] + 0.3 * rng.normal(size=count) > 0.2).astype(int)))
    return parties


def test_on_site_metrics_count_each_test_row_once_as_federated_ones_do() -> None:
    """scikit-learn is the oracle, on all rows together, each predicted by its own party's model."""
    named = Evaluation(metrics=("f1", "auroc", "log_loss", "confusion_matrix"))
    data = from_clients(make_unequal_parties(), test=None, num_classes=2)
    row, models = train_alone(data, client_test_fraction=0.5, evaluation=named)
    ready = prepare_run(hanse.Experiment(data=data, model=logistic(), client_test_fraction=0.5))
    tests = [ready.population.role(own_test(number)) for number in range(3)]
    y = np.concatenate([one.y for one in tests])
    found = [ready.learner.predict(own, one.x) for own, one in zip(models, tests, strict=True)]
    p = np.concatenate(found)[:, 1].astype(np.float64)
    of_true_class = np.concatenate(found).astype(np.float64)[np.arange(len(y)), y]
    assert row["on"] == OWN_TEST
    assert row["final"]["accuracy"] == pytest.approx(sk.accuracy_score(y, p > 0.5), abs=1e-12)
    assert row["final"]["accuracy"] != pytest.approx(row["clients"]["mean"]["accuracy"], abs=1e-3)
    assert row["final"]["f1"] == pytest.approx(sk.f1_score(y, p > 0.5), abs=1e-12)
    assert row["final"]["log_loss"] == pytest.approx(-np.mean(np.log(of_true_class)), abs=1e-12)
    error = row["final"]["auroc_error"]
    assert abs(row["final"]["auroc"] - sk.roc_auc_score(y, p)) <= error + 1e-12 < 0.01
    assert describe_on_site({"baselines": [row]}).startswith("On-site metrics are of all parties' own test")


def test_on_a_common_test_set_models_weigh_as_their_training_examples() -> None:
    parties = make_unequal_parties()
    test = Examples.join(parties)
    row, models = train_alone(from_clients(parties, test=test, num_classes=2))
    learner = logistic().bind((3,), 2)
    right = [np.mean(learner.predict(own, test.x).argmax(axis=1) == test.y) for own in models]
    assert row["on"] == TEST_SET
    assert row["final"]["accuracy"] == pytest.approx(np.average(right, weights=(150, 40, 24)), abs=1e-6)
    assert "weighted by their training examples" in describe_on_site({"baselines": [row]})
    alone = train_alone(from_clients(parties, test=None, num_classes=2))[0]
    assert alone["on"] == OWN_TRAINING
    assert alone["final"]["accuracy"] == pytest.approx(
        np.average(alone["clients"]["each"]["accuracy"], weights=(150, 40, 24)), abs=1e-12
    )


def test_a_private_run_measures_no_single_party(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for a table nor in vain: what is summed up is shown, but not of one party alone."""

    def refuse(*given: Any) -> Any:
        raise AssertionError("a single client was measured")

    monkeypatch.setattr("hanse.evaluation.baselines.measure_spread", refuse)
    monkeypatch.setattr("hanse.evaluation.baselines.spread_of", refuse)
    data = from_clients(make_unequal_parties(), test=None, num_classes=2)
    ready = prepare_run(hanse.Experiment(
        data=data, model=logistic(), algorithm=fed_sgd(lr=1.0),
        client_test_fraction=0.5,
    ))  # fmt: skip
    budget = replace(ready.budget(()), is_open=False)
    pooled, all_alone, one_alone = (
        baseline.train(budget, lambda: None) for baseline in (centralised(), on_site(), on_site(parties=1))
    )
    assert pooled["clients"] is all_alone["clients"] is one_alone["clients"] is None
    assert 0 < all_alone["final"]["accuracy"] <= 1
    assert one_alone["final"] == {}
