"""Runs with `secure = true`: all that clients send enters secure sums, and what can't is refused."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from hanse.core import (
    Algorithm,
    CompositionError,
    Learner,
    PartyId,
    Program,
    Reducer,
    Transform,
    mean,
    player,
    sum,
)
from hanse.core.exchange import Dispatch
from hanse.evaluation import CLASSES

if TYPE_CHECKING:
    from hanse.privacy.secure_sums import SecureReducer

__all__ = ["choose_limbs", "choose_metrics_sum", "guard_hidden", "hide_updates"]

T = TypeVar("T")

LARGEST_SUM = 2.0**31
"""The largest sum of a metric over one client's examples."""

FEWEST_CLIENTS = 1024
"""The clients that scales leave room for, at least."""


def hide_updates(algorithm: Algorithm[Any], num_clients: int) -> Algorithm[Any]:
    """Returns an algorithm whose mean or sum of updates is a secure one. Raises: CompositionError."""
    from hanse.privacy.secure_sums import secure_mean, secure_sum

    into: Any = getattr(algorithm, "into", None)
    if isinstance(into, Reducer) and into.hides:
        return algorithm
    room = max(FEWEST_CLIENTS, num_clients)
    if into == mean():
        hidden: SecureReducer = secure_mean(max_clients=room)
    elif into == sum():
        hidden = secure_sum(max_clients=room)
    else:
        what = "does not say how messages are combined" if into is None else f"combines messages by {into}"
        raise CompositionError(
            f"secure = true lets the server see sums only, and {type(algorithm).__name__} {what}; write an "
            "algorithm with into = mean() or sum(), such as fed_avg, or secure = false"
        )
    changed: Any = algorithm
    secured: Algorithm[Any] = replace(changed, into=hidden)
    return secured


def choose_metrics_sum(algorithm: Algorithm[Any], parties: tuple[PartyId, ...]) -> Reducer[Any]:
    """Returns the reducer of metrics: a secure sum under the assumptions of updates, if clients measure."""
    from hanse.privacy.secure_sums import SecureReducer, secure_sum

    into: Any = getattr(algorithm, "into", None)
    if not any(player(party) is not None for party in parties):
        return sum()
    given = into if isinstance(into, SecureReducer) else secure_sum()
    return secure_sum(
        given.colluders,
        given.drop_out,
        given.failure,
        given.secrecy,
        max_value=LARGEST_SUM,
        max_weight=1.0,  # a finer scale: each sum counts once
        max_clients=max(given.max_clients, len(parties)),
        roster=given.roster,
        min_clients=given.min_clients,
    )


def choose_limbs(learner: Learner, parties: tuple[PartyId, ...]) -> tuple[Transform, ...]:
    """Returns what metrics pass on their way to a secure sum: labels that are no classes may be of any size,
    and sums of their squares too large for its integers."""
    from hanse.privacy.secure_sums import limbs

    at_clients = any(player(party) is not None for party in parties)
    return (limbs(),) if at_clients and learner.prediction not in CLASSES else ()


def guard_hidden(program: Program[T]) -> Program[T]:
    """Performs a program as long as all that clients send is hidden in sums.

    Raises: CompositionError: before a dispatch in which the server would see single messages.
    """
    try:
        command = next(program)
        while True:
            if isinstance(command, Dispatch) and not command.is_phase:
                _check_hidden(command)
            event = yield command
            command = program.send(event)
    except StopIteration as end:
        found: T = end.value
        return found
    finally:
        program.close()


def _check_hidden(dispatch: Dispatch) -> None:
    if not any(player(party) is not None for party in dispatch.cohort):
        return
    for name, part_spec in dispatch.uplink.items():
        if not part_spec.into.hides:
            cure = "leave it out, or write secure = false"
            if type(dispatch.work).__module__.startswith("hanse.preprocessing"):
                cure = (
                    'write preprocessing = { name = "tabular", statistics = { name = "two_sums", into = '
                    '{ name = "secure_sum", max_value = 1e9 } } } without columns of words, or secure = false'
                )
            raise CompositionError(
                f"secure = true lets the server see sums only, and {type(dispatch.work).__name__} sends "
                f"{name!r} into {part_spec.into}, which shows it single messages: {cure}"
            )
