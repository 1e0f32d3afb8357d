"""The places of stores: where runs are kept, and how a command names them."""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from hanse.core import StoreError

if TYPE_CHECKING:
    from hanse.store import Runs

__all__ = ["default_store", "existing", "is_kept", "make_store", "name_store"]


def default_store() -> str | Path:
    """Returns the place where runs are kept if no other is given."""
    return os.environ.get("HANSE_STORE") or Path(".hanse", "store.db")


def name_store(store: str | Path | None) -> str:
    """Returns the option with which a command finds a store; empty, if it looks there anyway."""
    if store is None or Path(str(store)).absolute() == Path(str(default_store())).absolute():
        return ""
    return f" --store {shlex.quote(str(store))}"


def is_kept(store: str | Path) -> bool:
    """Returns whether there is a store, without making one."""
    return "://" in str(store) or Path(store).exists()


def existing(store: str | Path, *, to_read: bool = False) -> "Runs":
    """Opens a store that exists.

    Args:
      to_read: whether it is only read, so that it may be one that can't be written to.

    Raises: StoreError: if there is none.
    """
    if not is_kept(store):
        raise StoreError(
            f"no runs are kept at {store} yet; begin one with `hanse run{name_store(store)}`, or name "
            "another --store"
        )
    from hanse.network.server import NetworkSnapshot  # noqa: F401  (registers what checkpoints of real parties hold)

    return make_store(store, to_read=to_read)


def make_store(store: str | Path, *, to_read: bool = False) -> "Runs":
    """Opens a store, made if needed. Its module is loaded here: that takes longer than everything else."""
    from hanse.store import Runs

    return Runs(store, to_read=to_read, option=name_store(store))
