"""Views: what each party will see of what clients send in a round, in words."""

from contextlib import suppress
from typing import Any

from hanse.core import Program, RoundAbandoned
from hanse.core.exchange import Dispatch, Sample
from hanse.privacy import describe_views, encrypted_mean, encrypted_sum, noises_examples, skellam
from hanse.simulation import Simulation

__all__ = ["SETTINGS", "find_views"]

SETTINGS = (encrypted_mean, encrypted_sum, skellam)
"""What settings and plans may name, and nothing else imports; importing it registers it."""


def find_views(round: Program[Any], runtime: Simulation) -> tuple[str, ...]:
    """Describes who sees what of the first exchange of a round, which is performed as a trial.

    Returns: a line for each part and each party.
    """
    found = dict[str, None]()
    with suppress(StopIteration, RoundAbandoned):
        command = next(round)
        while isinstance(command, Sample | Dispatch):
            if isinstance(command, Dispatch):
                for name, part_spec in command.uplink.items():
                    is_noised = noises_examples(command.work, name)
                    views = describe_views(part_spec, noises_examples=is_noised)
                    found |= dict.fromkeys(f"{name}: {view}" for view in views)
            command = round.send(runtime.perform(command))
    round.close()
    return tuple(found)
