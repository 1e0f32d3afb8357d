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
    """The workload's model on the engine that Hanse takes by itself, or on another."""
    if engine is None:
        return MODELS[workload.model]
    network: Any = mlp(()) if workload.model == "softmax" else MODELS[workload.model]
    changed: Model = replace(network, engine=engine)
    return changed


def num_classes(workload: Workload) -> int | None:
    """Of the labels; None: they are texts."""
    return None if workload.model == "lstm" else 10
