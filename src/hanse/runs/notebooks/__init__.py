"""Runs in notebooks and scripts: rows, tables of pandas and Polars, HTML, progress, and TensorBoard."""

from hanse.runs.notebooks.events import TensorBoard
from hanse.runs.notebooks.frames import list_rows, make_pandas, make_polars
from hanse.runs.notebooks.html import draw_result
from hanse.runs.notebooks.progress import is_notebook, show_progress

__all__ = [
    "TensorBoard",
    "draw_result",
    "is_notebook",
    "list_rows",
    "make_pandas",
    "make_polars",
    "show_progress",
]
