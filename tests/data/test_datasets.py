from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from hanse.core import Examples, InvalidInput
from hanse.core.exchange import find_classes, pack, unpack
from hanse.data import Dataset, TrainTest, arrays, digits

X, Y = np.arange(12.0).reshape(6, 2), np.array([0, 1, 2, 0, 1, 2])


def test_data_sets_are_registered_values() -> None:
    assert {"arrays": arrays, "digits": digits}.items() <= find_classes(Dataset).items()
    assert unpack(pack(digits(0.1))) == digits(0.1)
    again = unpack(pack(arrays(X, Y, num_classes=4)), arrays)
    np.testing.assert_array_equal(again.x, X)
    assert (again.num_classes, again.test_x) == (4, None)


# The digits


def test_digits_are_those_of_the_source() -> None:
    data = digits(0).load()
    assert data.test is None
    ours = np.column_stack([data.train.x * 16, data.train.y])
    theirs = np.column_stack(load_digits(return_X_y=True))
    np.testing.assert_array_equal(np.unique(ours, axis=0), np.unique(theirs, axis=0))
    assert len(ours) == len(theirs) == 1797


def test_digits_are_scaled_and_typed() -> None:
    data = digits().load()
    assert (data.num_classes, data.feature_shape) == (10, (64,))
    assert (data.train.x.dtype, data.train.y.dtype) == (np.dtype("float32"), np.dtype("int64"))
    assert (data.train.x.min(), data.train.x.max()) == (0, 1)


def test_digits_are_split_alike_each_time() -> None:
    first, again = digits().load(), digits().load()
    np.testing.assert_array_equal(first.train.x, again.train.x)
    assert first.test is not None
    assert (len(first.train), len(first.test)) == (1438, 359)
    assert set(first.test.y) == set(range(10))
    together = np.concatenate([first.train.x, first.test.x])
    everything = digits(0).load().train.x
    np.testing.assert_array_equal(np.unique(together, axis=0), np.unique(everything, axis=0))


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_digits_refuse_fractions_that_leave_nothing(fraction: float) -> None:
    with pytest.raises(InvalidInput, match=f"test_fraction is {fraction}"):
        digits(fraction)


# One's own arrays


def test_arrays_are_not_copied() -> None:
    data = arrays(X, Y, test_x=X[:2], test_y=Y[:2]).load()
    assert data.train.x is X
    assert data.test is not None
    assert len(data.test) == 2


def test_arrays_hold_out_a_fifth_as_files_do() -> None:
    x = np.arange(50.0)[:, None]
    data = arrays(x, np.arange(50) % 2, validation_fraction=0.1).load()
    assert data.test is not None
    assert data.validation is not None
    assert (len(data.train), len(data.validation), len(data.test)) == (35, 5, 10)
    parts = (data.train, data.validation, data.test)
    assert sorted(np.concatenate([part.x[:, 0] for part in parts])) == x[:, 0].tolist()
    for part in parts:
        np.testing.assert_array_equal(part.y, part.x[:, 0] % 2)
    again = arrays(x, np.arange(50) % 2).load()
    assert again.test is not None
    np.testing.assert_array_equal(data.test.x, again.test.x)
    whole = arrays(x, np.arange(50) % 2, test_fraction=0.0).load()
    assert whole.train.x is x
    assert (whole.test, whole.validation) == (None, None)
    with pytest.raises(InvalidInput, match="test_fraction is 1"):
        arrays(x, x, test_fraction=1.0)


def test_arrays_take_validation_examples() -> None:
    words = np.array(list("ab") * 3)
    data = arrays(X, words, validation_x=X[:3], validation_y=["b", "b", "a"]).load()  # type: ignore[arg-type]
    assert data.validation is not None
    assert data.validation.y.tolist() == [1, 1, 0]
    with pytest.raises(InvalidInput, match="validation_y, row 1 is 'c', which is not a class"):
        arrays(X, words, validation_x=X[:2], validation_y=["b", "c"])  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="validation_x is given alone; give validation_y too"):
        arrays(X, words, validation_x=X)
    with pytest.raises(InvalidInput, match=r"validation: features of shape \(1,\)"):
        arrays(X, Y, validation_x=X[:, :1], validation_y=Y)
    assert arrays(X, Y % 2, validation_x=X, validation_y=Y).load().num_classes == 3


