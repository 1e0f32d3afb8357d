"""Attacks on labels: the liar trains as all others do, on examples with false labels."""

from dataclasses import replace

from hanse.attacks.attack import Attack
from hanse.core import Examples, InvalidInput, Key, value

__all__ = ["label_flip", "random_labels"]


@value
class label_flip(Attack):
    """Trains on flipped labels: class c becomes class k - 1 - c of k classes.

    >>> import numpy as np
    >>> label_flip().poison(Examples(np.ones((3, 1)), np.array([0, 1, 9])), 10, Key.from_seed(0)).y
    array([9, 8, 0])

    References: Fang, Cao, Jia, Gong, "Local model poisoning attacks to Byzantine-robust federated learning",
      USENIX Security 2020, arXiv 1911.11815, section 5.1.
    """

    def poison(self, data: Examples, num_classes: int | None, key: Key) -> Examples:
        return replace(data, y=_check_classes(self, num_classes) - 1 - data.y)


@value
class random_labels(Attack):
    """Trains on labels that are drawn at random, once for each liar."""

    def poison(self, data: Examples, num_classes: int | None, key: Key) -> Examples:
        labels = key.rng().integers(_check_classes(self, num_classes), size=data.y.shape)
        return replace(data, y=labels.astype(data.y.dtype))


def _check_classes(attack: Attack, num_classes: int | None) -> int:
    if num_classes is None:
        raise InvalidInput(
            f"{attack} needs labels that are classes, and these are numbers: use scaled_mean()"
        )
    return num_classes
