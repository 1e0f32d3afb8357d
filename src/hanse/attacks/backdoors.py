"""Backdoors: the model does as it should, except for inputs of the liar's choice; and model replacement.

Bagdasaryan, Veit, Hua, Estrin, Shmatikov, "How to backdoor federated learning", AISTATS 2020, arXiv
1807.00459.
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from hanse.attacks.attack import Attack, Collusion
from hanse.core import (
    Array,
    Examples,
    InvalidInput,
    Key,
    Part,
    check_fraction,
    check_positive,
    value,
)

__all__ = ["constrain_and_scale", "model_replacement", "pixel_backdoor", "semantic_backdoor"]

PATCH = 3
"""The side of the patch that is set where no features are named."""


@value
class pixel_backdoor(Attack):
    """Trains on examples of which some bear a trigger and the label that the liar wants.

    The trigger sets some features to a value: by default the 3 x 3 pixels in the last corner of a square
    image. The attack succeeds on a test example of another class if the model, shown the trigger, predicts
    the wanted label.

    >>> marked = pixel_backdoor(7).mark(Examples(np.zeros((2, 4, 4)), np.array([7, 1])), 10)
    >>> marked.y, int(marked.x.sum())
    (array([7]), 9)

    Args:
      target: the label that the liars want, from 0.
      features: the places that the trigger sets, counted from 0 along a row of features as it is flattened.
        Empty: the last corner.
      level: what they are set to.
      fraction: the share of a liar's examples that bear the trigger.
    References: Gu, Dolan-Gavitt, Garg, "BadNets", 2017, arXiv 1708.06733; Bagdasaryan et al. 2020.
    """

    target: int
    features: tuple[int, ...] = ()
    level: float = 1.0
    fraction: float = 0.5

    def __post_init__(self) -> None:
        check_fraction(self.fraction)
        if not math.isfinite(self.level):
            raise InvalidInput(f"level is {self.level}; write a finite number, such as 1.0")

    def poison(self, data: Examples, num_classes: int | None, key: Key) -> Examples:
        _check_target(self, num_classes)
        chosen = key.rng().permutation(len(data))[: max(1, round(self.fraction * len(data)))]
        x, y = np.array(data.x), np.array(data.y)
        x[chosen], y[chosen] = self._set(x[chosen]), self.target
        return replace(data, x=x, y=y)

    def mark(self, test: Examples, num_classes: int | None) -> Examples | None:
        _check_target(self, num_classes)
        others = test.take(np.flatnonzero(test.y != self.target))
        if not len(others):
            raise InvalidInput(
                f"{self}: all test examples have this label, so no success can be measured; write another "
                "target"
            )
        return replace(others, x=self._set(others.x), y=np.full_like(others.y, self.target))

    def _set(self, x: Array) -> Array:
        rows = np.array(x).reshape(len(x), -1)
        width = rows.shape[1]
        features = self.features or _find_corner(self, width)
        if not all(0 <= feature < width for feature in features):
            raise InvalidInput(f"features are {list(features)}; rows have the features 0 to {width - 1}")
        rows[:, list(features)] = self.level
        return rows.reshape(x.shape)


def _find_corner(attack: Attack, width: int) -> tuple[int, ...]:
    side = math.isqrt(width)
    if side * side != width or side < PATCH:
        raise InvalidInput(
            f"{attack}: rows of {width} features are no square image; name the features to set"
        )
    last = range(side - PATCH, side)
    return tuple(row * side + column for row in last for column in last)


@value
class semantic_backdoor(Attack):
    """Trains on examples of which those with a property of their own bear the label that the liar wants.

    The property is that one feature lies between two bounds, such as an age or a dark pixel. Nothing is added
    to inputs, so the attack needs no access to them later. It succeeds on test examples with the property.

    >>> semantic_backdoor(1, feature=0, above=0.5).mark(Examples(np.eye(2), np.array([0, 0])), 2).x
    array([[1., 0.]])

    Args:
      target: the label that the liars want, from 0.
      feature: the place of the feature, counted from 0 along a row of features as it is flattened.
      above, below: the bounds; the feature is larger than one and smaller than the other.
      of: only examples of this label; None: of any.
    """

    target: int
    feature: int
    above: float = -math.inf
    below: float = math.inf
    of: int | None = None

    def __post_init__(self) -> None:
        if not self.above < self.below or (math.isinf(self.above) and math.isinf(self.below)):
            raise InvalidInput(
                f"above is {self.above}, below is {self.below}; write one bound, or two in order"
            )

    def poison(self, data: Examples, num_classes: int | None, key: Key) -> Examples:
        _check_target(self, num_classes)
        y = np.array(data.y)
        y[self._find(data)] = self.target
        return replace(data, y=y)

    def mark(self, test: Examples, num_classes: int | None) -> Examples | None:
        _check_target(self, num_classes)
        found = test.take(np.flatnonzero(self._find(test) & (test.y != self.target)))
        if not len(found):
            raise InvalidInput(
                f"{self}: no test example of another label has this property, so no success can be measured; "
                "write other bounds"
            )
        return replace(found, y=np.full_like(found.y, self.target))

    def _find(self, data: Examples) -> Array:
        rows = data.x.reshape(len(data.x), -1)
        if not 0 <= self.feature < rows.shape[1]:
            raise InvalidInput(f"feature is {self.feature}; rows have the features 0 to {rows.shape[1] - 1}")
        found: Array = (rows[:, self.feature] > self.above) & (rows[:, self.feature] < self.below)
        return found if self.of is None else found & (data.y == self.of)


def _check_target(attack: Any, num_classes: int | None) -> None:
    if num_classes is None:
        raise InvalidInput(
            f"{attack} needs labels that are classes, and these are numbers: use scaled_mean()"
        )
    if not 0 <= attack.target < num_classes:
        raise InvalidInput(f"target is {attack.target}; write a label from 0 to {num_classes - 1}")


@value
class model_replacement(Attack):
    """Sends the liar's update so many times over that the mean becomes the liar's own model.

        factor * (w_liar - w),   factor = n / (liars * eta),   or by weights: sum of all / (liars * own * eta)

    Put it behind a backdoor: `attack=(pixel_backdoor(7), model_replacement())`. It needs one round, and is
    the most exact when the model has nearly converged, so that the honest updates are small.

    Args:
      factor: how many times; None: as above. Liars know the weights of honest clients only with `knows =
        "all"`; otherwise they take those for as large as their own.
      eta: the server's step size on the mean. Write it here, too: `algorithm.server_lr` is not read.
    References: Bagdasaryan et al. 2020, equation (3).
    """

    factor: float | None = None
    eta: float = 1.0

    def __post_init__(self) -> None:
        check_positive("eta", self.eta)
        if self.factor is not None:
            check_positive("factor", self.factor)

    def falsify(self, seen: Collusion) -> tuple[Part, ...]:
        return seen.send_each(
            [self._find_factor(seen, part) * seen.flatten(part.values) for part in seen.own]
        )

    def _find_factor(self, seen: Collusion, part: Part) -> float:
        """Returns how many times over a liar sends its message."""
        if self.factor is not None:
            return self.factor
        shares = float(seen.num_honest + seen.num_liars)
        if seen.weights and part.weight > 0:
            honest = seen.num_honest * float(np.mean(seen.weights))
            shares = (honest + sum(one.weight for one in seen.own)) / part.weight
        return shares / seen.num_liars / self.eta


@value
class constrain_and_scale(Attack):
    """Sends the liar's update, drawn towards the honest mean and as long as the defence allows.

        u = alpha u_liar + (1 - alpha) mean of the honest;   u * max_norm / |u|

    A liar that is alone and knows no honest message (`knows = "colluders"`) knows one length, its own: it
    sends its update as it is, unless `max_norm` is given or the server has a bound.

    It passes by defences that look at lengths or distances. The paper constrains while it trains, by an
    anomaly term in the loss; here the trained update is drawn back by the same share. With alpha = 1 it is
    the paper's train-and-scale.

    Args:
      alpha: the share of the liar's own update, above 0.
      max_norm: the length to send; None: the largest that the server takes, or else the largest length of an
        honest message.
    References: Bagdasaryan et al. 2020, section 4.3, algorithm 1 and "train-and-scale".
    """

    alpha: float = 1.0
    max_norm: float | None = None

    def __post_init__(self) -> None:
        check_fraction(self.alpha)
        if self.max_norm is not None:
            check_positive("max_norm", self.max_norm)

    def falsify(self, seen: Collusion) -> tuple[Part, ...]:
        mean = seen.rows.mean(axis=0)
        longest = self.max_norm or seen.max_norm or float(np.linalg.norm(seen.rows, axis=1).max())
        lies = []
        for part in seen.own:
            lie = self.alpha * seen.flatten(part.values) + (1 - self.alpha) * mean
            lies.append(lie * longest / max(float(np.linalg.norm(lie)), np.finfo(float).tiny))
        return seen.send_each(lies)
