"""The debugger, stopped where an exception is raised."""

import pdb
from bdb import BdbQuit
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["debug_errors"]


@contextmanager
def debug_errors(debug: bool) -> Iterator[None]:
    """Stops in the debugger where an exception is raised, if `debug` is set."""
    try:
        yield
    except BdbQuit:  # the user has left a debugger that was open already
        raise
    except Exception as error:
        if debug and error.__traceback__ is not None:
            pdb.post_mortem(error.__traceback__)
        raise
