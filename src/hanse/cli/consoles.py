"""Consoles for standard output and for messages, the tables that they show, and each party's row."""

import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any, TypeAlias, cast

from rich.console import Console, ConsoleDimensions
from rich.table import Table
from rich.text import Text

from hanse.columns import Columns

__all__ = [
    "Pairs",
    "find_prose_width",
    "make_pairs",
    "make_stderr",
    "make_stdout",
    "print_assessment",
    "print_confusion",
    "print_lines",
    "print_standing",
]

Pairs: TypeAlias = Iterable[tuple[str, str]]
"""Names and texts."""

WIDTH = 10_000
"""The width of a file or a pipe: there a row is one line, and no column is left out."""

PROSE = 80
"""The most columns of a line of prose."""


def _make_console(**about: Any) -> Console:
    """Makes a console as wide as its window, where rich takes each dumb terminal for 80 columns wide, too."""
    console = Console(highlight=False, **about)
    if console.is_dumb_terminal:
        width, height = shutil.get_terminal_size()
        console.size = ConsoleDimensions(width, height)
    return console


def make_stdout() -> Console:
    """Makes the console for results. In a file or a pipe, lines end with their last word."""
    console = _make_console()
    if console.is_terminal:
        return console
    trimmed = cast(IO[str], _Trimmed())
    return Console(file=trimmed, highlight=False, width=max(console.width, WIDTH))


def make_stderr() -> Console:
    """Makes the console for messages."""
    return _make_console(stderr=True)


def find_prose_width() -> int:
    """Returns the columns of a line of prose: 80, or as many as a narrower window has."""
    console = _make_console()
    return min(PROSE, console.width) if console.is_terminal else PROSE


def make_pairs(pairs: Pairs) -> Table:
    """Makes a table of names and texts."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, words in pairs:
        table.add_row(name, Text(words))
    return table


def print_lines(text: str) -> None:
    """Prints lines on standard output; in a terminal, a long line goes on in lines that are indented."""
    console = _make_console()
    for line in text.split("\n"):
        folded = textwrap.wrap(
            line, console.width, subsequent_indent="    ", replace_whitespace=False, break_on_hyphens=False
        )
        print("\n".join(folded) if console.is_terminal and folded else line, flush=True)


class _Trimmed:
    """Standard output without the spaces that fill up the lines of a table."""

    @property
    def encoding(self) -> str:
        return sys.stdout.encoding

    def write(self, text: str) -> int:
        return sys.stdout.write(re.sub(r" +(?=\n)", "", text))

    def flush(self) -> None:
        sys.stdout.flush()


# -- the final model -----------------------------------------------------------------------------


def print_assessment(out: Console, result: Mapping[str, Any]) -> None:
    """Prints the metrics of the final model beside those of a constant predictor, if they were measured."""
    from hanse.evaluation import describe_assessment, tabulate_metrics

    told = result.get("assessment")
    if not told or not told["metrics"]:
        return
    heads, rows = tabulate_metrics(told)
    _print_rows(out, Columns(*heads, numbers=heads[1:-1], folded=heads[:1]), rows, describe_assessment(told))


def print_confusion(out: Console, result: Mapping[str, Any]) -> None:
    """Prints the confusion matrix of the final model, if it was measured and has few classes."""
    from hanse.evaluation import tabulate_confusion

    found = tabulate_confusion(result.get("assessment") or {}, (result.get("data") or {}).get("classes", ()))
    if found is None:
        return
    heads, rows = found
    about = "Each row counts the examples of a class by the class that is predicted."
    _print_rows(out, Columns(*heads, numbers=heads[1:]), rows, about)


def _print_rows(out: Console, table: Columns, rows: Sequence[Sequence[str]], about: str) -> None:
    """Prints a table of these rows, and a sentence about it."""
    for row in rows:
        table.add_row(*row)
    out.print(table)
    out.print(Text(about, style="dim"))
    out.print()


# -- each party's row ----------------------------------------------------------------------------


def print_standing(out: Console, result: Mapping[str, Any], beside: Any = None) -> None:
    """Prints the headline, the table `beside` of the baselines, if there are some, and each party's row."""
    from hanse.evaluation import describe_on_site

    headline = result.get("headline", ())
    for line in headline:
        out.print(Text(f"{line[:1].upper()}{line[1:]}.", style="bold"))
    if headline:
        out.print()
    if beside is not None:
        out.print(beside)
        if about := describe_on_site(result):
            out.print(Text(about, style="dim"))
        out.print()
    print_parties(out, result)


def print_parties(out: Console, result: Mapping[str, Any]) -> None:
    """Prints each party's row; of many parties, those that federation hurt most and helped most."""
    from hanse.evaluation import describe_rows, fold_rows, tabulate_rows

    rows = result.get("parties")
    if not rows:
        return
    shown, folded = fold_rows(rows)
    heads, lines = tabulate_rows(shown, rows[0]["metric"])
    words = [head for head in heads if head.startswith(("federation", "gain"))]
    table = Columns(
        *heads,
        numbers=[head for head in heads[1:] if head not in words],
        folded=[heads[0], *words],
    )
    for line in lines:
        table.add_row(*line)
    out.print(table)
    for sentence in (folded, *describe_rows(rows)):
        if sentence:
            out.print(Text(sentence, style="dim"))
    out.print()
