"""What every learner must do, whatever its engine. A new one adds its cases to `learner_cases`."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from learner_cases import CASES, KEY, NUM_EXAMPLES, Case, each

from hanse.core import (
    Array,
    Examples,
    InvalidInput,
    Key,
    LocalProblem,
    Space,
    StepRule,
    Steps,
    Tensors,
    adam_rule,
    adamw_rule,
    dot,
    l2_norm,
    nesterov_rule,
    sgd_rule,
    tree_map,
)
from hanse.core.exchange import Everything, frozen

each_case = each(CASES)
each_case_of_reals = each({name: case for name, case in CASES.items() if type(case) is Case})
quick_cases = each({name: case for name, case in CASES.items() if name not in ("jax cnn", "jax char_lstm")})
"""Without those that take long to compile: rules are the same code for all models."""
each_classifier = each({name: case for name, case in CASES.items() if case.num_classes})


def assert_same(a: Tensors, b: Tensors, rtol: float) -> None:
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=rtol, atol=rtol, err_msg=name)


def assert_identical(a: Tensors, b: Tensors) -> None:
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def moved(params: Tensors, direction: Tensors, step: float) -> Tensors:
    return tree_map(lambda w, d: np.asarray(w + step * d), params, direction)


def assert_tensors_like(tensors: Tensors, params: Tensors) -> None:
    assert tensors.keys() == params.keys()
    for name, tensor in tensors.items():
        assert isinstance(tensor, np.ndarray), name
        assert (tensor.shape, tensor.dtype) == (params[name].shape, params[name].dtype), name


# The objective and its derivatives


@each_case
def test_init_is_reproducible_and_finite(case: Case) -> None:
    first, again = case.learner.init(KEY), case.learner.init(KEY)
    assert_identical(first, again)
    assert all(np.isfinite(value).all() for value in first.values())


@each_case
def test_everything_has_the_shapes_of_the_parameters(case: Case) -> None:
    learner, data, params = case.learner, case.examples(), case.random("params")
    assert_tensors_like(params, learner.init(KEY))
    assert_tensors_like(learner.gradient(params, data), params)
    assert_tensors_like(learner.hessian_vector(params, data, params), params)
    assert_tensors_like(learner.local_sgd(params, LocalProblem(data, Steps(0.1, batch_size=4), KEY)), params)


@each_case
def test_gradient_is_the_slope_of_the_objective(case: Case) -> None:
    learner, data, params, step = case.learner, case.examples(), case.random("params"), 1e-5
    gradient = learner.gradient(params, data)
    for i in range(3):
        direction = case.random(f"direction {i}")
        ahead = learner.objective(moved(params, direction, step), data)
        behind = learner.objective(moved(params, direction, -step), data)
        assert dot(gradient, direction) == pytest.approx((ahead - behind) / (2 * step), rel=1e-6, abs=1e-8)


@each_case
def test_hessian_vector_is_the_slope_of_the_gradient(case: Case) -> None:
    learner, data, params, step = case.learner, case.examples(), case.random("params"), 1e-5
    vector = case.random("vector")
    ahead = learner.gradient(moved(params, vector, step), data)
    behind = learner.gradient(moved(params, vector, -step), data)
    gradient = tree_map(lambda a, b: (a - b) / (2 * step), ahead, behind)
    assert_same(learner.hessian_vector(params, data, vector), gradient, 1e-7)


@each_case
def test_the_hessian_is_symmetric(case: Case) -> None:
    learner, data, params = case.learner, case.examples(), case.random("params")
    u, v = case.random("u"), case.random("v")
    left = dot(u, learner.hessian_vector(params, data, v))
    assert left == pytest.approx(dot(v, learner.hessian_vector(params, data, u)), rel=case.same)


@each_case
def test_the_mean_of_objectives_by_examples_is_that_of_the_pooled_data(case: Case) -> None:
    learner, data, params = case.learner, case.examples(), case.random("params")
    parts = [data.take(np.arange(7)), data.take(np.arange(7, NUM_EXAMPLES))]
    mean = sum(len(part) * learner.objective(params, part) for part in parts) / len(data)
    assert mean == pytest.approx(learner.objective(params, data), rel=case.same)
    gradients = [tree_map(lambda g, n=len(part): n * g, learner.gradient(params, part)) for part in parts]
    pooled = tree_map(lambda a, b: (a + b) / len(data), *gradients)
    assert_same(pooled, learner.gradient(params, data), case.same)


@each_case
def test_evaluate_sums_over_examples(case: Case) -> None:
    learner, data, params = case.learner, case.examples(), case.random("params")
    total = learner.evaluate(params, data)
    assert learner.metrics[0] == "loss"
    assert set(total) == {*learner.metrics, "count"}
    assert all(type(value) is float for value in total.values())
    assert total["count"] == len(data)
    parts = [learner.evaluate(params, data.take(rows)) for rows in np.array_split(np.arange(len(data)), 3)]
    assert {name: sum(part[name] for part in parts) for name in total} == pytest.approx(total, rel=case.same)


# Clipped gradients of single examples


def clip_in_a_loop(learner: Any, params: Tensors, data: Examples, max_norm: float) -> Tensors:
    """The definition, in as many words."""
    total = tree_map(np.zeros_like, params)
    for row in range(len(data)):
        whole = learner.gradient(params, data.take(np.array([row])))
        gradient = tree_map(np.subtract, whole, learner.regulariser_gradient(params))
        factor = min(1.0, max_norm / max(l2_norm(gradient), 1e-300))
        total = tree_map(lambda a, g, c=factor: a + c * g, total, gradient)
    return total


@each_case
def test_a_clipped_sum_is_a_loop_of_clipped_gradients(case: Case) -> None:
    learner, data, params = case.learner, case.examples(), case.random("params")
    norms = [l2_norm(clip_in_a_loop(learner, params, data.take(np.array([i])), np.inf)) for i in range(23)]
    for max_norm in (1e-3, float(np.median(norms)), 1e6):
        found = learner.clipped_sum(params, data, max_norm)
        assert_tensors_like(found, params)
        assert_same(found, clip_in_a_loop(learner, params, data, max_norm), 1e-12)


@each_case
def test_without_a_bound_it_is_the_gradient_less_that_of_the_regulariser(case: Case) -> None:
    learner, data, params = case.learner, case.examples(), case.random("params")
    found, added = learner.clipped_sum(params, data, 1e9), learner.regulariser_gradient(params)
    whole = tree_map(lambda s, r: s / len(data) + r, found, added)
    assert_same(whole, learner.gradient(params, data), case.same)


@each_case_of_reals
def test_an_example_without_a_finite_gradient_counts_as_nothing(case: Case) -> None:
    learner, data, params = case.learner, case.examples(3), case.random("params")
    x = np.array(data.x)
    x[1] = 1e200  # its square overflows
    found = learner.clipped_sum(params, Examples(x, data.y), 1e-3)
    others = learner.clipped_sum(params, data.take(np.array([0, 2])), 1e-3)
    assert all(np.isfinite(value).all() for value in found.values())
    assert l2_norm(tree_map(np.subtract, found, others)) <= 1e-3 * (1 + 1e-12)


# Local stochastic gradient descent


def reference_sgd(
    learner: Any, params: Tensors, data: Examples, steps: Steps, key: Key, offset: Tensors | None = None
) -> Tensors:
    """The definition, in as many words; PyTorch's own optimisers make its steps."""
    now = {name: torch.tensor(np.array(w, np.float64)) for name, w in params.items()}
    optimiser, taken = torch_optimiser(now, steps), 0
    size = steps.batch_size or len(data)
    most = steps.num_steps or steps.epochs * -(-len(data) // size)
    for epoch in range(most):
        order = key.fold_in("epoch", epoch).rng().permutation(len(data))
        for start in range(0, len(data), size):
            if taken == most:
                return {name: w.numpy() - params[name] for name, w in now.items()}
            here = {name: w.numpy() for name, w in now.items()}
            gradient = learner.gradient(here, data.take(order[start : start + size]))
            gradient = moved(gradient, tree_map(np.subtract, here, params), steps.proximal)
            if offset is not None:
                gradient = moved(gradient, offset, 1.0)
            for name, w in now.items():
                w.grad = torch.tensor(gradient[name])
            optimiser.step()
            taken += 1
    return {name: w.numpy() - params[name] for name, w in now.items()}


def torch_optimiser(params: dict[str, Any], steps: Steps) -> torch.optim.Optimizer:
    scales = {
        name: steps.lr_scales.get(name, steps.lr_scales.get(name.split(".")[0], 1.0)) for name in params
    }
    groups = [{"params": [w], "lr": steps.lr * scales[name]} for name, w in params.items()]
    rule = steps.rule
    if isinstance(rule, sgd_rule):
        ahead = isinstance(rule, nesterov_rule)
        more = {"momentum": rule.momentum, "weight_decay": rule.weight_decay, "nesterov": ahead}
        return torch.optim.SGD(groups, **more)
    assert isinstance(rule, adam_rule)
    kind = torch.optim.AdamW if isinstance(rule, adamw_rule) else torch.optim.Adam
    return kind(groups, betas=(rule.beta1, rule.beta2), eps=rule.eps, weight_decay=rule.weight_decay)


STEPS = {
    "one full batch": Steps(0.1),
    "full batches": Steps(0.1, epochs=3),
    "small batches": Steps(0.1, epochs=2, batch_size=4),
    "single examples": Steps(0.01, batch_size=1),
    "proximal": Steps(0.1, epochs=3, batch_size=5, proximal=0.7),
    "fewer steps than an epoch": Steps(0.1, batch_size=4, num_steps=3),
    "more steps than two epochs": Steps(0.1, batch_size=7, num_steps=9),
    "full batches, counted": Steps(0.1, num_steps=4),
}
RULES = {
    "weight decay": Steps(0.1, epochs=2, batch_size=5, rule=sgd_rule(weight_decay=0.3)),
    "momentum": Steps(0.05, epochs=2, batch_size=5, rule=sgd_rule(0.7)),
    "all of sgd": Steps(0.05, 2, 5, proximal=0.4, rule=sgd_rule(0.7, 0.3)),
    "nesterov": Steps(0.05, epochs=2, batch_size=5, rule=nesterov_rule(0.7, 0.1)),
    "adam": Steps(0.05, epochs=2, batch_size=5, rule=adam_rule(0.8, 0.95, 1e-3, 0.2)),
    "adam without memory": Steps(0.05, num_steps=3, rule=adam_rule(0.0, 0.0, 0.1)),
    "adamw": Steps(0.05, epochs=2, batch_size=5, proximal=0.4, rule=adamw_rule(0.8, 0.95, 1e-3, 0.2)),
}
by_steps = pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS.keys())
by_rule = pytest.mark.parametrize("steps", RULES.values(), ids=RULES.keys())


