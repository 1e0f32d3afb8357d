"""Clients of which some train on poisoned data."""

from collections.abc import Callable, Sequence

from hanse.attacks import Adversary, Attack
from hanse.core import Examples, InvalidInput, Key, Keys, PartyId, Population
from hanse.data import FederatedData

__all__ = ["MARKED", "PoisonedPopulation", "check_adversary", "find_parties", "name_liar"]

LIAR = "liar/"
"""The prefix of the role of a client that lies."""

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

    def try_poison(self, number: int) -> None:
        """Tries all attacks on a client's data. Raises: InvalidInput: if one can't be done to them."""
        self._poison(number, lambda attack: True)

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
    """Checks that somebody is honest, and that the attacks can be done to the liars' data.

    Raises: InvalidInput.
    """
    if adversary is None or not isinstance(parties, PoisonedPopulation):
        return
    if len(liars) == parties.num_clients:
        raise InvalidInput(f"adversary: all {len(liars)} clients lie; leave an honest one")
    if any(attack.poisons for attack in adversary.attacks):
        parties.try_poison(liars[0])
