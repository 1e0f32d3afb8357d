"""Tables for terminals: where a window is narrow they leave columns out and say so, and cut no cell."""

from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

__all__ = ["Columns"]

GAP = 2
"""The spaces between two columns."""

LEAST_FOLDED = 16
"""The least width of a column whose text is folded."""


class Columns:
    """A table that fits the window.

    Columns are left out until the rest fits, and a line below names them. If even the first column is too
    wide, its text is folded.

    Args:
      names: the names of the columns. The first always stays.
      numbers: the columns that hold numbers, which stand to the right.
      folded: the columns of text that may take several lines.
      first_out: the columns that are left out first, in this order; after them, the others from the last on.
      remedy: what shows the columns that are left out.
    """

    def __init__(
        self,
        *names: str,
        numbers: Sequence[str] = (),
        folded: Sequence[str] = (),
        first_out: Sequence[str] = (),
        remedy: str = "widen the window, or write --json",
    ) -> None:
        self.names = names
        self._numbers, self._folded, self._first_out = numbers, folded, first_out
        self._remedy = remedy
        self._rows: list[tuple[Sequence[Text], str]] = []

    def add_row(self, *cells: str | Text, style: str = "") -> None:
        """Adds a row, with a cell for each column; empty cells at its end may be left out."""
        texts = [cell if isinstance(cell, Text) else Text(cell) for cell in cells]
        self._rows.append((texts + [Text()] * (len(self.names) - len(texts)), style))

    def choose(self, width: int) -> list[int]:
        """Returns the positions of the columns that fit this width."""
        needed = [self._measure_column(at) for at in range(len(self.names))]
        shown = list(range(len(self.names)))
        order = [self.names.index(name) for name in self._first_out if name in self.names[1:]]
        order += [at for at in reversed(shown) if at not in order]
        while len(shown) > 1 and sum(needed[at] for at in shown) + GAP * (len(shown) - 1) > width:
            shown.remove(order.pop(0))
        return shown

    def _measure_column(self, at: int) -> int:
        widths = [len(self.names[at]), *(text.cell_len for row, _ in self._rows for text in row[at].split())]
        widest = max(widths, default=0)
        return min(widest, LEAST_FOLDED) if self.names[at] in self._folded else widest

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self._make_table(self.choose(options.max_width)))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown = self.choose(options.max_width)
        yield self._make_table(shown)
        if len(shown) < len(self.names):
            names = ", ".join(name for at, name in enumerate(self.names) if at not in shown and name)
            yield Text(f"there is no room for {names}: {self._remedy}", style="dim")

    def _make_table(self, shown: Sequence[int]) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="dim")
        for at in shown:
            name = self.names[at]
            table.add_column(
                Text(name),
                justify="right" if name in self._numbers else "left",
                no_wrap=name not in self._folded and len(shown) > 1,
                overflow="fold",
            )
        for texts, style in self._rows:
            table.add_row(*(texts[at] for at in shown), style=style)
        return table
