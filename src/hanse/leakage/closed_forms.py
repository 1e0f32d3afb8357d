"""Closed forms: rows that stand in a gradient, stretched by a number.

A layer that multiplies a row x by weights W has the gradient x rᵀ for one row, where r is the gradient by its
outputs, and r itself is the gradient by its bias. So the row is read off, exactly. Where noise or rounding
lies upon it, a Gaussian model of public rows says which row is the likeliest.

References: Phong, Aono, Hayashi, Wang, Moriai, "Privacy-preserving deep learning via additively homomorphic
encryption", IEEE TIFS 2018, section 3; Zhao, Mopuri, Bilen, "iDLG: Improved deep leakage from gradients",
2020, arXiv 2001.02610.
"""

from dataclasses import dataclass

import numpy as np

from hanse.core import Array, Examples, HanseError, Tensors

__all__ = [
    "NotMeasured",
    "Prior",
    "Recovered",
    "find_likeliest_row",
    "read_label",
    "read_row",
    "read_row_of_class",
]


class NotMeasured(HanseError):
    """An attack does not apply here, and why: it found nothing out, so it proves no safety."""


@dataclass(frozen=True)
class Recovered:
    """Rows that an attack has found.

    Args:
      x: (n, ...) rows.
      y: their labels; None: the attack finds none.
    """

    x: Array
    y: Array | None = None


def read_row(gradient: Tensors, weights: str = "weights", bias: str = "bias") -> Array:
    """Reads the row off the gradient of a layer: x = G g / |g|², with G that of the weights, (d, k) or (d,).

    With one example it is exact. With several it is a mean of them, weighted by their residuals.

    Raises: NotMeasured: if there is no bias, or its gradient is 0.
    """
    if weights not in gradient or bias not in gradient:
        raise NotMeasured(f"the message has no {weights!r} with {bias!r}; a row can't be read off it")
    residual = np.asarray(gradient[bias], np.float64).ravel()
    products = np.asarray(gradient[weights], np.float64).reshape(-1, residual.size)
    square = float(residual @ residual)
    if not square > 0:
        raise NotMeasured("the gradient of the bias is 0, so nothing stands in the gradient of the weights")
    return np.asarray(products @ residual / square)


def read_row_of_class(gradient: Tensors, params: Tensors, label: int, *, is_shortened: bool = True) -> Array:
    """Reads the row off a gradient of softmax regression, with the residual that the model itself computes.

    The model is public, so the residual of a label is known but for the row that it depends on. The bias
    says how far the message was shortened. So noise on the bias does less harm than in `read_row`.

    Args:
      is_shortened: whether the message may be clipped or averaged, which the chain says.
    """
    row = read_row(gradient)
    w, b = np.asarray(params["weights"], np.float64), np.asarray(params["bias"], np.float64)
    products = np.asarray(gradient["weights"], np.float64)
    sent = np.asarray(gradient["bias"], np.float64)
    for _ in range(3):
        residual = _compute_residual(row @ w + b, label)
        stretch = float(sent @ residual / (residual @ residual)) if is_shortened else 1.0
        if not stretch > 0:
            return row
        row = products @ residual / (residual @ residual) / stretch
    return row


def read_label(bias_gradient: Array) -> int:
    """Returns the label of one example: the one class whose score the loss wants higher (iDLG)."""
    return int(np.argmin(bias_gradient))


@dataclass(frozen=True)
class Prior:
    """A Gaussian model of rows of each class, from public rows.

    Args:
      means: (k, d) of each class; that of all rows for a class without any.
      values, vectors: the eigenvalues and eigenvectors of the rows' covariance within classes.
    """

    means: Array
    values: Array
    vectors: Array

    @classmethod
    def fit(cls, public: Examples, num_classes: int) -> "Prior":
        """Fits the model to public rows. Raises: NotMeasured: if there are fewer than two."""
        x = np.asarray(public.x, np.float64).reshape(len(public), -1)
        if len(x) < 2:
            raise NotMeasured(f"{len(x)} public rows; a prior needs at least 2")
        y = np.asarray(public.y)
        means = np.stack([x[y == k].mean(0) if (y == k).any() else x.mean(0) for k in range(num_classes)])
        rest = x - means[y]
        values, vectors = np.linalg.eigh(rest.T @ rest / len(x) + 1e-6 * np.eye(x.shape[1]))
        return cls(means, values, vectors)


def find_likeliest_row(gradient: Tensors, params: Tensors, prior: Prior, *, num_rounds: int = 3) -> Recovered:
    """Finds the row and label that explain a noisy gradient of softmax regression best.

    The message is M = a (x, 1) rᵀ + s E with r the residual of a label: M r/|r| has all that it says of x.
    For each label and stretch a, the evidence is a normal density; the row is the posterior mean.

    Args:
      params: at which the gradient was computed.
      num_rounds: the residual depends on the row, so it is computed again so many times.

    Raises: NotMeasured: if this is no softmax regression with a bias.
    """
    if gradient.keys() != {"weights", "bias"} or np.ndim(gradient["weights"]) != 2:
        raise NotMeasured("this attack reads softmax regression with a bias; use one for networks")
    whole = np.vstack([gradient["weights"], np.asarray(gradient["bias"])[None]]).astype(np.float64)
    w, b = np.asarray(params["weights"], np.float64), np.asarray(params["bias"], np.float64)
    best: tuple[float, Array, int] | None = None
    for label, mean in enumerate(prior.means):
        guess = mean
        for _ in range(num_rounds):
            residual = _compute_residual(guess @ w + b, label)
            evidence, guess = _explain(whole, residual / np.linalg.norm(residual), mean, prior)
        if best is None or evidence > best[0]:
            best = evidence, guess, label
    assert best is not None
    return Recovered(best[1][None], np.array([best[2]]))


def _compute_residual(scores: Array, label: int) -> Array:
    odds = np.exp(scores - scores.max())
    odds /= odds.sum()
    odds[label] -= 1
    return np.asarray(odds)


def _explain(whole: Array, direction: Array, mean: Array, prior: Prior) -> tuple[float, Array]:
    """Returns the log evidence of a direction at the best stretch, and the posterior mean of the row."""
    seen = whole @ direction
    rest = max(float((whole**2).sum() - seen @ seen), 1e-30 * float((whole**2).sum()) + 1e-300)
    count = whole.shape[0] * (whole.shape[1] - 1)
    noise = rest / count
    turned, centre = prior.vectors.T @ seen[:-1], prior.vectors.T @ mean
    norm = float(np.linalg.norm(seen))
    stretches = np.concatenate([[seen[-1]], norm * np.geomspace(1e-2, 1.0, 200)])
    stretches = stretches[stretches > 0]
    spread = stretches[:, None] ** 2 * prior.values + noise
    off = turned - stretches[:, None] * centre
    last = seen[-1] - stretches
    logs = -0.5 * ((off**2 / spread + np.log(spread)).sum(1) + last**2 / noise + np.log(noise))
    at = int(np.argmax(logs))
    a = stretches[at]
    gain = a * prior.values / (a * a * prior.values + noise)
    row = mean + prior.vectors @ (gain * off[at])
    return float(logs[at]) - 0.5 * count * (1 + np.log(noise)), row
