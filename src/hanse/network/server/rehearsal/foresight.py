"""The ways in which a run is performed dry, and the envelopes of all that it asks of its members.

The whole program is performed with answers that are made up, so nothing is trained and no data are needed.
It is performed in several ways, to see which settings of a dispatch depend on the round alone, and which on
what clients answer, on who answers, or on a draw.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from typing import Any

from hanse.core import (
    HanseError,
    PartyId,
)
from hanse.core.exchange import (
    Commit,
    Progress,
)
from hanse.network.protocol.envelope import Envelope, Envelopes, name_role
from hanse.network.protocol.forms import Form, find_excess, join_patterns
from hanse.network.server.job import RunJob
from hanse.network.server.rehearsal.dry_runtime import DryRuntime, FillWildly, fill_calmly

__all__ = ["foresee"]

FEW_ROUNDS = 3
"""The rounds that are performed in other ways than the first, to see what their dispatches depend on."""

MOST_COMMANDS = 10_000
"""The most commands of a round; a program that goes on depends on answers that are not made up here."""

MOST_ROUNDS, MOST_HIDING = 1000, 10
"""The most rounds that are performed dry, and where protocols are computed. Of longer runs, some more are."""


def _lead(job: RunJob, dry: DryRuntime, progress: Any, rounds: int | None = None) -> Any:
    """Performs a program until it ends, or for so many rounds; returns the last progress that it saved.

    One that stops early is led on, because a real run may not stop there.
    """
    done = 0
    while True:
        program, event, num_commands, before = job.program(progress), None, 0, progress
        try:
            while True:
                command = next(program) if event is None else program.send(event)
                num_commands += 1
                if num_commands > MOST_COMMANDS:
                    raise HanseError(f"a round goes on after {MOST_COMMANDS} commands")
                event = dry.perform(command)
                if isinstance(command, Commit):
                    progress, num_commands = command.state, 0
                    done += command.round > 0
                    if rounds is not None and (done >= rounds or not command.is_closed):
                        program.close()
                        return progress
        except StopIteration as end:
            progress = end.value
        if not isinstance(progress, Progress) or progress.stopped is None or progress.stopped == EARLY:
            return progress
        number = progress.round - progress.finished
        if number <= before.round and before.target_round is not None:  # its last round is performed
            return progress
        progress = replace(
            progress, round=number, stopped=None, finished=False, best=None, num_worse=0, target_round=number
        )


EARLY = "performed dry"


def _probe(job: RunJob, dry: DryRuntime, attempts: int) -> None:
    """Performs a few rounds, with other draws if `attempts` is above 0, and then the end of a run."""
    progress: Any = job.begin()
    if isinstance(progress, Progress):
        progress = replace(progress, attempts=attempts)
    progress = _lead(job, dry, progress, FEW_ROUNDS)
    if isinstance(progress, Progress) and not progress.finished:
        _lead(job, dry, replace(progress, stopped=EARLY))


def _lead_to_end(job: RunJob, dry: DryRuntime) -> bool:
    """Performs a run, or of a long one some rounds and the last; returns whether rounds were left out."""
    progress = _lead(job, dry, job.begin(), 1)
    if isinstance(progress, Progress) and not progress.finished:
        most = MOST_HIDING if any(asked.is_phase for asked in dry.asked) else MOST_ROUNDS
        progress = _lead(job, dry, progress, most - 1)
    if not isinstance(progress, Progress):
        return False
    if not _has_round(job, dry, progress):
        _lead(job, dry, progress)  # at most its end is left
        return False
    last, beyond = progress.round, 2 * progress.round
    while _has_round(job, dry, _skip_to(progress, beyond)):
        _lead(job, dry, _skip_to(progress, beyond), FEW_ROUNDS)
        last, beyond = beyond, 2 * beyond
    while beyond - last > 1:
        middle = (last + beyond) // 2
        last, beyond = (
            (middle, beyond) if _has_round(job, dry, _skip_to(progress, middle)) else (last, middle)
        )
    _lead(job, dry, _skip_to(progress, max(progress.round, last - FEW_ROUNDS)))
    return True


def _skip_to(progress: Progress[Any], round: int) -> Progress[Any]:
    """Makes the progress that a run has later, with each number of its state that counts rounds."""
    state = progress.state
    counts = {
        one.name: round
        for one in (fields(state) if is_dataclass(state) else ())
        if type(held := getattr(state, one.name)) is int and held == progress.round
    }
    return replace(progress, round=round, state=replace(state, **counts) if counts else state)


def _has_round(job: RunJob, dry: DryRuntime, progress: Progress[Any]) -> bool:
    """Returns whether a run has another round after so many. It is performed apart."""
    then = _lead(job, DryRuntime(dry.num_clients, dry.members, dry.fill), progress, 1)
    return isinstance(then, Progress) and then.round > progress.round and not then.finished


def foresee(job: RunJob) -> tuple[Envelopes, str]:
    """Finds the envelopes of all that a run will ask of its members.

    Returns: the envelopes; and why some may be missing, empty if the whole run could be performed.
    """

    def is_member(party: PartyId) -> bool:
        return party in job.parties or name_role(party) in ("client", "test")

    num_clients = max(1, job.num_clients)
    whole, why, is_cut = DryRuntime(num_clients, is_member, fill_calmly), "", False
    try:
        is_cut = _lead_to_end(job, whole)
    except Exception as error:  # a program may not bear such answers
        why = f"{type(error).__name__}: {error}"
        other = DryRuntime(num_clients, is_member, FillWildly())
        with suppress(Exception):
            is_cut = _lead_to_end(job, other)
            why = ""
        whole = other if not why else whole
    whole.forget()
    probes = [
        (DryRuntime(num_clients, is_member, FillWildly()), 1),
        (DryRuntime(num_clients + 3, is_member, fill_calmly, missing=num_clients + 3, lossy_phase=1), 0),
        (DryRuntime(num_clients + 7, is_member, fill_calmly, missing=2, lossy_phase=2), 0),
    ]
    for dry, attempts in probes:
        with suppress(Exception):
            _probe(job, dry, attempts)
        dry.forget()
    return _join(whole, [dry for dry, _ in probes], is_cut), why


def _join(whole: DryRuntime, probes: Sequence[DryRuntime], is_cut: bool) -> Envelopes:
    """Joins the forms of each sort of dispatch into one envelope.

    Args:
      is_cut: whether not every round was performed, so that what varies may take other values.
    """
    patterns: dict[str, Form] = {}
    fewest: dict[str, int] = {}
    phases: dict[str, bool] = {}
    for dry in (whole, *probes):
        for i, asked in enumerate(dry.asked):
            sort, form = asked.sort, asked.form
            beside = whole.asked[i] if i < len(whole.asked) else asked
            if beside.sort == sort and dry is not whole:
                # what differs here does not depend on the round alone
                form = join_patterns(beside.form, form, free=True)
            known = patterns.get(sort)
            if known is None:
                patterns[sort] = form
            elif find_excess(known, form) is not None:
                patterns[sort] = join_patterns(known, form, free=is_cut or dry is not whole)
            if dry is whole or sort not in fewest:
                least = dry.fewest.get(asked.number, 0)
                fewest[sort] = min(least, fewest.get(sort, least))
            phases[sort] = phases.get(sort, True) and asked.is_phase
    return Envelopes(tuple(Envelope(patterns[s], fewest[s], phases[s]) for s in sorted(patterns)))
