"""Linear models in NumPy: least squares, logistic and softmax regression."""

import math
from abc import abstractmethod
from dataclasses import KW_ONLY, dataclass, replace

from hanse.core import (
    InvalidInput,
    check_count,
    check_not_negative,
    value,
)
from hanse.learners.linear.learner import Linear
from hanse.learners.losses import Loss, cross_entropy, half_square, logistic_loss, weighted_loss
from hanse.learners.model import Model
from hanse.learners.settings import check_class_weights, check_dtype, check_num_weights

__all__ = ["LinearModel", "least_squares", "logistic", "softmax"]


@dataclass(frozen=True)
class LinearModel(Model):
    """A linear model before it knows its data. Features of any shape are flattened.

        minimise  (1/n) Σ loss(x_i W + b, y_i) + (l2/2) |W|²

    Parameters are "weights", (d,) or (d, k), and "bias", () or (k,); they start at zero.

    Args:
      l2: strength of the regulariser.
      intercept: whether there is a bias.
      dtype: of the parameters and the arithmetic, "float32" or "float64".
      regularise_intercept: whether the bias is regularised like the weights, by (l2/2) |b|².
    Raises: InvalidInput: if l2 is negative or not finite, the dtype unknown, or an intercept regularised
      that is not there.
    """

    l2: float = 0.0
    _: KW_ONLY
    intercept: bool = True
    dtype: str = "float32"
    regularise_intercept: bool = False

    def __post_init__(self) -> None:
        check_not_negative("l2", self.l2)
        check_dtype(self.dtype)
        if self.regularise_intercept and not self.intercept:
            raise InvalidInput(
                "regularise_intercept is true, but intercept is false; write intercept=True, or leave out "
                "regularise_intercept"
            )

    @abstractmethod
    def loss(self, num_classes: int | None) -> Loss:
        """Returns the loss for such labels. Raises: InvalidInput: if there is none."""

    def suit_targets(self, target_shape: tuple[int, ...]) -> "LinearModel":
        """Returns the model for real targets of this shape in each row; by default itself."""
        return self

    def bind(self, feature_shape: tuple[int, ...], num_classes: int | None) -> "Linear":
        """Binds the model to examples of this shape and these classes."""
        num_features = math.prod(feature_shape)
        if num_features < 1:
            raise InvalidInput(f"features of shape {feature_shape}; give at least 1 feature a row")
        return Linear(
            num_features,
            self.loss(num_classes),
            self.l2,
            self.intercept,
            self.dtype,
            ("weights", "bias") if self.regularise_intercept else ("weights",),
        )


@value
class least_squares(LinearModel):
    """Linear regression: loss = |x W + b - y|² / 2. It is refused where labels are classes, not numbers.

    Targets of shape (n, k) give k outputs, as several columns in `target` do, or classes as rows of ones and
    zeros. A run finds k in its data. scikit-learn's `Ridge(alpha)` over n pooled rows has l2 = alpha / n.

    >>> least_squares().bind((3,), None).metrics
    ('loss', 'squared_error')
    >>> least_squares(num_outputs=2).bind((3,), None).metrics
    ('loss', 'squared_error', 'squared_error_0', 'squared_error_1')

    Args:
      num_outputs: k, for targets of shape (n, k); None: one number a row, (n,), or as the data of a run say.
    """

    _: KW_ONLY
    num_outputs: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_outputs is not None:
            check_count("num_outputs", self.num_outputs)

    def suit_targets(self, target_shape: tuple[int, ...]) -> "least_squares":
        """Returns the model with as many outputs as there are targets in a row."""
        if self.num_outputs is not None or len(target_shape) != 1:
            return self
        return replace(self, num_outputs=target_shape[0])

    def loss(self, num_classes: int | None) -> Loss:
        """Returns the loss for real targets. Raises: InvalidInput: if the labels are classes."""
        if num_classes is not None:
            instead = "logistic()" if num_classes == 2 else "softmax()"
            raise InvalidInput(
                f"least_squares() predicts numbers, and the labels are classes (0 to {num_classes - 1}); "
                f"write {instead} to tell them apart; or, if they are numbers to predict, give them as "
                "floats, labels.astype(float), or name their column as target = ... in place of label"
            )
        return half_square(self.num_outputs)


@dataclass(frozen=True)
class WeightedModel(LinearModel):
    """A linear model of classes, whose losses may be weighted by the true class: c_y loss(x_i W + b, y_i).

    The objective stays a mean over examples, so clients' objectives add up to that of the pooled data.
    torch's `CrossEntropyLoss(weight=c)` divides each batch by the weights of its examples instead. The metric
    "loss" is weighted, too; the accuracy is not.

    Args:
      class_weights: c, one number for each class, which multiplies the losses of its examples; None: all 1.
    Raises: InvalidInput: if they are negative, or when bound, if there are more or fewer than classes.
    """

    _: KW_ONLY
    class_weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "class_weights", check_class_weights(self.class_weights))

    @abstractmethod
    def plain_loss(self, num_classes: int | None) -> logistic_loss | cross_entropy:
        """Returns the loss without weights. Raises: InvalidInput: if there is none for such labels."""

    def loss(self, num_classes: int | None) -> Loss:
        """Returns the loss for such labels."""
        loss = self.plain_loss(num_classes)
        weights = check_num_weights(self.class_weights, num_classes)
        return loss if weights is None else weighted_loss(loss, weights)


@value
class logistic(WeightedModel):
    """Logistic regression for the classes 0 and 1: loss = log(1 + exp(-m)), m = ±(x w + b).

    >>> logistic(1e-3).bind((3,), 2).metrics
    ('loss', 'correct')
    """

    def plain_loss(self, num_classes: int | None) -> logistic_loss | cross_entropy:
        """Returns the loss for two classes."""
        if num_classes is None:
            raise InvalidInput(f"logistic() separates 2 classes, {_NO_CLASSES}")
        if num_classes != 2:
            raise InvalidInput(
                f"logistic() separates 2 classes, the labels have {num_classes}; write softmax()"
            )
        return logistic_loss()


@value
class softmax(WeightedModel):
    """Multinomial logistic regression for k classes: loss = log(Σ exp s) - s_y, s = x W + b.

    >>> from hanse.core import Key
    >>> softmax(intercept=False).bind((8, 8), 10).init(Key.from_seed(0))["weights"].shape
    (64, 10)
    """

    def plain_loss(self, num_classes: int | None) -> logistic_loss | cross_entropy:
        """Returns the loss for two classes or more."""
        if num_classes is None:
            raise InvalidInput(f"softmax() separates classes, {_NO_CLASSES}")
        if num_classes < 2:
            raise InvalidInput(f"softmax() separates classes, the labels have {num_classes}; give at least 2")
        return cross_entropy(num_classes)


_NO_CLASSES = (
    "the labels are not classes; write least_squares(), or give them as integers from 0 (labels.astype(int))"
)
