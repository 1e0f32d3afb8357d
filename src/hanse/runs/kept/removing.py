"""The end of runs that nobody needs any more."""

from collections.abc import Sequence
from pathlib import Path

from hanse.core import InvalidInput, StoreError
from hanse.runs.machine import is_simulated
from hanse.runs.places import existing

__all__ = ["remove_runs"]


def remove_runs(names: Sequence[str], store: str | Path) -> tuple[tuple[str, ...], int]:
    """Removes runs with their models, and returns their ids and by how many bytes the store has shrunk.

    All are found before the first is removed, so that "last" means one run.

    Args:
      names: the id of each, the beginning of it, its name, or "last".
      store: the file that keeps them.

    Raises:
      StoreError: if there is no such run, or a process performs it.
      InvalidInput: if a run was led with real parties: its server's folder belongs to it.
    """
    runs = existing(store)
    found = tuple(dict.fromkeys(runs.info(name).run for name in names))
    for run in found:
        info = runs.info(run)
        if "served" in info.settings or not is_simulated(runs.checkpoint(run)):
            raise InvalidInput(
                f"run {run} was led with real parties, and the other files of its server tell of it; remove "
                f"the folder {Path(str(store)).absolute().parent} as a whole once nobody needs it any more"
            )
        if info.status == "running":
            raise StoreError(f"run {run} is in progress; wait for it, or stop it, and then remove it")
    return found, sum(runs.remove(run) for run in found)
