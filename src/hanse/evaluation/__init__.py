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
from hanse.evaluation.headline import Guessing, write_headline
from hanse.evaluation.parties import (
    HELPED,
    HURT,
    MOST_ROWS,
    TRAINERS_OF_ROWS,
    UNCLEAR,
    PartyRows,
    compare_marks,
    describe_gain,
    describe_rows,
    fold_rows,
    mark_right,
    order_rows,
    tabulate_rows,
)

__all__ = [
    "HELPED",
    "HURT",
    "MAX_CLIENTS",
    "MOST_ROWS",
    "NAMES",
    "TRAINERS_OF_ROWS",
    "UNCLEAR",
    "Baseline",
    "Budget",
    "Guessing",
    "PartyRows",
    "as_bytes",
    "as_number",
    "as_percent",
    "as_seconds",
    "centralised",
    "compare_marks",
    "describe_consensus",
    "describe_gain",
    "describe_rows",
    "description",
    "fold_rows",
    "mark_right",
    "measure_metrics",
    "measure_spread",
    "metric_of",
    "name_stop_metric",
    "of_one_class",
    "on_site",
    "order_rows",
    "passes",
    "spent_on",
    "table",
    "tabulate_rows",
    "write_headline",
]
