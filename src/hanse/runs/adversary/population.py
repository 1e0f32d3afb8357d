"""Clients of which some train on poisoned data."""

from collections.abc import Callable, Sequence

import numpy as np

from hanse.attacks import Adversary, Attack
from hanse.core import Examples, InvalidInput, Key, Keys, PartyId, Population
from hanse.data import FederatedData

__all__ = ["MARKED", "PoisonedPopulation", "check_adversary", "find_parties", "name_liar"]

LIAR = "liar/"
"""The prefix of the role of a client that lies."""

MAX_TRIED = 100
"""The number of liars on whose data attacks are tried before the run, where they are drawn."""

MARKED = "marked"
"""The role that holds the test examples on which accuracy is the success of an attack."""


def name_liar(party: PartyId, round: int) -> str:
    """Names the role of a client that lies in a round: it holds the poisoned data.

    >>> name_liar(3, 7)
    'liar/7/3'
    """
    return f"{LIAR}{round}/{party}"


class PoisonedPopulation(Population[Examples]):
    """The clients as they are, and beside them the roles of liars, which hold what those train on.

    Args:
      people: the clients and their own data.
      adversary: what the liars do.
      key: of the adversary's draws.
    """

    def __init__(self, people: FederatedData, adversary: Adversary, key: Key) -> None:
        self._people, self._adversary, self._key = people, adversary, key

    @property
    def num_clients(self) -> int:
        return self._people.num_clients

    def client(self, number: int) -> Examples:
        return self._people.client(number)

    def role(self, name: str) -> Examples:
        if name == MARKED:
            marked = self.mark()
            if marked is None:
                raise InvalidInput(f"role {name!r} holds no examples: no attack has a trigger")
            return marked
        if not name.startswith(LIAR):
            return self._people.role(name)
        round, number = map(int, name.removeprefix(LIAR).split("/"))
        return self._poison(number, lambda attack: attack.is_active(round))

    def _poison(self, number: int, is_active: Callable[[Attack], bool]) -> Examples:
        data = self._people.client(number)
        for i, attack in enumerate(self._adversary.attacks):
            if is_active(attack):
                data = attack.poison(data, self._people.num_classes, self._key.fold_in("data", i, number))
        return data

    def is_poisoned(self, number: int, round: int | None = None) -> bool:
        """Returns whether a liar's data differ from its own: in a round, or if all attacks are active.

        Raises: InvalidInput: if an attack can't be done to them.
        """
        own = self._people.client(number)
        found = self._poison(number, lambda attack: round is None or attack.is_active(round))
        return not (np.array_equal(own.x, found.x) and np.array_equal(own.y, found.y))

    def mark(self) -> Examples | None:
        """Returns the test examples that the first attack with a trigger marks, if there is one."""
        test = self._people.test
        if test is None:
            return None
        found = (attack.mark(test, self._people.num_classes) for attack in self._adversary.attacks)
        return next((examples for examples in found if examples is not None), None)


def find_parties(
    people: FederatedData, adversary: Adversary | None, keys: Keys
) -> FederatedData | PoisonedPopulation:
    """Returns the data of all parties, also what liars train on."""
    if adversary is None:
        return people
    return PoisonedPopulation(people, adversary, keys.public.fold_in("adversary"))


def check_adversary(
    adversary: Adversary | None, parties: FederatedData | PoisonedPopulation, liars: Sequence[int]
) -> None:
    """Checks that somebody is honest, that the liars know enough, and that attacks fit their data.

    Raises: InvalidInput.
    """
    if adversary is None or not isinstance(parties, PoisonedPopulation):
        return
    if len(liars) == parties.num_clients:
        raise InvalidInput(f"adversary: all {len(liars)} clients lie; leave an honest one")
    alone = [attack for attack in adversary.attacks if attack.needs_company]
    if alone and len(liars) == 1 and adversary.knows == "colluders":
        raise InvalidInput(
            f"adversary: {alone[0]} uses how messages differ, and a lone liar that knows only its own "
            'would send it as it is; write knows = "all", or let several clients lie'
        )
    if any(attack.poisons for attack in adversary.attacks):
        tried = liars if adversary.clients else liars[:MAX_TRIED]
        changed = [parties.is_poisoned(liar) for liar in tried]
        if not any(changed) and len(tried) == len(liars) and not any(a.falsifies for a in adversary.attacks):
            raise InvalidInput(
                f"adversary: {adversary.attacks[0]} changes no example of the {len(liars)} liars, so nobody "
                "would lie; write another property or trigger, or other clients"
            )
