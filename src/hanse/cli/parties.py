"""Settings and files for the commands of real parties, loaded when a command first needs them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hanse.cli.exits import exit_truthfully

__all__ = ["LazyParties", "guard_parties"]


class LazyParties:
    """The `Parties` of `hanse.runs`, imported when an attribute is first used."""

    def __getattr__(self, name: str) -> Any:
        from hanse.runs import Parties

        return getattr(Parties(), name)


@contextmanager
def guard_parties() -> Iterator[None]:
    """Guards a command of real parties: its errors become exit codes, and missing packages are named."""
    from hanse.core import InvalidInput

    with exit_truthfully(False):
        try:
            yield
        except ModuleNotFoundError as missing:
            raise InvalidInput(
                f'real parties need {missing.name}, which is not installed: pip install "hanse[server]"'
            ) from missing
