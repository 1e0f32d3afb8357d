"""An experiment checks itself, alone and with its data."""

from typing import Any

import numpy as np
import pytest

from hanse.algorithms import fed_avg, fed_buff, fed_sgd, giant, scaffold
from hanse.config.experiment import Experiment
from hanse.config.reading import read
from hanse.core import CompositionError, Examples, InvalidInput, Stop
from hanse.data import arrays, digits, dirichlet, from_clients, generate, iid
from hanse.evaluation import Evaluation, auroc, sensitivity
from hanse.learners import least_squares, logistic, softmax
from hanse.runs import prepare_run
from hanse.transforms import clip, quantize, random_mask

X = np.random.default_rng(0).normal(size=(60, 3))
Y = (X[:, 0] > 0).astype(int)
CLIENTS = from_clients([Examples(X, Y), Examples(X[:5], Y[:5])])


def test_it_says_itself_in_one_line() -> None:
    line = "fed_avg · softmax · digits over dirichlet(100) · seed 0"
    assert str(Experiment()) == line
    assert str(Experiment(stop=Stop(target=0.9))) == f"{line} · Stop(target=0.9)"
    mine = Experiment(data=CLIENTS, model=logistic(1e-3), seed=4)
    assert str(mine) == "fed_avg · logistic(l2=0.001) · FederatedData · seed 4"


