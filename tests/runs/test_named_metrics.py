"""Metrics that settings name: in records, stops, baselines and results, exact at one party and from sums."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as sk
from typer.testing import CliRunner

import hanse
from hanse.algorithms import fed_avg
from hanse.cli.commands import app
from hanse.core import Array, Examples, InvalidInput, Key, Stop
from hanse.core.exchange import drive
from hanse.data import arrays, from_clients, iid, own_test
from hanse.evaluation import Evaluation, auroc, centralised, f1, make_evaluation, on_site
from hanse.learners import cox, least_squares, linear_svm, logistic, softmax
from hanse.runs import prepare_run
from hanse.runs.preparation import Turnout, compare_run
from hanse.store import Runs
from hanse.transforms import clip


def rows(n: int = 400, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4)).astype(np.float32)
    return x, (x @ np.array([1.0, -1, 0.5, 0]) + rng.normal(size=n) > 0.7).astype(int)


X, Y = rows()
TESTED = arrays(X, Y, num_classes=2, test_fraction=0.25)
UNTESTED = arrays(X, Y, num_classes=2, test_fraction=0.0)
NAMED = ("auroc", "average_precision", "f1", "sensitivity(threshold=0.3)", "log_loss", "confusion_matrix")
COMMON: dict[str, Any] = {
    "partition": iid(5),
    "model": logistic(),
    "algorithm": fed_avg(0.3, fraction=1.0, uplink=(clip(5.0),)),
    "rounds": 3,
    "evaluation": Evaluation(metrics=NAMED),
}
AT_CLIENTS: dict[str, Any] = {**COMMON, "data": UNTESTED, "client_test_fraction": 0.3}


def run_it(**settings: Any) -> Any:
    return hanse.run(**settings)


def pool_tests(experiment: hanse.Experiment, params: Any) -> tuple[Array, Array]:
    """Return the labels of all clients' own tests, and the probabilities of class 1."""
    ready = prepare_run(experiment)
    tests = [ready.population.role(own_test(n)) for n in range(5)]
    found = [ready.learner.predict(params, data.x)[:, 1] for data in tests]
    return np.concatenate([data.y for data in tests]), np.concatenate(found).astype(np.float64)


def test_records_hold_them_exactly_where_the_server_has_the_test_set() -> None:
    run, plain = (
        run_it(**COMMON, data=TESTED),
        run_it(**{**COMMON, "evaluation": Evaluation()}, data=TESTED),
    )
    assert run.params_sha256 == plain.params_sha256
    measured = list(run.final.metrics)
    assert measured == ["loss", "accuracy", *NAMED[:-1]], "no error, since nothing is binned, and no table"
    for name in ("accuracy", "loss"):
        assert [r.metrics[name] for r in run.records] == [r.metrics[name] for r in plain.records]
    test: Any = prepare_run(hanse.Experiment(**COMMON, data=TESTED)).population.test
    learner = COMMON["model"].bind((4,), 2)
    p = learner.predict(run.params, test.x)[:, 1].astype(np.float64)
    assert run.final.metrics["auroc"] == pytest.approx(sk.roc_auc_score(test.y, p), abs=1e-12)
    assert run.final.metrics["f1"] == pytest.approx(sk.f1_score(test.y, p > 0.5), abs=1e-12)
    assert run.higher_is_better == ("accuracy", "auroc", "average_precision", "f1", NAMED[3])
    told = run.to_json()["assessment"]
    assert told["metrics"]["auroc"]["value"] == run.final.metrics["auroc"]
    assert told["metrics"]["accuracy"]["constant"] == max(np.mean(test.y), 1 - np.mean(test.y))
    np.testing.assert_array_equal(told["confusion_matrix"], sk.confusion_matrix(test.y, p > 0.5))
    assert "intervals" not in told, "there are no parties to draw from"


