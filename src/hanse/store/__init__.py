"""The store of runs: settings, rounds, checkpoints, journals and memories, in one SQLite file."""

from hanse.store.run import RunStore
from hanse.store.runs import RunInfo, Runs

__all__ = ["RunInfo", "RunStore", "Runs"]
