"""The command that does the work of a client in a round again."""

import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hanse.cli.exits import FAILED, exit_truthfully, print_json
from hanse.cli.options import Accept, Imports, Json, RunId, Store, locate_store
from hanse.cli.parties import PARTIES

if TYPE_CHECKING:
    from hanse.runs import Case, Replayed

__all__ = ["replay"]


def replay(
    run: RunId,
    round: Annotated[int, typer.Option(metavar="R", help="The round; a client home needs none.")] = 0,
    client: Annotated[
        str,
        typer.Option(
            metavar="C", help='The number of a client, or a role such as "server".', show_default=False
        ),
    ] = "",
    data: Annotated[
        str | None, typer.Option(metavar="FILE", help="Examples that take the place of the client's own.")
    ] = None,
    home: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="The folder of a client or server, if the parties were real."),
    ] = None,
    debug: Annotated[
        bool, typer.Option("--pdb", help="Stop in the debugger where the work begins, and at an exception.")
    ] = False,
    imports: Imports = None,
    accept: Accept = False,
    json: Json = False,
    store: Store = None,
) -> None:
    """Do the work of one client in a round again, and show what it emits."""
    with exit_truthfully(json):
        from hanse.cli.views import note
        from hanse.imports import load_imports
        from hanse.runs import Case, Replayed, existing, in_simulation

        done: list[Replayed] = []

        def act(case: Case) -> Replayed:
            done.append(_replay_case(case, debug=debug, show=not json))
            return done[-1]

        if home is not None:
            load_imports(imports or (), Path.cwd())  # of code that others named, only what the user names too
            for case in _cases(home, run, round, client, data):
                act(case)
            remark = ""
        else:
            who = (
                int(client)
                if client.isdecimal()
                else _said(client, "write --client C, to say whose work is done again")
            )
            _, remark = in_simulation(
                existing(locate_store(store)),
                run,
                round,
                who,
                act,
                file=data,
                imports=imports or (),
                accept_changed_imports=accept,
            )
        if json:
            print_json({"replayed": [one.to_json() for one in done], "remark": remark})
        elif remark:
            note(remark)


def _replay_case(case: "Case", *, debug: bool, show: bool) -> "Replayed":
    """Does a ticket again; shows it before and after, and where it failed."""
    from bdb import BdbQuit

    from hanse.cli.views import case_page, replay_page
    from hanse.runs import debug_errors, replay_ticket

    if show:
        case_page(case)
    try:
        with debug_errors(debug):
            found = replay_ticket(case, debug=debug)
    except BdbQuit:
        raise typer.Exit from None
    except Exception:
        if show:  # the user wants to see where it happened, whatever kind of error it is
            traceback.print_exc()
            raise typer.Exit(FAILED) from None
        raise
    if show:
        replay_page(found)
    return found


def _said(given: str, otherwise: str) -> str:
    from hanse.core import InvalidInput

    if not given:
        raise InvalidInput(otherwise)
    return given


def _cases(home: Path, run: str, round: int, client: str, data: str | None) -> Any:
    """Yields the tickets of real parties."""
    from hanse.core import InvalidInput
    from hanse.runs import Contract, in_client_home, in_server_home

    contract = Contract.at(home)

    def open_(plan: Any, number: int) -> Any:
        if contract is not None and not data:
            return PARTIES.contract_data(contract, number)(plan)
        return PARTIES.data(_said(data or "", "write --data FILE, with the examples to compute on"), number)(
            plan
        )

    PARTIES.register()
    bind = PARTIES.bind
    if (home / "runs.db").exists():
        from hanse.runs import existing

        run = existing(home / "runs.db", to_read=True).info(run).run
        if not client or round < 0:
            raise InvalidInput(
                "a server home needs --round R and --client C, a number or the name of a party"
            )
        party = int(client) if client.isdecimal() else client
        return in_server_home(home, run, round, party, open_, bind)
    if not (home / "membership.json").exists():
        raise InvalidInput(
            f"{home} is the folder of neither a client nor a server; see --home of join and serve"
        )
    return in_client_home(home, run, open_, bind)
