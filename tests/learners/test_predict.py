"""What every learner predicts: it agrees with what `evaluate` measures, row by row."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from learner_cases import CASES, KEY, NUM_EXAMPLES, NUM_FEATURES, Case, TextCase, each

from hanse.core import Array, Examples, InvalidInput, LocalProblem, Steps, Tensors
from hanse.learners import cox, jax_engine, jax_model, objective, torch_engine, torch_module
from hanse.learners.networks import char_lstm


@dataclass(frozen=True)
class SurvivalCase(Case):
    """Labels are times, events and strata."""

    def examples(self, n: int = NUM_EXAMPLES) -> Examples:
        rng = KEY.fold_in("survival", n).rng()
        times = np.ceil(rng.exponential(5, size=n))
        return Examples(rng.normal(size=(n, NUM_FEATURES)), np.column_stack([times, rng.random(n) < 0.7]))


@dataclass(frozen=True)
class SeveralCase(Case):
    """Labels are two numbers a row."""

    def examples(self, n: int = NUM_EXAMPLES) -> Examples:
        rng = KEY.fold_in("several", n).rng()
        return Examples(rng.normal(size=(n, NUM_FEATURES)), rng.normal(size=(n, 2)))


def _value(params: Tensors, x: Array, y: Array) -> float:
    return float(np.abs(x @ params["w"] - y).mean())


def _gradient(params: Tensors, x: Array, y: Array) -> Tensors:
    return {"w": x.T @ np.sign(x @ params["w"] - y) / len(x)}


def _predict(params: Tensors, x: Array) -> Array:
    return np.asarray(x @ params["w"])


def linear_module(num_outputs: int, *, flat: bool = False) -> Any:
    from torch import nn

    def module() -> Any:
        layer = nn.Linear(NUM_FEATURES, num_outputs)
        return (nn.Sequential(layer, nn.Flatten(0)) if flat else layer).double()

    return module


def l1(scores: Any, labels: Any) -> Any:
    return (scores.reshape(labels.shape) - labels).abs().mean()


def binary(scores: Any, labels: Any) -> Any:
    from torch.nn import functional

    scores = scores.reshape(-1)
    return functional.binary_cross_entropy_with_logits(scores, labels.to(scores.dtype))


def cross_entropy(scores: Any, labels: Any) -> Any:
    from torch.nn import functional

    return functional.cross_entropy(scores, labels)


def linear_init(num_outputs: int) -> Any:
    def init(key: Any) -> Any:
        import jax.numpy as jnp

        return {"w": jnp.zeros((NUM_FEATURES, num_outputs)), "b": jnp.zeros(num_outputs)}

    return init


def linear_apply(params: Any, x: Any) -> Any:
    return x @ params["w"] + params["b"]


def flat_apply(params: Any, x: Any) -> Any:
    return linear_apply(params, x).reshape(-1)


def l1_by_row(scores: Any, labels: Any) -> Any:
    return abs(scores.reshape(labels.shape) - labels).reshape(len(labels), -1).mean(1)


def binary_by_row(scores: Any, labels: Any) -> Any:
    import jax

    scores = scores.reshape(-1)
    return jax.nn.softplus(scores) - scores * labels


def cross_entropy_by_row(scores: Any, labels: Any) -> Any:
    import jax

    return -jax.nn.log_softmax(scores)[np.arange(len(labels)), labels]


def own_cases() -> dict[str, Case]:
    def on_torch(module: Any, loss: Any, num_classes: int | None, kind: type[Case] = Case) -> Case:
        return kind(torch_module(module, loss=loss), num_classes, engine="torch")

    def on_jax(num_outputs: int, apply: Any, loss: Any, classes: int | None, kind: type[Case] = Case) -> Case:
        model = jax_model(linear_init(num_outputs), apply, loss=loss, dtype="float64")
        return kind(model, classes, engine="jax")

    return {
        "torch_module, L1": on_torch(linear_module(1, flat=True), l1, None),
        "torch_module, L1, a column": on_torch(linear_module(1), l1, None),
        "torch_module, L1, two numbers": on_torch(linear_module(2), l1, None, SeveralCase),
        "torch_module, own loss of classes": on_torch(linear_module(3), cross_entropy, 3),
        "torch_module, one score": on_torch(linear_module(1), binary, 2),
        "torch_module, one flat score": on_torch(linear_module(1, flat=True), binary, 2),
        "jax_model, L1": on_jax(1, flat_apply, l1_by_row, None),
        "jax_model, L1, a column": on_jax(1, linear_apply, l1_by_row, None),
        "jax_model, L1, two numbers": on_jax(2, linear_apply, l1_by_row, None, SeveralCase),
        "jax_model, own loss of classes": on_jax(3, linear_apply, cross_entropy_by_row, 3),
        "jax_model, one score": on_jax(1, linear_apply, binary_by_row, 2),
        "jax_model, one flat score": on_jax(1, flat_apply, binary_by_row, 2),
    }


def text_cases() -> dict[str, Case]:
    cases: dict[str, Case] = {}
    for on in (jax_engine(), torch_engine()):
        lstm = char_lstm(6, embedding=3, hidden=4, engine=on, dtype="float64")
        cases[f"{on.module} char_lstm of classes"] = TextCase(lstm, 3, engine=on.module)
    return cases


PREDICTORS = CASES | own_cases() | text_cases() | {
    "cox": SurvivalCase(cox(), None),
    "objective": Case(objective({"w": np.zeros(NUM_FEATURES)}, _value, _gradient, predict=_predict), None),
}  # fmt: skip
each_predictor = each(PREDICTORS)
each_classifier = each({name: case for name, case in PREDICTORS.items() if case.num_classes})
each_regression = each(
    {
        name: case
        for name, case in PREDICTORS.items()
        if type(case) is Case and case.num_classes is None and not {"L1", "objective"} & {*name.split(", ")}
    }
)
each_l1 = each({name: case for name, case in PREDICTORS.items() if "L1" in name or name == "objective"})
each_of_reals = each({name: case for name, case in PREDICTORS.items() if not isinstance(case, TextCase)})
each_that_checks = each(
    {
        name: case
        for name, case in PREDICTORS.items()
        if not isinstance(case, TextCase) and name != "objective"  # there the user's function decides
    }
)
each_text = each({name: case for name, case in PREDICTORS.items() if isinstance(case, TextCase)})


def shape_due(case: Case, n: int) -> tuple[int, ...]:
    if case.num_classes:
        return (n, case.num_classes)
    if isinstance(case, TextCase):
        return (n, *case.feature_shape, 6)
    return (n, 2) if isinstance(case, SeveralCase) else (n,)


@each_predictor
@pytest.mark.parametrize("n", [1, 2, NUM_EXAMPLES])
def test_one_prediction_a_row(case: Case, n: int) -> None:
    found = case.learner.predict(case.random("params"), case.examples(n).x)
    assert isinstance(found, np.ndarray)
    assert found.shape == shape_due(case, n)
    assert found.dtype == np.float64
    assert found.flags.writeable
    assert np.isfinite(found).all()


@each_predictor
def test_rows_are_predicted_by_themselves(case: Case) -> None:
    learner, params, x = case.learner, case.random("params"), case.examples().x
    together = learner.predict(params, x)
    order = KEY.fold_in("order").rng().permutation(len(x))
    np.testing.assert_allclose(learner.predict(params, x[order]), together[order], rtol=1e-10, atol=1e-14)
    alone = np.concatenate([learner.predict(params, x[i : i + 1]) for i in range(len(x))])
    np.testing.assert_allclose(alone, together, rtol=1e-10, atol=1e-14)


@each_predictor
def test_more_rows_than_are_computed_at_once(case: Case) -> None:
    learner, params, x = case.learner, case.random("params"), case.examples().x
    many = np.concatenate([x] * 100)  # 2,300 rows
    found = learner.predict(params, many)
    np.testing.assert_allclose(found, np.concatenate([learner.predict(params, x)] * 100), rtol=1e-10)


@each_predictor
def test_nothing_received_is_changed(case: Case) -> None:
    learner, params, x = case.learner, case.random("params"), case.examples().x
    kept, rows = {name: tensor.copy() for name, tensor in params.items()}, x.copy()
    for tensor in (x, *params.values()):
        tensor.flags.writeable = False
    found = learner.predict(params, x)
    found += 1
    np.testing.assert_array_equal(x, rows)
    for name, tensor in params.items():
        np.testing.assert_array_equal(tensor, kept[name])


@each_classifier
def test_the_largest_entry_is_the_class_that_evaluate_counts(case: Case) -> None:
    learner, params, data = case.learner, case.random("params"), case.examples()
    right = (learner.predict(params, data.x).argmax(axis=1) == data.y).sum()
    assert right == learner.evaluate(params, data)["correct"]
    assert 0 < right < len(data)  # else it would show nothing


@each_classifier
def test_probabilities_are_those_of_the_loss(case: Case) -> None:
    learner, params, data = case.learner, case.random("params"), case.examples()
    found = learner.predict(params, data.x)
    if learner.prediction == "scores":
        margins = found[:, 1]
        np.testing.assert_array_equal(found[:, 0], -margins)
        shortfalls = np.maximum(0, 1 - (2 * data.y - 1) * margins)
        smooth = learner.evaluate(params, data)["loss"] == pytest.approx((shortfalls**2).sum() / 2)
        assert smooth or learner.evaluate(params, data)["loss"] == pytest.approx(shortfalls.sum())
        return
    assert learner.prediction == "probabilities"
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-12)
    weights = np.array(getattr(case.model, "class_weights", None) or np.ones(case.num_classes or 0))
    loss = -np.log(found[np.arange(len(data)), data.y]) @ weights[data.y]
    assert learner.evaluate(params, data)["loss"] == pytest.approx(loss, rel=1e-10)


@each(
    {name: case for name, case in PREDICTORS.items() if isinstance(case, TextCase) and not case.num_classes}
)
def test_each_place_of_a_text_has_probabilities(case: Case) -> None:
    learner, params, data = case.learner, case.random("params"), case.examples()
    found = learner.predict(params, data.x)
    assert learner.prediction == "probabilities"
    np.testing.assert_allclose(found.sum(axis=-1), 1, rtol=1e-12)
    true = np.take_along_axis(found, data.y[..., None], -1)[..., 0]
    sums = learner.evaluate(params, data)
    assert sums["loss"] == pytest.approx(-np.log(true).mean(axis=1).sum(), rel=1e-10)
    assert sums["correct"] == pytest.approx((found.argmax(-1) == data.y).mean(axis=1).sum())


@each_regression
def test_numbers_are_those_of_the_loss(case: Case) -> None:
    learner, params, data = case.learner, case.random("params"), case.examples()
    errors = learner.predict(params, data.x) - data.y
    assert learner.prediction == "numbers"
    assert learner.evaluate(params, data)["loss"] == pytest.approx((errors**2).sum() / 2, rel=1e-10)


@each_l1
def test_numbers_of_an_own_loss(case: Case) -> None:
    learner, params, data = case.learner, case.random("params"), case.examples()
    found = learner.predict(params, data.x)
    loss = np.abs(found - data.y).reshape(len(data), -1).mean(axis=1).sum()
    assert learner.evaluate(params, data)["loss"] == pytest.approx(loss, rel=1e-10)
    weights = next(w for name, w in params.items() if "w" in name)
    bias = next((b for name, b in params.items() if "b" in name), 0.0)
    due = data.x @ (weights.T if case.engine == "torch" else weights) + bias
    np.testing.assert_allclose(found, due.reshape(found.shape), rtol=1e-10)


@each({name: case for name, case in PREDICTORS.items() if name.endswith("L1")})
def test_an_own_loss_is_trained_and_predicted(case: Case) -> None:
    learner, x = case.learner, KEY.fold_in("x").rng().normal(size=(200, NUM_FEATURES))
    data, params = Examples(x, x @ np.arange(1.0, NUM_FEATURES + 1) + 3), learner.init(KEY)
    for lr in 2.0 ** -np.arange(1, 26):
        update = learner.local_sgd(params, LocalProblem(data, Steps(lr, num_steps=60), KEY))
        params = {name: params[name] + update[name] for name in params}
    np.testing.assert_allclose(learner.predict(params, data.x), data.y, atol=1e-6)


def test_risks_are_linear() -> None:
    case = PREDICTORS["cox"]
    params, x = case.random("params"), case.examples().x
    assert case.learner.prediction == "risks"
    np.testing.assert_allclose(case.learner.predict(params, x), x @ params["weights"], rtol=1e-12)


# Rows that can't be used


@each_predictor
def test_no_rows_are_refused(case: Case) -> None:
    with pytest.raises(InvalidInput, match=r"hold no rows to predict; give at least 1"):
        case.learner.predict(case.random("params"), case.examples().x[:0])


@each_that_checks
@pytest.mark.parametrize("wrong", [np.nan, -np.inf])
def test_rows_that_are_not_finite_are_named(case: Case, wrong: float) -> None:
    x = case.examples().x
    x.reshape(len(x), -1)[3, 2] = wrong
    with pytest.raises(InvalidInput, match=r"row 3, column 2 \(flattened\) is -?(nan|inf)"):
        case.learner.predict(case.random("params"), x)


@each_that_checks
def test_rows_of_another_width_are_refused(case: Case) -> None:
    with pytest.raises(InvalidInput, match=r"examples of \d+ features"):
        case.learner.predict(case.random("params"), case.examples().x[:, 1:])


@each_text
def test_characters_that_are_unknown_are_named(case: Case) -> None:
    x = case.examples().x
    x[3, 2] = 6
    with pytest.raises(InvalidInput, match="row 3, column 2 is 6; 6 characters"):
        case.learner.predict(case.random("params"), x)


@pytest.mark.parametrize("name", ["torch_module, one score", "jax_model, one score"])
def test_one_score_for_three_classes_is_refused(name: str) -> None:
    case = replace(PREDICTORS[name], num_classes=3)
    pytest.importorskip(case.engine)
    with pytest.raises(InvalidInput, match=r"for 23 rows have shape \(23, 2\); \(23, 3\) is needed"):
        case.learner.predict(case.random("params"), case.examples().x)


def test_predictions_of_an_objective_are_counted() -> None:
    params = {"w": np.zeros(NUM_FEATURES)}
    learner = objective(params, _value, _gradient, predict=lambda w, x: np.zeros(3)).bind((5,), None)
    with pytest.raises(InvalidInput, match=r"for 2 rows have shape \(3,\); \(2,\) is needed"):
        learner.predict(params, np.ones((2, 5)))
    silent = objective(params, _value, _gradient).bind((5,), None)
    with pytest.raises(InvalidInput, match=r"objective\(start, value, gradient, predict=\.\.\.\)"):
        silent.predict(params, np.ones((2, 5)))
