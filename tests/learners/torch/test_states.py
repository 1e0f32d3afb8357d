"""What a module keeps beyond its parameters: buffers of all kinds, and attributes."""

from typing import Any, ClassVar

import numpy as np
import pytest

import hanse
from hanse.algorithms import fed_avg
from hanse.core import Examples, InvalidInput, Key, LocalProblem, Steps
from hanse.data import from_clients
from hanse.learners import local_buffers, torch_module
from hanse.simulation import sequential

torch = pytest.importorskip("torch")
nn = pytest.importorskip("torch.nn")

KEY = Key.from_seed(7)
STEPS = Steps(0.1, epochs=2, batch_size=4)


def rows(n: int, *shape: int) -> Examples:
    rng = np.random.default_rng(n)
    return Examples(rng.normal(size=(n, *(shape or (5,)))).astype(np.float32), np.arange(n) % 3)


def train(factory: Any, **settings: Any) -> Any:
    learner = torch_module(factory, **settings).bind((5,), 3)
    return learner.local_sgd(learner.init(KEY), LocalProblem(rows(11), STEPS, KEY))


# One example under batch normalisation


def normed(**settings: Any) -> Any:
    return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6, **settings), nn.ReLU(), nn.Linear(6, 3))


def test_one_example_is_measured_by_the_statistics_that_the_module_was_made_with() -> None:
    learner = torch_module(normed, buffers=local_buffers()).bind((5,), 3)
    params, data = learner.init(KEY), rows(1)
    hidden = data.x @ params["0.weight"].T + params["0.bias"]  # mean 0, variance 1
    hidden = params["1.weight"] * hidden / np.sqrt(1 + 1e-5) + params["1.bias"]
    scores = np.maximum(hidden, 0) @ params["3.weight"].T + params["3.bias"]
    due = np.log(np.exp(scores).sum()) - scores[0, 0]
    assert learner.evaluate(params, data)["loss"] == pytest.approx(due, rel=1e-5)
    assert learner.objective(params, data) == pytest.approx(due, rel=1e-5)
    np.testing.assert_allclose(
        learner.predict(params, data.x), np.exp(scores) / np.exp(scores).sum(), rtol=1e-5
    )
    learner.evaluate(params, rows(20))  # leaves nothing behind
    assert learner.evaluate(params, data)["loss"] == pytest.approx(due, rel=1e-5)


def test_a_run_with_clients_of_one_example_measures_each() -> None:
    data = from_clients([rows(1), rows(5), rows(9)], test=rows(1), num_classes=3)
    model = torch_module(normed, buffers=local_buffers())
    result = hanse.run(
        data=data, model=model, rounds=2, algorithm=fed_avg(lr=0.1, fraction=1.0, batch_size=4)
    )
    assert np.isfinite(result.final.metrics["loss"])


def without_statistics() -> Any:
    return normed(track_running_stats=False)


def test_without_running_statistics_a_batch_of_one_example_is_refused() -> None:
    learner = torch_module(without_statistics).bind((5,), 3)
    params = learner.init(KEY)
    with pytest.raises(InvalidInput, match=r"can't normalise one example alone.* track_running_stats=True"):
        learner.local_sgd(params, LocalProblem(rows(5), Steps(0.1, batch_size=4), KEY))
    with pytest.raises(InvalidInput, match="can't normalise one example alone"):
        learner.evaluate(params, rows(1))


