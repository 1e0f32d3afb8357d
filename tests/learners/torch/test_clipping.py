"""Sums of clipped gradients of users' own modules."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hanse.core import Examples, InvalidInput, Key, l2_norm
from hanse.learners.own import averaged_buffers, torch_module
from hanse.learners.torch import clipping


class Scaled(nn.Module):
    """A module of no known kind, with a weight that is used twice and a frozen one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 3)
        self.scale = nn.Parameter(torch.ones(6), requires_grad=False)

    def forward(self, x: Any) -> Any:
        return self.last(torch.tanh(self.first(torch.tanh(self.first(x)))) * self.scale)


class Recurrent(nn.Module):
    """A module whose operations vmap does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.output = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Any) -> Any:
        return self.output(self.lstm(x.reshape(-1, 2, 3))[0][:, -1])


def hook() -> nn.Module:
    """Makes a module whose hook takes half the mean of a batch off what leaves it."""
    layers = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    layers.register_forward_hook(lambda module, given, output: output - output.mean(0, keepdim=True) / 2)
    return layers


MODULES: dict[str, Callable[[], nn.Module]] = {
    "dense": lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3, bias=False)),
    "one layer twice": lambda: (lambda layer: nn.Sequential(layer, nn.Tanh(), layer, nn.Linear(6, 3)))(
        nn.Linear(6, 6)
    ),
    "one layer in two parts": lambda: (
        lambda layer: nn.Sequential(
            nn.Sequential(layer, nn.Tanh()), nn.Sequential(layer, nn.Tanh()), nn.Linear(6, 3)
        )
    )(nn.Linear(6, 6)),
    "in place": lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Linear(5, 3)),
    "in place, of its input": lambda: nn.Sequential(
        nn.Linear(6, 6), nn.LeakyReLU(inplace=True), nn.Linear(6, 3), nn.ELU(inplace=True)
    ),
    "hooked": hook,
    "convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 2), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(8, 3)
    ).to(memory_format=torch.channels_last),
    "of its own": Scaled,
    "recurrent": Recurrent,
}


BOUNDS = {"float64": 1e-12, "float32": 1e-5}
"""The largest difference of entries of sums of 40 gradients of norm 0.8."""


def few(n: int = 40) -> Examples:
    rng = Key.from_seed(2).rng()
    return Examples(3 * rng.normal(size=(n, 6)), rng.integers(3, size=n))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MODULES)
def test_any_module_gives_a_loop_of_clipped_gradients(name: str, dtype: str) -> None:
    learner: Any = torch_module(lambda: MODULES[name]().to(getattr(torch, dtype))).bind((6,), 3)
    params, data = learner.init(Key.from_seed(0)), few()
    total = {key: np.zeros(w.shape) for key, w in params.items()}
    for row in range(len(data)):
        one = learner.gradient(params, data.take(np.array([row])))
        for key, g in one.items():
            total[key] += min(1.0, 0.8 / l2_norm(one)) * g.astype(np.float64)
    found = learner.clipped_sum(params, data, 0.8)
    for key, g in total.items():
        np.testing.assert_allclose(found[key], g, rtol=0, atol=BOUNDS[dtype])
        assert found[key].dtype == dtype


@pytest.mark.parametrize(
    ("name", "by_norms"), [("dense", True), ("one layer twice", False), ("of its own", False)]
)
def test_norms_serve_modules_of_dense_layers_alone(name: str, by_norms: bool) -> None:
    learner: Any = torch_module(MODULES[name]).bind((6,), 3)
    found = clipping._find_dense(learner._bench, learner._loss, False)
    assert (found is not None) == by_norms
    own: Any = torch_module(MODULES["dense"], loss=nn.CrossEntropyLoss(weight=torch.arange(3.0))).bind(
        (6,), 3
    )
    assert clipping._find_dense(own._bench, own._loss, False) is None, "it may not be a mean over examples"


def test_dropout_is_drawn_from_the_key_for_each_example() -> None:
    learner: Any = torch_module(
        lambda: nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Dropout(0.5), nn.Linear(64, 3))
    ).bind((6,), 3)
    params, data = learner.init(Key.from_seed(0)), few().take(np.zeros(40, int))

    def draw(key: Key | None) -> Any:
        return learner.clipped_sum(params, data, 1e6, key=key)["3.weight"]

    np.testing.assert_array_equal(draw(Key.from_seed(1)), draw(Key.from_seed(1)))
    assert not np.allclose(draw(Key.from_seed(1)), draw(Key.from_seed(2)))
    np.testing.assert_array_equal(draw(None), draw(None))


@pytest.mark.parametrize("part", [nn.BatchNorm1d(6), nn.BatchNorm1d(6, affine=False)])
def test_batch_normalisation_is_refused(part: nn.Module) -> None:
    learner: Any = torch_module(lambda: nn.Sequential(part, nn.Linear(6, 3))).bind((6,), 3)
    with pytest.raises(InvalidInput, match=r"'0' is BatchNorm1d.*write|needs GroupNorm"):
        learner.clipped_sum(learner.init(Key.from_seed(0)), few(), 1.0)


def test_buffers_that_are_sent_are_refused() -> None:
    class Counting(nn.Linear):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__(6, 3)
            self.register_buffer("mean", torch.zeros(6))

    learner: Any = torch_module(Counting, buffers=averaged_buffers()).bind((6,), 3)
    with pytest.raises(InvalidInput, match="the buffers mean would be sent"):
        learner.clipped_sum(learner.init(Key.from_seed(0)), few(), 1.0)
