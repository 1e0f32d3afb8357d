"""Weights of classes: each example's loss times the weight of its class, and the mean over examples."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hanse.config import build, to_plain
from hanse.core import Examples, InvalidInput, Key, LocalProblem, Steps, Tensors
from hanse.learners import (
    Model,
    bfloat16,
    char_lstm,
    cnn,
    dual,
    elastic_net,
    jax_engine,
    logistic,
    mlp,
    softmax,
    torch_engine,
)

KEY = Key.from_seed(3)
WEIGHTS = (0.5, 3.0, 1.25)


def problem(n: int = 40, num_classes: int = 3) -> Examples:
    rng = KEY.rng()
    return Examples(rng.normal(size=(n, 5)), rng.integers(num_classes, size=n))


def some(params: Tensors) -> dict[str, Any]:
    rng = KEY.fold_in("params").rng()
    return {name: rng.normal(size=w.shape).astype(w.dtype) for name, w in params.items()}


def test_softmax_is_the_formula() -> None:
    data, learner = problem(), softmax(class_weights=WEIGHTS, dtype="float64").bind((5,), 3)
    params, c = some(learner.init(KEY)), np.array(WEIGHTS)[problem().y]
    scores = data.x @ params["weights"] + params["bias"]
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    losses = -np.log(shares[np.arange(40), data.y])
    assert learner.objective(params, data) == pytest.approx((c * losses).sum() / 40, rel=1e-12)
    assert learner.evaluate(params, data)["loss"] == pytest.approx((c * losses).sum(), rel=1e-12)
    assert learner.evaluate(params, data)["correct"] == (scores.argmax(axis=1) == data.y).sum()
    slopes = c[:, None] * (shares - np.eye(3)[data.y]) / 40
    gradient = learner.gradient(params, data)
    np.testing.assert_allclose(gradient["weights"], data.x.T @ slopes, rtol=1e-10)
    np.testing.assert_allclose(gradient["bias"], slopes.sum(axis=0), rtol=1e-10)
    np.testing.assert_allclose(learner.predict(params, data.x), shares, rtol=1e-12)


def test_logistic_is_the_formula() -> None:
    data, learner = problem(num_classes=2), logistic(class_weights=(0.5, 3.0), dtype="float64").bind((5,), 2)
    params = some(learner.init(KEY))
    scores, c = data.x @ params["weights"] + params["bias"], np.where(data.y == 1, 3.0, 0.5)
    losses = np.log1p(np.exp(np.where(data.y == 1, -1, 1) * scores))
    assert learner.evaluate(params, data) == {
        "loss": pytest.approx(c @ losses),
        "correct": ((scores > 0) == data.y).sum(),
        "count": 40.0,
    }
    slopes = c * (1 / (1 + np.exp(-scores)) - data.y) / 40
    np.testing.assert_allclose(learner.gradient(params, data)["weights"], data.x.T @ slopes, rtol=1e-10)


@pytest.mark.parametrize("engine", [jax_engine(), torch_engine()], ids=lambda engine: engine.module)
@pytest.mark.parametrize("kind", ["mlp", "cnn", "char_lstm"])
def test_networks_are_the_formula(engine: Any, kind: str) -> None:
    """Losses of single examples without weights, times their weights, are the whole truth."""
    pytest.importorskip(engine.module)
    rng, settings = KEY.fold_in(kind).rng(), {"engine": engine, "dtype": "float64"}
    model, x = {
        "mlp": (mlp((4,), **settings), rng.normal(size=(9, 5))),
        "cnn": (cnn((2, 3), kernel=3, hidden=4, **settings), rng.normal(size=(9, 5, 4))),
        "char_lstm": (char_lstm(6, embedding=3, hidden=4, **settings), rng.integers(6, size=(9, 5))),
    }[kind]
    y = np.arange(9) % 3
    plain = model.bind(x.shape[1:], 3)
    learner = replace(model, class_weights=WEIGHTS).bind(x.shape[1:], 3)
    params = some(plain.init(KEY))
    alone = [Examples(x[i : i + 1], y[i : i + 1]) for i in range(9)]
    mean = sum(WEIGHTS[y[i]] * plain.objective(params, one) for i, one in enumerate(alone)) / 9
    data = Examples(x, y)
    assert learner.objective(params, data) == pytest.approx(mean, rel=1e-10)
    assert learner.evaluate(params, data)["correct"] == plain.evaluate(params, data)["correct"]
    gradients = [plain.gradient(params, one) for one in alone]
    for name, found in learner.gradient(params, data).items():
        due = sum(WEIGHTS[y[i]] * gradient[name] for i, gradient in enumerate(gradients)) / 9
        np.testing.assert_allclose(found, due, rtol=1e-8, atol=1e-12)


def test_torch_divides_by_the_weights_of_the_batch() -> None:
    torch = pytest.importorskip("torch")
    data, learner = problem(), mlp((), class_weights=WEIGHTS, dtype="float64").bind((5,), 3)
    params = some(learner.init(KEY))
    scores = torch.tensor(data.x @ params["output.weight"].T + params["output.bias"])
    loss = torch.nn.CrossEntropyLoss(weight=torch.tensor(WEIGHTS, dtype=torch.float64))
    theirs = float(loss(scores, torch.tensor(data.y)))
    total = np.array(WEIGHTS)[data.y].sum()
    assert learner.objective(params, data) == pytest.approx(theirs * total / len(data), rel=1e-10)
    assert learner.objective(params, data) != pytest.approx(theirs, rel=1e-2)


def test_weights_of_one_change_nothing() -> None:
    data, steps = problem(), Steps(0.1, epochs=2, batch_size=7)
    for model in (softmax(), mlp((4,), engine=torch_engine()), mlp((4,))):
        if isinstance(model, mlp):
            pytest.importorskip(model.engine.module)
        plain, learner = (m.bind((5,), 3) for m in (model, replace(model, class_weights=(1, 1, 1))))
        params = plain.init(KEY)
        due = plain.local_sgd(params, LocalProblem(data, steps, KEY))
        for name, update in learner.local_sgd(params, LocalProblem(data, steps, KEY)).items():
            np.testing.assert_allclose(update, due[name], rtol=1e-4, atol=1e-6)


def test_weights_are_exact_where_products_are_rounded() -> None:
    pytest.importorskip("torch")
    weights = (0.30078125 + 2**-12, 1.0, 1.0)  # the first needs more bits than bfloat16 has
    data = replace(problem(), y=np.zeros(40, int))
    updates = []
    for c in (weights, (1.0, 1.0, 1.0)):
        model = mlp((), engine=torch_engine(precision=bfloat16()), class_weights=c)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("hanse.learners.torch.precision.units_for_bfloat16", lambda: True)
            learner = model.bind((5,), 3)
        update = learner.local_sgd(learner.init(KEY), LocalProblem(data, Steps(1.0), KEY))
        updates.append(update["output.bias"])
    np.testing.assert_allclose(updates[0], weights[0] * updates[1], rtol=3e-3)


def test_many_clients_are_weighted_as_one_is() -> None:
    learner = softmax(class_weights=WEIGHTS).bind((5,), 3)
    problems = [LocalProblem(problem(n), Steps(0.1, batch_size=4), KEY.fold_in(n)) for n in (5, 9, 8)]
    params = learner.init(KEY)
    many = learner.local_sgd_many(params, problems)
    assert many is not None
    for i, own in enumerate(problems):
        for name, update in learner.local_sgd(params, own).items():
            np.testing.assert_array_equal(many[name][i], update)


def test_a_rare_class_is_found_more_often() -> None:
    rng = np.random.default_rng(0)
    y = (rng.random(600) < 0.05).astype(int)
    data = Examples(rng.normal(size=(600, 2)) + y[:, None], y)
    recalls = []
    for weights in (None, (1.0, 19.0)):
        learner = logistic(class_weights=weights).bind((2,), 2)
        params = learner.local_sgd(learner.init(KEY), LocalProblem(data, Steps(0.1, epochs=300), KEY))
        recalls.append(learner.predict(params, data.x)[y == 1].argmax(axis=1).mean())
    assert recalls[0] < 0.3
    assert recalls[1] > 0.6


def test_weights_are_written_in_settings() -> None:
    model = softmax(1e-3, class_weights=WEIGHTS)
    assert to_plain(model)["class_weights"] == list(WEIGHTS)
    assert build(Model, to_plain(model), "model") == model
    assert softmax(class_weights=np.array(WEIGHTS)) == softmax(class_weights=WEIGHTS)  # type: ignore[arg-type]


@pytest.mark.parametrize("model", [softmax(0.1), logistic(), mlp((3,)), cnn(), char_lstm()])
def test_settings_of_before_weights_still_load(model: Model) -> None:
    settings = {name: given for name, given in to_plain(model).items() if name != "class_weights"}
    assert build(Model, settings, "model") == model


@pytest.mark.parametrize(
    "model",
    [softmax(class_weights=WEIGHTS), mlp((3,), class_weights=WEIGHTS), cnn(class_weights=WEIGHTS)],
)
@pytest.mark.parametrize("num_classes", [2, 4])
def test_there_is_one_weight_a_class(model: Model, num_classes: int) -> None:
    message = rf"3 numbers, \(0\.5, 3\.0, 1\.25\), for {num_classes} classes; .* 0 to {num_classes - 1}"
    with pytest.raises(InvalidInput, match=message):
        model.bind((8, 8), num_classes)


@pytest.mark.parametrize("weights", [(), (0.0, 0.0), (1.0, -0.1), (1.0, np.inf), (np.nan, 1.0)])
def test_weights_that_are_none(weights: Any) -> None:
    for make in (softmax, mlp):
        with pytest.raises(InvalidInput, match=r"class_weights are .*at least 0 for each class"):
            make(class_weights=weights)


def test_labels_that_are_no_classes_have_no_weights() -> None:
    for model, shape in ((mlp((3,), class_weights=WEIGHTS), (5,)), (char_lstm(class_weights=WEIGHTS), (6,))):
        with pytest.raises(InvalidInput, match=r"the labels are not one class a row; leave them out"):
            model.bind(shape, None)


def test_models_of_models() -> None:
    weighed, data = softmax(class_weights=WEIGHTS, dtype="float64"), problem()
    learner = weighed.bind((5,), 3)
    params = some(learner.init(KEY))
    loss = learner.evaluate(params, data)["loss"]
    assert elastic_net(0.1, weighed).bind((5,), 3).evaluate(params, data)["loss"] == loss
    with pytest.raises(InvalidInput, match=r"no dual is known.*logistic \(without class_weights\)"):
        dual(logistic(0.1, intercept=False, class_weights=(1.0, 2.0))).bind((5,), 2)