@each_case
@by_steps
def test_local_sgd_follows_its_definition(case: Case, steps: Steps) -> None:
    learner, data, params = case.learner, case.examples(), case.random("params")
    expected = reference_sgd(learner, params, data, steps, KEY)
    assert_same(learner.local_sgd(params, LocalProblem(data, steps, KEY)), expected, case.same)


def compare_with_offset(case: Case, steps: Steps) -> None:
    """Asserts that local training with an offset equals its definition."""
    learner, data, params, offset = (
        case.learner,
        case.examples(),
        case.random("params"),
        case.random("offset"),
    )
    expected = reference_sgd(learner, params, data, steps, KEY, offset)
    assert_same(learner.local_sgd(params, LocalProblem(data, steps, KEY, offset=offset)), expected, case.same)


@each_case
@by_steps
def test_an_offset_is_added_to_each_gradient(case: Case, steps: Steps) -> None:
    compare_with_offset(case, steps)


@quick_cases
@by_rule
def test_each_rule_is_that_of_pytorch(case: Case, steps: Steps) -> None:
    compare_with_offset(case, steps)


@quick_cases
@pytest.mark.parametrize("rule", [sgd_rule(), sgd_rule(0.7), adam_rule(eps=1e-3)], ids=str)
def test_scales_are_for_single_parameters(case: Case, rule: StepRule) -> None:
    learner, data, params = case.learner, case.examples(), case.random("params")
    first, *rest = params
    scales = {first.split(".")[0]: 0.0} | dict.fromkeys(rest[-1:], 0.5)
    steps = Steps(0.05, 2, 5, rule=rule, lr_scales=scales)
    update = learner.local_sgd(params, LocalProblem(data, steps, KEY))
    assert_same(update, reference_sgd(learner, params, data, steps, KEY), case.same)
    assert not update[first].any()
    wrong = Steps(0.05, lr_scales={"nowhere": 1.0})
    with pytest.raises(InvalidInput, match=f"lr_scales names 'nowhere', .* they are {first}"):
        learner.local_sgd(params, LocalProblem(data, wrong, KEY))


