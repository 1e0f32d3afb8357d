"""Runs that a store keeps: their experiments, loaded as results, and removed."""

from typing import TYPE_CHECKING

from hanse.lazy import load_from

if TYPE_CHECKING:
    from hanse.runs.kept.experiments import check_same_data, experiment_of
    from hanse.runs.kept.loading import load
    from hanse.runs.kept.plans import find_run_folder, read_latest_plan
    from hanse.runs.kept.removing import remove_runs
else:
    __getattr__ = load_from(
        __name__,
        {
            "hanse.runs.kept.experiments": ("check_same_data", "experiment_of"),
            "hanse.runs.kept.loading": ("load",),
            "hanse.runs.kept.plans": ("find_run_folder", "read_latest_plan"),
            "hanse.runs.kept.removing": ("remove_runs",),
        },
    )

__all__ = [
    "check_same_data",
    "experiment_of",
    "find_run_folder",
    "load",
    "read_latest_plan",
    "remove_runs",
]
