"""The confusion matrix of the final model on the page of a run."""

from collections.abc import Mapping
from typing import Any

from hanse.evaluation import tabulate_confusion
from hanse.pages import draw_table

__all__ = ["draw_confusion"]

MOST_ON_PAGE = 30
"""The most classes of a table on a page."""


def draw_confusion(result: Mapping[str, Any]) -> str:
    """Draws the confusion matrix as a card, or nothing if it was not measured or has too many classes."""
    told, classes = result.get("assessment") or {}, (result.get("data") or {}).get("classes", ())
    found = tabulate_confusion(told, classes, MOST_ON_PAGE)
    if found is None:
        return ""
    about = "Each row counts the examples of a class by the class that is predicted."
    table = f'<div class="scroll">{draw_table(*found)}</div>'
    return f'<section class="card confusion"><p class="quiet">{about}</p>{table}</section>'
