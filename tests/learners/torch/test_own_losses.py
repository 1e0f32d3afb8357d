"""PyTorch's losses, unchanged, against PyTorch alone; and users' own."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import hanse
from hanse.algorithms import fed_avg
from hanse.core import Array, Examples, InvalidInput, Key, Learner, LocalProblem, Steps, Tensors
from hanse.data import from_clients
from hanse.learners import batches, torch_module

torch = pytest.importorskip("torch")
nn = pytest.importorskip("torch.nn")
functional = pytest.importorskip("torch.nn.functional")

KEY = Key.from_seed(7)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(11, 5)).astype(np.float32)
TWO = (X[:, 0] + X[:, 1] > 0).astype(int)
THREE = np.arange(11) % 3


def single() -> Any:
    return nn.Linear(5, 1)


def flat() -> Any:
    return nn.Sequential(nn.Linear(5, 1), nn.Flatten(0))


def certain() -> Any:
    return nn.Sequential(nn.Linear(5, 1), nn.Sigmoid())


def three() -> Any:
    return nn.Linear(5, 3)


def load(factory: Callable[[], Any], params: Tensors) -> Any:
    module = factory()
    module.load_state_dict({name: torch.tensor(value) for name, value in params.items()})
    return module


def train_plainly(
    factory: Callable[[], Any], params: Tensors, y: Array, steps: Steps, loss: Callable[[Any, Any], Any]
) -> Any:
    """What anyone would write in PyTorch; the loss is given labels as they are."""
    module = load(factory, params)
    optimiser = torch.optim.SGD(module.parameters(), lr=steps.lr)
    for rows in batches(len(X), steps, KEY):
        optimiser.zero_grad()
        loss(module(torch.tensor(X[rows])), torch.tensor(y[rows])).backward()
        optimiser.step()
    return module


def check_training(learner: Learner, factory: Any, y: Array, loss: Callable[[Any, Any], Any]) -> None:
    assert hasattr(learner, "local_sgd")
    start, steps = learner.init(KEY), Steps(0.1, epochs=2, batch_size=4)
    update = learner.local_sgd(start, LocalProblem(Examples(X, y), steps, KEY))
    for name, value in train_plainly(factory, start, y, steps, loss).state_dict().items():
        np.testing.assert_allclose(update[name] + start[name], value.numpy(), rtol=1e-5, atol=1e-6)


def binary(scores: Any, labels: Any) -> Any:
    """log(1 + exp(-s)) for class 1, and log(1 + exp(s)) for class 0."""
    return functional.softplus(scores.reshape(-1) * (1 - 2 * labels)).mean()


def of_probabilities(found: Any, labels: Any) -> Any:
    ones = found.reshape(-1)
    return -torch.where(labels > 0, ones, 1 - ones).log().mean()


BINARY: dict[str, tuple[Any, Any, Any]] = {
    "BCEWithLogitsLoss": (nn.BCEWithLogitsLoss, single, binary),
    "without a last axis": (nn.BCEWithLogitsLoss, flat, binary),
    "a function": (lambda: functional.binary_cross_entropy_with_logits, single, binary),
    "SoftMarginLoss": (nn.SoftMarginLoss, single, binary),
    "BCELoss": (nn.BCELoss, certain, of_probabilities),
}


@pytest.mark.parametrize(("loss", "factory", "due"), BINARY.values(), ids=BINARY.keys())
def test_binary_losses_are_used_unchanged(loss: Any, factory: Any, due: Any) -> None:
    learner = torch_module(factory, loss=loss()).bind((5,), 2)
    start, data = learner.init(KEY), Examples(X, TWO)
    check_training(learner, factory, TWO, due)
    scores = load(factory, start)(torch.tensor(X)).detach().reshape(-1).numpy()
    ones = scores if factory is certain else 1 / (1 + np.exp(-scores))
    found = learner.evaluate(start, data)
    assert found["correct"] == np.count_nonzero((ones > 0.5) == TWO)
    assert found["loss"] == pytest.approx(-np.log(np.where(TWO, ones, 1 - ones)).sum(), rel=1e-5)
    np.testing.assert_allclose(learner.predict(start, X), np.stack([1 - ones, ones], 1), rtol=1e-5)


@pytest.mark.parametrize("y", [X[:, 0], X[:, :1]], ids=["numbers", "a column"])
@pytest.mark.parametrize("factory", [single, flat])
@pytest.mark.parametrize(
    ("loss", "due"),
    [
        (nn.MSELoss(), lambda s, y: (s - y).square().mean()),
        (functional.l1_loss, lambda s, y: (s - y).abs().mean()),
        (partial(functional.mse_loss, reduction="mean"), lambda s, y: (s - y).square().mean()),
    ],
)
def test_numbers_are_not_broadcast_against_scores(y: Array, factory: Any, loss: Any, due: Any) -> None:
    learner = torch_module(factory, loss=loss).bind((5,), None)
    check_training(learner, factory, y, lambda s, labels: due(s.reshape(-1), labels.reshape(-1)))
    start = learner.init(KEY)
    scores = load(factory, start)(torch.tensor(X)).detach().reshape(-1)
    mean = float(due(scores, torch.tensor(y.reshape(-1))))
    assert learner.objective(start, Examples(X, y)) == pytest.approx(mean, rel=1e-5)


def test_the_squared_error_of_a_column_of_scores_is_not_broadcast() -> None:
    learner = torch_module(single).bind((5,), None)
    start = learner.init(KEY)
    scores = X @ start["weight"][0] + start["bias"]
    found = learner.evaluate(start, Examples(X, X[:, 0]))
    assert found["squared_error"] == pytest.approx(float(np.square(scores - X[:, 0]).sum()), rel=1e-5)


def test_several_labels_a_row_may_be_integers() -> None:
    y = (X[:, :3] > 0).astype(int)
    learner = torch_module(three, loss=nn.BCEWithLogitsLoss()).bind((5,), None)
    check_training(learner, three, y, lambda s, labels: functional.softplus(s * (1 - 2 * labels)).mean())


# What is ignored

IGNORING: dict[str, tuple[Any, int]] = {
    "by default": (nn.CrossEntropyLoss(), -100),
    "a class": (nn.CrossEntropyLoss(ignore_index=1), 1),
    "a function": (partial(functional.cross_entropy, ignore_index=2), 2),
}


@pytest.mark.parametrize(("loss", "ignored"), IGNORING.values(), ids=IGNORING.keys())
def test_ignored_targets_count_nowhere(loss: Any, ignored: int) -> None:
    learner = torch_module(three, loss=loss).bind((5,), 3)
    y = THREE.copy()
    y[[0, 4, 5]] = ignored
    kept = y != ignored
    start, data, rest = learner.init(KEY), Examples(X, y), Examples(X[kept], y[kept])
    plain = torch_module(three).bind((5,), 3)
    found, due = learner.evaluate(start, data), plain.evaluate(start, rest)
    assert (found["correct"], found["count"]) == (due["correct"], kept.sum())
    assert found["loss"] == pytest.approx(due["loss"], rel=1e-5)
    assert learner.summarise(found) == pytest.approx(plain.summarise(due), rel=1e-5)
    assert learner.objective(start, data) == pytest.approx(plain.objective(start, rest), rel=1e-5)
    for name, value in plain.gradient(start, rest).items():
        np.testing.assert_allclose(learner.gradient(start, data)[name], value, rtol=1e-4, atol=1e-6)


def test_parts_weigh_as_much_as_is_not_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hanse.learners.torch.learner.ROWS_AT_ONCE", 4)
    test_ignored_targets_count_nowhere(nn.CrossEntropyLoss(), -100)


def test_where_all_is_ignored_nothing_moves_and_no_metric_is_defined() -> None:
    learner = torch_module(three, loss=nn.CrossEntropyLoss()).bind((5,), 3)
    data, start = Examples(X, np.full(11, -100)), learner.init(KEY)
    update = learner.local_sgd(start, LocalProblem(data, Steps(0.1, epochs=2, batch_size=4), KEY))
    assert not any(value.any() for value in update.values())
    assert learner.summarise(learner.evaluate(start, data)) == {}
    assert learner.objective(start, data) == 0


def test_ignored_places_of_texts_count_by_their_share() -> None:
    def factory() -> Any:
        return nn.Sequential(nn.Linear(5, 6), nn.Unflatten(1, (3, 2)))  # 3 classes at each of 2 places

    learner = torch_module(factory, loss=nn.CrossEntropyLoss()).bind((5,), None)
    y = RNG.integers(3, size=(11, 2))
    y[0], y[1, 1] = -100, -100
    start = learner.init(KEY)
    scores = load(factory, start)(torch.tensor(X)).detach()
    due = functional.cross_entropy(scores, torch.tensor(y), reduction="none").sum() / 19
    found = learner.evaluate(start, Examples(X, y))
    assert found["count"] == pytest.approx(19 / 2)
    assert learner.summarise(found) == {"loss": pytest.approx(float(due), rel=1e-5)}


def test_a_class_that_is_ignored_in_a_run() -> None:
    data = from_clients([Examples(X, THREE)] * 2, test=Examples(X, THREE), num_classes=3)
    model = torch_module(three, loss=nn.CrossEntropyLoss(ignore_index=0))
    result = hanse.run(data=data, model=model, algorithm=fed_avg(lr=0.3, epochs=60, fraction=1.0), rounds=2)
    scores = X @ result.params["weight"].T + result.params["bias"]
    kept = THREE != 0
    correct = np.count_nonzero(scores.argmax(1)[kept] == THREE[kept])
    assert result.final.metrics["accuracy"] == pytest.approx(correct / kept.sum())


# Several outputs


class Pair(nn.Module):  # type: ignore[misc,name-defined]
    def __init__(self, form: str = "tuple") -> None:
        super().__init__()
        self.form, self.first, self.second = form, nn.Linear(5, 3), nn.Linear(5, 3)

    def forward(self, x: Any) -> Any:
        pair = self.first(x), self.second(x)
        return pair if self.form == "tuple" else {"aux": pair[1], "logits": pair[0]}


def both_losses(outputs: Any, labels: Any) -> Any:
    first, second = outputs if isinstance(outputs, tuple) else (outputs["logits"], outputs["aux"])
    return functional.cross_entropy(first, labels) + 0.3 * functional.cross_entropy(second, labels)


@pytest.mark.parametrize("form", ["tuple", "dictionary"])
def test_a_loss_of_ones_own_is_given_all_outputs_and_the_first_are_scores(form: str) -> None:
    def factory() -> Any:
        return Pair(form)

    learner = torch_module(factory, loss=both_losses).bind((5,), 3)
    check_training(learner, factory, THREE, both_losses)
    start = learner.init(KEY)
    scores = X @ start["first.weight"].T + start["first.bias"]
    assert learner.evaluate(start, Examples(X, THREE))["correct"] == (scores.argmax(1) == THREE).sum()
    due = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    np.testing.assert_allclose(learner.predict(start, X), due, rtol=1e-5)


class Counting(nn.Module):  # type: ignore[misc,name-defined]
    """A loss with a parameter, which nobody trains."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))


