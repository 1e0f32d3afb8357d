"""What the two sides tell each other when something can't be done."""

import errno
import sqlite3
from typing import Literal, TypeAlias

from hanse.core import HanseError, InvalidInput

__all__ = ["Forbidden", "Refused", "Unreachable", "Unsuited", "is_disk_full"]


def is_disk_full(error: BaseException | None) -> bool:
    """Whether this error, or one that led to it, says that no space is left on a disk."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            return True
        error = error.__cause__ or error.__context__
    return False


class Refused(HanseError):
    """A request that the server did not accept.

    Args:
      status: of HTTP.
      code: a word that programs may look at; see `docs/deployment.md`.
      why: for people.
      who: the offender, where known.
    """

    def __init__(self, status: int, code: str, why: str, *, who: str | None = None) -> None:
        super().__init__(why)
        self.status, self.code, self.why, self.who = status, code, why, who

    def __str__(self) -> str:
        return f"{self.why} ({self.code})"


class Unreachable(HanseError):
    """The server can't be reached; what was asked may or may not have been done."""


class Forbidden(HanseError):
    """The client's own policy does not allow what the server asks for.

    Args:
      why: for its owner; it stays in the house.
      code: all that the server hears of it.
    """

    def __init__(self, why: str, code: "Forbids" = "policy") -> None:
        super().__init__(why)
        self.code: Forbids = code


Forbids: TypeAlias = Literal["policy", "approval", "budget", "time", "no-data"]
"""What a client says of a refusal of its own."""


class Unsuited(InvalidInput):
    """A client's own data can't be read, or don't suit the run."""
