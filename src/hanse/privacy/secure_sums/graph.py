"""The graph of a secure sum: who shares secrets and masks with whom."""

from hanse.core import Key
from hanse.privacy.secure_sums.thresholds import Thresholds

__all__ = ["draw_neighbours"]


def draw_neighbours(thresholds: Thresholds, key: Key) -> list[tuple[int, ...]]:
    """Draws the neighbours of each client: those next to it on a circle in random order, k/2 on each side.

    References: Bell et al., CCS 2020, Algorithm 1 (random relabelling of a Harary graph).

    >>> draw_neighbours(Thresholds(3, 2, 2), Key.from_seed(0))
    [(1, 2), (0, 2), (0, 1)]
    """
    num = thresholds.num_clients
    if thresholds.is_complete:
        return [tuple(other for other in range(num) if other != seat) for seat in range(num)]
    circle = key.rng().permutation(num).tolist()
    half = thresholds.num_neighbours // 2
    neighbours: list[tuple[int, ...]] = [()] * num
    for place, seat in enumerate(circle):
        around = (circle[(place + step) % num] for step in range(-half, half + 1) if step)
        neighbours[seat] = tuple(sorted(around))
    return neighbours
