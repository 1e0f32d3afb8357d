"""The claim of a kept run about its privacy, whether it has ended or not."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hanse.config import build
from hanse.core.exchange import Record
from hanse.privacy import Privacy, make_claim, make_example_claim, read_books
from hanse.runs.machine import is_simulated
from hanse.runs.protection.disclosure import describe_open

if TYPE_CHECKING:
    from hanse.store import RunInfo, Runs

__all__ = ["describe_claim"]


def describe_claim(runs: "Runs", info: "RunInfo", records: Sequence[Record]) -> str | None:
    """Formats the claim about a run; while it goes on, a preliminary one by faster accounting.

    Returns: None: it released nothing noised, so it promises nothing.
    """
    if info.result is not None and "privacy" in info.result:
        found = info.result["privacy"]
        return None if found is None else str(found["claim"])
    settings = info.settings["experiment"].get("privacy") or {}
    if settings.get("name") == "examples":
        budget = build(Privacy, settings, "privacy")
        beside = [describe_open(name) for name in budget.open]
        rounds = sum(record.round > 0 for record in records)
        simulated = is_simulated(runs.checkpoint(info.run))
        return f"so far, {make_example_claim(budget, None, rounds, beside=beside, is_simulated=simulated)}"
    releases = list(read_books(records))
    if not releases:
        return None
    claim = make_claim(
        releases,
        delta=settings.get("delta"),
        beside=[describe_open(name) for name in settings.get("open", ())],
        accountant="rdp",
        is_simulated=is_simulated(runs.checkpoint(info.run)),
    )
    return f"so far, {claim}"
