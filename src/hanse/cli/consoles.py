"""Consoles for standard output and for messages, the tables that they show, and each party's row."""

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any, TypeAlias, cast

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["Pairs", "make_pairs", "make_stderr", "make_stdout", "make_table", "print_standing"]

Pairs: TypeAlias = Iterable[tuple[str, str]]
"""Names and texts."""

WIDTH = 200
"""The columns of a file or a pipe, so that nothing is cut off there."""


def make_stdout() -> Console:
    """Makes the console for results. In a file or a pipe, lines end with their last word."""
    console = Console(highlight=False)
    if console.is_terminal:
        return console
    trimmed = cast(IO[str], _Trimmed())
    return Console(file=trimmed, highlight=False, width=max(console.width, WIDTH))


def make_stderr() -> Console:
    """Makes the console for messages."""
    return Console(stderr=True, highlight=False)


def make_table(*names: str, numbers: Sequence[str] = ()) -> Table:
    """Makes a table with these columns, of which some hold numbers."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in names:
        table.add_column(name, justify="right" if name in numbers else "left", no_wrap=True)
    return table


def make_pairs(pairs: Pairs) -> Table:
    """Makes a table of names and texts."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, words in pairs:
        table.add_row(name, Text(words))
    return table


class _Trimmed:
    """Standard output without the spaces that fill up the lines of a table."""

    @property
    def encoding(self) -> str:
        return sys.stdout.encoding

    def write(self, text: str) -> int:
        return sys.stdout.write(re.sub(r" +(?=\n)", "", text))

    def flush(self) -> None:
        sys.stdout.flush()


# -- each party's row ----------------------------------------------------------------------------

GAP = 2
"""The spaces between two columns."""

LEAST_COLUMNS = 3
"""The columns that are shown however narrow the window is; their text is folded."""


def print_standing(out: Console, result: Mapping[str, Any], beside: Any = None) -> None:
    """Prints the headline, the table `beside` of the baselines, if there are some, and each party's row."""
    headline = result.get("headline", ())
    for line in headline:
        out.print(Text(f"{line[:1].upper()}{line[1:]}.", style="bold"))
    for table in [""] * bool(headline) + [beside, ""] * (beside is not None):
        out.print(table)
    print_parties(out, result)


def print_parties(out: Console, result: Mapping[str, Any]) -> None:
    """Prints each party's row; of many parties, those that federation hurt most and helped most."""
    from hanse.evaluation import describe_rows, fold_rows, tabulate_rows

    rows = result.get("parties")
    if not rows:
        return
    shown, folded = fold_rows(rows)
    heads, lines = tabulate_rows(shown, rows[0]["metric"])
    widths = [max(map(cell_len, column)) + GAP for column in zip(heads, *lines, strict=True)]
    room = [at for at in range(len(heads)) if at < LEAST_COLUMNS or sum(widths[: at + 1]) - GAP <= out.width]
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="dim")
    for at in room:
        is_text = at == 0 or heads[at].startswith(("federation", "gain"))
        table.add_column(heads[at], justify="left" if is_text else "right", overflow="fold")
    for line in lines:
        table.add_row(*(Text(line[at]) for at in room))
    out.print(table)
    if len(room) < len(heads):
        missing = ", ".join(heads[len(room) :])
        out.print(Text(f"there is no room for {missing}: widen the window, or write --json", style="dim"))
    for sentence in (folded, *describe_rows(rows)):
        if sentence:
            out.print(Text(sentence, style="dim"))
    out.print()
