"""The accuracy that bfloat16 costs: the same runs on MNIST in full precision and in bfloat16.

    python benchmarks/fedavg/precision.py FOLDER

The folder holds MNIST's four idx files. FedAvg, 100 IID clients, a tenth of them a round, E=1, B=10. Both
precisions begin alike and train the same clients on the same batches. The accuracy is the mean over the last
measured rounds, since that of one round moves by a tenth of a point by itself. Needs the extra torch.
"""

import statistics
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))

from machine import save

import hanse
from hanse.algorithms import fed_avg
from hanse.core import HanseError
from hanse.data import iid, mnist
from hanse.learners import Model, Precision, bfloat16, cnn, full, mlp, torch_engine
from hanse.learners.torch import units_for_bfloat16

LAST = 5
RUNS: dict[str, tuple[Any, float, int, int, int]] = {
    "2NN": (mlp, 0.1, 30, 2, 3),
    "CNN": (cnn, 0.05, 20, 2, 1),
}
"""Network, step size, rounds, rounds between measurements, seeds."""


def accuracies(folder: str, model: Model, lr: float, rounds: int, every: int, seed: int) -> list[float]:
    """Return the accuracy of each measured round."""
    result = hanse.run(
        data=mnist(folder),
        partition=iid(100),
        model=model,
        algorithm=fed_avg(lr, 0.1, epochs=1, batch_size=10),
        rounds=rounds,
        evaluate_every=every,
        seed=seed,
    )
    return [record.metrics["accuracy"] for record in result.records if record.metrics]


def compare(folder: str, name: str) -> dict[str, Any]:
    """Return the accuracy in both precisions and the loss, in points."""
    network, lr, rounds, every, num_seeds = RUNS[name]
    points: dict[str, list[float]] = {}
    for precision in (full(), bfloat16()):
        model = network(engine=torch_engine(precision=precision))
        found = [accuracies(folder, model, lr, rounds, every, seed)[-LAST:] for seed in range(num_seeds)]
        points[_word(precision)] = [round(100 * statistics.mean(last), 3) for last in found]
        print(f"{name}, {precision}: {points[_word(precision)]}", flush=True)
    means = {word: statistics.mean(each) for word, each in points.items()}
    return {
        "rounds": rounds,
        "accuracy_percent_by_seed": points,
        "points_lost": round(means["full"] - means["bfloat16"], 3),
    }


def _word(precision: Precision) -> str:
    return type(precision).__name__


def main() -> None:
    """Run both networks in both precisions."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        results = {name: compare(sys.argv[1], name) for name in RUNS}
    except HanseError as error:
        sys.exit(str(error))
    torch = version("torch").partition("+")[0]
    save(__file__, {"torch": torch, "units_for_bfloat16": units_for_bfloat16(), "results": results})


if __name__ == "__main__":
    main()