@pytest.mark.parametrize("secure", [False, True])
def test_clients_send_sums_and_the_error_is_stated(secure: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hanse.evaluation.assessment.FEWEST_PARTIES", 2)
    run = run_it(**AT_CLIENTS, secure=secure)
    y, p = pool_tests(hanse.Experiment(**AT_CLIENTS), run.params)
    found = run.final.metrics
    for name, truth in (
        ("auroc", sk.roc_auc_score(y, p)),
        ("average_precision", sk.average_precision_score(y, p)),
    ):
        assert 0 <= found[f"{name}_error"] < 0.01
        assert abs(found[name] - truth) <= found[f"{name}_error"] + 1e-12
    assert found["f1"] == pytest.approx(sk.f1_score(y, p > 0.5), abs=1e-12)
    assert found[NAMED[3]] == pytest.approx(sk.recall_score(y, p >= 0.3), abs=1e-12)
    assert found["log_loss"] == pytest.approx(sk.log_loss(y, p), abs=1e-7)
    told = run.assessment
    assert (told["num_parties"], told["num_examples"], told["computed"]) == (
        5,
        len(y),
        "from sums over parties",
    )
    assert told["metrics"]["auroc"]["value"] == pytest.approx(found["auroc"], abs=1e-12)
    assert told["metrics"]["auroc"]["error"] == pytest.approx(found["auroc_error"], abs=1e-9)
    assert told["confusion_matrix"] == sk.confusion_matrix(y, p > 0.5).tolist()
    for one in told["metrics"].values():
        assert one["low"] <= one["value"] <= one["high"]
        assert one["low"] < one["high"]


def test_intervals_are_percentiles_over_parties(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of parties that are all alike, no draw differs; the seed decides the draws. Few have no interval."""
    assert "intervals" not in run_it(**AT_CLIENTS).assessment
    monkeypatch.setattr("hanse.evaluation.assessment.FEWEST_PARTIES", 2)
    alike = from_clients([Examples(*rows(60))] * 4, test=None, num_classes=2)
    common = {**COMMON, "data": alike, "partition": None}
    told = run_it(**common).assessment["metrics"]["f1"]
    assert told["low"] == pytest.approx(told["value"], abs=1e-12)
    assert told["high"] == pytest.approx(told["value"], abs=1e-12)
    one, two, other = (
        run_it(**AT_CLIENTS, initial=None, **more).assessment["metrics"]["log_loss"]
        for more in ({}, {}, {"seed": 1})
    )
    assert one == two
    assert one != other
    none = run_it(**{**AT_CLIENTS, "evaluation": Evaluation(metrics=("f1",), resamples=0)})
    assert "low" not in none.assessment["metrics"]["f1"]


def test_intervals_are_those_of_a_plain_loop_over_drawn_parties(monkeypatch: pytest.MonkeyPatch) -> None:
    """scikit-learn measures the pooled rows of the parties that are drawn, some of them several times."""
    monkeypatch.setattr("hanse.evaluation.assessment.FEWEST_PARTIES", 5)
    named = Evaluation(metrics=("f1", "log_loss", "brier"), resamples=40)
    run = run_it(**{**AT_CLIENTS, "evaluation": named})
    ready = prepare_run(hanse.Experiment(**AT_CLIENTS))
    tests = [ready.population.role(own_test(number)) for number in range(5)]
    found = [ready.learner.predict(run.params, one.x).astype(np.float64) for one in tests]
    rng = ready.keys.public.fold_in("intervals").rng()
    drawn: dict[str, list[float]] = {"f1": [], "log_loss": [], "brier": []}
    for _ in range(40):
        parties = rng.integers(0, 5, 5)
        y = np.concatenate([tests[number].y for number in parties])
        p = np.concatenate([found[number] for number in parties])
        drawn["f1"].append(sk.f1_score(y, p[:, 1] > p[:, 0]))
        drawn["log_loss"].append(-np.mean(np.log(p[np.arange(len(y)), y])))
        drawn["brier"].append(sk.brier_score_loss(y, p[:, 1]))
    for name, values in drawn.items():
        one = run.assessment["metrics"][name]
        assert (one["low"], one["high"]) == pytest.approx(
            tuple(np.quantile(values, [0.025, 0.975])), abs=1e-12
        )


@pytest.mark.parametrize(
    ("metric", "is_higher"), [("auroc", True), ("brier", False), ("sensitivity(threshold=0.4)", True)]
)
def test_a_run_stops_by_any_metric_in_its_direction(metric: str, is_higher: bool) -> None:
    common = {**COMMON, "data": TESTED, "evaluation": Evaluation(), "rounds": 6}
    run = run_it(**common, stop=Stop(metric))
    measured = [record.metrics[metric] for record in run.records]
    assert run.best.metrics[metric] == (max(measured) if is_higher else min(measured))
    assert (metric in run.higher_is_better) == is_higher
    middle = sorted(measured)[3]
    reached = run_it(**common, stop=Stop(metric, target=middle))
    assert reached.rounds == next(
        i for i, one in enumerate(measured) if (one >= middle if is_higher else one <= middle)
    )


def test_a_run_stops_by_a_metric_however_its_arguments_are_ordered() -> None:
    named = Evaluation(metrics=("sensitivity(threshold=0.4, positive=1)", "auroc"))
    common = {**COMMON, "data": TESTED, "evaluation": named}
    runs = [run_it(**common, stop=Stop(text, target=0.0)) for text in (
        "sensitivity(positive=1, threshold=0.4)", "auroc( )")]  # fmt: skip
    keys = ["sensitivity(threshold=0.4, positive=1)", "auroc"]
    assert [run.reason for run in runs] == [f"{key} reached 0" for key in keys]
    assert all(list(run.final.metrics) == ["loss", "accuracy", *keys] for run in runs), "measured once"


def test_a_run_stops_by_a_metric_on_the_validation_examples() -> None:
    data = arrays(X, Y, num_classes=2, test_fraction=0.2, validation_fraction=0.2)
    run = run_it(**COMMON, data=data, stop=Stop("auroc", target=0.8))
    assert run.reason == "validation_auroc reached 0.8"
    assert run.records[0].metrics["validation_auroc"] < 0.8 <= run.final.metrics["validation_auroc"]
    assert "validation_auroc" in run.higher_is_better


def test_a_metric_is_undefined_where_a_class_is_absent_and_never_best(tmp_path: Path) -> None:
    one_class = Examples(X[:50], np.zeros(50, int))
    data = from_clients([Examples(*rows(60, seed)) for seed in range(3)], test=one_class, num_classes=2)
    store = tmp_path / "store.db"
    run = run_it(**{**COMMON, "data": data, "partition": None}, stop=Stop("auroc", patience=1), store=store)
    assert run.rounds == 3, "what is undefined is not worse"
    assert run.best is None
    assert all(np.isnan(record.metrics["auroc"]) for record in run.records)
    assert np.isnan(Runs(store).records(run.run)[-1].metrics["auroc"])
    plain = json.loads(json.dumps(run.to_json(), allow_nan=False))
    assert plain["final"]["auroc"] is None
    assert plain["assessment"]["metrics"]["auroc"]["value"] is None
    assert plain["assessment"]["metrics"]["accuracy"]["constant"] == 1.0
    shown = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["show", run.run, "--store", str(store)])
    assert shown.exit_code == 0, shown.output
    assert shown.output.count("undefined") > len(run.records), "in each round, and at the end"
    told = next(line.split() for line in shown.output.splitlines() if line.endswith("higher"))
    assert (told[0], told[2]) == ("accuracy", "1.0000")


def test_a_party_without_a_class_counts_in_sums_and_not_in_means() -> None:
    parties = [Examples(*rows(80, seed)) for seed in range(3)]
    parties.append(Examples(X[:40], np.zeros(40, int)))
    data = from_clients(parties, test=None, num_classes=2)
    run = run_it(**{**COMMON, "data": data, "partition": None})
    assert run.clients["each"]["auroc"][3] is None
    assert run.clients["each"]["log_loss"][3] > 0
    assert run.clients["mean"]["auroc"] == pytest.approx(np.mean(run.clients["each"]["auroc"][:3]))
    assert run.final.metrics["auroc"] > 0.5


def test_baselines_measure_them() -> None:
    run = run_it(**COMMON, data=TESTED, baselines=(centralised(), on_site()), stop=Stop("auroc", target=0.7))
    pooled, alone = run.baselines
    assert pooled["final"]["auroc"] > 0.7
    assert pooled["epochs_to_target"] == next(p["epoch"] for p in pooled["curve"] if p["auroc"] >= 0.7)
    assert 0.5 < alone["final"]["auroc"] <= 1
    assert set(alone["clients"]["mean"]) >= {"auroc", "f1", "log_loss"}


def test_models_of_numbers_risks_scores_and_many_classes_have_theirs() -> None:
    rng = np.random.default_rng(1)
    y = X @ np.array([1.0, 2.0, 0, 0]) + 5
    numbers = {**COMMON, "model": least_squares(), "evaluation": Evaluation()}
    told = run_it(**numbers, data=arrays(X, y)).assessment["metrics"]
    assert list(told) == ["rmse", "mae", "r2"]
    assert told["r2"]["constant"] == pytest.approx(0.0, abs=1e-12)
    assert told["mae"]["value"] < told["mae"]["constant"]
    sums = run_it(**{**AT_CLIENTS, **numbers, "data": arrays(X, y, test_fraction=0.0)}).assessment
    assert sums["metrics"]["rmse"]["value"] < sums["metrics"]["rmse"]["constant"]
    assert sums["metrics"]["mae"]["constant"] is None
    labels = np.column_stack([np.exp(-X[:, 0] + rng.normal(size=len(X))), rng.integers(0, 2, len(X))])
    risks = run_it(**{**numbers, "model": cox()}, data=arrays(X, labels)).assessment["metrics"]
    assert risks["concordance"]["value"] > 0.6
    assert risks["concordance"]["constant"] == 0.5
    svm = run_it(**{**AT_CLIENTS, "model": linear_svm(), "evaluation": Evaluation(metrics=("auroc",))})
    assert 0.7 < svm.final.metrics["auroc"] <= 1
    many = run_it(rounds=2, evaluation=Evaluation(metrics=(auroc(), "f1")))
    assert 0.8 < many.final.metrics["auroc"] < 1
    assert many.assessment["metrics"]["auroc"]["constant"] == 0.5


def test_nothing_is_added_to_records_or_messages_where_nothing_is_named() -> None:
    run = run_it(rounds=1)
    assert set(run.final.metrics) == {"accuracy", "loss"}
    assert "evaluation" not in hanse.Experiment().settings()
    told = run.assessment["metrics"]
    assert told["accuracy"]["value"] == run.final.metrics["accuracy"]
    assert told["accuracy"]["constant"] < 0.2 < told["accuracy"]["value"]
    assert run_it(rounds=1, evaluate_every=0).assessment is None
    at_clients = run_it(**{**AT_CLIENTS, "evaluation": Evaluation()})
    assert set(at_clients.final.metrics) == {"accuracy", "loss"}
    assert "low" not in at_clients.assessment["metrics"]["auroc"]


def test_settings_say_them(tmp_path: Path) -> None:
    file = tmp_path / "e.toml"
    file.write_text(
        'rounds = 1\n[stop]\nmetric = "brier"\n[evaluation]\nresamples = 10\n'
        'metrics = ["auroc", "sensitivity(threshold=0.3, positive=4)", {name = "auroc", bins = 50}, "f1"]\n'
    )
    read = hanse.read(file)
    keys = ["auroc", "sensitivity(threshold=0.3, positive=4)", "auroc(bins=50)", "f1"]
    assert [one.key for one in read.evaluation.named] == keys
    assert hanse.Experiment.from_settings(read.settings()) == read
    store = tmp_path / "store.db"
    run: Any = hanse.perform(read, store=store)
    assert list(run.final.metrics) == ["loss", "accuracy", *keys, "brier"]
    kept = hanse.Experiment.from_settings(Runs(store).info(run.run).settings["experiment"])
    assert [one.key for one in kept.evaluation.named] == [*keys, "brier"], "what stops it is kept, too"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"evaluation": Evaluation(metrics=("rmse",))}, "rmse is computed from numbers, and the model"),
        ({"evaluation": Evaluation(metrics=("sensitivity(positive=2)",))}, "the classes are 0 to 1"),
        (
            {"model": softmax(), "evaluation": Evaluation(), "stop": Stop("confusion_matrix")},
            "a table and no",
        ),
        ({"evaluation": Evaluation(), "stop": Stop("aurok")}, "or did you mean auroc"),
        ({"evaluation": "auroc"}, r"write a value, such as evaluation=Evaluation\(metrics="),
    ],
)
def test_what_does_not_suit_is_refused(changes: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        run_it(**{**COMMON, **changes}, data=TESTED)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('metrics = ["aurocc"]', "did you mean 'auroc'"),
        ('metrics = "auroc"', r"write a list: \[...\]"),
        ("resamples = -1", "at least 0"),
        ('metric = ["auroc"]', "did you mean evaluation.metrics"),
    ],
)
def test_a_file_that_is_wrong_is_told_how_to_be_right(written: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "e.toml"
    file.write_text(f"[evaluation]\n{written}\n")
    with pytest.raises(InvalidInput, match=said):
        hanse.read(file)


@pytest.mark.parametrize("data", [TESTED, UNTESTED], ids=["the server's", "each client's"])
@pytest.mark.parametrize("named", [(), NAMED], ids=["by default", "named"])
def test_test_rows_are_predicted_once_after_training(
    data: Any, named: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the spread, the assessment, each party's row and the comparison with a guess."""
    held = {} if data is TESTED else {"client_test_fraction": 0.3}
    ready = prepare_run(
        hanse.Experiment(**{**COMMON, "evaluation": Evaluation(metrics=named)}, data=data, **held)
    )
    people, learner = ready.population, type(ready.learner)
    tests = people.test or Examples.join(people.role(own_test(number)) for number in range(5))
    seen: list[Array] = []
    predict = learner.predict

    def watch(self: Any, params: Any, x: Array) -> Array:
        seen.append(np.asarray(x))
        return predict(self, params, x)

    def compare() -> dict[str, Any]:
        return compare_run(ready, ready.start(), (), Turnout())

    monkeypatch.setattr(learner, "predict", watch)
    once = compare()
    rows = [row.tobytes() for x in seen if len(x) > 1 for row in x]  # single ones are tried for their shape
    asked = [row.tobytes() for row in np.asarray(tests.x)]
    assert [rows.count(row) for row in asked] == [1] * len(asked)
    monkeypatch.setattr("hanse.runs.preparation.assessing.MAX_PREDICTIONS", 0)
    again = compare()
    del again["assessment"], once["assessment"]
    assert again == once, "what is predicted before and what is predicted on the spot are the same"


def test_a_program_of_ones_own_measures_them() -> None:
    ready = prepare_run(hanse.Experiment(**AT_CLIENTS))
    kept: list[Any] = []
    measure = make_evaluation(ready.learner, ready.measured_at, (auroc(), f1()), width=2, keep=kept)
    found = drive(measure(ready.start(), Key.from_seed(3)), ready.runtime())
    assert found["auroc"] == 0.5, "all predictions are equal"
    assert found["auroc_error"] == pytest.approx(0.5), "and lie in one bin"
    assert kept[0].constant == 0.5
