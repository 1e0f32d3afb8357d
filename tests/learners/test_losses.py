import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.core import Array, InvalidInput
from hanse.learners.losses import Loss, cross_entropy, half_square, logistic_loss, weighted_loss

LOSSES = [
    half_square(),
    logistic_loss(),
    cross_entropy(2),
    cross_entropy(5),
    weighted_loss(logistic_loss(), (0.3, 4.0)),
    weighted_loss(cross_entropy(3), (2.0, 0.0, 0.7)),
]
each_loss = pytest.mark.parametrize("loss", LOSSES, ids=repr)
seeds = st.integers(0, 2**32 - 1)


def draw(loss: Loss, seed: int, scale: float = 3.0) -> tuple[Array, Array, Array]:
    """Scores, targets and a direction for seven examples."""
    rng = np.random.default_rng(seed)
    scores, direction = rng.normal(0, scale, (2, 7, *loss.outputs))
    num_classes = loss.outputs[0] if loss.outputs else 2
    return scores, loss.targets(rng.integers(num_classes, size=7), "float64"), direction


@each_loss
@given(seed=seeds)
def test_slopes_are_the_losses_derivatives(loss: Loss, seed: int) -> None:
    scores, targets, direction = draw(loss, seed)
    step = 1e-6
    difference = loss.losses(scores + step * direction, targets) - loss.losses(
        scores - step * direction, targets
    )
    slopes = loss.gradient(scores.copy(), targets) * direction
    np.testing.assert_allclose(slopes.reshape(7, -1).sum(1), difference / (2 * step), rtol=1e-6, atol=1e-7)


@each_loss
@given(seed=seeds)
def test_curvatures_are_the_slopes_derivatives(loss: Loss, seed: int) -> None:
    scores, targets, direction = draw(loss, seed)
    step = 1e-6
    difference = loss.gradient(scores + step * direction, targets) - loss.gradient(
        scores - step * direction, targets
    )
    np.testing.assert_allclose(
        loss.hessian_vector(scores, targets, direction), difference / (2 * step), rtol=1e-6, atol=1e-7
    )


@each_loss
@given(seed=seeds)
def test_measures_are_sums(loss: Loss, seed: int) -> None:
    scores, targets, _ = draw(loss, seed)
    sums = dict(zip(loss.metrics, loss.measure(scores, targets), strict=True))
    assert sums["loss"] == pytest.approx(loss.losses(scores, targets).sum())
    if "correct" in sums:
        assert 0 <= sums["correct"] <= 7


@each_loss
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_huge_scores_overflow_nowhere(loss: Loss, dtype: str) -> None:
    scores, targets, direction = draw(loss, 0, scale=1e4)
    scores, direction = scores.astype(dtype), direction.astype(dtype)
    with np.errstate(over="ignore"):
        for result in (
            loss.losses(scores, targets),
            loss.hessian_vector(scores, targets, direction),
            loss.gradient(scores.copy(), targets),
        ):
            assert np.isfinite(result).all()


def test_two_classes_by_logistic_and_by_softmax_cost_the_same() -> None:
    scores, labels = np.linspace(-40, 40, 9), np.arange(9) % 2
    one, two = logistic_loss(), cross_entropy(2)
    both = np.stack([np.zeros(9), scores], axis=1)
    ours, theirs = (
        loss.losses(s, loss.targets(labels, "float64")) for loss, s in ((one, scores), (two, both))
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("loss", [logistic_loss(), cross_entropy(2), cross_entropy(5)], ids=repr)
def test_examples_far_on_their_own_side_are_correct(loss: Loss) -> None:
    labels = np.array([1, 0, 1])
    scores = np.where(labels, 9.0, -9.0) if not loss.outputs else 9 * np.eye(loss.outputs[0])[labels]
    assert loss.measure(scores, loss.targets(labels, "float64"))[1] == 3
    assert loss.measure(-scores, loss.targets(labels, "float64"))[1] == 0


def test_ties_go_to_the_first_class() -> None:
    labels = np.array([0, 0, 1])
    assert logistic_loss().measure(np.zeros(3), logistic_loss().targets(labels, "float64"))[1] == 2
    assert cross_entropy(3).measure(np.zeros((3, 3)), labels)[1] == 2


def test_half_square_by_hand() -> None:
    loss, scores, targets = half_square(), np.array([1.0, 2.0]), np.array([0.0, 5.0])
    np.testing.assert_array_equal(loss.losses(scores, targets), [0.5, 4.5])
    assert loss.measure(scores, targets) == (5.0, 10.0)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int32", "int64", "uint64"])
def test_classes_may_be_integers_of_any_size(dtype: str) -> None:
    labels = np.array([0, 1, 1]).astype(dtype)
    np.testing.assert_array_equal(cross_entropy(2).targets(labels, "float32"), [0, 1, 1])
    signs = logistic_loss().targets(labels, "float32")
    assert signs.dtype == np.float32
    np.testing.assert_array_equal(signs, [-1, 1, 1])


def test_a_label_beyond_the_signed_integers_is_refused() -> None:
    with pytest.raises(InvalidInput, match=f"row 1 is {2**64 - 1}; 2 classes"):
        cross_entropy(2).targets(np.array([0, 2**64 - 1], np.uint64), "float32")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_targets_are_finite(value: float) -> None:
    with pytest.raises(InvalidInput, match=f"row 1 is {value}"):
        half_square().targets(np.array([0, value]), "float32")


def test_targets_are_numbers() -> None:
    with pytest.raises(InvalidInput, match="one number a row"):
        half_square().targets(np.array(["a", "b"]), "float32")
