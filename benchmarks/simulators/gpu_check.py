"""Check the engine JAX on a GPU, in under two minutes: precision, repetition, compiled shapes, seconds.

    PYTHONPATH=src python benchmarks/simulators/gpu_check.py

Needs JAX (and PyTorch, for its part), no store and no network. A process with the processor alone computes
the same rounds for comparison. Prints a line for each figure, PASS or FAIL for each that has a bound, and
exits with 1 if one failed. Where there is no GPU it says so, and checks the path of GPUs on the processor.
"""

import hashlib
import os
import pickle
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np

from hanse.core import Examples, Key, LocalProblem, Steps
from hanse.learners import bfloat16, cnn, full, jax_engine, mlp, tf32
from hanse.learners.jax import count_vmap_programs, on_processor

NUM_CLIENTS, NUM_ROUNDS, LR = 40, 4, 0.05
KEY = Key.from_seed(5)
NOISE = {12: 2.0, 28: 4.0}
STEPS = {"mlp": Steps(LR, epochs=2, batch_size=10), "cnn": Steps(0.02, epochs=1, batch_size=10)}
"""With larger steps the CNN's training is unstable, and multiplies rounding a hundredfold in one round."""

failures = list[str]()


def report(name: str, figure: str, ok: bool | None = None) -> None:
    """Print a figure, and whether it is within its bound."""
    verdict = "    " if ok is None else "PASS" if ok else "FAIL"
    print(f"{verdict}  {name:<58} {figure}", flush=True)
    if ok is False:
        failures.append(name)