@each_case
def test_many_is_each(case: Case) -> None:
    """In the bits of one by one, whatever the rule."""
    learner, data, params = case.learner, case.examples(), case.random("params")
    if case.engine != "numpy" or not learner.together:  # JAX's own tests have those of its clients
        return
    rules = (sgd_rule(0.7), nesterov_rule(0.7), adamw_rule())
    for steps in (*(Steps(0.05, 2, 5, rule=rule) for rule in rules), Steps(0.1, batch_size=4, num_steps=7)):
        some = [data.take(np.arange(n)) for n in (9, 3, NUM_EXAMPLES)]
        problems = [LocalProblem(own, steps, KEY.fold_in(i)) for i, own in enumerate(some)]
        together = learner.local_sgd_many(params, problems)
        if together is None:
            continue
        for i, problem in enumerate(problems):
            alone = learner.local_sgd(params, problem)
            assert_identical({name: many[i] for name, many in together.items()}, alone)


@each_case
def test_one_full_batch_is_one_gradient_step(case: Case) -> None:
    learner, data, params = case.learner, case.examples(), case.random("params")
    step = tree_map(lambda g: np.asarray(-0.25 * g), learner.gradient(params, data))
    assert_same(learner.local_sgd(params, LocalProblem(data, Steps(0.25), KEY)), step, case.same)


