"""The runs of a sweep as the rows of a CSV file, which every statistics program reads."""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hanse.core import InvalidInput
from hanse.sweeps.conditions import bare
from hanse.sweeps.result import COSTS, SweepResult

__all__ = ["csv_writer", "list_sweep_rows"]


def list_sweep_rows(result: SweepResult) -> Iterator[dict[str, Any]]:
    """Yields a row for each run: what was tried, its seed and id, how it ended, its metrics and costs.

    All rows have the same columns. A cell is None if the run does not have it.
    """
    paths = list(dict.fromkeys(path for member in result.members for path in member.over))
    results = [member.result or {} for member in result.members]
    metrics = dict.fromkeys((word, name) for word in ENDS for one in results for name in one.get(word) or {})
    for member in result.members:
        ended = member.result or {}
        row: dict[str, Any] = {
            path: bare(member.over[path]) if path in member.over else None for path in paths
        }
        row |= {"seed": member.seed, "run": member.run, "status": member.status, "reason": member.reason}
        ends = {word: ended.get(word) or {} for word in ENDS}
        row |= {f"{word}_{name}": ends[word].get(name) for word, name in metrics}
        yield row | {name: ended.get(name) for name in ("rounds", *COSTS, "params_sha256")}


ENDS = ("final", "best")


def csv_writer(path: Path | None) -> Callable[[SweepResult], None]:
    """Returns a function that writes a sweep's runs to the path; without a path it writes nothing.

    Raises: InvalidInput: if there is no such folder, so that the user learns of it before hours of work.
    """
    if path is None:
        return lambda result: None
    if not path.absolute().parent.is_dir() or path.is_dir():
        raise InvalidInput(f"--csv {path}: write the name of a file in a folder that exists")

    def write(result: SweepResult) -> None:
        rows = list(list_sweep_rows(result))
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)

    return write