REFUSED: dict[str, tuple[Any, Any, int | None, Array, str]] = {
    "two scores": (
        nn.BCEWithLogitsLoss(),
        lambda: nn.Linear(5, 2),
        2,
        TWO,
        r"shape \(4, 2\).* labels of shape",
    ),
    "three classes": (nn.BCELoss(), certain, 3, THREE, "BCELoss separates 2 classes, and the labels have 3"),
    "classes as numbers": (
        nn.MSELoss(),
        single,
        2,
        TWO,
        "MSELoss compares numbers, and the labels are classes",
    ),
    "other widths": (nn.MSELoss(), three, None, X[:, :2], r"shape \(4, 3\).* labels of shape \(4, 2\)"),
    "a sum": (nn.CrossEntropyLoss(reduction="sum"), three, 3, THREE, "reduction='sum'; the mean"),
    "of each": (partial(functional.cross_entropy, reduction="none"), three, 3, THREE, "reduction='none'"),
    "of each, hidden": (lambda s, y: (s.mean(1) - y).abs(), three, 3, THREE, r"returned the shape \(4,\)"),
    "no tensor": (lambda s, y: 0.5, three, 3, THREE, "returned 0.5, a float; return a tensor"),
    "more arguments": (
        nn.GaussianNLLLoss(),
        single,
        None,
        X[:, 0],
        "GaussianNLLLoss can't be computed.*'var'",
    ),
    "one score of three": (nn.CrossEntropyLoss(), single, 3, THREE, "CrossEntropyLoss can't be computed on"),
    "parameters": (Counting(), three, 3, THREE, "has parameters, which nobody would train"),
    "several outputs": (nn.CrossEntropyLoss(), Pair, 3, THREE, "a tuple of 2, and CrossEntropyLoss takes"),
    "no loss": (
        None,
        Pair,
        3,
        THREE,
        "the module returned a tuple; return a tensor of scores, or give a loss",
    ),
}


