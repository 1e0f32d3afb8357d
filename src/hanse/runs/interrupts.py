"""Ctrl-C that waits for a moment when nothing is half written."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Interrupts"]


class Interrupts:
    """A context in which Ctrl-C waits for the next moment at which it is allowed.

    If a debugger or an event loop handles Ctrl-C already, it goes on to do so.
    """

    def __init__(self) -> None:
        self._pending = self._allowed = False

    def __enter__(self) -> "Interrupts":
        in_main = threading.current_thread() is threading.main_thread()
        self._ours = in_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if self._ours:
            signal.signal(signal.SIGINT, self._notice)
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if self._ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._pending and kind is None:
            raise KeyboardInterrupt

    def _notice(self, number: int, frame: FrameType | None) -> None:
        if self._allowed:
            raise KeyboardInterrupt
        self._pending = True

    @contextmanager
    def allow(self) -> Iterator[None]:
        """Allows Ctrl-C at any point of the block."""
        if self._pending:
            self._pending = False
            raise KeyboardInterrupt
        self._allowed = True
        try:
            yield
        finally:
            self._allowed = False