@each_case
@pytest.mark.parametrize("batch_size", [NUM_EXAMPLES, NUM_EXAMPLES + 1, 10_000])
def test_a_batch_that_holds_all_examples_is_a_full_batch(case: Case, batch_size: int) -> None:
    learner, data, params = case.learner, case.examples(), case.random("params")
    full = learner.local_sgd(params, LocalProblem(data, Steps(0.1, epochs=2), KEY))
    big = learner.local_sgd(
        params, LocalProblem(data, Steps(0.1, epochs=2, batch_size=batch_size), KEY.fold_in("other"))
    )
    assert_identical(full, big)


@each_case
def test_local_sgd_is_reproducible_by_key(case: Case) -> None:
    learner, data, params, steps = (
        case.learner,
        case.examples(),
        case.random("params"),
        Steps(0.1, batch_size=3),
    )
    update = learner.local_sgd(params, LocalProblem(data, steps, KEY))
    assert_identical(update, learner.local_sgd(params, LocalProblem(data, steps, KEY)))
    other = learner.local_sgd(params, LocalProblem(data, steps, KEY.fold_in("other")))
    assert l2_norm(tree_map(np.subtract, update, other)) > 0


@each_case
def test_nothing_received_is_written_to(case: Case) -> None:
    learner, params = case.learner, frozen(case.random("params"))
    data = case.examples()
    data = Examples(*frozen({"x": data.x, "y": data.y}).values())
    steps, offset = Steps(0.1, batch_size=4, proximal=0.1), frozen(case.random("offset"))
    learner.local_sgd(params, LocalProblem(data, steps, KEY, offset=offset))
    learner.local_sgd(params, LocalProblem(data, steps, KEY, offset=offset, space=Everything(params)))
    learner.gradient(params, data)
    learner.hessian_vector(params, data, offset)
    learner.evaluate(params, data)


@each_case
def test_the_update_is_the_callers_own(case: Case) -> None:
    learner, data, params = case.learner, case.examples(), case.random("params")
    kept = {name: value.copy() for name, value in params.items()}
    for tensor in learner.local_sgd(params, LocalProblem(data, Steps(0.1), KEY)).values():
        tensor += 1
    assert_identical(params, kept)


# Restricted spaces


