"""Data sets as values: named in a program or a settings file, loaded when needed."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from hanse.core import Array, Examples, InvalidInput, Key, value
from hanse.data.checks import check_examples, check_fractions, count_classes
from hanse.data.labels import find_gaps, name_classes

__all__ = ["Dataset", "TrainTest", "arrays", "digits", "hold_out"]


@dataclass(frozen=True)
class TrainTest:
    """The examples of a data set, checked.

    Args:
      train: examples that clients will hold.
      test: examples held out from them, on which results are reported.
      num_classes: of the labels; None: they are not classes.
      keys: (n,) the owner of each training example, as text (a hospital, a user, a role).
      test_keys: the owner of each test example.
      validation: examples held out to choose by: rounds, stops and settings.
      groups: (n,) what each training example belongs to, as text, such as a patient: the examples of one
        group are held out together, or not at all.
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
    validation: Examples | None = None
    groups: Array | None = None
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_examples(self.train, self.num_classes, whose="train")
        _check_keys(self.keys, self.train, "keys")
        _check_keys(self.groups, self.train, "groups")
        _check_keys(self.test_keys, self.test, "test_keys")
        for whose, held_out in (("test", self.test), ("validation", self.validation)):
            if held_out is not None:
                self._check_alike(held_out, whose)

    def _check_alike(self, held_out: Examples, whose: str) -> None:
        check_examples(held_out, self.num_classes, whose=whose)
        if held_out.x.shape[1:] != self.feature_shape:
            raise InvalidInput(
                f"{whose}: features of shape {held_out.x.shape[1:]}; the training examples have "
                f"{self.feature_shape}: give the same columns"
            )
        if held_out.x.dtype.names != self.train.x.dtype.names:
            raise InvalidInput(
                f"{whose}: the columns {held_out.x.dtype.names}; the training examples have "
                f"{self.train.x.dtype.names}: give the same columns"
            )

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """The shape of one row of features."""
        return self.train.x.shape[1:]

    def take(self, rows: Array) -> "TrainTest":
        """Returns the training examples at these positions, without those that are held out."""
        keys, groups = (None if words is None else words[rows] for words in (self.keys, self.groups))
        return TrainTest(
            self.train.take(rows), None, self.num_classes, keys=keys, groups=groups, classes=self.classes
        )


def _check_keys(keys: Array | None, examples: Examples | None, name: str) -> None:
    if keys is None:
        return
    if keys.dtype.kind != "U" or keys.shape != (0 if examples is None else len(examples),):
        raise InvalidInput(
            f"{name} of shape {keys.shape} and dtype {keys.dtype}; give one string per example, such as "
            "numpy.array(keys, str)"
        )


def hold_out(data: TrainTest, fraction: float, name: str, validation_fraction: float = 0.0) -> TrainTest:
    """Holds out shares of the training examples, where there are no test or validation examples yet.

    Args:
      data: to be divided.
      fraction: of the examples, to test on; 0: none.
      name: of the data set; it makes the division the same in every run.
      validation_fraction: of the examples, to choose by; 0: none.

    Raises: InvalidInput: if the examples have too few groups.
    """
    size = len(data.train)
    num_test = 0 if data.test is not None else round(fraction * size)
    num_validation = 0 if data.validation is not None else round(validation_fraction * size)
    if num_test + num_validation == 0:
        return data
    key = Key.from_seed(0).fold_in(name)
    if data.groups is None:
        cuts = [num_test, num_test + num_validation]
        tested, chosen_by, kept = np.split(key.rng().permutation(size), cuts)
    else:
        tested, chosen_by, kept = _divide_groups(data.groups, (num_test, num_validation), key)
    test, test_keys, validation = data.test, data.test_keys, data.validation
    if len(tested):
        test, test_keys = data.train.take(tested), None if data.keys is None else data.keys[tested]
    if len(chosen_by):
        validation = data.train.take(chosen_by)
    return replace(data.take(kept), test=test, test_keys=test_keys, validation=validation, notes=data.notes)


def _divide_groups(groups: Array, sizes: Sequence[int], key: Key) -> list[Array]:
    """Draws whole groups, of about as many rows as each size; returns the rows of each, and the others."""
    names, place, counts = np.unique(groups, return_inverse=True, return_counts=True)
    parts = [part for part, size in enumerate(sizes) if size]
    if len(names) <= len(parts):
        raise InvalidInput(
            f"the rows belong to {len(names)} group{'s' * (len(names) > 1)} ({', '.join(names)}), and rows "
            f"of one group are held out together or not at all; give {len(parts) + 1} groups or more, write "
            "test_fraction = 0, or leave group out"
        )
    owner = np.full(len(names), len(sizes))
    free: list[int] = key.rng().permutation(len(names)).tolist()
    for number, part in enumerate(parts):
        num_spare, num_rows = len(free) - (len(parts) - number), 0  # the others need one each
        chosen = list[int]()
        for group in free:
            nearer = abs(num_rows + counts[group] - sizes[part]) < abs(num_rows - sizes[part])
            if nearer and len(chosen) < num_spare:
                chosen.append(group)
                num_rows += counts[group]
        chosen = chosen or [min(free, key=lambda group: counts[group])]
        owner[chosen] = part
        free = [group for group in free if owner[group] == len(sizes)]
    return [np.flatnonzero(owner[place] == part) for part in range(len(sizes) + 1)]


