"""Local training of one client, in one thread: the learners, and the loop that most people write in PyTorch.

    python benchmarks/fedavg/speed.py

All do the same arithmetic, which the update proves. The implementations take turns, so that other load on the
machine affects all alike. Seconds are the median wall-clock time and the least processor time; ratios are of
the latter. "plain loop" is a module, `torch.optim.SGD` and `backward`, as in any tutorial.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))
sys.path.insert(0, str(Path(__file__).parents[1] / "simulators"))
sys.path.insert(0, str(Path(__file__).parents[1] / "simulators" / "tools"))

from machine import save
from torch_models import Convolutional, Perceptron, Recurrent
from workloads import VOCABULARY

from hanse.core import Examples, Key, Learner, LocalProblem, Steps, Tensors
from hanse.learners import Network, batches, char_lstm, cnn, jax_engine, mlp, torch_engine, torch_module

KEY = Key.from_seed(0)
TURNS = 15


def images() -> Examples:
    rng = KEY.rng()
    return Examples(rng.random((600, 784), dtype=np.float32), rng.integers(10, size=600))


def text() -> Examples:
    characters = KEY.rng().integers(VOCABULARY, size=(50, 81))
    return Examples(characters[:, :-1], characters[:, 1:])


def text_loss(scores: Any, y: Any) -> Any:
    return functional.cross_entropy(scores.flatten(0, 1), y.flatten())


def plain_loop(module: nn.Module, loss: Any) -> Callable[[Tensors, Examples, Steps], Tensors]:
    """Train with the loop that anyone would write."""

    def train(params: Tensors, data: Examples, steps: Steps) -> Tensors:
        module.load_state_dict({name: torch.from_numpy(value) for name, value in params.items()})
        optimiser = torch.optim.SGD(module.parameters(), lr=steps.lr)
        x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
        for rows in batches(len(data), steps, KEY):
            optimiser.zero_grad()
            loss(module(x[rows]), y[rows]).backward()
            optimiser.step()
        return {name: value.numpy() - params[name] for name, value in module.state_dict().items()}

    return train


def by_hand(params: Tensors, data: Examples, steps: Steps) -> Tensors:
    """Train the perceptron with a hand-written gradient; each layer's step is fused with the product."""
    layers = ("hidden1", "hidden2", "output")
    weights = [torch.tensor(params[f"{name}.weight"]) for name in layers]
    biases = [torch.tensor(params[f"{name}.bias"]) for name in layers]
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    with torch.inference_mode():
        for rows in batches(len(data), steps, KEY):
            inputs = [x[rows]]
            for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
                inputs.append(torch.addmm(bias, inputs[-1], weight.t()).relu_())
            gradient = torch.addmm(biases[-1], inputs[-1], weights[-1].t()).softmax(1)
            gradient.sub_(functional.one_hot(y[rows], 10)).div_(len(rows))
            for i in (2, 1, 0):
                below = (gradient @ weights[i]).mul_(inputs[i] > 0) if i else gradient
                weights[i].addmm_(gradient.t(), inputs[i], alpha=-steps.lr)
                biases[i].sub_(gradient.sum(0), alpha=steps.lr)
                gradient = below
    ends = {f"{name}.weight": weights[i] for i, name in enumerate(layers)}
    ends |= {f"{name}.bias": biases[i] for i, name in enumerate(layers)}
    return {name: end.numpy() - params[name] for name, end in ends.items()}


def by_learner(learner: Learner) -> Callable[[Tensors, Examples, Steps], Tensors]:
    return lambda params, data, steps: learner.local_sgd(params, LocalProblem(data, steps, KEY))


def compare(
    network: Network, module: type[nn.Module], data: Examples, num_classes: int | None, loss: Any, lr: float
) -> dict[str, Any]:
    """Return seconds of each implementation, and its ratio to the plain loop."""
    shape, steps = data.x.shape[1:], Steps(lr, batch_size=10)
    ours = {
        e.module: replace(network, engine=e).bind(shape, num_classes) for e in (jax_engine(), torch_engine())
    }
    own = torch_module(module, loss=loss if num_classes is None else None).bind(shape, num_classes)
    implementations = {
        "plain loop": plain_loop(module(), loss),
        f"{type(network).__name__}(engine=jax_engine())": by_learner(ours["jax"]),
        f"{type(network).__name__}(engine=torch_engine())": by_learner(ours["torch"]),
        "torch_module(...)": by_learner(own),
    }
    if isinstance(network, mlp):
        implementations["PyTorch, gradient by hand"] = by_hand
    params = own.init(KEY)
    wall: dict[str, list[float]] = {name: [] for name in implementations}
    processor: dict[str, list[float]] = {name: [] for name in implementations}
    norms = {}
    for turn in range(TURNS + 1):
        for name, implementation in implementations.items():
            clock, used = time.perf_counter(), time.process_time()
            update = implementation(params, data, steps)
            if turn:
                wall[name].append(time.perf_counter() - clock)
                processor[name].append(time.process_time() - used)
            norms[name] = float(np.sqrt(sum(np.square(v, dtype=np.float64).sum() for v in update.values())))
    least = {name: min(seconds) for name, seconds in processor.items()}
    return {
        name: {
            "seconds": round(statistics.median(wall[name]), 5),
            "processor_seconds": round(least[name], 5),
            "of_plain_loop": round(least[name] / least["plain loop"], 3),
            "update_norm": round(norms[name], 5),
        }
        for name in implementations
    }


def main() -> None:
    """Measure the three networks of the paper."""
    torch.set_num_threads(1)
    entropy = functional.cross_entropy
    results = {
        "W1: MLP 784-200-200-10, 600 examples": compare(mlp(), Perceptron, images(), 10, entropy, 0.1),
        "W2: CNN of 1.66 M, 600 examples": compare(cnn(), Convolutional, images(), 10, entropy, 0.05),
        "W4: LSTM 2 x 256, 50 texts of 80": compare(
            char_lstm(VOCABULARY), Recurrent, text(), None, text_loss, 0.5
        ),
    }
    engines = {name: version(name).partition("+")[0] for name in ("jax", "torch")}
    save(__file__, {"engines": engines, "one_epoch_of_batches_of_10": results})


if __name__ == "__main__":
    main()