@pytest.mark.parametrize(
    ("loss", "factory", "num_classes", "y", "message"), REFUSED.values(), ids=REFUSED.keys()
)
def test_losses_that_do_not_suit_are_refused(
    loss: Any, factory: Any, num_classes: int | None, y: Array, message: str
) -> None:
    def use() -> None:
        learner = torch_module(factory, loss=loss).bind((5,), num_classes)
        problem = LocalProblem(Examples(X, y), Steps(0.1, batch_size=4), KEY)
        learner.local_sgd(learner.init(KEY), problem)  # type: ignore[attr-defined]

    with pytest.raises(InvalidInput, match=message):
        use()


def test_accuracy_needs_a_score_for_each_class() -> None:
    def loss(scores: Any, y: Any) -> Any:
        return (scores[:, 0] - y).square().mean()

    learner = torch_module(single, loss=loss).bind((5,), 3)
    with pytest.raises(
        InvalidInput, match=r"scores of shape \(11, 1\) for 11 examples of 3 classes; \(11, 3\)"
    ):
        learner.evaluate(learner.init(KEY), Examples(X, THREE))


def test_outputs_without_scores_are_refused() -> None:
    learner = torch_module(lambda: Pair("dictionary"), loss=both_losses).bind((5,), 3)
    module = torch_module(lambda: nn.LSTM(5, 3), loss=lambda o, y: o[0].mean()).bind((5,), 3)
    assert learner.predict(learner.init(KEY), X).shape == (11, 3)
    assert module.predict(module.init(KEY), X).shape == (11, 3)

    class Nothing(Pair):
        def forward(self, x: Any) -> Any:
            return {"hidden": self.first(x)}

    nothing = torch_module(Nothing, loss=lambda o, y: o["hidden"].mean()).bind((5,), 3)
    with pytest.raises(InvalidInput, match="a dict that does not begin with scores"):
        nothing.predict(nothing.init(KEY), X)


# What makes a module


def test_a_module_in_place_of_its_maker_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"the factory is a module, Linear\(...\); give a function"):
        torch_module(three())
    with pytest.raises(InvalidInput, match="the factory Linear is called without arguments, and that fails"):
        torch_module(nn.Linear)
    with pytest.raises(InvalidInput, match="the factory is 3; give the class of your module"):
        torch_module(3)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=r"loss is the class MSELoss; write loss=nn.MSELoss\(\)"):
        torch_module(three, loss=nn.MSELoss)


@pytest.mark.parametrize("given", [nn.Linear(64, 10), nn.Linear, lambda: nn.Linear(64, 10)])
def test_a_module_in_place_of_a_model_is_refused(given: Any) -> None:
    with pytest.raises(InvalidInput, match=r"for a module of PyTorch, .*model=torch_module\(lambda: ...\)"):
        hanse.run(model=given, rounds=1)
