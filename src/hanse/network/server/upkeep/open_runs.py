"""The open runs of a server: which of them it goes on with, and what differs where it must not guess."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hanse.core import InvalidInput
from hanse.network.server.job import SERVED, RunJob
from hanse.store import RunInfo, Runs

__all__ = ["OtherRunOpen", "choose_runs", "close_run", "find_ended_run", "open_run"]

RESUMABLE = ("interrupted", "stopped", "failed")
"""The statuses of runs that are resumed by the same settings."""

CONTINUED = "continued_with"
"""The key, in the settings that are kept of a run, of the versions of Hanse that its operator let go on."""

SET_ASIDE = "set_aside"
"""The key, in these settings, that tells that a run goes on only if its operator names it."""

UNTOLD = "untold"
"""The key, in these settings, of a run whose end its operator and clients have not heard yet."""

OWN_CODE = "imports"
NOT_COMPARED = (UNTOLD, CONTINUED, OWN_CODE, SERVED, SET_ASIDE, "accepted_imports")
MAX_DIFFERENCES = 8


class OtherRunOpen(InvalidInput):
    """An interrupted run of other settings, or of another version of Hanse, is open in the server's folder.

    `run` is its id.
    """

    def __init__(self, home: Path, info: RunInfo, differences: Sequence[str]) -> None:
        self.run = info.run
        more = len(differences) - MAX_DIFFERENCES
        lines = "".join(f"\n  {line}" for line in differences[:MAX_DIFFERENCES])
        lines += f"\n  and {more} more" if more > 0 else ""
        rounds = _find_rounds(info.settings)
        of = "" if rounds is None else f" of {rounds}"
        super().__init__(
            f"run {info.run} is open in {home}: it was interrupted after round {info.rounds}{of}, and these "
            f"settings are not its own. What differs (then -> now):{lines}\n"
            f"To go on with it, with its own settings, write: hanse serve --resume {info.run}\n"
            "To begin a new run, and never go on with that one by itself, write: hanse serve FILE --fresh\n"
            "Keep the other options that you gave, such as --home and --listen"
        )


def choose_runs(
    home: Path, jobs: Sequence[RunJob], *, fresh: bool = False, resume: str | None = None
) -> list[str | None]:
    """Returns for each job the run in the server's folder that it goes on with; None: a new one begins.

    Args:
      fresh: whether new runs begin, and unfinished ones are set aside: nobody is asked about them again, and
        only `resume` goes on with one.
      resume: the run that the only job goes on with, though its settings or its version differ.

    Raises:
      OtherRunOpen: if an interrupted run has other settings, and neither `fresh` nor `resume` was given.
      InvalidInput: if a job that goes on with a run has a name or tags that this run does not have.
      StoreError: if there is no such run.
    """
    path = home / "runs.db"
    if not path.exists() and resume is None:
        return [None] * len(jobs)
    runs = Runs(path)
    if resume is not None:
        _check_names(runs.info(resume), jobs[0])
        return [_resume(runs, resume, jobs[0])]
    infos = [info for info in runs.infos() if _is_open(info) and not info.settings.get(SET_ASIDE, False)]
    if fresh:
        for info in infos:
            runs.amend(info.run, lambda kept: {**kept, SET_ASIDE: True})
            if info.status == "interrupted":
                runs.finish(info.run, "stopped", info.result)
        return [None] * len(jobs)
    chosen: list[str | None] = []
    for job in jobs:
        same = [info for info in infos if info.run not in chosen and not list(find_differences(info, job))]
        chosen.append(same[0].run if same else None)
        if same:
            _check_names(same[0], job)
    others = [info for info in infos if info.status == "interrupted" and info.run not in chosen]
    if others and None in chosen:
        raise OtherRunOpen(home, others[0], list(find_differences(others[0], jobs[chosen.index(None)])))
    return chosen


def _check_names(info: RunInfo, job: RunJob) -> None:
    """Checks that a job has no other name or tags than the run that it goes on with. Raises: InvalidInput."""
    others = [] if job.name in (None, info.name) else [f"--name {job.name}"]
    others += [f"--tag {tag}" for tag in job.tags if tag not in info.tags]
    if others:
        has = f"the name {info.name!r}" if info.name else "no name"
        tags = f"the tags {', '.join(info.tags)}" if info.tags else "no tags"
        raise InvalidInput(
            f"run {info.run} goes on, and it has {has} and {tags}, which it got when it began: leave out "
            f"{' '.join(others)}, or begin another run by hanse serve FILE --fresh"
        )


def open_run(runs: Runs, run: str) -> None:
    """Notes that a run is served: until it is closed, the same settings go on with it, even at its end."""
    runs.amend(run, lambda kept: {**kept, UNTOLD: True})


def close_run(runs: Runs, run: str) -> None:
    """Notes that the operator and the clients of a run that has ended were told, as far as they are there."""
    runs.amend(run, lambda kept: {name: held for name, held in kept.items() if name != UNTOLD})


def _is_open(info: RunInfo) -> bool:
    """Returns whether the same settings go on with a run."""
    return info.status in RESUMABLE or (info.status == "completed" and info.settings.get(UNTOLD, False))


def find_ended_run(runs: Runs, job: RunJob) -> str | None:
    """Returns the last run of the same settings that is completed; None: there is none."""
    completed = [info for info in runs.infos() if info.status == "completed"]
    same = [info.run for info in completed if not list(find_differences(info, job))]
    return same[0] if same else None


def _resume(runs: Runs, run: str, job: RunJob) -> str:
    """Lets a run go on with this version of Hanse and these options, and keeps both; returns its whole id."""
    info, now = runs.info(run), (job.environment or {}).get("hanse")
    if info.status not in RESUMABLE:
        raise InvalidInput(f"run {info.run} is {info.status}, and can't go on; leave out --resume")
    if now is not None and now not in (info.environment.get("hanse"), *info.settings.get(CONTINUED, ())):
        runs.amend(info.run, lambda kept: {**kept, CONTINUED: [*kept.get(CONTINUED, ()), now]})
    if info.settings.get(SET_ASIDE, False) or info.settings.get(SERVED) != job.served:
        runs.amend(info.run, lambda kept: {**kept, SET_ASIDE: False, SERVED: job.served})
    return info.run


def find_differences(info: RunInfo, job: RunJob) -> Iterator[str]:
    """Yields in words what differs between a run and a job: settings, own code, and the version of Hanse."""
    before, now = info.settings, json.loads(json.dumps(job.said))
    flat_before, flat_now = dict(_flatten(before)), dict(_flatten(now))
    for name in {**flat_before, **flat_now}:
        one, other = flat_before.get(name, "(nothing)"), flat_now.get(name, "(nothing)")
        if one != other:
            yield f"{name}: {_shorten(one)} -> {_shorten(other)}"
    served = before.get(SERVED, job.served)  # a run of an earlier version keeps none
    for name, option in job.served.items():
        if served.get(name) != option:
            yield f"--{name.replace('_', '-')}: {_shorten(served.get(name))} -> {_shorten(option)}"
    code_before, code_now = _name_code(before), _name_code(now)
    for name in {**code_before, **code_now}:
        one, other = code_before.get(name, "(not imported)"), code_now.get(name, "(not imported)")
        if one != other:
            yield f"the code of {name}: {_shorten(one)} -> {_shorten(other)}"
    version, began = (job.environment or {}).get("hanse"), info.environment.get("hanse")
    if None not in (version, began) and version not in (began, *before.get(CONTINUED, ())):
        yield f"the version of Hanse: {began} -> {version}"


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields settings as pairs of a dotted name and a value."""
    for name, held in settings.items():
        if prefix or name not in NOT_COMPARED:
            if isinstance(held, Mapping) and held:
                yield from _flatten(held, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}".removeprefix("experiment."), held


def _name_code(settings: Mapping[str, Any]) -> dict[str, str]:
    """Returns the digests of a run's own modules, by name, wherever the modules are."""
    return {str(found["name"]): str(found["digest"]) for found in settings.get(OWN_CODE, ())}


def _find_rounds(settings: Mapping[str, Any]) -> int | None:
    rounds = settings.get("experiment", settings).get("rounds")
    return rounds if isinstance(rounds, int) else None


def _shorten(held: Any) -> str:
    text = held if isinstance(held, str) else json.dumps(held)
    return text if len(text) <= 60 else f"{text[:57]}..."
