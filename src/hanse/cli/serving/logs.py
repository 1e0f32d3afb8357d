"""Structured logs on stderr: one line for each event, with time, level and the event's fields.

The code logs `event=NAME key=%s ...`. A value is the argument of its key, so it is never parsed out of a
text. Texts of others are left out: of a foreign logger's message only the template is kept, and of an
exception only its type, since their texts may quote data.
"""

import json
import logging
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from hanse.core import InvalidInput

__all__ = ["Log", "begin_logging"]

Log = Annotated[
    str | None,
    typer.Option(
        "--log",
        envvar="HANSE_LOG",
        metavar="json|text|none",
        help="Log events to stderr, one a line. Default: none.",
        show_default=False,
    ),
]

OURS = "hanse"
MAX_VALUE = 200
"""The longest text of a value."""


def begin_logging(kind: str | None) -> None:
    """Starts to log to stderr. Raises: InvalidInput: if `kind` is not "json", "text", "none" or None."""
    if kind in (None, "", "none"):
        return
    if kind not in ("json", "text"):
        raise InvalidInput(f"--log {kind!r} is unknown; write json, text or none (or the same in $HANSE_LOG)")
    handler = _Stderr()
    handler.setFormatter(_Json() if kind == "json" else _Text())
    root = logging.getLogger()
    for old in [one for one in root.handlers if isinstance(one, _Stderr)]:
        root.removeHandler(old)
    root.addHandler(handler)
    logging.getLogger(OURS).setLevel(logging.INFO)


class _Stderr(logging.Handler):
    """Writes to what stderr is at that moment. Nobody waits for a log that can't be written."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except (OSError, ValueError):
            return


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        said = {"time": _time_of(record), "level": record.levelname.lower(), "logger": record.name}
        return json.dumps({**said, **dict(_fields_of(record))}, ensure_ascii=False)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{key}={_quote(held)}" for key, held in _fields_of(record))
        return f"{_time_of(record)} {record.levelname:7} {fields}"


def _time_of(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _fields_of(record: logging.LogRecord) -> Iterator[tuple[str, Any]]:
    """Yields the keys and values of a record, and the type of its exception."""
    template = str(record.msg)
    if record.name.partition(".")[0] == OURS and template.startswith("event="):
        arguments = iter(record.args if isinstance(record.args, tuple) else ())
        for word in template.split():
            key, _, held = word.partition("=")
            yield key, _as_value(held, next(arguments)) if held.startswith("%") else held
    else:
        yield "event", "message"
        yield "text", template[:MAX_VALUE]
    if record.exc_info and record.exc_info[0] is not None:
        yield "exception", record.exc_info[0].__name__


def _as_value(form: str, given: Any) -> Any:
    """Returns a value as JSON may hold it: numbers and truths as they are, else a short text."""
    if given is None or isinstance(given, bool | int):
        return given
    if isinstance(given, float):
        return float(form % given)
    return str(given)[:MAX_VALUE]


def _quote(held: Any) -> str:
    text = json.dumps(held, ensure_ascii=False)
    plain = text[1:-1]
    is_word = isinstance(held, str) and plain == held and plain and " " not in plain and "=" not in plain
    return plain if is_word else text
