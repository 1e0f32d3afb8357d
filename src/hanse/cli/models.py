"""Commands that release models and predict with them."""

from pathlib import Path
from typing import Annotated

import typer

from hanse.cli.exits import exit_truthfully
from hanse.cli.options import RunId, Store, locate_store

__all__ = ["predict", "release_command"]


def release_command(
    run: RunId,
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="The folder to write the model to.")],
    store: Store = None,
) -> None:
    """Write a run's model as safetensors, with a card that describes it."""
    with exit_truthfully(False):
        from hanse.release import release as release_
        from hanse.runs import existing

        print(release_(existing(locate_store(store)), run, to))


def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A folder that `hanse release` wrote.")],
    data: Annotated[str, typer.Argument(metavar="DATA", help="A file like the training data.")],
) -> None:
    """Predict a file's rows with a released model, as CSV, and measure it if the file has labels."""
    with exit_truthfully(False):
        from hanse.cli.views import say
        from hanse.release import open_release, predictions

        found = predictions(open_release(model), data)
        print(found.as_csv(), end="")
        if found.metrics is not None:
            say(str(found))
