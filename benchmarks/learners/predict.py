"""Predictions of 10,000 rows by each learner, beside `evaluate` on the same rows.

    python benchmarks/learners/predict.py           # prints a table, and writes predict.json beside this
    python benchmarks/learners/predict.py softmax   # learners whose names contain this word; writes nothing

Both take turns, so that other load on the machine affects both alike. Seconds are the least of five turns
each, after a first call of each, which compiles. A learner may take three times as long to predict as to
evaluate; if one takes longer, the command ends with an error.
"""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))

from machine import save

from hanse.core import Array, Examples, Key, Learner, Tensors
from hanse.learners import (
    Model,
    char_lstm,
    cnn,
    cox,
    dual,
    elastic_net,
    hinge_svm,
    jax_engine,
    jax_model,
    least_squares,
    linear_svm,
    logistic,
    mlp,
    objective,
    softmax,
    torch_engine,
    torch_module,
)

KEY = Key.from_seed(0)
ROWS, TURNS, MOST = 10_000, 5, 3.0
IMAGE, LENGTH, CHARACTERS = (28, 28), 20, 64


def value(params: Tensors, x: Array, y: Array) -> float:
    return float(np.abs(x.reshape(len(x), -1) @ params["w"] - y).mean())


def gradient(params: Tensors, x: Array, y: Array) -> Tensors:
    flat = x.reshape(len(x), -1)
    return {"w": flat.T @ np.sign(flat @ params["w"] - y) / len(x)}


def linear(params: Tensors, x: Array) -> Array:
    return np.asarray(x.reshape(len(x), -1) @ params["w"])


def module() -> Any:
    from torch import nn

    return nn.Sequential(nn.Flatten(), nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 10))


def own_init(key: Any) -> Any:
    import jax

    return {"a": jax.random.normal(key, (784, 200)) / 28, "b": jax.random.normal(key, (200, 10)) / 14}


def own_apply(params: Any, x: Any) -> Any:
    import jax

    return jax.nn.relu(x.reshape(len(x), -1) @ params["a"]) @ params["b"]


def images(num_classes: int | None, shape: tuple[int, ...] = IMAGE) -> Examples:
    rng = KEY.rng()
    y = rng.integers(num_classes, size=ROWS) if num_classes else rng.normal(size=ROWS)
    return Examples(rng.random((ROWS, *shape), dtype=np.float32), y)


def survival() -> Examples:
    rng = KEY.rng()
    times = np.column_stack([rng.exponential(size=ROWS), rng.random(ROWS) < 0.5])
    return Examples(rng.normal(size=(ROWS, 30)), times)


def text(num_classes: int | None) -> Examples:
    rows = KEY.rng().integers(CHARACTERS, size=(ROWS, LENGTH + 1))
    return Examples(rows[:, :-1], rows[:, -1] if num_classes else rows[:, 1:])


def cases() -> dict[str, tuple[Model, Examples, int | None]]:
    """Return each learner's model, examples and number of classes."""
    found: dict[str, tuple[Model, Examples, int | None]] = {
        "least_squares": (least_squares(), images(None), None),
        "logistic": (logistic(), images(2), 2),
        "softmax": (softmax(), images(10), 10),
        "softmax, class weights": (softmax(class_weights=(2.0,) * 10), images(10), 10),
        "softmax, digits": (softmax(), images(10, (8, 8)), 10),
        "linear_svm": (linear_svm(1e-3), images(2), 2),
        "hinge_svm": (hinge_svm(1e-3), images(2), 2),
        "elastic_net": (elastic_net(0.1), images(None), None),
        "dual": (dual(logistic(1e-3, intercept=False)), images(2), 2),
        "cox": (cox(), survival(), None),
        "objective": (objective({"w": np.ones(784)}, value, gradient, predict=linear), images(None), None),
        "jax_model": (jax_model(own_init, own_apply), images(10), 10),
        "torch_module": (torch_module(module), images(10), 10),
    }
    for on in (jax_engine(), torch_engine()):
        lstm = char_lstm(CHARACTERS, hidden=64, engine=on)
        found |= {
            f"mlp, {on.module}": (mlp(engine=on), images(10), 10),
            f"mlp of numbers, {on.module}": (mlp(engine=on), images(None), None),
            f"cnn, {on.module}": (cnn((8, 16), hidden=64, engine=on), images(10), 10),
            f"char_lstm, {on.module}": (lstm, text(None), None),
            f"char_lstm of classes, {on.module}": (lstm, text(CHARACTERS), CHARACTERS),
        }
    return found


def measure(learner: Learner, data: Examples) -> dict[str, Any]:
    """Measure the least seconds of both calls."""
    params = learner.init(KEY)
    calls = {
        "evaluate_s": lambda: learner.evaluate(params, data),
        "predict_s": lambda: learner.predict(params, data.x),
    }
    best = dict.fromkeys(calls, float("inf"))
    for turn in range(TURNS + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if turn:
                best[name] = min(best[name], time.perf_counter() - began)
    return {
        **{name: round(s, 5) for name, s in best.items()},
        "ratio": round(best["predict_s"] / best["evaluate_s"], 2),
    }


def main(words: list[str]) -> None:
    results = {}
    print(f"{'learner':32} {'evaluate':>9} {'predict':>9} {'ratio':>6}")
    for name, (model, data, num_classes) in cases().items():
        if words and not any(word in name for word in words):
            continue
        found = measure(model.bind(data.x.shape[1:], num_classes), data)
        results[name] = found
        seconds = f"{found['evaluate_s'] * 1e3:6.1f} ms {found['predict_s'] * 1e3:6.1f} ms"
        print(f"{name:32} {seconds} {found['ratio']:6.2f}", flush=True)
    slow = [name for name, found in results.items() if found["ratio"] > MOST]
    if not words:
        save(__file__, {"rows": ROWS, "turns": TURNS, "results": results})
    if slow:
        sys.exit(f"slower than {MOST:g} times evaluate: {', '.join(slow)}")


if __name__ == "__main__":
    main(sys.argv[1:])