def draw(num: int, rng: np.random.Generator, side: int) -> Examples:
    """Draw images that hold one of ten patterns, in noise."""
    patterns = np.kron(np.random.default_rng(1).normal(size=(10, side // 4, side // 4)), np.ones((4, 4)))
    y = rng.integers(10, size=num)
    return Examples((patterns[y] + rng.normal(0, NOISE[side], (num, side, side))).astype(np.float32), y)


def clients(side: int) -> tuple[list[Examples], Examples]:
    """Draw unequal clients, from 5 to some hundred examples, and test examples."""
    rng = np.random.default_rng(0)
    sizes = np.minimum(rng.lognormal(4, 1, NUM_CLIENTS).astype(int) + 5, 400)
    return [draw(int(n), rng, side) for n in sizes], draw(1000, rng, side)


def learner_of(name: str, precision: Any, side: int) -> Any:
    """Bind a network."""
    engine = jax_engine(precision=precision)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = mlp((64,), engine=engine) if name == "mlp" else cnn((16, 32), hidden=128, engine=engine)
        return model.bind((side, side), 10)


def rounds(learner: Any, steps: Steps, people: Sequence[Examples], num: int) -> Iterator[tuple[Any, float]]:
    """Yield the parameters after each round of federated averaging, and its seconds."""
    params = learner.init(KEY)
    weights = np.array([len(data) for data in people], np.float64)
    for number in range(num):
        started = time.perf_counter()
        problems = [LocalProblem(data, steps, KEY.fold_in(number, i)) for i, data in enumerate(people)]
        updates = learner.local_sgd_many(params, problems)
        shares = weights / weights.sum()
        params = {
            n: (w + np.tensordot(shares, updates[n].astype(np.float64), 1)).astype(np.float32)
            for n, w in params.items()
        }
        yield params, time.perf_counter() - started


def digest(params: Mapping[str, Any]) -> str:
    """Return a digest of parameters."""
    return hashlib.sha256(b"".join(params[name].tobytes() for name in sorted(params))).hexdigest()[:16]


def deviation(a: Mapping[str, Any], b: Mapping[str, Any]) -> float:
    """Return the largest difference of two sets of parameters."""
    return max(float(np.abs(a[name] - b[name]).max()) for name in a)


def first_rounds(side: int) -> dict[str, Any]:
    """Compute one round of each network, by this process's device and the path that it takes."""
    people, _ = clients(side)
    return {
        name: next(rounds(learner_of(name, full(), side), steps, people, 1))[0]
        for name, steps in STEPS.items()
    }


def elsewhere(side: int, platform: str | None) -> dict[str, Any]:
    """Return what `first_rounds` gives in another process, on the processor alone or on the same device."""
    environment = {**os.environ, **({"JAX_PLATFORMS": platform} if platform else {})}
    environment.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "rounds")
        subprocess.run(
            [sys.executable, __file__, "--rounds", str(file), str(side)], env=environment, check=True
        )
        found: dict[str, Any] = pickle.loads(file.read_bytes())
        return found


def check_network(name: str, side: int, due: Any, other: Any, on_gpu: bool) -> None:
    """Check one network: its distance from the processor, repetition, shapes and seconds."""
    people, test = clients(side)
    before, learner = count_vmap_programs(), learner_of(name, full(), side)
    ended = list(rounds(learner, STEPS[name], people, NUM_ROUNDS))
    seconds = [s for _, s in ended]
    compiled = count_vmap_programs() - before
    far = deviation(ended[0][0], due)
    report(f"{name}: deviation from the processor after a round", f"{far:.2g} (bound 1e-5)", far <= 1e-5)
    again = [params for params, _ in rounds(learner, STEPS[name], people, NUM_ROUNDS)]
    repeats = digest(again[-1]) == digest(ended[-1][0])
    report(f"{name}: two runs in one process end in the same bits", str(repeats), repeats)
    if other is not None:
        repeats = digest(other) == digest(ended[0][0])
        report(f"{name}: a round in two processes ends in the same bits", str(repeats), repeats)
    report(f"{name}: programs compiled in {NUM_ROUNDS} rounds", f"{compiled} (bound 4)", compiled <= 4)
    slow = seconds[0]
    report(f"{name}: seconds of the first round, with compiling", f"{slow:.1f} (bound 30)", slow <= 30)
    report(f"{name}: seconds of later rounds", " ".join(f"{s:.3f}" for s in seconds[1:]))
    correct = {"full": learner.evaluate(ended[-1][0], test)["correct"]}
    for precision in (tf32(), bfloat16()) if on_gpu else (bfloat16(),):
        lower = learner_of(name, precision, side)
        steps = list(rounds(lower, STEPS[name], people, NUM_ROUNDS))
        kind = type(precision).__name__
        correct[kind] = learner.evaluate(steps[-1][0], test)["correct"]
        far = deviation(steps[0][0], ended[0][0])
        report(
            f"{name}: {kind}, deviation after a round; seconds of a later one",
            f"{far:.2g}; {steps[-1][1]:.3f}",
            far > 0,
        )
    points = {kind: f"{100 * number / len(test):.1f}" for kind, number in correct.items()}
    cost = 100 * (correct["full"] - min(correct.values())) / len(test)
    learnt = correct["full"] >= 0.5 * len(test)
    report(f"{name}: accuracy in percent", f"{points} (bounds: 50, and 3 points lost)", learnt and cost <= 3)


def check_torch(on_gpu: bool) -> None:
    """Check a PyTorch module on a GPU against the same on the processor."""
    try:
        import torch
        from torch import nn
    except ImportError:
        report("torch: not installed", "skipped")
        return
    from hanse.learners import torch_module

    if on_gpu and not torch.cuda.is_available():
        report("torch: sees no GPU", "skipped")
        return

    def factory(device: str) -> Any:
        return lambda: nn.Sequential(
            nn.Unflatten(1, (1, 12)),
            nn.Conv2d(1, 8, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.0),
            nn.Linear(800, 10),
        ).to(device)

    data = draw(60, np.random.default_rng(3), 12)
    devices, found = ("cpu", "cuda") if on_gpu else ("cpu", "cpu"), []
    for device in devices:
        learner: Any = torch_module(factory(device)).bind((12, 12), 10)
        start = torch_module(factory("cpu")).bind((12, 12), 10).init(KEY)
        problem = LocalProblem(data, Steps(LR, 2, 10), KEY)
        found.append([learner.local_sgd(start, problem) for _ in range(2)])
    far = deviation(found[0][0], found[1][0])
    report("torch: deviation of a client's update from the processor", f"{far:.2g} (bound 1e-5)", far <= 1e-5)
    repeats = digest(found[1][0]) == digest(found[1][1])
    report("torch: two trainings end in the same bits", str(repeats), repeats)


def main() -> int:
    """Check, and say what failed."""
    if sys.argv[1:2] == ["--rounds"]:
        Path(sys.argv[2]).write_bytes(pickle.dumps(first_rounds(int(sys.argv[3]))))
        return 0
    began = time.perf_counter()
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    repeatable = learner_of("mlp", full(), 8).is_repeatable  # binding starts JAX as Hanse needs it
    on_gpu = not on_processor()
    side = 28 if on_gpu else 12
    kind = jax.devices()[0].device_kind
    print(f"JAX {jax.__version__} on {kind}; {NUM_CLIENTS} unequal clients, images of {side}x{side}")
    if not on_gpu:
        print("NO GPU IS HERE: the processor computes the path of GPUs; its precision is not theirs")
    due = elsewhere(side, "cpu")
    other = elsewhere(side, None) if on_gpu else None
    with mock.patch("hanse.learners.jax.learner.can_vmap", return_value=True):
        for name in STEPS:
            check_network(name, side, due[name], None if other is None else other[name], on_gpu)
    report("the learner says that it repeats its bits", str(repeatable), repeatable)
    check_torch(on_gpu)
    seconds = time.perf_counter() - began
    report("seconds in all", f"{seconds:.0f} (bound 120 on a GPU)", seconds <= 120 if on_gpu else None)
    print("FAILED: " + "; ".join(failures) if failures else "all passed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
