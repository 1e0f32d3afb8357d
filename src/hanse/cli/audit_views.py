"""Output of an audit in a terminal: its progress on stderr, the findings on stdout."""

import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from hanse.cli.consoles import find_prose_width, make_stderr

if TYPE_CHECKING:
    from hanse.audits import AuditResult, Section, Seen

__all__ = ["audit_page", "audit_progress"]


@contextmanager
def audit_progress() -> "Iterator[Seen]":
    """Shows the progress of an audit: a bar in a terminal, and elsewhere a line for each part."""
    console, began_s, said = make_stderr(), time.monotonic(), set[str]()
    if not console.is_terminal:

        def tell(part: str, done: int, total: int) -> None:
            if part not in said:
                said.add(part)
                print(f"audit: {part}  {time.monotonic() - began_s:.1f} s", file=sys.stderr, flush=True)

        yield tell
        return
    columns = (
        TextColumn("{task.description}", style="dim"),
        BarColumn(bar_width=None),
        TextColumn("{task.completed}/{task.total} runs"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, expand=True) as bar:
        tasks: dict[str, int] = {}

        def seen(part: str, done: int, total: int) -> None:
            task = tasks.get(part)
            if task is None:
                task = tasks[part] = bar.add_task(part, total=total)
            bar.update(task, completed=done, total=total)  # type: ignore[arg-type]

        yield seen


def audit_page(result: "AuditResult") -> None:
    """Prints the findings, in lines of at most 80 characters."""
    for line in _list_lines(result, find_prose_width()):
        print(line)


def _list_lines(result: "AuditResult", width: int) -> Iterator[str]:
    for section in result.sections.values():
        yield section.title
        if section.missing is not None:
            yield from _fold(f"not measured: {section.missing}", "  ", width)
        else:
            yield from _lay_out(section, width)
        yield ""
    yield "Claims"
    if not result.claims:
        yield from _fold("none are made; write some in the table [audit] of the settings file", "  ", width)
    for claim in result.claims:
        yield from _fold(str(claim), "  ", width)


def _lay_out(section: "Section", width: int) -> Iterator[str]:
    """Lays a table out in columns where it fits, and otherwise row by row."""
    rows: list[Sequence[str]] = [section.heads, *section.rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(section.heads))]
    spare = width - 2 - sum(widths[1:]) - 2 * (len(widths) - 1)
    if spare >= min(widths[0], 16):
        widths[0] = min(widths[0], spare)
        for row in rows:
            first, *more = textwrap.wrap(row[0], widths[0]) or [""]
            laid = (cell.ljust(wide) for cell, wide in zip([first, *row[1:]], widths, strict=True))
            yield ("  " + "  ".join(laid)).rstrip()
            yield from (f"  {line}" for line in more)
        return
    for cells in section.rows:
        yield from _fold(": ".join(cells[:-1]), "  ", width)
        yield from _fold(cells[-1], "    ", width)


def _fold(words: str, indent: str, width: int) -> Iterator[str]:
    yield from textwrap.wrap(
        words, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
