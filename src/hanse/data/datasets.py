"""Data sets as values: named in a program or a settings file, loaded when needed."""

from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from hanse.core import Array, Examples, InvalidInput, Key, value
from hanse.data.checks import check_examples, check_test_fraction, count_classes
from hanse.data.labels import find_gaps, name_classes

__all__ = ["Dataset", "TrainTest", "arrays", "digits", "hold_out"]


@dataclass(frozen=True)
class TrainTest:
    """The examples of a data set, checked.

    Args:
      train: examples that clients will hold.
      test: examples held out from them.
      num_classes: of the labels; None: they are not classes.
      keys: (n,) the owner of each training example, as text (a hospital, a user, a role).
      test_keys: the owner of each example held out.
      classes: the names of the classes.
      notes: what the owner of the data should know, such as how many rows were left out.

    Raises: InvalidInput: if examples are missing, not finite, of different shapes, or labels out of range.
    """

    train: Examples
    test: Examples | None = None
    num_classes: int | None = None
    _: KW_ONLY
    keys: Array | None = None
    test_keys: Array | None = None
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_examples(self.train, self.num_classes, whose="train")
        _check_keys(self.keys, self.train, "keys")
        _check_keys(self.test_keys, self.test, "test_keys")
        if self.test is None:
            return
        check_examples(self.test, self.num_classes, whose="test")
        if self.test.x.shape[1:] != self.feature_shape:
            raise InvalidInput(
                f"test: features of shape {self.test.x.shape[1:]}; the training examples have "
                f"{self.feature_shape}: give the same columns"
            )
        if self.test.x.dtype.names != self.train.x.dtype.names:
            raise InvalidInput(
                f"test: the columns {self.test.x.dtype.names}; the training examples have "
                f"{self.train.x.dtype.names}: give the same columns"
            )

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """The shape of one row of features."""
        return self.train.x.shape[1:]

    def take(self, rows: Array) -> "TrainTest":
        """Returns the training examples at these positions, without test examples."""
        keys = None if self.keys is None else self.keys[rows]
        return TrainTest(self.train.take(rows), None, self.num_classes, keys=keys, classes=self.classes)


def _check_keys(keys: Array | None, examples: Examples | None, name: str) -> None:
    if keys is None:
        return
    if keys.dtype.kind != "U" or keys.shape != (0 if examples is None else len(examples),):
        raise InvalidInput(
            f"{name} of shape {keys.shape} and dtype {keys.dtype}; give one string per example, such as "
            "numpy.array(keys, str)"
        )


def hold_out(data: TrainTest, fraction: float, name: str) -> TrainTest:
    """Holds out a share of the training examples where there are no test examples.

    Args:
      data: to be divided.
      fraction: of the examples; 0: none.
      name: of the data set; it makes the division the same in every run.
    """
    num_test = round(fraction * len(data.train))
    if data.test is not None or num_test == 0:
        return data
    order = Key.from_seed(0).fold_in(name).rng().permutation(len(data.train))
    test, train = order[:num_test], order[num_test:]
    keys, test_keys = (None if data.keys is None else data.keys[rows] for rows in (train, test))
    held_out = data.train.take(test)
    return replace(data, train=data.train.take(train), test=held_out, keys=keys, test_keys=test_keys)


class Dataset(ABC):
    """A source of examples: a value such as `digits()`."""

    @abstractmethod
    def load(self) -> TrainTest:
        """Reads the examples. Raises: InvalidInput: if they can't be used."""


@value
class arrays(Dataset):
    """Arrays in memory, checked at once.

    >>> data = arrays(np.eye(3), np.array([0, 1, 1])).load()
    >>> data.feature_shape, data.num_classes
    ((3,), 2)

    Args:
      x: (n, ...) features.
      y: (n,) labels: classes as words, or as integers from 0; floats of any shape (n, ...) are real targets.
      test_x: features held out.
      test_y: their labels.
      num_classes: of the labels; by default, of integer labels, the largest and one more.
    Raises: InvalidInput: as `TrainTest`; if the smallest class is not 0; if one of `test_x` and `test_y`
      is missing.
    """

    x: Array
    y: Array
    _: KW_ONLY
    test_x: Array | None = None
    test_y: Array | None = None
    num_classes: int | None = None

    def __post_init__(self) -> None:
        for name in ("x", "y", "test_x", "test_y"):
            given = getattr(self, name)
            if given is not None:
                object.__setattr__(self, name, _rows(given, name))
        if (self.test_x is None) != (self.test_y is None):
            given, missing = ("x", "y") if self.test_y is None else ("y", "x")
            raise InvalidInput(f"test_{given} is given alone; give test_{missing} too, or neither")
        self.load()

    def load(self) -> TrainTest:
        """Returns the arrays themselves, not copies."""
        return self._checked

    @cached_property
    def _checked(self) -> TrainTest:
        test = None
        labels = [self.y]
        if self.test_x is not None and self.test_y is not None:
            test = Examples(self.test_x, self.test_y)
            labels.append(self.test_y)
        if self.y.dtype.kind in "USO":
            return self._named(test)
        num_classes = count_classes(*labels) if self.num_classes is None else self.num_classes
        return TrainTest(Examples(self.x, self.y), test, num_classes)

    def _named(self, test: Examples | None) -> TrainTest:
        """Makes classes of words."""
        for name, labels in (("y", self.y), ("test_y", self.test_y)):
            gaps = find_gaps(labels) if labels is not None else np.zeros(1, bool)
            if gaps.any():
                raise InvalidInput(
                    f"{name}, row {gaps.argmax()} is empty (in {gaps.sum()} rows); leave such rows out"
                )
        classes, y, test_y = name_classes(self.y, self.test_y, "y", lambda name, row: f"{name}y, row {row}")
        held_out = None if test is None or test_y is None else Examples(test.x, test_y)
        return TrainTest(Examples(self.x, y), held_out, len(classes), classes=classes)


def _rows(given: object, name: str) -> Array:
    array = np.asarray(given)
    if array.ndim == 0 or len(array) == 0:
        raise InvalidInput(f"{name} has no rows (shape {array.shape}); give at least 1 example")
    return array


@value
class digits(Dataset):
    """Handwritten digits: 1,797 images of 8 x 8 pixels, ten classes.

    These are the images of the 13 writers that the source holds out for testing. Features are the
    64 pixels, row by row, scaled to [0, 1]; float32. The split is the same in every run.

    >>> data = digits().load()
    >>> data.train.x.shape, data.test.x.shape, data.num_classes
    ((1438, 64), (359, 64), 10)

    Args:
      test_fraction: of the examples, held out for testing; 0: no test set.
    Raises: InvalidInput: if the fraction leaves no example to train on.
    References: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine
      Learning Repository 1998, doi:10.24432/C50P49, CC BY 4.0.
    """

    test_fraction: float = 0.2

    def __post_init__(self) -> None:
        check_test_fraction(self.test_fraction)

    def load(self) -> TrainTest:
        """Reads and splits the copy that is installed with the package."""
        with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as stored:
            images, labels = stored["images"], stored["labels"]
        everything = Examples(images / np.float32(16), labels.astype(np.int64))
        return hold_out(TrainTest(everything, None, 10), self.test_fraction, "digits")