def test_lists_become_arrays() -> None:
    data = arrays([[1.0], [2.0]], [0, 1]).load()  # type: ignore[arg-type]
    assert data.train.x.shape == (2, 1)


@pytest.mark.parametrize(
    ("y", "given", "expected"),
    [
        (Y, None, 3),
        (Y, 5, 5),
        (Y[Y > 0], 3, 3),
        (Y > 0, None, 2),
        (Y.astype(float), None, None),
        (np.eye(6), None, None),
        (Y.astype(np.uint8), None, 3),
    ],
)
def test_classes_are_counted_unless_given(y: Any, given: int | None, expected: int | None) -> None:
    assert arrays(X[: len(y)], y, num_classes=given).load().num_classes == expected


def test_classes_are_counted_over_the_test_labels_too() -> None:
    assert arrays(X, Y % 2, test_x=X, test_y=Y).load().num_classes == 3


def spoiled(value: float) -> np.ndarray:
    x = X.copy()
    x[4, 1] = value
    return x


UNUSABLE: dict[str, tuple[dict[str, Any], str]] = {
    "nan": ({"x": spoiled(np.nan)}, "train: the feature in row 4, column 1 is nan"),
    "inf": ({"x": spoiled(np.inf)}, "train: the feature in row 4, column 1 is inf"),
    "nan in an image": ({"x": spoiled(np.nan).reshape(6, 1, 2)}, r"row 4, column \(0, 1\) is nan"),
    "nan in one column": ({"x": spoiled(np.nan)[:, 1]}, "row 4 is nan"),
    "nan in the test set": ({"test_x": spoiled(np.nan), "test_y": Y}, "test: the feature in row 4"),
    "nan in real targets": ({"y": np.array([0.5, np.nan, 1, 2, 3, 4])}, "train: the label in row 1 is nan"),
    "no rows": ({"x": X[:0], "y": Y[:0]}, r"x has no rows \(shape \(0, 2\)\)"),
    "a number": ({"x": 3.0}, r"x has no rows \(shape \(\)\)"),
    "no columns": ({"x": X[:, :0]}, "at least 1 feature a row"),
    "unlike lengths": ({"y": Y[:5]}, "6 rows of features and 5 labels"),
    "words": ({"x": np.array([["a"]] * 6)}, "features of dtype <U1"),
    "one word as a label": ({"y": np.array(["a"] * 6)}, "y is 'a' in every row"),
    "an empty label": ({"y": np.array(["a", "b", "", *"abc"])}, r"y, row 2 is empty \(in 1 rows\)"),
    "an unknown test label": (
        {"y": list("abcabc"), "test_x": X[:2], "test_y": ["a", "d"]},
        "test_y, row 1 is 'd'",
    ),
    "labels from 1": ({"y": Y + 1}, "the smallest label is 1"),
    "labels with a sign": ({"y": Y - 1}, "the smallest label is -1"),
    "out of range": ({"num_classes": 2}, "row 2 is 2; 2 classes are .* write num_classes=3"),
    "negative": ({"y": Y - 1, "num_classes": 3}, "row 0 is -1; 3 classes"),
    "real classes": ({"y": Y / 1, "num_classes": 3}, r"dtype float64.*astype\(int\)"),
    "a table of classes": ({"y": Y[:, None], "num_classes": 3}, r"shape \(6, 1\).*ravel"),
    "out of range in the test set": (
        {"test_x": X, "test_y": Y, "num_classes": 2},
        "train: the label in row 2",
    ),
    "test_x alone": ({"test_x": X}, "test_x is given alone; give test_y too"),
    "test_y alone": ({"test_y": Y}, "test_y is given alone; give test_x too"),
    "other columns in the test set": ({"test_x": X[:, :1], "test_y": Y}, r"test: features of shape \(1,\)"),
}


@pytest.mark.parametrize(("change", "message"), UNUSABLE.values(), ids=UNUSABLE.keys())
def test_unusable_arrays_are_refused_at_once(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        arrays(**{"x": X, "y": Y} | change)


def test_whoever_loads_examples_has_them_checked() -> None:
    with pytest.raises(InvalidInput, match="row 4, column 1 is nan"):
        TrainTest(Examples(spoiled(np.nan), Y))
    with pytest.raises(InvalidInput, match="train: no examples"):
        TrainTest(Examples(X[:0], Y[:0]))
