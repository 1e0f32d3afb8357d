"""Checks of what a Collect folds: whether its parts, reducers and conditions can stand together."""

from collections.abc import Sequence

from hanse.core.errors import CompositionError
from hanse.core.exchange.party import Payload
from hanse.core.exchange.tickets import DispatchRecord
from hanse.core.program import Collect, PartSpec
from hanse.core.reducers import each

__all__ = ["check_calibration", "check_collect", "check_numbers"]


def check_collect(command: Collect, dispatches: Sequence[DispatchRecord]) -> None:
    """Checks a Collect over these dispatches. Raises: CompositionError."""
    wait_s, first = command.close.wait_s, dict[str, PartSpec]()
    for record in dispatches:
        if wait_s is not None and record.sample is not None:
            raise CompositionError(
                "the cohort is a Poisson sample, of which absent clients are left out, and "
                f"wait_s={wait_s:g} waits for them: leave out wait_s, or sample by count or fraction"
            )
        _check_empty_round(command, record)
        for name, part_spec in record.payload.uplink.items():
            if part_spec.into.hides and (command.tickets is None or command.discount is not None):
                how = "names no tickets" if command.tickets is None else "discounts stale contributions"
                raise CompositionError(
                    f"{part_spec.into} hides part {name!r}, and its protocol can't follow a collect that "
                    f"{how}: use an algorithm whose rounds close, or a reducer that sees contributions"
                )
            known = first.setdefault(name, part_spec)
            if known != part_spec:
                _check_alike(name, known, part_spec)


def _check_empty_round(command: Collect, record: DispatchRecord) -> None:
    """Checks that a round whose noise gains by sampling releases it even if nobody was drawn.

    Noise in shares is left out: it needs clients, and gains nothing by sampling.

    Raises: CompositionError: if it would be abandoned, which tells without noise that nobody was drawn.
    """
    fewest = command.close.minimum_fraction
    if record.sampling == 1 or fewest == 0:
        return
    for chain in record.payload.chains.values():
        if chain.calibrated is not None and not any(stage.fewest for stage in chain.stages):
            raise CompositionError(
                f"{chain.calibrated} adds noise to the total of a Poisson sample, but minimum_fraction is "
                f"{fewest:g}, so that a round without noise tells that nobody was drawn; write "
                "close = Close(minimum_fraction=0.0), and an empty round releases noise as any other"
            )


def _check_alike(name: str, first: PartSpec, second: PartSpec) -> None:
    """Checks that parts of two dispatches can be folded together. Raises: CompositionError."""
    if first.into != second.into:
        raise CompositionError(
            f"part {name!r} goes into {first.into} and into {second.into} in one collect: collect the "
            "dispatches one by one"
        )
    one, other = first.chain().folded, second.chain().folded
    if not isinstance(first.into, each) and (one.tensors, one.kind) != (other.tensors, other.kind):
        raise CompositionError(
            f"part {name!r} has two specs in one collect, {one} and {other}, and {first.into} folds "
            "messages of one: collect the dispatches one by one, or write into=each()"
        )


def check_numbers(command: Collect, dispatches: Sequence[DispatchRecord], most: int) -> None:
    """Checks that reducers can fold the contributions of a Collect if at most so many arrive.

    Raises: CompositionError: if one needs more.
    """
    goal = command.close.goal or most
    for record in dispatches:
        for part_spec in record.payload.uplink.values():
            part_spec.into.check_number(goal if command.tickets is None else min(goal, most))


def check_calibration(command: Collect, payload: Payload) -> None:
    """Raises CompositionError if one client can move a total further than its noise was calibrated for."""
    if command.close.goal is None and command.discount is None:
        return
    for chain in payload.chains.values():
        if chain.calibrated is not None:
            raise CompositionError(
                f"{chain.calibrated} adds noise for what one client can move, but a goal or over-selection "
                "lets one answer keep another out, and a discount changes weights: close by a deadline, "
                "Close(deadline_s=...), without any of these"
            )
