"""The token of a client that joins: from a file, the environment, a prompt or the command line."""

import os
import sys
from pathlib import Path
from typing import Any

import typer

from hanse.core import InvalidInput

__all__ = ["HANSE_TOKEN", "read_token"]

HANSE_TOKEN = "HANSE_TOKEN"
"""The variable of the environment that may hold a token."""


def read_token(token: str | None, path: Path | None, ask: bool, *, is_member: bool = False) -> Any | None:
    """Returns the token that a client was given; None: it was given none.

    Args:
      token: from the command line.
      path: a file that holds it.
      ask: whether to ask for it on a terminal.
      is_member: whether the client has joined: the server removes the file of a token that was used, so it
        need not be there any more.

    Raises: InvalidInput: if it is none, was given twice, or has to be given and nobody can be asked.
    """
    from hanse.cli.views import note
    from hanse.network.protocol import Token

    if token is not None and path is not None:
        raise InvalidInput("give --token or --token-file, not both")
    if path is not None and not (is_member and not path.exists()):
        try:
            token = path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(
                f"--token-file {path} can't be read ({error}); name the operator's file"
            ) from None
        if os.name == "posix" and path.stat().st_mode & 0o077:
            note(
                f"others on this machine can read {path}, and whoever reads it before it is used can join in "
                f"your place: chmod 600 {path}"
            )
    elif token is None:
        token = os.environ.get(HANSE_TOKEN) or None
    if token is None and ask:
        if not sys.stdin.isatty():
            raise InvalidInput(
                "the token is missing, and nobody is here to be asked for it: name the operator's file by "
                f"--token-file, or set the variable {HANSE_TOKEN}"
            )
        token = typer.prompt("The token that the operator sent", hide_input=True).strip()
    return None if token is None else Token.parse(token)
