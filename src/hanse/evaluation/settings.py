"""The settings of evaluation: which metrics are measured."""

from collections.abc import Iterable, Mapping, Sequence

from hanse.core import InvalidInput, Prediction, check_count, value
from hanse.evaluation.metrics import (
    CLASSES,
    MOST_CLASSES,
    Metric,
    accuracy,
    auroc,
    average_precision,
    balanced_accuracy,
    brier,
    calibration_error,
    concordance,
    confusion_matrix,
    f1,
    log_loss,
    mae,
    perplexity,
    r2,
    rmse,
)
from hanse.evaluation.parties import MIN_COUNT

__all__ = ["Evaluation", "check_metrics", "choose_metrics", "list_default_metrics"]


@value
class Evaluation:
    """The choices of what is measured beside the metrics of the model.

    >>> Evaluation(metrics=(auroc(), "sensitivity(threshold=0.3)")).metrics[1]
    'sensitivity(threshold=0.3)'

    Args:
      metrics: metrics that each measurement adds to its record, such as ["auroc", "f1"]: by name, or with
        their settings, "sensitivity(threshold=0.3)", of which an experiment makes values. Empty: records keep
        the model's own metrics, and the metrics that suit the task are computed once, of the final model.
      resamples: the draws of parties from which intervals of named metrics are computed; 0: there are none.
      min_count: cells of each party's row that count fewer examples, or are computed from fewer, are masked.
    Raises: InvalidInput: if one of them is of another kind, or out of range.
    """

    metrics: tuple[str | Metric, ...] = ()
    resamples: int = 1000
    min_count: int = MIN_COUNT

    def __post_init__(self) -> None:
        if isinstance(self.metrics, str | Metric) or not isinstance(self.metrics, Sequence):
            raise InvalidInput(f'metrics is {self.metrics!r}; write a list, such as ["auroc", "f1"]')
        if self.resamples < 0:
            raise InvalidInput(f"resamples is {self.resamples}; write at least 0, such as 1000")
        check_count("min_count", self.min_count)
        for one in self.metrics:
            if not isinstance(one, str | Metric):
                raise InvalidInput(f'metrics holds {one!r}; write names, such as "auroc", or auroc()')
        named = {one if isinstance(one, str) else one.key: one for one in self.metrics}
        object.__setattr__(self, "metrics", tuple(named.values()))

    @property
    def named(self) -> tuple[Metric, ...]:
        """The metrics that are named, as values: in an experiment, all of them."""
        return tuple(one for one in self.metrics if isinstance(one, Metric))


def choose_metrics(
    evaluation: Evaluation, watched: Metric | None, measured: Iterable[str], kind: Prediction
) -> tuple[Metric, ...]:
    """Returns the metrics that each measurement adds: those that are named, and the one that stops a run.

    Records keep the model's own metrics where both have one name.

    Args:
      watched: the metric that stops a run; None: that is none of these values.
      measured: the metrics that the model measures by itself.
      kind: what the model predicts; a watched metric that it does not suit is left out.
    """
    chosen = {one.key: one for one in evaluation.named}
    if watched is not None and watched.key not in {*measured, *chosen}:
        if not watched.is_number:
            raise InvalidInput(
                f"stop: metric is {watched.key!r}, which is a table and no number; write another"
            )
        if kind in watched.kinds:
            chosen[watched.key] = watched
    return tuple(chosen.values())


def check_metrics(metrics: Iterable[Metric], kind: Prediction, num_classes: int | None) -> None:
    """Checks that metrics suit what a model predicts. Raises: InvalidInput: at the first that does not."""
    for one in metrics:
        one.check_kind(kind)
        one.check_classes(num_classes)


FEW_CLASSES = 100
"""Of more classes, metrics of each class against the rest are only computed if they are named."""


def list_default_metrics(kind: Prediction, num_classes: int, is_text: bool) -> tuple[Metric, ...]:
    """Lists the metrics that suit a task, which are computed of the final model if none is named.

    >>> [one.key for one in list_default_metrics("numbers", 1, False)]
    ['rmse', 'mae', 'r2']
    """
    if kind not in CLASSES:
        by_kind: Mapping[str, tuple[Metric, ...]] = {
            "numbers": (rmse(), mae(), r2()),
            "risks": (concordance(),),
        }
        return by_kind[kind]
    if is_text:
        return (accuracy(), perplexity())
    few = (auroc(), average_precision()) if num_classes <= FEW_CLASSES else ()
    table = (confusion_matrix(),) if num_classes <= MOST_CLASSES else ()
    of_classes = (accuracy(), balanced_accuracy(), f1(), *few, *table)
    if kind == "scores":
        return of_classes
    return (*of_classes, log_loss(), brier(), calibration_error())
