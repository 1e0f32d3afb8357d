"""The command line.

Exit codes: 0 completed, also by target or patience; 1 incomplete, failed or diverged; 2 an argument or a
setting can't be used; 130 interrupted. A command imports what it needs when it runs, so that help comes at
once.
"""

from pathlib import Path
from typing import Annotated

import typer

from hanse.cli.audit import audit_log
from hanse.cli.audits import audit_command
from hanse.cli.data import describe_data, init
from hanse.cli.exits import exit_truthfully, print_json
from hanse.cli.member import approve, leave_command, passphrase
from hanse.cli.models import predict_command, release_command
from hanse.cli.network import join_command, serve_command
from hanse.cli.operator import (
    backup,
    clients,
    drain,
    events,
    forget,
    invite,
    restore_command,
    revoke,
    rotate_certificate,
    status,
    stop,
)
from hanse.cli.options import Imports, Json, Store, locate_store
from hanse.cli.pages import compare, demo, report
from hanse.cli.replay import replay
from hanse.cli.runs import ls, plan, remove, resume_command, run_command, show, sweep_command
from hanse.version import __version__

__all__ = ["app", "main"]

app = typer.Typer(
    help="Train one model on the data of many parties, which keep them to themselves.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Runs the command that the arguments name."""
    app()


def _print_version(asked: bool) -> None:
    if asked:
        print(f"hanse {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
]


@app.callback()
def _hanse(version: Version = False) -> None:
    pass


def doctor(
    imports: Imports = None,
    home: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Check the code of users in the folder of a client or server."),
    ] = None,
    json: Json = False,
    store: Store = None,
) -> None:
    """Show which packages are installed, which are missing, and what modules of your own register."""
    with exit_truthfully(json):
        from dataclasses import asdict

        from hanse.cli.doctor import (
            check_home,
            describe_checks,
            describe_imports,
            describe_readable,
            doctor_page,
            extras,
            facts,
        )

        found, about = extras(), dict(facts(locate_store(store)))
        if home is not None:
            about |= describe_readable(home)
        own = describe_imports(imports or ())
        checked = None if home is None else check_home(home)
        if json:
            listed = [{**asdict(extra), "remedy": extra.remedy} for extra in found]
            more = {} if checked is None else {"home": checked}
            print_json({**about, "extras": listed, **({"imports": own} if own else {}), **more})
        else:
            doctor_page(about, found, own)
            for line in () if checked is None else describe_checks(checked):
                typer.echo(line)


data = typer.Typer(help="Look at data before training.", no_args_is_help=True, rich_markup_mode=None)
data.command("describe")(describe_data)
app.add_typer(data, name="data")

app.command("run")(run_command)
app.command()(plan)
app.command("sweep")(sweep_command)
app.command("resume")(resume_command)
app.command()(replay)
app.command()(ls)
app.command()(show)
app.command("rm")(remove)
app.command()(report)
app.command()(compare)
app.command("release")(release_command)
app.command("predict")(predict_command)
app.command()(init)
app.command()(doctor)
app.command("serve")(serve_command)
app.command("join")(join_command)
app.command()(status)
app.command()(clients)
app.command()(events)
app.command()(invite)
app.command()(revoke)
app.command()(forget)
app.command()(backup)
app.command("restore")(restore_command)
app.command("rotate-certificate")(rotate_certificate)
app.command()(stop)
app.command()(drain)
app.command("leave")(leave_command)
app.command()(approve)
app.command()(passphrase)
app.command("audit")(audit_command)
app.command("audit-log")(audit_log)
app.command()(demo)