@dataclass(frozen=True)
class Projected(Space):
    """Three coordinates: the first weights along fixed directions. All else stays where it is."""

    params: Tensors
    moves: str
    directions: Array

    @classmethod
    def of(cls, params: Tensors) -> "Projected":
        moves = next(name for name in params if "w" in name)
        return cls(params, moves, KEY.fold_in("directions").rng().normal(size=(*params[moves].shape, 3)))

    def zero(self) -> Tensors:
        return {"z": np.zeros(3)}

    def expand(self, coordinates: Tensors) -> Tensors:
        still = {name: np.zeros_like(value) for name, value in self.params.items()}
        return {**still, self.moves: self.directions @ coordinates["z"]}

    def pullback(self, gradient: Tensors) -> Tensors:
        slope = gradient[self.moves]
        return {"z": np.tensordot(slope, self.directions, slope.ndim)}


@each_case
@by_steps
def test_the_space_of_everything_restricts_nothing(case: Case, steps: Steps) -> None:
    learner, data, params, offset = (
        case.learner,
        case.examples(),
        case.random("params"),
        case.random("offset"),
    )
    free = learner.local_sgd(params, LocalProblem(data, steps, KEY, offset=offset))
    within = learner.local_sgd(
        params, LocalProblem(data, steps, KEY, offset=offset, space=Everything(params))
    )
    assert_tensors_like(within, params)
    assert_same(free, within, case.same)


@each_case
def test_descent_in_a_space_moves_its_coordinates(case: Case) -> None:
    learner, data, params = case.learner, case.examples(), case.random("params")
    offset, steps = case.random("offset"), Steps(0.01, epochs=2, proximal=0.5)
    space = Projected.of(params)
    z = space.zero()
    for _ in range(steps.epochs):
        update = space.expand(z)
        gradient = moved(learner.gradient(moved(params, update, 1.0), data), offset, 1.0)
        z = moved(z, space.pullback(moved(gradient, update, 0.5)), -steps.lr)
    assert_same(
        learner.local_sgd(params, LocalProblem(data, steps, KEY, offset=offset, space=space)), z, case.same
    )


# Data that can't be used


Spoil = Callable[[Examples], Examples]


def _with_feature(value: float) -> Spoil:
    def spoil(data: Examples) -> Examples:
        x = data.x.copy()
        x.reshape(len(x), -1)[3, 2] = value
        return replace(data, x=x)

    return spoil


UNUSABLE: dict[str, tuple[Spoil, str]] = {
    "nan": (_with_feature(np.nan), "row 3, column 2.*nan"),
    "inf": (_with_feature(-np.inf), "row 3, column 2.*-inf"),
    "wrong features": (lambda d: replace(d, x=d.x[:, 1:]), r"examples of \d+ features"),
    "empty": (lambda d: d.take(np.arange(0)), "no examples"),
    "labels by the table": (lambda d: replace(d, y=d.y[:, None]), r"\(23, 1\)"),
}


@each_case_of_reals
@pytest.mark.parametrize(("spoil", "message"), UNUSABLE.values(), ids=UNUSABLE.keys())
def test_unusable_examples_are_refused(case: Case, spoil: Spoil, message: str) -> None:
    learner, params, data = case.learner, case.random("params"), spoil(case.examples())
    for refuse in (
        lambda: learner.local_sgd(params, LocalProblem(data, Steps(0.1), KEY)),
        lambda: learner.gradient(params, data),
        lambda: learner.objective(params, data),
        lambda: learner.hessian_vector(params, data, params),
        lambda: learner.evaluate(params, data),
    ):
        with pytest.raises(InvalidInput, match=message):
            refuse()


@each_classifier
@pytest.mark.parametrize("label", [-1, 4, 1000])
def test_labels_out_of_range_are_named(case: Case, label: int) -> None:
    data = case.examples()
    y = data.y.copy()
    y[5] = label
    with pytest.raises(InvalidInput, match=rf"row 5 is {label}; {case.num_classes} classes are"):
        case.learner.local_sgd(case.random("params"), LocalProblem(Examples(data.x, y), Steps(0.1), KEY))


@each_classifier
def test_classes_that_are_real_numbers_are_refused(case: Case) -> None:
    data = case.examples()
    with pytest.raises(InvalidInput, match=r"float64.*astype\(int\)"):
        case.learner.gradient(case.random("params"), Examples(data.x, data.y.astype(float)))
