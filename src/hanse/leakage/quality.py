"""The quality of a reconstruction: PSNR, SSIM, and which reconstruction belongs to which row."""

import numpy as np

from hanse.core import Array

__all__ = ["match_rows", "measure_psnr", "measure_ssim"]

MAX_DB = 200.0
"""The PSNR of what is equal to the last bit, or nearly."""


def measure_psnr(found: Array, original: Array, span: float = 1.0) -> float:
    """Returns the peak signal to noise ratio in decibels, at most 200: 10 log10(span² / mean squared error).

    >>> round(measure_psnr(np.zeros(4), np.full(4, 0.1)), 6)
    20.0
    """
    error = float(np.mean((np.asarray(found, np.float64) - np.asarray(original, np.float64)) ** 2))
    if not np.isfinite(error):
        return -MAX_DB
    return min(MAX_DB, 10 * float(np.log10(span**2 / error))) if error > 0 else MAX_DB


def measure_ssim(found: Array, original: Array, span: float = 1.0, window: int = 7) -> float:
    """Returns the mean structural similarity of two (height, width) images over all windows.

    References: Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to
      structural similarity", IEEE TIP 2004, with a uniform window and sample variances.
    """
    a, b = np.asarray(found, np.float64), np.asarray(original, np.float64)
    size = min(window, *a.shape)
    views = [np.lib.stride_tricks.sliding_window_view(one, (size, size)) for one in (a, b)]
    (x, y), axes, n = views, (-2, -1), size * size
    mx, my = x.mean(axes), y.mean(axes)
    scale = n / (n - 1) if n > 1 else 1.0
    vx, vy = scale * (x * x).mean(axes) - scale * mx**2, scale * (y * y).mean(axes) - scale * my**2
    cov = scale * (x * y).mean(axes) - scale * mx * my
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    index = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    return float(index.mean())


def match_rows(found: Array, originals: Array) -> Array:
    """Returns, for each original, the reconstruction that belongs to it: the least sum of squared distances.

    There are at least as many reconstructions as originals. Each serves one.

    >>> match_rows(np.array([[5.0], [1.0]]), np.array([[1.1], [4.0]]))
    array([1, 0])

    References: Kuhn, "The Hungarian method for the assignment problem", 1955, by shortest augmenting paths.
    """
    a = np.asarray(originals, np.float64).reshape(len(originals), -1)
    b = np.asarray(found, np.float64).reshape(len(found), -1)
    cost = ((a[:, None] - b[None]) ** 2).sum(-1)
    n, m = cost.shape
    if n > m:
        raise ValueError(f"{m} reconstructions of {n} originals; give at least as many")
    u, v = np.zeros(n + 1), np.zeros(m + 1)
    owner, way = np.zeros(m + 1, int), np.zeros(m + 1, int)
    for i in range(1, n + 1):
        owner[0], at = i, 0
        least, used = np.full(m + 1, np.inf), np.zeros(m + 1, bool)
        while True:
            used[at] = True
            row = owner[at]
            reduced = cost[row - 1] - u[row] - v[1:]
            closer = ~used[1:] & (reduced < least[1:])
            least[1:][closer], way[1:][closer] = reduced[closer], at
            free = np.where(used, np.inf, least)
            after = int(np.argmin(free[1:])) + 1
            step = free[after]
            u[owner[used]] += step
            v[used] -= step
            least[~used] -= step
            at = after
            if owner[at] == 0:
                break
        while at:
            owner[at] = owner[way[at]]
            at = way[at]
    matched = np.empty(n, int)
    for column in range(1, m + 1):
        if owner[column]:
            matched[owner[column] - 1] = column - 1
    return matched
