"""The commands of a client's owner: what it approves, and how it leaves."""

from typing import Annotated, Any

import typer

from hanse.cli.exits import FAILED
from hanse.cli.parties import CLIENT, PARTIES, Copies, Home, check_client_home, guard_parties
from hanse.core import InvalidInput

__all__ = ["approve", "leave_command", "passphrase"]

FEWEST_DIGITS = 8
"""The fewest digits of a digest that name a plan: an empty variable of a script approves nothing."""


def leave_command(home: Home = CLIENT) -> None:
    """Withdraw consent: tell the server, and take no more work from it."""
    with guard_parties():
        from hanse.network.client import ClientHome
        from hanse.network.client import leave as withdraw

        check_client_home(home)
        withdraw(ClientHome(home))
        typer.echo("left; it is recorded on both sides")


def passphrase(
    home: Home = CLIENT,
    remove: Annotated[bool, typer.Option("--remove", help="Decrypt the keys instead.")] = False,
) -> None:
    """Encrypt the keys in a home of a client or a server with a passphrase, or change or remove it."""
    with guard_parties():
        from hanse.network.protocol import change_passphrase, claim_home, remove_passphrase

        if not any((home / name).exists() for name in ("key.pem", "identity.pem")):
            why = "holds no keys" if home.exists() else "does not exist"
            raise InvalidInput(f"{home} {why}; name the folder of a client or a server by --home")
        with claim_home(home):
            (remove_passphrase if remove else change_passphrase)(home)
        typer.echo(f"the keys in {home} are {'not encrypted any more' if remove else 'encrypted'}")


def approve(
    plan: str,
    home: Home = CLIENT,
    imports: Copies = None,
    yes: Annotated[bool, typer.Option("--yes", help="Ask no question: the code was read.")] = False,
) -> None:
    """Approve a plan, by the beginning of its digest, and show what it asks for and the code it imports."""
    with guard_parties():
        from hanse.network.client import ClientHome, plan_digest, waiting_plans

        check_client_home(home)
        client_home = ClientHome(home)
        plans = {plan_digest(p): p for p in waiting_plans(client_home)}
        found = [p for digest, p in plans.items() if len(plan) >= FEWEST_DIGITS and digest.startswith(plan)]
        if len(found) != 1:
            here = ", ".join(digest[:16] for digest in plans) or "none"
            raise InvalidInput(
                f"{len(found)} plans in {home} begin with {plan!r}: write at least {FEWEST_DIGITS} digits of "
                f"the digest that hanse join has shown. The plans there: {here}"
            )
        client_home.own_imports.given = imports or ()
        PARTIES.register()  # so that transforms and reducers can say what they do
        for line in client_home.describe_plan(found[0]):
            typer.echo(line)
        typer.echo()
        _approve_code(client_home, found[0], yes)
        approved = client_home.approvals.approve(found[0])
        typer.echo(f"approved {approved}")


def _approve_code(client_home: Any, plan: Any, yes: bool) -> None:
    """Shows the owner's copies of the modules that a plan names, and approves them if the owner agrees."""
    from hanse.network.client import describe_code, read_contents

    own = client_home.own_imports
    found = [read_contents(own.find_same(needed)) for needed in plan.imports]
    for contents in found:
        before = own.approved.read_copy(contents.found.module)
        copy = None if before is None else own.approved.locate_copy(before.found)
        for line in describe_code(contents, before, copy):
            typer.echo(line)
        typer.echo()
    if found and not yes:
        try:
            typer.confirm("Taking part executes this code here. Approve it and the plan?", abort=True)
        except typer.Abort:
            typer.echo("\nnothing was approved; --yes approves without this question")
            raise typer.Exit(FAILED) from None
    for contents in found:
        own.approved.approve(contents)
