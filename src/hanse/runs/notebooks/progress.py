"""The progress of a run in a notebook: one line under the cell, which is replaced round by round."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from hanse.core.exchange import Record, Watch
from hanse.evaluation import as_number
from hanse.pages import escape

__all__ = ["is_notebook", "show_progress"]

EVERY_S = 0.1
"""The least seconds between two updates, so that short rounds don't wait for the browser."""


def is_notebook() -> bool:
    """Returns whether this process is the kernel of a notebook. It imports nothing."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


@contextmanager
def show_progress(run: str | None, rounds: int) -> Iterator[Watch]:
    """Shows the progress of a run: in a notebook a bar, and elsewhere a line on stderr for each change.

    Args:
      run: its id, if it is kept.
      rounds: the number of rounds that it may take.
    """
    shown = _Line(run, rounds)
    try:
        yield shown.watch
    finally:
        shown.show()


class _Line:
    """One line that is replaced."""

    def __init__(self, run: str | None, rounds: int) -> None:
        self._run, self._rounds = "" if run is None else f"run {run}: ", rounds
        self._last: Record | None = None
        self._metrics = ""
        self._due_s = 0.0
        self._handle: Any = None

    def watch(self, record: Record) -> None:
        self._last = record
        if record.metrics:
            self._metrics = "".join(f"  {name} {as_number(m)}" for name, m in record.metrics.items())
        if time.monotonic() >= self._due_s:
            self.show()
            self._due_s = time.monotonic() + EVERY_S

    def show(self) -> None:
        """Shows the last round, unless it is shown already."""
        if self._last is None:
            return
        done, self._last = min(self._last.round, self._rounds), None
        text = f"{self._run}round {done}/{self._rounds}{self._metrics}"
        if not is_notebook():
            print(text, file=sys.stderr, flush=True)
            return
        said = {
            "text/plain": text,
            "text/html": f'<progress value="{done}" max="{self._rounds}"></progress> {escape(text)}',
        }
        if self._handle is None:
            self._handle = import_module("IPython.display").display(said, raw=True, display_id=True)
        else:
            self._handle.update(said, raw=True)