def test_without_running_statistics_no_single_example_is_left_over(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = torch_module(without_statistics).bind((5,), 3)
    params, data = learner.init(KEY), rows(9)
    monkeypatch.setattr("hanse.learners.torch.learner.ROWS_AT_ONCE", 4)
    module = without_statistics()
    module.load_state_dict({name: torch.tensor(value) for name, value in params.items()})
    parts = [(module(torch.tensor(data.x[i])), torch.tensor(data.y[i])) for i in (slice(4), slice(4, 9))]
    due = sum(float(nn.functional.cross_entropy(s, y, reduction="sum").detach()) for s, y in parts)
    assert learner.evaluate(params, data)["loss"] == pytest.approx(due, rel=1e-5)
    assert learner.predict(params, data.x).shape == (9, 3)


# Buffers that can't be averaged


class Masked(nn.Module):  # type: ignore[misc,name-defined]
    """Attention with a causal mask, which is a buffer that is saved."""

    def __init__(self, fill: float = float("-inf"), dtype: Any = None) -> None:
        super().__init__()
        self.inner, self.output = nn.Linear(6, 6), nn.Linear(6, 3)
        self.register_buffer("mask", torch.triu(torch.full((5, 5), fill, dtype=dtype), 1))

    def forward(self, x: Any) -> Any:
        inner = self.inner(x)
        shares = torch.softmax(inner @ inner.transpose(1, 2) + self.mask.to(x.dtype), -1)
        return self.output((shares @ inner)[:, -2])


def run_masked(**settings: Any) -> hanse.Result:
    data = from_clients([rows(8, 5, 6), rows(9, 5, 6)], test=rows(20, 5, 6), num_classes=3)
    return hanse.run(
        data=data,
        model=torch_module(lambda: Masked(**settings)),
        rounds=2,
        algorithm=fed_avg(lr=0.1, fraction=1.0, batch_size=4),
    )


def test_a_mask_of_infinity_is_not_sent_and_masks_as_any_other() -> None:
    infinite, large = run_masked(), run_masked(fill=-1e9)
    assert large.params.keys() - infinite.params.keys() == {"mask"}
    assert infinite.final.metrics == large.final.metrics
    for name, value in infinite.params.items():
        np.testing.assert_array_equal(value, large.params[name])


def test_a_buffer_of_bfloat16_is_sent_as_float32() -> None:
    result = run_masked(fill=-65536.0, dtype=torch.bfloat16)
    assert result.params["mask"].dtype == np.float32
    np.testing.assert_array_equal(result.params["mask"], np.triu(np.full((5, 5), -65536.0), 1))
    assert result.final.metrics == run_masked(fill=-65536.0).final.metrics


class Largest(nn.Linear):  # type: ignore[misc,name-defined]
    """Keeps the largest feature that it has seen, from minus infinity."""

    def __init__(self) -> None:
        super().__init__(5, 3)
        self.register_buffer("largest", torch.full((), float("-inf")))

    def forward(self, x: Any) -> Any:
        if self.training:
            self.largest.copy_(torch.maximum(self.largest, x.max()))
        return super().forward(x)


def test_a_buffer_that_begins_at_infinity_and_is_trained_is_refused() -> None:
    with pytest.raises(
        InvalidInput, match="changes the buffer 'largest', which began with values that are not"
    ):
        train(Largest)
    assert train(Largest, buffers=local_buffers())["weight"].any()


# State in attributes


class Stateful(nn.Module):  # type: ignore[misc,name-defined]
    calls: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(5, 3)


class Warming(Stateful):
    def forward(self, x: Any) -> Any:
        self.calls = self.calls + 1  # type: ignore[misc]
        return self.dense(x) * min(1, self.calls / 100)


class Logging(Stateful):
    """Its state does not matter, yet: nobody can know that it never will."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []

    def forward(self, x: Any) -> Any:
        self.seen.append(float(x.sum()))
        return self.dense(x)


class Hidden(Stateful):
    def __init__(self) -> None:
        super().__init__()
        self.last: Any = torch.zeros(3)

    def forward(self, x: Any) -> Any:
        scores = self.dense(x) + 0.1 * self.last
        self.last = scores.detach().mean(0)
        return scores


class Generating(Stateful):
    def __init__(self) -> None:
        super().__init__()
        self.rng, self.own = np.random.default_rng(0), torch.Generator().manual_seed(0)

    def forward(self, x: Any) -> Any:
        return self.dense(x) * self.rng.random()


class GeneratingInTorch(Generating):
    def forward(self, x: Any) -> Any:
        return self.dense(x) * torch.rand(1, generator=self.own)


class OfTheClass(Stateful):
    def forward(self, x: Any) -> Any:
        OfTheClass.calls += 1
        return self.dense(x)


class Frozen(Stateful):
    def __init__(self) -> None:
        super().__init__()
        self.teacher = nn.Linear(5, 3).requires_grad_(False)

    def forward(self, x: Any) -> Any:
        with torch.no_grad():
            self.teacher.weight.lerp_(self.dense.weight, 0.1)
        return self.dense(x) + self.teacher(x)


class Inner(Stateful):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Warming()

    def forward(self, x: Any) -> Any:
        return self.inner(x)


class Global(Stateful):
    def forward(self, x: Any) -> Any:
        return self.dense(x) * np.random.random()


@pytest.mark.parametrize(
    ("factory", "what"),
    [
        (Warming, "changes calls whenever"),
        (Logging, "changes seen whenever"),
        (Hidden, "changes last whenever"),
        (Generating, "changes rng whenever"),
        (GeneratingInTorch, "changes own whenever"),
        (OfTheClass, "changes OfTheClass.calls whenever"),
        (Frozen, r"changes teacher.weight \(a frozen parameter\) whenever"),
        (Inner, "changes inner.calls whenever"),
        (Global, "computed twice from one start, gave two different gradients"),
    ],
)
def test_state_that_clients_would_inherit_is_refused(factory: Any, what: str) -> None:
    with pytest.raises(InvalidInput, match=f"{what}.* number of processes"):
        train(factory)
    learner = torch_module(factory).bind((5,), 3)
    with pytest.raises(InvalidInput, match=what):
        learner.gradient(learner.init(KEY), rows(11))


def test_a_loss_that_keeps_state_is_refused() -> None:
    class Loss(nn.CrossEntropyLoss):  # type: ignore[misc,name-defined]
        calls = 0

        def forward(self, scores: Any, y: Any) -> Any:
            self.calls += 1
            return super().forward(scores, y) / self.calls

    with pytest.raises(InvalidInput, match=r"changes \(loss\) calls whenever"):
        train(Stateless, loss=Loss())


class Stateless(Stateful):
    """Its attributes are the same whenever it has computed the same."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: dict[Any, int] = {}
        self.function = lambda x: x + len(self.shapes)

    def forward(self, x: Any) -> Any:
        self.shape, self.last = x.shape, self.dense(x)
        self.shapes[x.shape] = len(x)
        return self.last * torch.rand(3)


def test_what_is_written_anew_is_no_state() -> None:
    update = train(Stateless)
    assert update["dense.weight"].any()
    data = from_clients([rows(n) for n in (5, 9, 12, 3)], test=rows(20), num_classes=3)
    again, other = (
        hanse.run(
            data=data,
            model=torch_module(Stateless),
            rounds=2,
            algorithm=fed_avg(lr=0.1, fraction=1.0, batch_size=4),
            execution=sequential(),
        )
        for _ in range(2)
    )
    assert again.params_sha256 == other.params_sha256
    assert again.final.metrics == other.final.metrics  # what it draws when measured is drawn from a key


def test_trying_a_module_leaves_no_trace() -> None:
    """The bits are those of a learner that was tried long before."""
    learner = torch_module(normed).bind((5,), 3)
    start, problem = learner.init(KEY), LocalProblem(rows(11), STEPS, KEY)
    first, second = (learner.local_sgd(start, problem) for _ in range(2))  # type: ignore[attr-defined]
    for name, value in first.items():
        assert value.tobytes() == second[name].tobytes()


def test_a_module_that_does_not_know_its_shape_is_refused() -> None:
    with pytest.raises(
        InvalidInput, match="does not know the shape of 'weight' yet; let the factory call it"
    ):
        torch_module(lambda: nn.LazyLinear(3)).bind((5,), 3)
