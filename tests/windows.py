"""Commands in a terminal whose window has some width, as a reader sees them."""

import os
import re
from pathlib import Path

from forked import PIPE, python

__all__ = ["WIDTHS", "type_in_window"]

WIDTHS = (60, 80, 120)

CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def type_in_window(width: int, *words: object, cwd: Path | None = None, returns: int = 0) -> list[str]:
    """Return the lines that a command prints, after checks that hold for every command."""
    ours, theirs = os.openpty()
    env = {**os.environ, "COLUMNS": str(width), "LINES": "40", "TERM": "xterm"}
    with python("-m", "hanse", *words, cwd=cwd, env=env, stdout=theirs, stderr=PIPE) as process:
        os.close(theirs)
        parts = []
        try:
            while part := os.read(ours, 65536):
                parts.append(part)
        except OSError:
            pass  # so a terminal says that nobody writes to it any more
        _, said = process.communicate(60)
    os.close(ours)
    assert process.returncode == returns, said
    lines = CONTROL.sub("", b"".join(parts).decode()).replace("\r\n", "\n").splitlines()
    for line in lines:
        if not line.startswith("next  "):  # a command to copy stays one line
            assert len(line.rstrip()) <= width, f"{len(line)} characters in a window of {width}: {line!r}"
        assert "…" not in line, f"cut in a window of {width}: {line!r}"
    return lines
