"""Consoles for standard output and for messages, and the tables that they show."""

import re
import sys
from collections.abc import Iterable, Sequence
from typing import IO, TypeAlias, cast

from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["Pairs", "make_pairs", "make_stderr", "make_stdout", "make_table"]

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
