"""Cox regression for survival times, stratified, in NumPy."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import numpy as np

from hanse.core import Array, Examples, InvalidInput, Key, Prediction, Tensors, check_not_negative, value
from hanse.learners.descent import ByGradient
from hanse.learners.examples import check_rows, check_some, convert_flat
from hanse.learners.linear.concordance import count_concordant
from hanse.learners.model import Model
from hanse.learners.settings import check_dtype

__all__ = ["Cox", "cox"]


@value
class cox(Model):
    """Cox's proportional hazards: which example at risk has the event, by features. Breslow's ties.

        minimise  -(1/n) Σ_events [ x_i w - log Σ_{j at risk at t_i} exp(x_j w) ] + (l2/2) |w|²

    The examples of the same stratum whose time is t_i or later are at risk at t_i; each of several tied
    events is compared with all of them (Breslow). A label is a row of two or three numbers:

        time, event (1: it happened then; 0: censored then), stratum (any number; left out: all in one)

    Each client is a stratum of its own, or several: examples are never compared across clients, since
    nobody sees two clients' times. So the optimum is that of the pooled data stratified by client and
    stratum; for a comparison, pool the data with strata that differ from client to client. A mini-batch
    compares only within itself: for the optimum use full batches (`batch_size=None`), or Newton's method.

    It is measured by its loss and by Harrell's "concordance": of the pairs of examples that can be compared,
    in one stratum of one party, the share whose risks are in the right order (equal risks count 1/2). Where
    no pair can be compared, there is no concordance.

    >>> times = np.array([[1.0, 1], [6, 1], [6, 1], [1, 0], [8, 0], [9, 1]])
    >>> data = Examples(np.array([[1.0], [1], [0], [1], [0], [0]]), times)
    >>> round(cox().bind((1,), None).objective({"weights": np.zeros(1)}, data) * 6, 6)
    4.564348

    Args:
      l2: strength of the regulariser.
      dtype: of the parameters and the arithmetic, "float32" or "float64".
    Raises: InvalidInput: if l2 is negative or not finite, or the dtype unknown.
    References: Cox, "Regression models and life-tables", JRSS B 1972. Breslow, "Covariance analysis of
      censored survival data", Biometrics 1974.
    """

    l2: float = 0.0
    _: KW_ONLY
    dtype: str = "float64"

    def __post_init__(self) -> None:
        check_not_negative("l2", self.l2)
        check_dtype(self.dtype)

    def bind(self, feature_shape: tuple[int, ...], num_classes: int | None) -> "Cox":
        """Binds the model to examples of this shape and these classes."""
        num_features = math.prod(feature_shape)
        if num_features < 1:
            raise InvalidInput(f"features of shape {feature_shape}; give at least 1 feature a row")
        if num_classes is not None:
            raise InvalidInput(
                f"cox() needs times and events, the labels are {num_classes} classes; give (n, 2) or (n, 3) "
                "numbers: numpy.column_stack([time, event, stratum]).astype(float)"
            )
        return Cox(num_features, self.l2, self.dtype)


@dataclass(frozen=True)
class _Stratum:
    """The rows of one stratum, latest first, with the facts on their times that the likelihood needs.

    Sums of exp(score) are kept as logs: scores differ by hundreds before training has settled.

    Args:
      rows: positions in the data.
      events: (m,) whether the event happened.
      group: (m,) the number of each row's time among the distinct ones, latest first.
      last: the last row of each distinct time, so that rows[: last + 1] are at risk then.
      deaths: the number of events at each distinct time.
    """

    rows: Array
    events: Array
    group: Array
    last: Array
    deaths: Array

    @classmethod
    def of(cls, rows: Array, times: Array, events: Array) -> "_Stratum":
        """Builds a stratum from unordered rows."""
        order = np.argsort(-times, kind="stable")
        times, events = times[order], events[order]
        new = np.append(True, times[1:] != times[:-1])
        group = np.cumsum(new) - 1
        last = np.append(np.flatnonzero(new)[1:], len(times)) - 1
        return cls(rows[order], events, group, last, np.bincount(group, weights=events))

    def at_risk(self, logs: Array) -> Array:
        """Sums over the rows at risk at each distinct time; takes and returns logs."""
        return np.asarray(np.logaddexp.accumulate(logs)[self.last])

    def while_at_risk(self, logs: Array) -> Array:
        """Sums over the events while each row was at risk; takes and returns logs."""
        with_events = np.where(self.deaths > 0, logs + np.log(np.maximum(self.deaths, 1)), -np.inf)
        return np.asarray(np.logaddexp.accumulate(with_events[::-1])[::-1][self.group])

    def loss(self, scores: Array) -> float:
        """Returns the negative log partial likelihood."""
        return float(self.deaths @ self.at_risk(scores) - self.events @ scores)

    def gradient(self, scores: Array) -> Array:
        """Returns the derivatives of the loss by the scores, (m,)."""
        return np.asarray(np.exp(scores + self.while_at_risk(-self.at_risk(scores))) - self.events)

    def hessian_vector(self, scores: Array, direction: Array) -> Array:
        """Multiplies the loss's Hessian by the scores with a direction, (m,); a constant has no effect."""
        above = direction - direction.min()
        with np.errstate(divide="ignore"):
            log_above = np.log(above)
        totals = self.at_risk(scores)
        means = self.at_risk(scores + log_above) - totals
        own = above * np.exp(scores + self.while_at_risk(-totals))
        return np.asarray(own - np.exp(scores + self.while_at_risk(means - totals)))


