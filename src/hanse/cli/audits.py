"""The command that attacks a federation as it is configured. `hanse audit-log` is another."""

from pathlib import Path
from typing import Annotated

import typer

from hanse.cli.exits import FAILED, exit_truthfully, print_json
from hanse.cli.options import File, Imports, Json, Sets

__all__ = ["audit_command"]

Page = Annotated[
    Path,
    typer.Option("--to", metavar="FILE.html", help="The page to write.", show_default=True),
]


def audit_command(
    file: File = None,
    sets: Sets = None,
    imports: Imports = None,
    to: Page = Path("audit.html"),
    show_rows: Annotated[
        bool, typer.Option("--show-rows", help="Show rows of tables beside what is read of them, unmasked.")
    ] = False,
    recorded: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Attack the messages of a real run instead, which hanse serve --record FOLDER has kept. A "
            "settings file is needed for claims alone.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="With --recorded: one party's file, to measure gains with."),
    ] = None,
    party: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="With --data: the party's number in the run.")
    ] = None,
    json: Json = False,
) -> None:
    """Attack a federation as it is configured, write what it leaks, and check the claims in [audit]."""
    with exit_truthfully(json):
        from hanse.audits import audit_recording, draw_audit, perform_audit
        from hanse.cli.audit_views import audit_page, audit_progress
        from hanse.cli.views import note, say
        from hanse.config import read_audit
        from hanse.core import InvalidInput
        from hanse.pages import is_page

        if recorded is None and not (data is None and party is None):
            raise InvalidInput("--data and --party compare a recorded run; write --recorded FOLDER, too")
        experiment, plan = read_audit(file, sets or (), imports=imports or (), warn=note)
        if to.exists() and not is_page(to):
            raise InvalidInput(f"{to} exists already, and Hanse did not write it; name another page by --to")
        to.parent.mkdir(parents=True, exist_ok=True)  # fails before anything is attacked
        with audit_progress() as seen:
            if recorded is None:
                result = perform_audit(experiment, plan, seen)
            else:
                result = audit_recording(
                    recorded, plan, data=data, party=party, tell=lambda *at: seen("recording", *at)
                )
        to.write_text(draw_audit(result, show_rows=show_rows), encoding="utf-8")
        if json:
            print_json(result.to_json())
        else:
            audit_page(result)
        say(f"the page is {to}")
    if not result.holds:
        raise typer.Exit(FAILED)
