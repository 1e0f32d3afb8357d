"""Commands that look at data before training."""

from pathlib import Path
from typing import Annotated

import typer

from hanse.cli.exits import exit_truthfully, print_json
from hanse.cli.options import File, Imports, Json, Sets
from hanse.cli.parties import CLIENT, Home, guard_parties

__all__ = ["describe_data", "init"]


def init(
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATAFILE...",
            help="A file of data: CSV, .npz, .parquet or .libsvm. Or several tables, one of each party.",
        ),
    ],
    to: Annotated[
        Path | None,
        typer.Option(
            "--to", metavar="FILE.toml", help="The file to write; by default in the current folder."
        ),
    ] = None,
    label: Annotated[str | None, typer.Option(metavar="COLUMN", help="The column to predict.")] = None,
    key: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The column that names the party of each row.")
    ] = None,
    client: Annotated[
        bool, typer.Option("--client", help="Write hanse.toml: what runs of others may use of these data.")
    ] = False,
    home: Home = CLIENT,
    yes: Annotated[
        bool, typer.Option("--yes", help="With --client: ask nothing, and accept what is proposed.")
    ] = False,
) -> None:
    """Write a first settings file for your data, with a comment on each guess."""
    if client and len(data) == 1:
        return _init_client(data[0], home, label, yes=yes)
    with exit_truthfully(False):
        from hanse.cli.views import say
        from hanse.config import SETTLE, guess, guess_parties, starting_file
        from hanse.core import InvalidInput

        if client:
            raise InvalidInput(f"--client takes one file, the client's own; {len(data)} are given")
        if key is not None and len(data) > 1:
            raise InvalidInput("--key names a column of one file; each of several files is a party's own")
        first = Path(data[0]).name.partition(".")[0]
        path = to or Path(("parties" if len(data) > 1 else first) + ".toml")
        if path.exists():
            raise InvalidInput(f"{path} exists already; remove it, or write --to ANOTHER.toml")
        folder = str(path.parent)
        if len(data) > 1:
            found = guess_parties(data, label=label, folder=folder)
        else:
            found = guess(data[0], label=label, key=key, folder=folder)
        text = starting_file(found)
        path.write_text(text, encoding="utf-8", newline="\n")
        print(path)
        num = sum(SETTLE in line for line in text.splitlines() if not line.startswith("#"))
        settle = f"settle {num} guesses in it" if num > 1 else "settle 1 guess in it" if num else "read it"
        say(f"{settle}, then: hanse data describe {path}, and: hanse run {path}")


def _init_client(data: str, home: Path, label: str | None, *, yes: bool) -> None:
    """Writes the data contract of a client, before any server is known."""
    with guard_parties():
        from hanse.cli.contract import make_contract, print_paragraph
        from hanse.core import InvalidInput
        from hanse.runs import CONTRACT

        if (home / CONTRACT).exists():
            raise InvalidInput(f"{home / CONTRACT} exists already; edit it, or move it away first")
        make_contract(home, data, label=label, yes=yes)
        print_paragraph(
            f"read it, then join with: hanse join https://HOST:PORT --token-file FILE --home {home}"
        )


def describe_data(file: File = None, sets: Sets = None, imports: Imports = None, json: Json = False) -> None:
    """Show the data of each client: sizes and labels."""
    with exit_truthfully(json):
        from hanse.cli.views import draw, note
        from hanse.config import list_doubts, read
        from hanse.data import describe
        from hanse.evaluation import of_one_class
        from hanse.runs import load_population

        people = load_population(read(file, sets or (), imports=imports or (), warn=note))
        found = describe(people)
        unsettled = list_doubts(file)
        if json:
            plain = {**found.summary(), "clients": list(found.rows()), "notes": list(people.notes)}
            print_json({**plain, "unsettled": unsettled})
        else:
            draw(found)
        for line in (*people.notes, *unsettled):
            note(line)
        alone = of_one_class(people)
        if alone:
            some = ", ".join(alone[:5]) + (", ..." if len(alone) > 5 else "")
            note(
                f"{len(alone)} of {people.num_clients} clients hold one class only, and so learn nothing "
                f"alone: {some}"
            )
