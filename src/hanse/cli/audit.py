"""The command that shows a client's audit log, checks it, and begins a new one."""

import textwrap
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from hanse.cli.consoles import find_prose_width
from hanse.cli.exits import print_json
from hanse.cli.parties import CLIENT, Home, check_client_home, guard_parties
from hanse.core import HanseError, InvalidInput

__all__ = ["audit_log"]


def audit_log(
    home: Home = CLIENT,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each line as a JSON object on a line.")
    ] = False,
    begin_new: Annotated[
        bool,
        typer.Option("--begin-new", help="Keep this log's file under another name, and begin a new log."),
    ] = False,
) -> None:
    """Show and verify the record of what left this client, and compare it with the server's."""
    with guard_parties():
        from hanse.network.client import AuditLog

        check_client_home(home)
        if begin_new:
            _begin_new(home)
            return
        count, last = 0, ""
        for line in AuditLog(home / "audit.jsonl").lines():
            if as_json:
                print_json(line)
            else:
                typer.echo(_describe_line(line))
            count, last = line["n"] + 1, line["hash"]
        typer.echo(f"complete up to line {count}, whose hash is\n  {last or 'none'}", err=as_json)
        typer.echo(textwrap.fill(_compare(home), find_prose_width(), break_on_hyphens=False), err=as_json)


def _begin_new(home: Path) -> None:
    from hanse.network.client import ClientHome

    client_home = ClientHome(home)
    with client_home.claim():
        old = client_home.audit.begin_new(_ask(client_home))
    typer.echo(f"a new log begins in {client_home.audit.path}; " + (f"the last one is {old}" if old else ""))
    typer.echo("its first line says so, and the server will note it")


def _ask(client_home: Any) -> Any:
    """Asks for the head that the server keeps, if this client is a member of one."""
    from hanse.network.client import ask_kept_head
    from hanse.network.protocol import KeptHead

    kept = client_home.membership
    return KeptHead() if kept is None or kept.get("left") else ask_kept_head(client_home)


def _compare(home: Path) -> str:
    """Compares a log with what the server keeps, and returns the result in words.

    Raises: InvalidInput: if they differ.
    """
    from hanse.network.client import ClientHome

    if not (home / "membership.json").exists():
        return "it was not compared with a server: this client has joined none"
    client_home = ClientHome(home)
    if (client_home.membership or {}).get("left"):
        return "it was not compared with the server: this client has left"
    try:
        kept = _ask(client_home)
    except InvalidInput:
        raise
    except HanseError as error:
        return f"it was not compared with the server: {error}"
    if not kept.lines:
        return "it was not compared: the server keeps nothing of it yet"
    client_home.audit.check(kept)
    return f"it matches what the server keeps, up to line {kept.lines} ({_say_time(kept.at)})"


def _say_time(at_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_s))


def _describe_line(line: Mapping[str, Any]) -> str:
    """Describes a line of the log in one line of text, or in more if it is long."""
    about = {k: v for k, v in line.items() if k not in ("n", "at", "what", "before", "hash") and v}
    said = "  ".join(f"{name}={_describe(value)}" for name, value in about.items())
    head = f"{line['n'] + 1:6} {_say_time(line['at'])} {line['what']}"
    whole = f"{head}  {said}".rstrip()
    width = find_prose_width()
    if len(whole) <= width:
        return whole
    indent = " " * 9
    folded = textwrap.wrap(
        said,
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=True,
    )
    return "\n".join([head, *folded])


def _describe(value: Any) -> str:
    """Describes a value: of a digest, the beginning; of a part, its size."""
    from hanse.network.protocol import printable

    if isinstance(value, Mapping):
        if "bytes" in value:
            return f"{value['bytes']} bytes{', weighted' if value.get('weight') else ''}"
        return "{" + "; ".join(f"{printable(str(k))}: {_describe(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_describe, value)) + "]"
    text = printable(str(value))
    plain = text.removeprefix("sha256:")
    is_digest = len(plain) == 64 and not plain.strip("0123456789abcdef")
    return f"{text[: len(text) - 48]}..." if is_digest else text