@dataclass(frozen=True)
class Cox(ByGradient):
    """Cox regression bound to its data. Made by `cox.bind`.

    Args:
      num_features: d.
      l2: strength of the regulariser.
      dtype: of the parameters and the arithmetic.
    """

    metrics = ("loss", "concordant", "comparable")
    prediction: ClassVar[Prediction] = "risks"
    num_features: int
    l2: float
    dtype: str

    def init(self, key: Key) -> Tensors:
        """Returns zeros, since the objective is convex."""
        return {"weights": np.zeros(self.num_features, self.dtype)}

    def objective(self, params: Tensors, data: Examples) -> float:
        """Returns the negative log partial likelihood over the number of examples, plus the regulariser."""
        penalty = self.l2 / 2 * float(np.square(params["weights"], dtype=np.float64).sum())
        x, strata = self._check(data)
        return _sum_losses(x @ params["weights"], strata) / len(data) + penalty

    def gradient(self, params: Tensors, data: Examples) -> Tensors:
        """Returns the gradient of the objective by the parameters."""
        x, strata = self._check(data)
        scores = x @ params["weights"]
        gradients = np.empty_like(scores)
        for stratum in strata:
            gradients[stratum.rows] = stratum.gradient(scores[stratum.rows])
        return {"weights": x.T @ gradients / len(x) + self.l2 * params["weights"]}

    def hessian_vector(self, params: Tensors, data: Examples, vector: Tensors) -> Tensors:
        """Returns the product of the objective's Hessian with a vector in the shapes of the parameters."""
        x, strata = self._check(data)
        scores, direction = x @ params["weights"], x @ vector["weights"]
        products = np.empty_like(scores)
        for stratum in strata:
            products[stratum.rows] = stratum.hessian_vector(scores[stratum.rows], direction[stratum.rows])
        return {"weights": x.T @ products / len(x) + self.l2 * vector["weights"]}

    def evaluate(self, params: Tensors, data: Examples) -> dict[str, float]:
        """Returns the negative log partial likelihood, and the sums of `count_concordant`."""
        x, strata = self._check(data)
        scores, (times, events, numbers) = x @ params["weights"], _labels(data.y).T
        concordant, comparable = count_concordant(scores, times, events, numbers)
        return {
            "loss": _sum_losses(scores, strata),
            "concordant": concordant,
            "comparable": comparable,
            "count": float(len(x)),
        }

    def summarise(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Returns the mean loss, and Harrell's concordance if any two examples can be compared."""
        found = {"loss": float(sums["loss"] / sums["count"])}
        if sums["comparable"]:
            found["concordance"] = float(sums["concordant"] / sums["comparable"])
        return found

    def predict(self, params: Tensors, x: Array) -> Array:
        """Returns risk scores, (n,): x w, the logarithm of the hazard relative to a row of zeros."""
        return np.asarray(convert_flat(check_rows(x), self.num_features, self.dtype) @ params["weights"])

    def _check(self, data: Examples) -> tuple[Array, Iterator[_Stratum]]:
        """Returns (n, d) features in the dtype of the arithmetic, and the strata."""
        check_some(data)
        x = convert_flat(np.asarray(data.x), self.num_features, self.dtype)
        return x, _strata(_labels(data.y), self.dtype)


def _sum_losses(scores: Array, strata: Iterator[_Stratum]) -> float:
    return float(sum(stratum.loss(scores[stratum.rows]) for stratum in strata))


def _labels(y: Array) -> Array:
    """Returns (n, 3) times, events and strata. Raises: InvalidInput: if labels are something else."""
    if y.ndim != 2 or y.shape[1] not in (2, 3) or y.dtype.kind not in "biuf":
        raise InvalidInput(
            f"labels of shape {y.shape} and dtype {y.dtype}; cox() needs two or three numbers a row: "
            "numpy.column_stack([time, event, stratum]).astype(float)"
        )
    labels = np.asarray(y, np.float64)
    if not np.isfinite(labels).all():
        row, column = (int(i) for i in np.argwhere(~np.isfinite(labels))[0])
        raise InvalidInput(
            f"the label in row {row}, column {column} is {labels[row, column]}; give a finite number there, "
            f"or drop row {row}"
        )
    wrong = (labels[:, 1] != 0) & (labels[:, 1] != 1)
    if wrong.any():
        row = int(wrong.argmax())
        raise InvalidInput(
            f"the event in row {row} is {labels[row, 1]:g}; write 1 where it happened, 0 where the row was "
            "censored"
        )
    return labels if y.shape[1] == 3 else np.column_stack([labels, np.zeros(len(labels))])


def _strata(labels: Array, dtype: str) -> Iterator[_Stratum]:
    by_stratum = np.argsort(labels[:, 2], kind="stable")
    cuts = np.flatnonzero(np.diff(labels[by_stratum, 2])) + 1
    for rows in np.split(by_stratum, cuts):
        yield _Stratum.of(rows, labels[rows, 0], labels[rows, 1].astype(dtype))
