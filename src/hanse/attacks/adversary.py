"""The adversary of a run: which clients lie, how, and what they know."""

from typing import Any, Literal

import numpy as np

from hanse.attacks.attack import Attack
from hanse.core import InvalidInput, Key, nearest, value

__all__ = ["Adversary"]


@value
class Adversary:
    """Clients of a simulation that lie, and what they do.

    >>> from hanse.attacks import scaled_mean
    >>> Adversary(scaled_mean(-3.0), clients=(1, 4)).find_liars(20)
    (1, 4)

    Args:
      attack: what all liars do; a list: one after the other, each with what the one before it has made.
      fraction: the share of the clients that lies, at least one; who they are is drawn from the seed.
      clients: the numbers or names of the liars, in place of a fraction.
      knows: "colluders": liars know each other's data and messages, and what the server broadcasts; "all":
        also what each honest client sends in the round.
    """

    attack: Attack | tuple[Attack, ...]
    fraction: float | None = None
    clients: tuple[int | str, ...] = ()
    knows: Literal["colluders", "all"] = "colluders"

    def __post_init__(self) -> None:
        attacks: Any = (self.attack,) if isinstance(self.attack, Attack) else self.attack
        wrong = [given for given in attacks if not isinstance(given, Attack)]
        if wrong or not attacks:
            given = repr(wrong[0]) if wrong else "empty"
            raise InvalidInput(f"attack is {given}; write an attack, such as scaled_mean(-3.0), or several")
        if isinstance(self.clients, int | str):
            object.__setattr__(self, "clients", (self.clients,))
        if (self.fraction is None) == (not self.clients):
            raise InvalidInput("give either fraction, such as 0.2, or clients, such as [0, 3]")
        if self.fraction is not None and not 0 < self.fraction < 1:
            raise InvalidInput(f"fraction is {self.fraction}; write a share of the clients between 0 and 1")
        if self.knows not in ("colluders", "all"):
            raise InvalidInput(f'knows is {self.knows!r}; write "colluders" or "all"')
        needs = [attack for attack in attacks if attack.needs_honest]
        if needs and self.knows != "all":
            raise InvalidInput(f'{needs[0]} uses what honest clients send; write knows = "all"')

    @property
    def attacks(self) -> tuple[Attack, ...]:
        """The attacks, first to last."""
        return (self.attack,) if isinstance(self.attack, Attack) else self.attack

    def find_liars(
        self, num_clients: int, names: tuple[str, ...] = (), key: Key = Key.from_seed(0)
    ) -> tuple[int, ...]:
        """Returns the numbers of the liars, in order.

        Args:
          num_clients: how many clients there are.
          names: theirs, if they have names.
          key: draws them, where only a fraction is given.

        Raises: InvalidInput: if one is no client.
        """
        if self.fraction is not None:
            count = max(1, round(self.fraction * num_clients))
            return tuple(sorted(key.rng().choice(num_clients, count, replace=False).tolist()))
        numbers = set[int]()
        for client in self.clients:
            if isinstance(client, str):
                if not names:
                    raise InvalidInput(
                        f"adversary.clients: no client {client!r}: these have no names; write numbers "
                        f"from 0 to {num_clients - 1}"
                    )
                if client not in names:
                    raise InvalidInput(f"adversary.clients: no client {client!r}; {nearest(client, names)}")
                numbers.add(names.index(client))
            elif not 0 <= client < num_clients:
                raise InvalidInput(
                    f"adversary.clients: no client {client}; write numbers from 0 to {num_clients - 1}"
                )
            else:
                numbers.add(int(client))
        return tuple(int(number) for number in np.sort(list(numbers)))
