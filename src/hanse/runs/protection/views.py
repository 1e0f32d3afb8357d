"""Views: what each party will see of what clients send in a round, in words."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from hanse.core import Program, RoundAbandoned, player
from hanse.core.exchange import Dispatch, Sample
from hanse.privacy import describe_views, noises_examples
from hanse.simulation import Simulation

__all__ = ["describe_preprocessing", "find_views"]

ALONE = (
    "the server: can single a client out, if it lies: it sends tensors to each client alone, and the others "
    "can't compare these"
)
"""Stands beside a sum that hides messages, where clients can't see that all were sent the same."""


def describe_preprocessing(preprocessing: Any) -> tuple[str, ...]:
    """Describes who sees what of the sums over clients by which features are encoded, before the first round.

    Args:
      preprocessing: of the settings; None: that of columns, as it is without any settings.
    """
    into = getattr(getattr(preprocessing, "statistics", None), "into", None)
    sums = "the totals of numbers" if into is not None and into.hides else "each client's own sums of numbers"
    return (
        f"preprocessing: the server: {sums}, and each client's own list of words, where columns have any",
    )


def find_views(programs: Iterable[Program[Any]], runtime: Simulation) -> tuple[str, ...]:
    """Describes who sees what of the first exchange of each program, which is performed as a trial.

    Args:
      programs: of all that clients are asked for, such as a round and the measurements after it.

    Returns: a line for each part and each party.
    """
    return tuple(dict.fromkeys(view for program in programs for view in _find_views(program, runtime)))


def _find_views(program: Program[Any], runtime: Simulation) -> Iterator[str]:
    with suppress(StopIteration, RoundAbandoned):
        command = next(program)
        while isinstance(command, Sample | Dispatch):
            if isinstance(command, Dispatch) and any(player(p) is not None for p in command.cohort):
                for name, part_spec in command.uplink.items():
                    is_noised = noises_examples(command.work, name)
                    for view in describe_views(part_spec, noises_examples=is_noised):
                        yield f"{name}: {view}"
                    if part_spec.into.hides and command.own:
                        yield f"{name}: {ALONE}"
            command = program.send(runtime.perform(command))
    program.close()