def test_data_that_a_file_can_not_describe_are_named() -> None:
    assert Experiment(data=arrays(X, Y)).settings()["data"] == {"name": "arrays", "in_python": True}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"algorithm": 3},
            r"algorithm is of type int; write a value, such as algorithm=fed_avg\(\)",
        ),
        ({"algorithm": fed_avg}, r"algorithm is the class fed_avg; write a value: fed_avg\(\.\.\.\)"),
        ({"model": None}, r"model is of type NoneType; write a value, such as model=softmax\(\)"),
        ({"data": X}, r"data is of type ndarray; write a value, such as data=digits\(\)"),
        ({"rounds": 2.5}, "rounds is 2.5; write a whole number, such as 100"),
        ({"rounds": 0}, "rounds is 0; write at least 1"),
        ({"evaluate_every": -1}, "evaluate_every is -1; write at least 0"),
        ({"seed": True}, "seed is True; write a whole number, such as 0"),
        (
            {"evaluate_every": 0, "stop": Stop(patience=2)},
            "the model is never measured with evaluate_every = 0",
        ),
        ({"data": CLIENTS, "partition": iid(2)}, "is divided among clients already; leave out partition"),
    ],
)
def test_what_is_no_experiment_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Experiment(**given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"partition": iid(2000)}, "1438 examples can't give each of 2000 clients 1; write num_clients=1438"),
        ({"partition": dirichlet(100, 0.5, min_examples=20)}, "can't give each of 100 clients 20"),
        ({"model": logistic()}, r"logistic\(\) separates 2 classes, the labels have 10; write softmax\(\)"),
        ({"data": arrays(X, X[:, 0])}, "dirichlet divides classes, and the labels are float64"),
        ({"data": arrays(X, X[:, 0]), "partition": iid(2)}, r"softmax\(\) separates classes"),
        (
            {
                "data": arrays(X, X[:, 0]),
                "partition": iid(2),
                "model": least_squares(),
                "stop": Stop(target=0.9),
            },
            "which least_squares does not measure; write one of loss",
        ),
        ({"model": least_squares()}, r"the labels are classes \(0 to 9\); write softmax\(\)"),
        ({"algorithm": fed_avg(fraction=1.0), "stop": Stop("acuracy", 0.9)}, "write one of loss, accuracy"),
        (
            {"data": generate(10_000, lambda number: Examples(X, Y), num_classes=2)},
            "have no test set, and 10000 clients are too many .* evaluate_every = 0",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        prepare_run(Experiment(**given))


@pytest.mark.parametrize(
    "algorithm",
    [
        fed_avg(uplink=(quantize(2), clip(1.0))),
        fed_sgd(uplink=(quantize(2), clip(1.0))),
        fed_buff(uplink=(quantize(2), clip(1.0))),
        scaffold(uplink=(quantize(2), clip(1.0))),
        fed_avg(uplink=(clip(1.0), random_mask(0.5))),
    ],
)
def test_what_can_not_be_composed_is_refused_before_anything_runs(algorithm: Any) -> None:
    with pytest.raises(CompositionError, match="first"):
        prepare_run(Experiment(algorithm=algorithm))


@pytest.mark.parametrize("algorithm", [fed_avg(), fed_sgd(), fed_buff(), scaffold(), giant()])
def test_what_fits_is_prepared(algorithm: Any) -> None:
    ready = prepare_run(Experiment(algorithm=algorithm))
    assert ready.population.num_clients == 100
    assert ready.begin().round == 0


def test_a_model_without_accuracy_is_watched_by_its_loss() -> None:
    ready = prepare_run(Experiment(data=arrays(X, X[:, 0]), partition=iid(3), model=least_squares()))
    assert ready.stop == Stop("loss")
    assert prepare_run(Experiment(model=softmax())).stop == Stop()


def test_the_seed_decides_who_holds_what() -> None:
    def clients(seed: int) -> str:
        return prepare_run(Experiment(data=digits(), seed=seed)).population.fingerprint

    assert clients(1) == clients(1) != clients(2)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("auroc", "auroc"),
        (" auroc( ) ", "auroc"),
        ("auroc(50)", "auroc(bins=50)"),
        ("sensitivity(positive=1, threshold=0.3)", "sensitivity(threshold=0.3, positive=1)"),
        ("sensitivity(threshold=1)", "sensitivity(threshold=1.0)"),
        ("accuracy()", "accuracy"),
    ],
)
def test_a_metric_is_text_in_any_form_and_has_one_name(text: str, key: str) -> None:
    """In Python, in a file and in what stops a run, also on validation examples."""
    in_python = Experiment(evaluation=Evaluation(metrics=(text, text)), stop=Stop(f"validation_{text}"))
    in_file = read(None, [f"evaluation.metrics=['{text}', '{key}']", f"stop.metric='validation_{text}'"])
    for experiment in (in_python, in_file):
        assert [one.key for one in experiment.evaluation.named] == [key]
        assert experiment.stop.metric == f"validation_{key}"
        assert Experiment.from_settings(experiment.settings()) == experiment
    mixed = Experiment(evaluation=Evaluation(metrics=(auroc(), sensitivity(threshold=1), "auroc()")))
    assert [one.key for one in mixed.evaluation.named] == ["auroc", "sensitivity(threshold=1.0)"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("aurok", "names no metric; did you mean 'auroc'?"),
        ("sensitivty(threshold=0.3)", "did you mean 'sensitivity'?"),
        ("xyz", "known: accuracy, auroc"),
        ("sensitivity(thresh=0.3)", "thresh is unknown; "),
        ("sensitivity(threshold=", "can't be read"),
        ("sensitivity(0.1, 1, 2)", "takes 2 arguments without a name, and 3 are given"),
        ("sensitivity(0.3, threshold=0.4)", "can't be given here"),
        ("auroc(bins=open('x'))", "bins"),
        ("sensitivity(threshold=3)", "threshold is 3.0; write a probability"),
        ("sensitivity(threshold=True)", "write a number"),
        ("sensitivity(positive=1.5)", "write a whole number"),
        ("auroc(bins=0)", "bins is 0"),
        ("auroc(bins=2.5)", "write a whole number"),
        ("auroc(bins=1000000000000)", "from 1 to 100,000"),
    ],
)
def test_a_metric_that_can_not_be_used_is_refused_in_the_form_of_all_settings(text: str, said: str) -> None:
    with pytest.raises(InvalidInput) as in_python:
        Experiment(evaluation=Evaluation(metrics=("f1", text)))
    with pytest.raises(InvalidInput) as in_file:
        read(None, [f'evaluation.metrics=["f1", "{text}"]'])
    assert "evaluation.metrics[1]" in str(in_python.value)
    assert str(in_file.value).startswith("--set evaluation.metrics[1]")
    assert said in str(in_python.value)
    if text.partition("(")[0] in ("auroc", "sensitivity"):
        with pytest.raises(InvalidInput, match=r"stop\.metric"):
            Experiment(stop=Stop(text))
    else:
        assert Experiment(stop=Stop(text)).stop.metric == text, "a model may measure it"
