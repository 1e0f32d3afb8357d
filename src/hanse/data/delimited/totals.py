"""Rows of totals, which spreadsheets write below the others, and which are nobody's."""

import json
from collections.abc import Sequence
from math import isclose

from hanse.data.delimited.columns import Column
from hanse.data.files import UnreadableRows

__all__ = ["check_last_row"]

TOTALS = frozenset(
    ["total", "totals", "grand total", "sum", "summe", "gesamt", "insgesamt", "gesamtsumme", "gesamtergebnis",
     "somme", "totale", "suma", "mean", "average", "mittelwert", "durchschnitt", "moyenne", "media"]
)  # fmt: skip
"""Words in the last row that say that it sums up the others."""


def check_last_row(
    path: str,
    lines: Sequence[int],
    row: Sequence[str],
    columns: Sequence[Column],
    *,
    missing: Sequence[str],
    has_comments: bool,
) -> None:
    """Checks that the last row is one like the others.

    It holds totals if such a word stands among numbers; or if the word is new in its column, or no word is
    there, and what else is in the row are gaps and sums.

    Args:
      lines: of the rows.
      row: the last one.
      missing: words that mark a missing value.
      has_comments: whether lines that begin in some way are left out already.

    Raises: UnreadableRows: if it seems to hold totals.
    """
    if not row:
        return
    cells = [cell.strip() for cell in row]
    named = [
        (column, cell)
        for column, cell in zip(columns, cells, strict=True)
        if cell.strip(" :").casefold() in TOTALS and cell not in missing
    ]
    is_total = any(column.num_numbers and column.num_wrong for column, _ in named)
    if not is_total:
        word = next((cell for column, cell in named if column.count(cell) <= 1), None)
        has_gap, has_sums = "" in cells, _are_sums(columns)
        is_total = has_gap and has_sums if word is None else has_gap or has_sums
    if not is_total:
        return
    where = f"{path}, line {lines[-1]}"
    cure = "seems to hold totals of the rows above it: remove it"
    otherwise = "If it is a row like the others, move it up"
    comment = {"comment": cells[0]} if not has_comments and named and cells[0] == named[0][1] else {}
    if comment:
        cure += f", or write comment = {json.dumps(cells[0], ensure_ascii=False)} to leave out such lines"
    raise UnreadableRows(
        f"{where}: the last row ({', '.join(cells[:3])}, ...) {cure}. {otherwise}",
        f"{where}: the last row {cure}. {otherwise}",
        **comment,
    )


def _are_sums(columns: Sequence[Column]) -> bool:
    """Returns whether each number of the last row is the sum of those above it."""
    found = [sums for column in columns if (sums := column.sum_up()) is not None]
    return any(last for last, _ in found) and all(isclose(last, above, rel_tol=1e-9) for last, above in found)
