"""Consoles for standard output and for messages."""

import re
import sys
from typing import IO, cast

from rich.console import Console

__all__ = ["make_stderr", "make_stdout"]

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


class _Trimmed:
    """Standard output without the spaces that fill up the lines of a table."""

    @property
    def encoding(self) -> str:
        return sys.stdout.encoding

    def write(self, text: str) -> int:
        return sys.stdout.write(re.sub(r" +(?=\n)", "", text))

    def flush(self) -> None:
        sys.stdout.flush()
