"""The store of runs: settings, rounds, checkpoints, journals and memories, in one SQLite file."""

from typing import TYPE_CHECKING

from hanse.lazy import load_from

if TYPE_CHECKING:
    from hanse.store.claim import Claim, is_claimed, read_note
    from hanse.store.naming import check_name, check_tags
    from hanse.store.reading import KeptRun, open_read_only, read_runs
    from hanse.store.run import RunStore
    from hanse.store.runs import RunInfo, Runs
else:
    __getattr__ = load_from(
        __name__,
        {
            "hanse.store.claim": ("Claim", "is_claimed", "read_note"),
            "hanse.store.naming": ("check_name", "check_tags"),
            "hanse.store.reading": ("KeptRun", "open_read_only", "read_runs"),
            "hanse.store.run": ("RunStore",),
            "hanse.store.runs": ("RunInfo", "Runs"),
        },
    )

__all__ = [
    "Claim",
    "KeptRun",
    "RunInfo",
    "RunStore",
    "Runs",
    "check_name",
    "check_tags",
    "is_claimed",
    "open_read_only",
    "read_note",
    "read_runs",
]
