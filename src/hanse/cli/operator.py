"""The commands of an operator, or an observer, of a server: to look, and to steer."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from hanse.cli.parties import guard_parties

__all__ = [
    "backup",
    "clients",
    "drain",
    "events",
    "forget",
    "invite",
    "restore_command",
    "revoke",
    "rotate_certificate",
    "status",
    "stop",
]

Looked = Annotated[
    Path,
    typer.Option("--home", metavar="FOLDER", help="The operator's folder, or the server's if it is here."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Operator = Annotated[Path, typer.Option("--home", metavar="FOLDER", help="The operator's folder.")]
OPERATOR = Path(".hanse/server/operator")

FOLLOW_S = 1.0
"""The seconds between two looks at events."""

MOST_EVENTS = 10_000
"""The most new events that one look brings."""


def _number(value: float | None) -> str:
    return "is not finite" if value is None else f"{value:.4g}"  # JSON has no word for infinity


@contextmanager
def _link(home: Path) -> Iterator[Any]:
    from hanse.network.client import ClientHome

    link = ClientHome(home).link()
    try:
        yield link
    finally:
        link.close()


@dataclass(frozen=True)
class _Source:
    """A source of answers about a server: `ask("events", limit=5)`."""

    ask: Callable[..., Any]
    is_running: bool


@contextmanager
def _source(home: Path, *, quiet: bool = False) -> Iterator[_Source]:
    """Yields what answers questions: a server that runs, or else its folder, if that is on this machine."""
    from hanse.cli.views import say
    from hanse.network.protocol import LIST_BYTES
    from hanse.network.server.upkeep import find_server_at_rest

    at_rest = find_server_at_rest(home)
    if at_rest is None:
        with _link(home if not (home / "operator").exists() else home / "operator") as link:
            # a list may be longer than other answers: it has a line for each client or event
            yield _Source(
                lambda what, **given: link.plain("GET", f"/v1/{what}", params=given, limit=LIST_BYTES), True
            )
    else:
        if not quiet:
            say(f"the server is not running; as of {_time(at_rest.as_of)}")
        yield _Source(lambda what, **given: getattr(at_rest, what)(**given), False)


def _time(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def status(home: Looked = OPERATOR, as_json: AsJson = False) -> None:
    """Show the state of the runs of a server, also after it has ended."""
    with guard_parties(), _source(home) as source:
        from hanse.cli.consoles import print_lines

        found = source.ask("status")
        if as_json:
            typer.echo(json.dumps(found))
            return
        named = "".join(f", {party}" for party in found["parties"])
        typer.echo(f"{found['clients']} clients{named}, {found['open_invitations']} open invitations")
        for run in found["runs"]:
            print_lines(_describe_run(run))


def _describe_run(run: Mapping[str, Any]) -> str:
    from hanse.evaluation import as_bytes

    of = "" if run.get("num_rounds") is None else f" of {run['num_rounds']}"
    metrics = ", ".join(f"{name} {_number(value)}" for name, value in run["metrics"].items())
    parts = [f"{run['status']}, round {run['round']}{of}", run["doing"], metrics]
    if run["status"] == "running" and "present" in run:
        awaited = "; awaited: " + ", ".join(map(_name, run["awaited"][:10])) if run["awaited"] else ""
        more = f" and {len(run['awaited']) - 10} more" if len(run["awaited"]) > 10 else ""
        parts.append(f"{len(run['present'])} of {run['num_joined']} present{awaited}{more}")
    if "bytes_up" in run:
        parts.append(f"{as_bytes(run['bytes_up'])} up, {as_bytes(run['bytes_down'])} down")
    return f"run {run['run']}: {'; '.join(filter(None, parts))}"


def _name(party: int | str) -> str:
    return f"client {party}" if isinstance(party, int) else party


def clients(home: Looked = OPERATOR, as_json: AsJson = False) -> None:
    """List the members of a server, also after it has ended."""
    with guard_parties(), _source(home) as source:
        from hanse.cli.consoles import make_stdout
        from hanse.columns import Columns

        found = source.ask("clients")
        if as_json:
            typer.echo(json.dumps(found))
            return
        since = "heard" if source.is_running else "joined"
        table = Columns(
            "id", "role", "state", "name", since, "doing",
            folded=("name", "doing"), first_out=("role", since),
        )  # fmt: skip
        for m in found:
            heard = "never heard" if m["silent_s"] is None else f"heard {m['silent_s']:.0f} s ago"
            heard = heard if source.is_running else f"joined {_time(m['joined'])}"
            table.add_row(m["id"], m["role"], m["state"], m["name"], heard, m["doing"])
        make_stdout().print(table)


def events(
    home: Looked = OPERATOR,
    limit: Annotated[int, typer.Option(min=1, help="The last so many.")] = 100,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Wait for more, until Ctrl-C, also while no server runs.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show the events of a server: who joined, failed or was refused, and why."""
    with guard_parties():
        from hanse.cli.consoles import print_lines

        with suppress(KeyboardInterrupt) if follow else nullcontext():  # which ends it at any moment
            after, was_running = 0, True
            while True:
                with _source(home, quiet=not was_running) as source:
                    found = source.ask("events", limit=limit if after == 0 else MOST_EVENTS, after=after)
                    was_running = source.is_running
                for event in found:
                    if as_json:
                        typer.echo(json.dumps(event))
                    else:
                        print_lines(_describe_event(event))
                after = max([after, *(event["position"] for event in found)])
                if not follow:
                    return
                time.sleep(FOLLOW_S)


