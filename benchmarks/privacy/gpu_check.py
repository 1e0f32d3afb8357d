"""Checks sums of clipped gradients on a GPU against a loop on the processor, and times them.

    python benchmarks/privacy/gpu_check.py [DEVICE]     DEVICE is "cuda", or "cpu" to try the script

It needs NumPy and PyTorch, and makes its own data. It prints a line of JSON for each module, and ends with
exit code 1 if one differs by more than 1e-5 of the largest entry.
"""

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from hanse.core import DifferentiableLearner, Examples, Key
from hanse.learners import torch_module

MAX_NORM, ROWS, LOOP_ROWS = 0.5, 2048, 64
MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "dense layers, by norms": (
        lambda: nn.Sequential(
            nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 10)
        ),
        (784,),
    ),
    "convolutions, by vmap": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 16, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.GroupNorm(4, 16),
            nn.Flatten(),
            nn.Linear(16 * 14 * 14, 10),
        ),
        (1, 28, 28),
    ),
}


def bind(make: Callable[[], nn.Module], shape: tuple[int, ...], device: str) -> DifferentiableLearner:
    """Binds a module on a device."""
    learner = torch_module(lambda: make().to(device)).bind(shape, 10)
    assert isinstance(learner, DifferentiableLearner)
    return learner


def clip_in_a_loop(learner: DifferentiableLearner, params: Any, data: Examples) -> dict[str, Any]:
    """Clips the gradients of single examples, one after the other, in float64."""
    total = {name: np.zeros(w.shape) for name, w in params.items()}
    for row in range(len(data)):
        gradient = learner.gradient(params, data.take(np.array([row])))
        norm = np.sqrt(sum(float(np.square(g, dtype=np.float64).sum()) for g in gradient.values()))
        for name, g in gradient.items():
            total[name] += min(1.0, MAX_NORM / norm) * g
    return total


def time_calls(call: Callable[[], Any], times: int = 5) -> float:
    """Returns the median of seconds of some calls, after a first. Each call ends on the processor."""
    call()
    found = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return float(np.median(found))


def main(device: str) -> int:
    worst = 0.0
    for name, (make, shape) in MODULES.items():
        rng = Key.from_seed(1).rng()
        x = rng.normal(size=(ROWS, *shape)).astype(np.float32)
        data = Examples(x, rng.integers(10, size=ROWS))
        here, there = bind(make, shape, "cpu"), bind(make, shape, device)
        params = here.init(Key.from_seed(0))
        some = data.take(np.arange(LOOP_ROWS))
        expected = clip_in_a_loop(here, params, some)
        largest = max(float(np.abs(g).max()) for g in expected.values())
        found = there.clipped_sum(params, some, MAX_NORM)
        differs = max(float(np.abs(found[n] - g).max()) for n, g in expected.items()) / largest
        worst = max(worst, differs)
        said = {
            "module": name,
            "device": torch.cuda.get_device_name() if device == "cuda" else device,
            "difference": differs,
            "clipped_sum_s": time_calls(partial(there.clipped_sum, params, data, MAX_NORM)),
            "gradient_s": time_calls(partial(there.gradient, params, data)),
            "rows": ROWS,
        }
        print(json.dumps(said), flush=True)
    return int(not worst < 1e-5)


if __name__ == "__main__":
    sys.exit(main(*(sys.argv[1:] or ["cuda"])))
