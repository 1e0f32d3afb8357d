"""A module's code as its owner is asked to approve it: what has changed, or where it can be read."""

import shlex
from collections.abc import Iterator
from difflib import unified_diff
from pathlib import Path

from hanse.network.client.approved_imports import Contents
from hanse.network.protocol.wire import printable

__all__ = ["describe_code"]

WIDTH = 80
MOST_LINES = 400
"""Lines of a diff that are shown; the owner reads longer ones in another program."""


def describe_code(now: Contents, before: Contents | None, copy: Path | None) -> Iterator[str]:
    """Yields lines of at most 80 columns about a module, whose texts can't steer a terminal.

    Args:
      now: the owner's copy.
      before: as it was approved last; None: it was not, or no copy of it is there.
      copy: the folder of that copy.
    """
    found = now.found
    yield from _fold(f"{found.name}, {found.kind}, {found.digest}")
    if not found.files:
        yield from _fold("it is installed; read it where pip has put it: pip show -f NAME")
        return
    folder = Path(found.folder)
    if before is None or copy is None:
        for path, data in now.files.items():
            yield from _fold(f"  {path}: {len(data)} bytes, sha256 {found.files[path]}")
        yield from _fold("it was not approved before. Read all of it; for instance:")
        yield from (f"  less {_quote(folder / path)}" for path in now.files)
        return
    if before.files == now.files:
        yield "it is as you have approved it before"
        return
    lines = [line for each in _diff(before, now) for line in _fold(each)]
    yield from lines[:MOST_LINES]
    if len(lines) > MOST_LINES:
        yield f"{len(lines) - MOST_LINES} more lines are not shown; read them all:"
        yield from (
            f"  diff -u {_quote(copy / path)} {_quote(folder / path)}"
            for path in sorted({**before.files, **now.files})
            if before.files.get(path) != now.files.get(path)
        )


def _diff(before: Contents, now: Contents) -> Iterator[str]:
    for path in sorted({**before.files, **now.files}):
        old, new = before.files.get(path), now.files.get(path)
        if old == new:
            continue
        name, new_name = ("(no such file)" if data is None else path for data in (old, new))
        lines, new_lines = _split(old), _split(new)
        if lines is None or new_lines is None:
            yield from (f"--- {name}", f"+++ {new_name}")
            yield f"  it is no text: {len(old or b'')} bytes before, {len(new or b'')} now"
        else:
            yield from unified_diff(lines, new_lines, name, new_name, lineterm="")


def _split(data: bytes | None) -> list[str] | None:
    """Splits a file's text at its line feeds; a carriage return is shown as it is. None: it is no text."""
    try:
        return [] if data is None else data.decode().split("\n")
    except UnicodeDecodeError:
        return None


def _quote(path: Path) -> str:
    return printable(shlex.quote(str(path)))


def _fold(line: str) -> Iterator[str]:
    """Folds a line: all of it is shown, because what is cut off is not approved."""
    line = printable(line.expandtabs(4))
    yield line[:WIDTH]
    rest = line[WIDTH:]
    while rest:
        yield f"   >{rest[: WIDTH - 4]}"
        rest = rest[WIDTH - 4 :]
