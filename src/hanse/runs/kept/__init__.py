"""Runs that a store keeps: their experiments, loaded as results, and removed."""

from hanse.runs.kept.experiments import check_same_data, experiment_of
from hanse.runs.kept.loading import load
from hanse.runs.kept.plans import find_run_folder, read_latest_plan
from hanse.runs.kept.removing import remove_runs

__all__ = [
    "check_same_data",
    "experiment_of",
    "find_run_folder",
    "load",
    "read_latest_plan",
    "remove_runs",
]
