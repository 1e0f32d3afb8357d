"""Evaluation of a model: at each client, and beside its baselines."""

from hanse.evaluation.baselines import Baseline, Budget, centralised, on_site
from hanse.evaluation.clients import (
    MAX_CLIENTS,
    description,
    measure_metrics,
    measure_spread,
    of_one_class,
    passes,
)
from hanse.evaluation.comparison import NAMES, metric_of, name_stop_metric, spent_on, table
from hanse.evaluation.consensus import describe_consensus
from hanse.evaluation.formats import as_bytes, as_number, as_percent, as_seconds

__all__ = [
    "MAX_CLIENTS",
    "NAMES",
    "Baseline",
    "Budget",
    "as_bytes",
    "as_number",
    "as_percent",
    "as_seconds",
    "centralised",
    "describe_consensus",
    "description",
    "measure_metrics",
    "measure_spread",
    "metric_of",
    "name_stop_metric",
    "of_one_class",
    "on_site",
    "passes",
    "spent_on",
    "table",
]
