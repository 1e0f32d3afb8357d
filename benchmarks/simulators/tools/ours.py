"""Hanse's models of the workloads."""

from dataclasses import replace
from typing import Any

from workloads import VOCABULARY, Workload

from hanse.learners import Engine, Model, char_lstm, cnn, mlp, softmax

MODELS: dict[str, Model] = {
    "mlp": mlp(),
    "cnn": cnn(),
    "softmax": softmax(),
    "lstm": char_lstm(VOCABULARY),
}


def model(workload: Workload, engine: Engine | None = None) -> Model:
    """Return the workload's model on Hanse's default engine, or on another."""
    if engine is None:
        return MODELS[workload.model]
    network: Any = mlp(()) if workload.model == "softmax" else MODELS[workload.model]
    changed: Model = replace(network, engine=engine)
    return changed


def num_classes(workload: Workload) -> int | None:
    """Return the number of classes; None: the examples are texts."""
    return None if workload.model == "lstm" else 10