class Dataset(ABC):
    """A source of examples: a value such as `digits()`."""

    @abstractmethod
    def load(self) -> TrainTest:
        """Reads the examples. Raises: InvalidInput: if they can't be used."""


@value
class arrays(Dataset):
    """Arrays in memory, checked at once.

    >>> data = arrays(np.eye(10), np.arange(10) % 2).load()
    >>> data.feature_shape, data.num_classes, len(data.train), len(data.test)
    ((10,), 2, 8, 2)

    Args:
      x: (n, ...) features.
      y: (n,) labels: classes as words, or as integers from 0; floats of any shape (n, ...) are real targets.
      test_x: features held out; without them, some examples are held out.
      test_y: their labels.
      num_classes: of the labels; by default, of integer labels, the largest and one more.
      test_fraction: of the examples, held out at random, the same in every run, where `test_x` is not given;
        0: no test set.
      validation_x, validation_y: examples to choose by: then `stop` and sweeps watch these.
      validation_fraction: of the examples, held out to choose by where `validation_x` is not given.
    Raises: InvalidInput: as `TrainTest`; if the smallest class is not 0; if one of `test_x` and `test_y`
      is missing.
    """

    x: Array
    y: Array
    _: KW_ONLY
    test_x: Array | None = None
    test_y: Array | None = None
    num_classes: int | None = None
    test_fraction: float = 0.2
    validation_x: Array | None = None
    validation_y: Array | None = None
    validation_fraction: float = 0.0

    def __post_init__(self) -> None:
        check_fractions(self.test_fraction, self.validation_fraction)
        for prefix in ("", "test_", "validation_"):
            pair = [getattr(self, prefix + name) for name in ("x", "y")]
            if (pair[0] is None) != (pair[1] is None):
                given, missing = ("x", "y") if pair[1] is None else ("y", "x")
                raise InvalidInput(f"{prefix}{given} is given alone; give {prefix}{missing} too, or neither")
            for name, given in zip(("x", "y"), pair, strict=True):
                if given is not None:
                    object.__setattr__(self, prefix + name, _rows(given, prefix + name))
        self.load()

    def load(self) -> TrainTest:
        """Returns the arrays themselves, not copies, where none are held out."""
        return self._checked

    @cached_property
    def _checked(self) -> TrainTest:
        features = {"": self.x, "test_": self.test_x, "validation_": self.validation_x}
        found = {"": self.y, "test_": self.test_y, "validation_": self.validation_y}
        labels = {prefix: y for prefix, y in found.items() if y is not None}
        num_classes, classes = self.num_classes, tuple[str, ...]()
        if self.y.dtype.kind in "USO":
            classes, labels = _name(labels)
            num_classes = len(classes)
        elif num_classes is None:
            num_classes = count_classes(*labels.values())
        train, test, validation = (
            None if x is None else Examples(x, labels[prefix]) for prefix, x in features.items()
        )
        assert train is not None
        data = TrainTest(train, test, num_classes, validation=validation, classes=classes)
        return hold_out(data, self.test_fraction, "arrays", self.validation_fraction)


def _name(labels: Mapping[str, Array]) -> tuple[tuple[str, ...], dict[str, Array]]:
    """Makes classes of words."""
    for prefix, words in labels.items():
        gaps = find_gaps(words)
        if gaps.any():
            raise InvalidInput(
                f"{prefix}y, row {gaps.argmax()} is empty (in {gaps.sum()} rows); leave such rows out"
            )
    return name_classes(labels, "y", lambda prefix, row: f"{prefix}y, row {row}")


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
      validation_fraction: of the examples, held out to choose by: then `stop` and sweeps watch these.
    Raises: InvalidInput: if the fraction leaves no example to train on.
    References: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine
      Learning Repository 1998, doi:10.24432/C50P49, CC BY 4.0.
    """

    test_fraction: float = 0.2
    _: KW_ONLY
    validation_fraction: float = 0.0

    def __post_init__(self) -> None:
        check_fractions(self.test_fraction, self.validation_fraction)

    def load(self) -> TrainTest:
        """Reads and splits the copy that is installed with the package."""
        with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as stored:
            images, labels = stored["images"], stored["labels"]
        everything = Examples(images / np.float32(16), labels.astype(np.int64))
        return hold_out(
            TrainTest(everything, None, 10), self.test_fraction, "digits", self.validation_fraction
        )
