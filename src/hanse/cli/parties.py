"""Settings and files for the commands of real parties, loaded when a command first needs them."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from hanse.cli.exits import exit_truthfully

__all__ = [
    "CLIENT",
    "PARTIES",
    "Copies",
    "EncryptKeys",
    "Home",
    "check_client_home",
    "encrypt_keys",
    "guard_parties",
]

Home = Annotated[Path, typer.Option(metavar="FOLDER", help="The folder where everything is kept.")]
Copies = Annotated[
    list[str] | None,
    typer.Option(
        "--import",
        metavar="FILE.py|MODULE",
        help="This client's own copy of a module that the plan names. The option may be repeated.",
    ),
]
EncryptKeys = Annotated[
    bool,
    typer.Option("--encrypt-keys", help="Encrypt the keys with a passphrase; see hanse passphrase."),
]
CLIENT = Path(".hanse/client")


class _LazyParties:
    """The `Parties` of `hanse.runs`, imported when an attribute is first used."""

    def __getattr__(self, name: str) -> Any:
        from hanse.runs import Parties

        return getattr(Parties(), name)


PARTIES = _LazyParties()


@contextmanager
def guard_parties() -> Iterator[ExitStack]:
    """Guards a command of real parties: its errors become exit codes, and missing packages are named.

    Yields: what the command holds until it ends, such as the claim of a home.
    """
    from hanse.core import InvalidInput

    with exit_truthfully(False):
        try:
            from hanse.network.protocol import keep_private

            with ExitStack() as held, keep_private():  # these commands write nothing outside of a home
                yield held
        except ModuleNotFoundError as missing:
            raise InvalidInput(
                f'real parties need {missing.name}, which is not installed: pip install "hanse[server]"'
            ) from missing


def check_client_home(home: Path) -> None:
    """Checks that a folder is a client's, or an operator's. Raises: InvalidInput: if it holds no key."""
    from hanse.core import InvalidInput

    if not (home / "key.pem").exists():
        why = "is not the folder of a client: it holds no key.pem" if home.exists() else "does not exist"
        raise InvalidInput(f"{home} {why}. Name the folder of hanse join by --home")


def encrypt_keys(home: Path) -> None:
    """Encrypts the keys of a home in which no other process works."""
    from hanse.network.protocol import claim_home, encrypt_home

    with claim_home(home):
        encrypt_home(home)
