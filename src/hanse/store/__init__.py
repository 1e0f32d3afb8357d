"""The store of runs: settings, rounds, checkpoints, journals and memories, in one SQLite file."""

from typing import TYPE_CHECKING

from hanse.lazy import load_from

if TYPE_CHECKING:
    from hanse.store.claim import Claim, read_note
    from hanse.store.run import RunStore
    from hanse.store.runs import RunInfo, Runs
else:
    __getattr__ = load_from(
        __name__,
        {
            "hanse.store.claim": ("Claim", "read_note"),
            "hanse.store.run": ("RunStore",),
            "hanse.store.runs": ("RunInfo", "Runs"),
        },
    )

__all__ = ["Claim", "RunInfo", "RunStore", "Runs", "read_note"]
