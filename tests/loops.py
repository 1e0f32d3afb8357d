"""The rules once more, as loops straight from the papers, on rows that are all in memory."""

import math
from itertools import combinations

import numpy as np

from hanse.core import Array


def distance(a: Array, b: Array) -> float:
    return math.sqrt(sum((float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True)))


def median(rows: Array) -> Array:
    out = []
    for column in rows.T:
        ordered, n = sorted(column), len(rows)
        out.append(ordered[n // 2] if n % 2 else (ordered[n // 2 - 1] + ordered[n // 2]) / 2)
    return np.array(out)


def trimmed_mean(rows: Array, trim: int) -> Array:
    return np.array(
        [sum(sorted(column)[trim : len(rows) - trim]) / (len(rows) - 2 * trim) for column in rows.T]
    )


def scores(rows: Array, f: int) -> list[float]:
    """Blanchard et al.: s(i) sums |x_i - x_j|² over the n - f - 2 vectors x_j that are closest to x_i."""
    found = []
    for i in range(len(rows)):
        others = sorted(distance(rows[i], rows[j]) ** 2 for j in range(len(rows)) if j != i)
        found.append(sum(others[: max(1, len(rows) - f - 2)]))
    return found


def krum(rows: Array, f: int) -> tuple[int, Array]:
    s = scores(rows, f)
    best = s.index(min(s))
    return best, rows[best]


def multi_krum(rows: Array, f: int, m: int) -> tuple[list[int], Array]:
    s = scores(rows, f)
    chosen = sorted(range(len(rows)), key=lambda i: (s[i], i))[:m]
    return chosen, sum(rows[i] for i in chosen) / m


def geometric_median(rows: Array) -> Array:
    """Gradient-free: shrinks a pattern of steps around the best point until it stays."""
    point, step = np.median(rows, axis=0), float(np.abs(rows).max())

    def cost(at: Array) -> float:
        return sum(distance(at, row) for row in rows)

    best = cost(point)
    while step > 1e-7:
        for move in [*np.eye(len(point)), *-np.eye(len(point))]:
            if cost(point + step * move) < best:
                point, best = point + step * move, cost(point + step * move)
                break
        else:
            step /= 2
    return point


def centred_clipping(rows: Array, radius: float, iterations: int) -> Array:
    centre = np.zeros(rows.shape[1])
    for _ in range(iterations):
        moves = [(row - centre) * min(1.0, radius / max(distance(row, centre), 1e-300)) for row in rows]
        centre = centre + sum(moves) / len(rows)
    return centre


def minimum_diameter(rows: Array, f: int) -> tuple[tuple[int, ...], Array]:
    best, kept = math.inf, ()
    for among in combinations(range(len(rows)), len(rows) - f):
        wide = max((distance(rows[i], rows[j]) for i, j in combinations(among, 2)), default=0.0)
        if wide < best:
            best, kept = wide, among
    return kept, sum(rows[i] for i in kept) / len(kept)


def bulyan(rows: Array, f: int) -> tuple[list[int], Array]:
    left, chosen = list(range(len(rows))), []
    while len(chosen) < len(rows) - 2 * f:
        best, _ = krum(rows[left], f)
        chosen.append(left.pop(best))
    picked, beta = rows[sorted(chosen)], len(chosen) - 2 * f
    out = []
    for column, middle in zip(picked.T, median(picked), strict=True):
        out.append(sum(sorted(column, key=lambda x, m=middle: (abs(x - m), x))[:beta]) / beta)
    return sorted(chosen), np.array(out)


def mixing(rows: Array, f: int) -> Array:
    out = []
    for row in rows:
        near = sorted(range(len(rows)), key=lambda j, at=row: (distance(at, rows[j]), j))[: len(rows) - f]
        out.append(sum(rows[j] for j in near) / len(near))
    return np.array(out)
