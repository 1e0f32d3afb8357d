"""Attribute inference: a column of a row is guessed from its other columns, its label and a model.

    guess = argmax_v p(v | other columns) p_model(label | other columns, v)

It is compared with what anybody infers without the model, p(v | other columns, label), because much of what
such attacks find is only how columns depend on each other.

References: Yeom, Giacomelli, Fredrikson, Jha, "Privacy risk in machine learning", CSF 2018, arXiv 1709.01604,
Algorithm 5; Jayaraman, Evans, "Are attribute inference attacks just imputation?", CCS 2022, arXiv 2209.01292.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hanse.core import Array, Examples, InvalidInput, Key, Learner, LocalProblem, Steps, Tensors
from hanse.learners import softmax

__all__ = ["AttributeInference", "impute", "infer_attribute"]

FIT_STEPS = 300
"""The steps of gradient descent by which a column is learned from the others."""


@dataclass(frozen=True)
class AttributeInference:
    """The accuracy of guesses of a column.

    Args:
      with_model: with the model.
      imputed: from the other columns and the label, without the model.
      majority: of the most frequent value, always.
      rows: the number of rows.
    """

    with_model: float
    imputed: float
    majority: float
    rows: int

    @property
    def gain(self) -> float:
        """The accuracy that the model adds to imputation; 0, if it adds none."""
        return max(0.0, self.with_model - self.imputed)


def impute(known: Array, values: Array, wanted: Array, num_values: int) -> Array:
    """Learns a column from others, by multinomial regression, and predicts it.

    Args:
      known, values: rows of the other columns, (n, d), and the column's values, as numbers from 0.
      wanted: rows to predict, (m, d).

    Returns: probabilities, (m, num_values).
    """
    centre, spread = known.mean(axis=0), known.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    learner = softmax(l2=1e-3).bind((known.shape[1],), num_values)
    params = learner.init(Key.from_seed(0))
    data = Examples((known - centre) / spread, np.asarray(values).astype(int))
    steps = Steps(2.0 / (1 + known.shape[1] ** 0.5), epochs=FIT_STEPS)
    update = learner.local_sgd(params, LocalProblem(data, steps, Key.from_seed(0)))
    fitted = {name: params[name] + update[name] for name in params}
    return np.asarray(learner.predict(fitted, np.clip((wanted - centre) / spread, -10, 10)), np.float64)


def infer_attribute(
    learner: Learner,
    params: Tensors,
    candidates: Sequence[Array],
    labels: Array,
    truth: Array,
    prior: Array,
    imputed: Array,
    majority: int,
) -> AttributeInference:
    """Guesses a column of rows, and measures how often the guesses are right.

    Args:
      candidates: the rows with each value of the column in turn, each (n, ...).
      labels, truth: of the rows: their labels, and the numbers of the column's true values, (n,).
      prior: the probability of each value by the other columns, (n, k).
      imputed: the same by the other columns and the label.
      majority: the number of the most frequent value.

    Raises: InvalidInput: if the model predicts no probabilities of classes.
    """
    if learner.prediction != "probabilities":
        raise InvalidInput(
            f"an attribute is inferred from probabilities of labels, and this model predicts "
            f"{learner.prediction}; audit a model such as softmax(), logistic() or mlp()"
        )
    rows = np.arange(len(labels)), np.asarray(labels).astype(int)
    fits = [np.asarray(learner.predict(params, x), np.float64)[rows] for x in candidates]
    scores = np.log(np.maximum(prior, 1e-12)) + np.log(np.maximum(np.stack(fits, axis=1), 1e-12))
    return AttributeInference(
        float((scores.argmax(axis=1) == truth).mean()),
        float((imputed.argmax(axis=1) == truth).mean()),
        float((truth == majority).mean()),
        len(truth),
    )
