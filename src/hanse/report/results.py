"""Pages and charts of results: of runs that a store keeps, and of those that nobody kept."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from hanse.core import InvalidInput, nearest
from hanse.report.charts import draw_curve
from hanse.report.pages import compare_page, report_page, write
from hanse.report.run_data import RunData, load_run, load_runs
from hanse.runs import Result, default_store, existing

__all__ = ["draw_metric", "write_comparison", "write_report"]


def write_report(
    run: str | Result = "last",
    to: str | Path | None = None,
    *,
    store: str | Path | None = None,
    images: bool = True,
) -> Path:
    """Writes the page of a run, as `hanse report` does, and returns its path.

    Args:
      run: a result; or the name of a run that is kept, its id or the beginning of that, or "last".
      to: the folder to write to; None: one that is named after the run.
      store: the file that keeps the run; None: where the command line keeps runs. It is only read.
      images: whether the charts are also written as images.

    Raises:
      StoreError: if there is no such run.
      InvalidInput: if the extra `report` is not installed, or the settings of a result can't be written down.
    """
    run_data = _take_data(run, store)
    folder = Path(to or f"report-{run_data.run}")
    folder.mkdir(parents=True, exist_ok=True)  # fails before the charts are drawn, which takes seconds
    return write(folder, *report_page(run_data), images=images)


def write_comparison(
    runs: Sequence[str],
    to: str | Path | None = None,
    *,
    store: str | Path | None = None,
    images: bool = True,
) -> Path:
    """Writes a page that shows several kept runs in the same charts, as `hanse compare` does.

    Args:
      runs: the name of each, its id or the beginning of that, or "last".
      to, store, images: see `write_report`.

    Raises: StoreError: if there is no such run.
    """
    kept = existing(default_store() if store is None else store, to_read=True)
    found = load_runs(kept, [kept.info(run).run for run in runs])
    folder = Path(to or "compare-" + "-".join(run_data.run[:6] for run_data in found[:4]))
    folder.mkdir(parents=True, exist_ok=True)
    return write(folder, *compare_page(found), images=images)


def draw_metric(result: Result, metric: str | None = None, against: str = "round") -> Any:
    """Draws a metric of a result beside its baselines, as a chart of Altair. See `Result.plot`."""
    run_data = describe_result(result)
    if not run_data.metrics:
        raise InvalidInput("the run has measured nothing, so there is nothing to draw; see evaluate_every")
    if metric is None:
        metric = run_data.metrics[0]
    if metric not in run_data.metrics:
        raise InvalidInput(f"metric {metric!r} was not measured: {nearest(metric, run_data.metrics)}")
    return draw_curve(run_data, metric, against)


def describe_result(result: Result) -> RunData:
    """Makes the data of pages and charts of a result. Raises: InvalidInput: if its settings are not known."""
    if result.settings is None:
        raise InvalidInput(
            "the settings of this run can't be written down, because a value in them can be given in Python "
            "only; use rows() and draw them yourself"
        )
    return RunData(
        result.run or "run",
        result.run or "not-kept",
        result.status,
        datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        result.settings,
        result.to_json(),
        {},
        result.records,
    )


def _take_data(run: str | Result, store: str | Path | None) -> RunData:
    if isinstance(run, Result):
        if run.run is None or run.store is None:
            return describe_result(run)
        return load_run(existing(run.store, to_read=True), run.run)
    return load_run(existing(default_store() if store is None else store, to_read=True), run)
