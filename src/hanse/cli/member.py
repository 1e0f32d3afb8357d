"""The commands of a client's owner: what it approves, what it has sent, and how it leaves."""

import json
import time

import typer

from hanse.cli.parties import CLIENT, PARTIES, Home, guard_parties
from hanse.core import InvalidInput

__all__ = ["approve", "audit_log", "leave_command"]


def leave_command(home: Home = CLIENT) -> None:
    """Withdraw consent: tell the server, and take no more work from it."""
    with guard_parties():
        from hanse.network.client import ClientHome
        from hanse.network.client import leave as withdraw

        withdraw(ClientHome(home))
        typer.echo("left; it is recorded on both sides")


def approve(plan: str, home: Home = CLIENT) -> None:
    """Approve a plan, by the beginning of its digest."""
    with guard_parties():
        from hanse.network.client import ClientHome, plan_digest, waiting_plans

        PARTIES.register()
        client_home = ClientHome(home)
        found = [p for p in waiting_plans(client_home) if plan_digest(p).startswith(plan)]
        if len({plan_digest(p) for p in found}) != 1:
            raise InvalidInput(f"{len(found)} plans begin with {plan!r}; write all of the digest")
        typer.echo(f"approved {client_home.approvals.approve(found[0])}")


def audit_log(home: Home = CLIENT) -> None:
    """Show and verify the record of what this client has sent."""
    with guard_parties():
        from hanse.network.client import AuditLog

        last = ""
        for line in AuditLog(home / "audit.jsonl").lines():
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(line["at"]))
            about = {k: v for k, v in line.items() if k not in ("n", "at", "what", "before", "hash")}
            typer.echo(f"{line['n']:6} {when} {line['what']}: {json.dumps(about)}")
            last = line["hash"]
        typer.echo(f"complete; the last line's hash is {last or 'none'}")
