"""Sweeps: many runs that differ in some settings and in their seeds, compared."""

from typing import TYPE_CHECKING

from hanse.lazy import load_from

if TYPE_CHECKING:
    from hanse.sweeps.conditions import Choice, bare
    from hanse.sweeps.picture import chart, drawing
    from hanse.sweeps.result import Setting, Spread, SweepResult, is_success, short
    from hanse.sweeps.search import between, random
    from hanse.sweeps.session import SweepPlan, plan_sweep, read_sweep, sweep
    from hanse.sweeps.spreadsheet import csv_writer, list_sweep_rows
    from hanse.sweeps.worker_pool import RunOutcome, Seen
else:
    __getattr__ = load_from(
        __name__,
        {
            "hanse.sweeps.conditions": ("Choice", "bare"),
            "hanse.sweeps.picture": ("chart", "drawing"),
            "hanse.sweeps.result": ("Setting", "Spread", "SweepResult", "is_success", "short"),
            "hanse.sweeps.search": ("between", "random"),
            "hanse.sweeps.session": ("SweepPlan", "plan_sweep", "read_sweep", "sweep"),
            "hanse.sweeps.spreadsheet": ("csv_writer", "list_sweep_rows"),
            "hanse.sweeps.worker_pool": ("RunOutcome", "Seen"),
        },
    )


__all__ = [
    "Choice",
    "RunOutcome",
    "Seen",
    "Setting",
    "Spread",
    "SweepPlan",
    "SweepResult",
    "bare",
    "between",
    "chart",
    "csv_writer",
    "drawing",
    "is_success",
    "list_sweep_rows",
    "plan_sweep",
    "random",
    "read_sweep",
    "short",
    "sweep",
]
