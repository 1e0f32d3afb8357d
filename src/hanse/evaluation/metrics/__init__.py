"""Metrics of predictions, as values: of classes, of numbers, of risks and of texts."""

from hanse.evaluation.metrics.classes import (
    MOST_CLASSES,
    accuracy,
    auroc,
    average_precision,
    balanced_accuracy,
    brier,
    calibration_error,
    confusion_matrix,
    f1,
    log_loss,
    perplexity,
    sensitivity,
    specificity,
)
from hanse.evaluation.metrics.metric import UNDEFINED, Metric
from hanse.evaluation.metrics.numbers import concordance, mae, r2, rmse
from hanse.evaluation.metrics.scored import CLASSES, ScoredRows, make_constant_rows, score_rows
from hanse.evaluation.metrics.statistics import Statistic

__all__ = [
    "CLASSES",
    "MOST_CLASSES",
    "UNDEFINED",
    "Metric",
    "ScoredRows",
    "Statistic",
    "accuracy",
    "auroc",
    "average_precision",
    "balanced_accuracy",
    "brier",
    "calibration_error",
    "concordance",
    "confusion_matrix",
    "f1",
    "log_loss",
    "mae",
    "make_constant_rows",
    "perplexity",
    "r2",
    "rmse",
    "score_rows",
    "sensitivity",
    "specificity",
]
