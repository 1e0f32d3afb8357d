"""The end of a command: its exit code, and the reason that it prints."""

import errno
import json as json_
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import typer

__all__ = [
    "BAD_INPUT",
    "ENDS",
    "FAILED",
    "INTERRUPTED",
    "REVOKED",
    "UNSUITED",
    "exit_truthfully",
    "print_json",
]

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130

STOPPED, INCOMPLETE, DIVERGED = 3, 4, 5
"""The exit codes of `hanse serve` for ends after which it should not be started again by itself."""

REVOKED, UNSUITED = 6, 7
"""The exit codes of `hanse join` for ends after which it should not be started again by itself."""

ENDS: Mapping[str, int] = {
    "completed": 0,
    "incomplete": INCOMPLETE,
    "stopped": STOPPED,
    "interrupted": INTERRUPTED,
    "diverged": DIVERGED,
    "failed": FAILED,
}
"""The exit codes of `hanse serve` by how its run ended. `docs/deployment.md` lists them."""


@contextmanager
def exit_truthfully(json: bool) -> Iterator[None]:
    """Ends the process with the right exit code and a message. Only faults of Hanse show a traceback."""
    from hanse.core import HanseError

    try:
        yield
    except typer.Exit:
        raise
    except KeyboardInterrupt as stop:
        _say_why(str(stop) or "interrupted before anything began", json, stop, "interrupted")
        raise typer.Exit(INTERRUPTED) from None
    except typer.Abort:  # at a question
        _say_why("\ninterrupted at a question", json, KeyboardInterrupt(), "interrupted")
        raise typer.Exit(INTERRUPTED) from None
    except HanseError as error:
        if os.environ.get("HANSE_DEBUG", "0") != "0":
            raise
        _say_why(str(error), json, error, "failed")
        raise typer.Exit(_exit_code(error)) from None
    except OSError as error:
        why = _describe_file_error(error)
        if why is None or os.environ.get("HANSE_DEBUG", "0") != "0":
            raise
        _say_why(why, json, error, "failed")
        raise typer.Exit(BAD_INPUT) from None
    except Exception as error:
        if json and not isinstance(error, BrokenPipeError):
            print_json(_nothing("failed", f"{type(error).__name__}: {error}"))
        raise


def _describe_file_error(error: OSError) -> str | None:
    """Describes why a file or folder of the user's can't be used; None: the error is of another kind."""
    kinds = (PermissionError, FileExistsError, NotADirectoryError, IsADirectoryError, FileNotFoundError)
    if not isinstance(error, kinds) and error.errno not in (errno.ENOSPC, errno.EROFS):
        return None
    if error.filename is None:
        return None
    cures: Mapping[type[OSError], str] = {
        FileExistsError: "a file of that name is there already; name another folder",
        NotADirectoryError: "a part of it is a file and no folder; name another folder",
        PermissionError: "this user may not do so there; name another folder, or change its permissions",
        IsADirectoryError: "it is a folder; name a file",
    }
    cure = cures.get(type(error), "name another place")
    return f"{os.fspath(error.filename)} can't be used: {error.strerror or error}; {cure}"


def _say_why(why: str, json: bool, error: BaseException, status: str) -> None:
    from hanse.cli.views import complain, say

    result = getattr(error, "result", None)
    if json:
        print_json(_nothing(status, why) if result is None else result.to_json())
    if status == "interrupted":
        say(why)
    else:
        complain(why, getattr(error, "__notes__", ()))


def _exit_code(error: "BaseException") -> int:
    from hanse.core import CompositionError, InvalidInput, StoreError
    from hanse.network.protocol import Forbidden, Refused, Unsuited

    if isinstance(error, Unsuited):
        return UNSUITED
    if isinstance(error, Refused) and error.is_proven and error.code in ("revoked", "left"):
        return REVOKED
    by_user = InvalidInput | CompositionError | StoreError | Forbidden
    return BAD_INPUT if isinstance(error, by_user) else FAILED


def _nothing(status: str, reason: str) -> dict[str, Any]:
    return {"run": None, "status": status, "reason": reason}


def print_json(tree: Mapping[str, Any]) -> None:
    """Prints one JSON object on one line."""
    print(json_.dumps(tree, allow_nan=False, ensure_ascii=False))