def _describe_event(event: Mapping[str, Any]) -> str:
    return f"{_time(event['at'])} {event['who']}: {event['what']}".replace("\n", "\n    ")


def invite(
    home: Operator = OPERATOR,
    role: Annotated[str, typer.Option(help="client, observer or operator.")] = "client",
    name: Annotated[str, typer.Option(help="The name of the new member.")] = "",
    party: Annotated[
        str, typer.Option(metavar="NAME", help="The named party that it will play, such as key_holder.")
    ] = "",
    to: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the token there, for its owner alone, and do not print it."),
    ] = None,
) -> None:
    """Invite one more member, and print the command for it to type."""
    with guard_parties(), _link(home) as link:
        from hanse.network.protocol import Invitation, Invited, write_privately
        from hanse.network.server import join_line

        asked = Invitation.model_validate({"role": role, "name": name, "party": party})
        invited = link.ask("POST", "/v1/invitations", Invited, asked)
        if to is not None:
            write_privately(to, f"{invited.token}\n".encode())
        typer.echo(join_line(link.url, to or invited.token, party or invited.number))


def revoke(client: str, home: Operator = OPERATOR) -> None:
    """End a membership at once, by id, number or name."""
    with guard_parties(), _link(home) as link:
        from urllib.parse import quote

        said = link.plain("POST", f"/v1/clients/{quote(client, safe='')}/revoke")
        typer.echo(f"{said['revoked']} is revoked")


def forget(client: str, home: Operator = OPERATOR) -> None:
    """Remove what the server keeps of a client that has left or was revoked."""
    with guard_parties(), _link(home) as link:
        from urllib.parse import quote

        said = link.plain("POST", f"/v1/clients/{quote(client, safe='')}/forget")
        typer.echo(f"{said['forgotten']} is forgotten: its name, key, events and failed tickets are removed")
        typer.echo(
            "its share in the models stays, as do its number and its counts in the records of runs; earlier "
            "backups hold what they held"
        )


Server = Annotated[Path, typer.Option("--home", metavar="FOLDER", help="The server's folder.")]
SERVER = Path(".hanse/server")


def backup(
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="A new folder.")],
    home: Server = SERVER,
) -> None:
    """Copy a server's folder, also while it serves."""
    with guard_parties():
        from hanse.network.server.upkeep import back_up

        typer.echo(f"{to} is the backup of {back_up(home, to)}; it holds the server's keys, so guard it")


def restore_command(
    backup: Annotated[Path, typer.Argument(metavar="BACKUP", help="A folder that `hanse backup` made.")],
    home: Server = SERVER,
) -> None:
    """Make a server's folder from a backup; then serve again."""
    with guard_parties():
        from hanse.network.server.upkeep import restore_backup

        made = restore_backup(backup, home)
        typer.echo(f"{home} is as it was at {made}; serve again, and never serve the old folder beside it")


def rotate_certificate(
    home: Operator = OPERATOR,
    certificate: Annotated[
        Path | None, typer.Option(metavar="PEM", help="The certificate that a proxy in front will show.")
    ] = None,
    switch: Annotated[bool, typer.Option("--switch", help="Show the announced one.")] = False,
    anyway: Annotated[bool, typer.Option("--anyway", help="Even if some clients don't know of it.")] = False,
) -> None:
    """Announce another certificate to all clients, or show it once they know of it."""
    with guard_parties(), _link(home) as link:
        from hanse.network.protocol import Rotated, Rotation

        pem = "" if certificate is None else certificate.read_text(encoding="ascii")
        asked = Rotation(certificate=pem, switch=switch, anyway=anyway)
        done = link.ask("POST", "/v1/certificate", Rotated, asked)
        total = len(done.know) + len(done.missing)
        typer.echo(
            f"certificate {done.fingerprint[:16]}... is {'in place' if done.switched else 'announced'}; "
            f"{len(done.know)} of {total} clients know of it"
        )
        if done.missing and not done.switched:
            typer.echo(f"not yet: {', '.join(done.missing)}")
        if not done.switched:
            typer.echo("when all know: hanse rotate-certificate --switch")


def stop(run: str, home: Operator = OPERATOR) -> None:
    """Stop a run where it is. Serving it again goes on with it."""
    with guard_parties(), _link(home) as link:
        link.plain("POST", f"/v1/runs/{run}/stop")


def drain(run: str, home: Operator = OPERATOR) -> None:
    """Stop a run after its current round."""
    with guard_parties(), _link(home) as link:
        link.plain("POST", f"/v1/runs/{run}/drain")
