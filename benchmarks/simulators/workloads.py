"""The workloads: data, initial parameters, and the clients and batches of each round, the same for all tools.

Hanse makes all draws and writes them once (`prepare.py`), so that all tools train the same clients on the
same batches from the same start. Needs NumPy alone.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

KEPT = Path(__file__).parent / ".data"
VOCABULARY, LENGTH = 90, 80


@dataclass(frozen=True)
class Workload:
    """One epoch of local training at `cohort` of `clients`, each with `examples`.

    Args:
      name: W1 ... W4.
      model: "mlp", "cnn", "softmax" or "lstm".
    """

    name: str
    model: str
    clients: int
    examples: int
    cohort: int
    batch: int
    lr: float
    about: str

    @property
    def folder(self) -> Path:
        return KEPT / self.name

    @property
    def num_steps(self) -> int:
        return self.examples // self.batch

    @cached_property
    def data(self) -> tuple[Any, Any]:
        """Map (clients, examples, ...) features and labels from their files."""
        x, y = (np.asarray(np.load(self.folder / name, mmap_mode="r")) for name in ("x.npy", "y.npy"))
        return x, y

    @cached_property
    def start(self) -> dict[str, Any]:
        """Return initial parameters by PyTorch's names, in its layouts."""
        with np.load(self.folder / "start.npz") as stored:
            return dict(stored)

    @cached_property
    def rounds(self) -> Any:
        """Return (rounds, cohort) clients."""
        return np.load(self.folder / "clients.npy")

    @cached_property
    def orders(self) -> Any:
        """Return (rounds, cohort, examples) the rows of each client's epoch, in order."""
        return np.load(self.folder / "rows.npy")

    def batches(self, number: int, place: int) -> tuple[Any, Any]:
        """Return the examples of the client at one place of round `number`, in the order of its epoch."""
        x, y = self.data
        client, rows = self.rounds[number, place], self.orders[number, place]
        return x[client][rows], y[client][rows]

    def generate(self) -> tuple[Any, Any]:
        """Make random images with half of the pixels 0 and a linear rule, or noisy chains of characters."""
        rng = np.random.default_rng(7)
        shape = (self.clients, self.examples)
        if self.model == "lstm":
            text = np.empty((*shape, LENGTH + 1), np.int64)
            text[..., 0] = rng.integers(VOCABULARY, size=shape)
            after = rng.permutation(VOCABULARY)
            for t in range(LENGTH):
                noise = rng.random(shape) < 0.2
                text[..., t + 1] = np.where(noise, rng.integers(VOCABULARY, size=shape), after[text[..., t]])
            return text[..., :-1].copy(), text[..., 1:].copy()
        x = rng.random((*shape, 784), dtype=np.float32)
        x *= x > 0.5
        rule = rng.standard_normal((784, 10)).astype(np.float32)
        return x, ((x - 0.375) @ rule).argmax(-1)


WORKLOADS: Mapping[str, Workload] = {
    w.name: w
    for w in (
        Workload("W1", "mlp", 100, 600, 10, 10, 0.1, "MLP 784-200-200-10"),
        Workload("W2", "cnn", 100, 600, 10, 10, 0.05, "CNN of 1.66 M"),
        Workload("W2b50", "cnn", 100, 600, 10, 50, 0.05, "the same, batches of 50"),
        Workload("W3", "softmax", 10_000, 20, 100, 20, 0.1, "softmax 784-10"),
        Workload("W4", "lstm", 100, 50, 10, 10, 0.5, "LSTM 2 x 256, texts of 80"),
    )
}


def norm(params: Mapping[str, Any] | Iterator[Any]) -> float:
    """Return the 2-norm of all parameters; it proves equal work after one round."""
    values = params.values() if isinstance(params, Mapping) else params
    return float(np.sqrt(sum(np.square(np.asarray(v), dtype=np.float64).sum() for v in values)))
