"""The plans that the folder of a client or a server keeps."""

from pathlib import Path
from typing import Any

from hanse.core import InvalidInput
from hanse.core.exchange import unpack

__all__ = ["find_run_folder", "read_latest_plan"]


def find_run_folder(home: Path, run: str) -> Path:
    """Finds a run's folder by the beginning of its id. Raises: InvalidInput: unless it is the only one."""
    folders = sorted((home / "runs").glob("*"))
    found = [path for path in folders if path.name.startswith(run)] if run else []
    if len(found) != 1:
        known = ", ".join(path.name for path in folders) or "none"
        raise InvalidInput(f"{len(found)} runs in {home / 'runs'} begin with {run!r}; there are: {known}")
    return found[0]


def read_latest_plan(folder: Path) -> Any:
    """Reads the latest plan in a folder. Raises: InvalidInput: if there is none."""
    from hanse.network.protocol import SealedPlan

    plans = [path for path in folder.glob("*") if len(path.name) == 64]
    if not plans:
        raise InvalidInput(f"{folder} holds no plan: the run never began here")
    plan = unpack(max(plans, key=lambda path: path.stat().st_mtime).read_bytes())
    return plan.open() if isinstance(plan, SealedPlan) else plan
