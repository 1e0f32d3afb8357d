"""Runs in notebooks and scripts: rows, tables of pandas and Polars, HTML, progress, and TensorBoard."""

from typing import TYPE_CHECKING

from hanse.lazy import load_from

if TYPE_CHECKING:
    from hanse.runs.notebooks.events import TensorBoard
    from hanse.runs.notebooks.frames import list_rows, make_pandas, make_polars
    from hanse.runs.notebooks.html import draw_result
    from hanse.runs.notebooks.progress import is_notebook, show_progress
else:
    __getattr__ = load_from(
        __name__,
        {
            "hanse.runs.notebooks.events": ("TensorBoard",),
            "hanse.runs.notebooks.frames": ("list_rows", "make_pandas", "make_polars"),
            "hanse.runs.notebooks.html": ("draw_result",),
            "hanse.runs.notebooks.progress": ("is_notebook", "show_progress"),
        },
    )

__all__ = [
    "TensorBoard",
    "draw_result",
    "is_notebook",
    "list_rows",
    "make_pandas",
    "make_polars",
    "show_progress",
]
