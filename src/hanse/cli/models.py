"""Commands that release models and predict with them."""

from pathlib import Path
from typing import Annotated

import typer

from hanse.cli.exits import exit_truthfully
from hanse.cli.options import Accept, Imports, RunId, Store, locate_store

__all__ = ["predict_command", "release_command"]


def release_command(
    run: RunId,
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="The folder to write the model to.")],
    audit: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json",
            help="What hanse audit --json printed of the same settings: the card tells its findings.",
        ),
    ] = None,
    imports: Imports = None,
    accept: Accept = False,
    store: Store = None,
) -> None:
    """Write a run's model as safetensors, with a card that describes it."""
    with exit_truthfully(False):
        from hanse.release import release_run

        place = locate_store(store)
        print(
            release_run(
                run, to, store=place, imports=imports or (), accept_changed_imports=accept, audit=audit
            )
        )


def predict_command(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A folder that `hanse release` wrote.")],
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA", help="A file like the training data, or a .toml file that says how it is read."
        ),
    ],
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="FILE", help="Write a file .csv or .parquet in place of the output."),
    ] = None,
    ids: Annotated[
        str | None,
        typer.Option(
            "--id", metavar="COLUMN", help="The column that names the rows; else they are numbered."
        ),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(
            "--like", metavar="PARTY", help="The party whose file DATA is written like, if each had one."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file that --to names.")] = False,
    imports: Imports = None,
    accept: Annotated[
        bool,
        typer.Option(
            "--accept-changed-imports",
            help="Use your own modules although they differ from those that the model was made with.",
        ),
    ] = False,
) -> None:
    """Predict a file's rows with a released model, as CSV, and measure it if the file has labels."""
    with exit_truthfully(False):
        from hanse.cli.views import note, say
        from hanse.core import InvalidInput
        from hanse.release import check_output, predict, write_predictions

        if to is not None:
            check_output(to, force=force)
            if to.exists() and Path(data).exists() and to.samefile(data):
                raise InvalidInput(f"--to {to} is the file to predict; write another name")
        found = predict(model, data, ids=ids, like=like, imports=imports or (), accept_changed_imports=accept)
        if to is None:
            print(found.as_csv(), end="")
        else:
            write_predictions(found, to, force=force)
            print(to)
        for line in found.notes:
            note(line)
        if found.metrics is not None:
            say(str(found))
