"""Clients of which some train on poisoned data."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from hanse.attacks import Adversary, Attack
from hanse.core import Examples, InvalidInput, Key, Keys, PartyId, Population
from hanse.data import FederatedData

__all__ = [
    "OF_MARKED",
    "PoisonedPopulation",
    "check_adversary",
    "find_parties",
    "find_triggers",
    "name_liar",
    "name_marked",
]

LIAR = "liar/"
"""The prefix of the role of a client that lies."""

MAX_TRIED = 100
"""The number of liars on whose data attacks are tried before the run, where they are drawn."""

MARKED = "marked/"
"""The prefix of the roles that hold test examples on which accuracy is the success of an attack."""

OF_MARKED = "attack_"
"""The prefix of metrics on examples that an attack has marked: "attack_accuracy" is its rate of success."""


def name_marked(place: int) -> str:
    """Names the role that holds the test examples which an attack marks, by its place among the attacks."""
    return f"{MARKED}{place}"


def find_triggers(adversary: Adversary | None) -> Mapping[str, int]:
    """Returns the places of the attacks that have a trigger, by its name in metrics: "" if it is alone.

    >>> from hanse.attacks import pixel_backdoor, semantic_backdoor, sign_flip
    >>> find_triggers(Adversary((sign_flip(), pixel_backdoor(7)), 0.1))
    {'': 1}
    >>> several = pixel_backdoor(7), semantic_backdoor(1, 3, above=0.5), pixel_backdoor(2)
    >>> find_triggers(Adversary(several, 0.1))
    {'pixel_backdoor_': 0, 'semantic_backdoor_': 1, 'pixel_backdoor_2_': 2}
    """
    attacks = () if adversary is None else adversary.attacks
    named = [(i, attack.trigger) for i, attack in enumerate(attacks) if attack.trigger is not None]
    if len(named) == 1:
        return {"": named[0][0]}
    found, seen = dict[str, int](), Counter[str]()
    for i, name in named:
        seen[name] += 1
        found[f"{name}_{seen[name]}_" if seen[name] > 1 else f"{name}_"] = i
    return found


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
        if name.startswith(MARKED):
            return self.mark(int(name.removeprefix(MARKED)))
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

    @property
    def has_test(self) -> bool:
        """Returns whether there are test examples, on which the success of an attack can be measured."""
        return self._people.test is not None

    def mark(self, place: int) -> Examples:
        """Returns the test examples that an attack marks, by its place among the attacks.

        Raises: InvalidInput: if there are none.
        """
        test, attack = self._people.test, self._adversary.attacks[place]
        marked = None if test is None else attack.mark(test, self._people.num_classes)
        if marked is None:
            raise InvalidInput(f"{attack} marks no test examples")
        return marked


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
    for place in find_triggers(adversary).values() if parties.has_test else ():
        parties.mark(place)
