"""Arguments and options that several commands take."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from hanse.store import RunInfo

__all__ = [
    "Accept",
    "File",
    "Images",
    "Imports",
    "Json",
    "Names",
    "RunId",
    "Sets",
    "Store",
    "Tags",
    "TensorBoardFolder",
    "To",
    "list_infos",
    "locate_store",
    "name_option",
]

File = Annotated[
    Path | None,
    typer.Argument(
        metavar="FILE.toml",
        help="A settings file; each setting that it leaves out has a default.",
        show_default=False,
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="One setting, such as algorithm.lr=0.3. The option may be repeated.",
    ),
]
Imports = Annotated[
    list[str] | None,
    typer.Option(
        "--import",
        metavar="FILE.py|MODULE",
        help="Import a module of your own first, by its name or path. The option may be repeated.",
    ),
]
Accept = Annotated[
    bool,
    typer.Option(
        "--accept-changed-imports",
        help="Go on although your own modules have changed since the run began; the run records it.",
    ),
]
WHICH = 'its name, its id or the beginning of that, or "last" for the newest'
RunId = Annotated[str, typer.Argument(metavar="RUN", help=f"The run: {WHICH}.")]
Names = Annotated[list[str], typer.Argument(metavar="RUN...", help=f"Runs, each by {WHICH}.")]
Tags = Annotated[
    list[str] | None,
    typer.Option("--tag", metavar="TAG", help="A word to find the run by. The option may be repeated."),
]
TensorBoardFolder = Annotated[
    Path | None,
    typer.Option("--tensorboard", metavar="FOLDER", help="Also write each round there, for TensorBoard."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object in place of tables.")]
Store = Annotated[
    str | None,
    typer.Option(metavar="PATH", help="The file that keeps runs, if not $HANSE_STORE or .hanse/store.db."),
]
To = Annotated[
    Path | None,
    typer.Option("--to", metavar="FOLDER", help="The folder to write the page to.", show_default=False),
]
Images = Annotated[bool, typer.Option(help="Write the charts also as PNG images.")]


def locate_store(store: str | None) -> str | Path:
    """Returns the place of the store that an option names, or else the default."""
    from hanse.runs import default_store

    return default_store() if store is None else store


def list_infos(store: str | None) -> "tuple[RunInfo, ...]":
    """Lists the runs in a store, newest first, without making the store."""
    from hanse.runs import existing, is_kept

    return existing(locate_store(store), to_read=True).infos() if is_kept(locate_store(store)) else ()


def name_option(store: str | None) -> str:
    """Returns the option that a hint needs, so that the command in it finds the same store."""
    from hanse.runs import name_store

    return name_store(store)
