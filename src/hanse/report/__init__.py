"""Pages and charts about runs."""

from typing import TYPE_CHECKING

from hanse.lazy import load_from

if TYPE_CHECKING:
    from hanse.report.pages import compare_page, report_page, write
    from hanse.report.results import draw_metric, write_comparison, write_report
    from hanse.report.run_data import load_run, load_runs
else:
    __getattr__ = load_from(
        __name__,
        {
            "hanse.report.pages": ("compare_page", "report_page", "write"),
            "hanse.report.results": ("draw_metric", "write_comparison", "write_report"),
            "hanse.report.run_data": ("load_run", "load_runs"),
        },
    )


__all__ = [
    "compare_page",
    "draw_metric",
    "load_run",
    "load_runs",
    "report_page",
    "write",
    "write_comparison",
    "write_report",
]
