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
    json: Json = False,
) -> None:
    """Attack a federation as it is configured, write what it leaks, and check the claims in [audit]."""
    with exit_truthfully(json):
        from hanse.audits import draw_audit, perform_audit
        from hanse.cli.audit_views import audit_page, audit_progress
        from hanse.cli.views import note, say
        from hanse.config import read_audit

        experiment, plan = read_audit(file, sets or (), imports=imports or (), warn=note)
        to.parent.mkdir(parents=True, exist_ok=True)  # fails before anything is attacked
        with audit_progress() as seen:
            result = perform_audit(experiment, plan, seen)
        to.write_text(draw_audit(result, show_rows=show_rows), encoding="utf-8")
        if json:
            print_json(result.to_json())
        else:
            audit_page(result)
        say(f"the page is {to}")
    if not result.holds:
        raise typer.Exit(FAILED)
