"""Attacks of liars that agree on a message which a rule takes for an honest one."""

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Literal

import numpy as np

from hanse.attacks.attack import Attack, Collusion
from hanse.attacks.strength import find_strongest, measure_retreat
from hanse.core import Array, InvalidInput, Part, Tensors, check_count, check_positive, value

__all__ = ["adaptive", "alie", "inner_product", "mimic", "min_max"]


@value
class alie(Attack):
    """Sends the mean of the honest messages, moved by a few standard deviations ("a little is enough").

        mean - z * deviation,   of each coordinate

    >>> round(alie.find_z(50, 24), 4)
    1.4261

    Args:
      z: the number of deviations; "published": as many as leave just enough honest messages farther out for
        the liars to be a majority among the others; "optimised": so many that the total of the rule in place
        is farthest from the mean of the honest messages.
    References: Baruch, Baruch, Goldberg, "A little is enough: circumventing defenses for distributed
      learning", NeurIPS 2019, arXiv 1902.06156, Algorithm 3.
    """

    z: float | Literal["published", "optimised"] = "published"

    @property
    def needs_company(self) -> bool:
        return True

    def __post_init__(self) -> None:
        if isinstance(self.z, str) and self.z not in ("published", "optimised"):
            raise InvalidInput(f'z is {self.z!r}; write a number, "published" or "optimised"')

    @staticmethod
    def find_z(num_clients: int, num_liars: int) -> float:
        """Computes the published number of deviations for so many clients, of which so many lie.

        It is 0 where the liars are a majority, or too few to form one.
        """
        honest = num_clients - num_liars
        share = (honest - (num_clients // 2 + 1 - num_liars)) / max(1, honest)
        return max(0.0, NormalDist().inv_cdf(share)) if 0 < share < 1 else 0.0

    def falsify(self, seen: Collusion) -> tuple[Part, ...]:
        mean, deviation = seen.rows.mean(axis=0), seen.rows.std(axis=0)
        if self.z == "optimised":
            return seen.send(find_strongest(seen, (-deviation,))[0])
        z = self.z
        if isinstance(z, str):
            z = self.find_z(seen.num_honest + seen.num_liars, seen.num_liars)
        return seen.send(mean - z * deviation)


@value
class inner_product(Attack):
    """Sends the mean of the honest messages backwards, so that the total's product with it becomes negative.

        -strength * mean

    Args:
      strength: a small one is near the honest messages, a large one outweighs them; "optimised": the one with
        which the total of the rule in place is farthest from the mean of the honest messages.
    References: Xie, Koyejo, Gupta, "Fall of empires: breaking Byzantine-tolerant SGD by inner product
      manipulation", UAI 2019, arXiv 1903.03936.
    """

    strength: float | Literal["optimised"] = "optimised"

    def __post_init__(self) -> None:
        if isinstance(self.strength, str):
            if self.strength != "optimised":
                raise InvalidInput(f'strength is {self.strength!r}; write a number or "optimised"')
        else:
            check_positive("strength", self.strength)

    def falsify(self, seen: Collusion) -> tuple[Part, ...]:
        mean = seen.rows.mean(axis=0)
        if isinstance(self.strength, str):
            return seen.send(find_strongest(seen, (-mean,))[0])
        return seen.send(-self.strength * mean)


DIRECTIONS = ("deviation", "mean", "sign")


def _find_direction(seen: Collusion, name: str) -> Array:
    """Returns a direction away from the honest messages, by its name."""
    mean: Array = seen.rows.mean(axis=0)
    if name == "deviation":
        return np.asarray(-seen.rows.std(axis=0))
    return np.asarray(-np.sign(mean)) if name == "sign" else -_normalise(mean)


@value
class min_max(Attack):
    """Goes as far from the mean as no honest message shows: two of them are as far apart as any is from it.

        mean + gamma p,   the largest gamma with  max_i |mean + gamma p - x_i| <= max_ij |x_i - x_j|

    Args:
      direction: p, away from the honest messages: "deviation" of each coordinate, the "mean" of length 1,
        or its "sign".
    References: Shejwalkar, Houmansadr, "Manipulating the Byzantine: optimizing model poisoning attacks and
      defenses for federated learning", NDSS 2021, section IV-B. gamma is computed here, not searched.
    """

    direction: Literal["deviation", "mean", "sign"] = "deviation"

    @property
    def needs_company(self) -> bool:
        return True

    def __post_init__(self) -> None:
        if self.direction not in DIRECTIONS:
            raise InvalidInput(f"direction is {self.direction!r}; write one of {', '.join(DIRECTIONS)}")

    def falsify(self, seen: Collusion) -> tuple[Part, ...]:
        mean, direction = seen.rows.mean(axis=0), _find_direction(seen, self.direction)
        return seen.send(mean + _find_reach(seen.rows, direction) * direction)


def _find_reach(rows: Array, direction: Array) -> float:
    """Computes how far one may go from the mean until a row is farther than the two farthest rows are.

    |a + g p|^2 = |a|^2 + 2 g a.p + g^2 |p|^2 <= d^2 for each a = mean - row.
    """
    square = float(direction @ direction)
    if square == 0:
        return 0.0
    gram = rows @ rows.T
    squares = np.diag(gram)
    largest = max(0.0, float((squares[:, None] + squares[None, :] - 2 * gram).max()))
    away = rows.mean(axis=0) - rows
    along, lengths = away @ direction, (away * away).sum(axis=1)
    inside = np.maximum(along**2 - square * (lengths - largest), 0)
    return float(((-along + np.sqrt(inside)) / square).min())


@value
class mimic(Attack):
    """All liars repeat the message of one honest client, who then counts for many.

    They choose the one that is farthest out in the direction in which honest messages have differed the most,
    round after round. Clients whose data are rare then lose their say.

    Args:
      warmup: the number of rounds in which they learn that direction.
    References: Karimireddy, He, Jaggi, "Byzantine-robust learning on heterogeneous datasets via bucketing",
      ICLR 2022, arXiv 2006.09365, section 4 and appendix B.
    """

    warmup: int = 10

    @property
    def needs_honest(self) -> bool:
        return True

    def __post_init__(self) -> None:
        check_count("warmup", self.warmup)

    def falsify(self, seen: Collusion) -> tuple[Part, ...]:
        apart = seen.rows - seen.rows.mean(axis=0)
        chosen = int(np.argmax(apart @ self._learn(seen)[0]))
        return seen.send(seen.rows[chosen])

    def remember(self, seen: Collusion) -> Mapping[str, Tensors]:
        direction, num_rounds = self._learn(seen)
        return {"learned": {"direction": direction, "rounds": np.array(num_rounds)}}

    def _learn(self, seen: Collusion) -> tuple[Array, int]:
        """Returns the direction after this round, by Oja's rule, and in how many rounds it was learned."""
        learned = [memory["learned"] for memory in seen.memory if "learned" in memory]
        apart = seen.rows - seen.rows.mean(axis=0)
        if not learned:
            return _normalise(_find_widest(apart)), 1
        most = max(learned, key=lambda one: int(one["rounds"]))
        direction, num_rounds = np.asarray(most["direction"]), int(most["rounds"])
        if num_rounds >= self.warmup:
            return direction, num_rounds
        new = _normalise(apart.T @ (apart @ direction))
        return _normalise(direction * num_rounds / (num_rounds + 1) + new / (num_rounds + 1)), num_rounds + 1


def _find_widest(apart: Array) -> Array:
    """Returns the row that is farthest from the mean."""
    widest: Array = apart[int(np.argmax((apart * apart).sum(axis=1)))]
    return widest


def _normalise(vector: Array) -> Array:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-300))


@value
class adaptive(Attack):
    """Knows the rule in place, and sends what throws the total back the farthest.

    It tries the directions of the other attacks (backwards, the deviations of each coordinate, the signs of
    the mean), each with many strengths, and computes what the rule would make of them. In each round it takes
    the one after which the total is farthest behind the mean of the honest messages.

    References: Fang, Cao, Jia, Gong, "Local model poisoning attacks to Byzantine-robust federated learning",
      USENIX Security 2020, arXiv 1911.11815; Shejwalkar, Houmansadr, NDSS 2021, section IV-A.
    """

    def falsify(self, seen: Collusion) -> tuple[Part, ...]:
        mean, deviation = seen.rows.mean(axis=0), seen.rows.std(axis=0)
        signed = -np.sign(mean) * deviation
        scale = float(np.linalg.norm(mean)) / math.sqrt(mean.size)
        return seen.send(find_strongest(seen, (-mean, signed, -scale * np.sign(mean)), measure_retreat)[0])
