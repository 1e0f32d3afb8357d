"""The errors of clients and servers, and the codes by which the two sides name them."""

import errno
import sqlite3
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from hanse.core import HanseError, InvalidInput

__all__ = [
    "Forbidden",
    "Refused",
    "RowStays",
    "Unreachable",
    "Unsuited",
    "Withdrawn",
    "WrongContent",
    "is_disk_full",
]


def is_disk_full(error: BaseException | None) -> bool:
    """Returns whether this error, or one that led to it, says that no space is left on a disk."""
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
      code: a word for programs; see `docs/deployment.md`.
      why: a text for people.
      who: the id of the member who sent the request, where known.
      retry_s: the seconds after which the same request may be accepted, where known.
    """

    is_proven = True
    """Whether the server has said so. If not, somebody on the way may have: the request may yet succeed."""

    receipt: Mapping[str, Any] = {}
    """The signed answer, as `AnswerVerifier.check` returns it."""

    def __init__(
        self, status: int, code: str, why: str, *, who: str | None = None, retry_s: float | None = None
    ) -> None:
        super().__init__(why)
        self.status, self.code, self.why, self.who = status, code, why, who
        self.retry_s = retry_s

    def __str__(self) -> str:
        return f"{self.why} ({self.code})"


class Unreachable(HanseError):
    """The server can't be reached. It may or may not have done what the request asked for."""


class NotSent(Unreachable):
    """No connection was made, so that nothing of the request has left."""


class WrongContent(Unreachable):
    """A download that does not have the SHA-256 that a signed answer names."""


class Withdrawn(HanseError):
    """The client's owner has withdrawn consent: the client takes no more work, and sends nothing more."""


class Forbidden(HanseError):
    """The client's own policy does not allow what the server asks for.

    Args:
      why: a text for the client's owner, which never leaves the client.
      code: is all that the server hears of it.
    """

    def __init__(self, why: str, code: "Forbids" = "policy") -> None:
        super().__init__(why)
        self.code: Forbids = code


class RowStays(Forbidden):
    """The client's owner has not agreed that the server sees this client's row."""


Forbids: TypeAlias = Literal["policy", "approval", "imports", "budget", "time", "no-data"]
"""The codes by which a client names a refusal of its own."""


class Unsuited(InvalidInput):
    """A client's own data can't be read, or don't suit the run."""
