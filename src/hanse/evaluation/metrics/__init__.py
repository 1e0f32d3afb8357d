"""Metrics of predictions, as values: of classes, of numbers, of risks and of texts."""

from typing import TYPE_CHECKING

from hanse.lazy import load_from

if TYPE_CHECKING:
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
else:
    __getattr__ = load_from(
        __name__,
        {
            "hanse.evaluation.metrics.classes": (
                "MOST_CLASSES",
                "accuracy",
                "auroc",
                "average_precision",
                "balanced_accuracy",
                "brier",
                "calibration_error",
                "confusion_matrix",
                "f1",
                "log_loss",
                "perplexity",
                "sensitivity",
                "specificity",
            ),
            "hanse.evaluation.metrics.metric": (
                "UNDEFINED",
                "Metric",
            ),
            "hanse.evaluation.metrics.numbers": (
                "concordance",
                "mae",
                "r2",
                "rmse",
            ),
            "hanse.evaluation.metrics.scored": (
                "CLASSES",
                "ScoredRows",
                "make_constant_rows",
                "score_rows",
            ),
            "hanse.evaluation.metrics.statistics": ("Statistic",),
        },
        registers={},
    )

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
