"""The commands of an operator, or an observer, of a server: to look, and to steer."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
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

Operator = Annotated[Path, typer.Option("--home", metavar="FOLDER", help="The operator's folder.")]
OPERATOR = Path(".hanse/server/operator")


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


def _list(link: Any, path: str, **params: Any) -> Any:
    """Asks for what may be longer than other answers: one line for each client or event."""
    from hanse.network.protocol import LIST_BYTES

    return link.plain("GET", path, params=params or None, limit=LIST_BYTES)


def status(home: Operator = OPERATOR, as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """Show the state of the runs of a server."""
    with guard_parties(), _link(home) as link:
        found = _list(link, "/v1/status")
        if as_json:
            typer.echo(json.dumps(found))
            return
        named = "".join(f", {party}" for party in found["parties"])
        typer.echo(f"{found['clients']} clients{named}, {found['open_invitations']} open invitations")
        for run in found["runs"]:
            metrics = ", ".join(f"{name} {_number(value)}" for name, value in run["metrics"].items())
            typer.echo(f"run {run['run']}: {run['status']}, round {run['round']}, {run['doing']}; {metrics}")


def clients(home: Operator = OPERATOR, as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """List the members of a server."""
    with guard_parties(), _link(home) as link:
        found = _list(link, "/v1/clients")
        if as_json:
            typer.echo(json.dumps(found))
            return
        for m in found:
            heard = "never heard" if m["silent_s"] is None else f"heard {m['silent_s']:.0f} s ago"
            typer.echo(f"{m['id']:12} {m['role']:9} {m['state']:8} {m['name']:24} {heard}  {m['doing']}")


def events(home: Operator = OPERATOR, limit: Annotated[int, typer.Option(min=1)] = 100) -> None:
    """Show the events of a server: who joined, failed or was refused, and why."""
    with guard_parties(), _link(home) as link:
        for e in _list(link, "/v1/events", limit=limit):
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(e["at"]))
            typer.echo(f"{when} {e['who']}: {e['what']}".replace("\n", "\n    "))


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
