"""NumPy's archives of arrays."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, replace
from io import BytesIO
from os import fspath
from zipfile import BadZipFile

import numpy as np

from hanse.core.errors import InvalidInput, nearest
from hanse.core.tensors import Array
from hanse.core.values import value
from hanse.data.checks import check_fraction
from hanse.data.datasets import Dataset, TrainTest, arrays, hold_out
from hanse.data.files import read_bytes
from hanse.data.labels import class_names, classes_of, words_of

__all__ = ["npz"]


@value
class npz(Dataset):
    """Arrays in a .npz file. Labels are classes if they are words or integers, real targets otherwise.

    Arrays called like `test_x` with "test_" before their names are the test examples; without them some
    are held out.

    >>> npz("scans.npz", y="diagnosis", key="hospital").x
    'x'

    Args:
      path: of the file.
      x: the array of features, (n, ...).
      y: the array of labels, (n, ...).
      key: the array that says whose each example is; `by_key()` makes these the clients.
      num_classes: of integer labels; by default the largest and one more.
      test_fraction: of the examples, held out at random, the same in every run, if there are no test arrays.
    Raises: InvalidInput: if an array is missing, or can't be used.
    """

    path: str
    _: KW_ONLY
    x: str = "x"
    y: str = "y"
    key: str | None = None
    num_classes: int | None = None
    test_fraction: float = 0.2

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", fspath(self.path))
        check_fraction(self.test_fraction)

    def load(self) -> TrainTest:
        """Reads the arrays."""
        stored = self._stored()
        x, y = self._named(stored, self.x), self._named(stored, self.y)
        test_x, test_y = stored.get("test_" + self.x), stored.get("test_" + self.y)
        classes: tuple[str, ...] = ()
        if y.dtype.kind == "U":
            classes = class_names(y, whose=f"{self.path}: array {self.y!r}")
            y = self._classes(y, classes, self.y)
            test_y = None if test_y is None else self._classes(test_y, classes, "test_" + self.y)
        try:
            data = arrays(
                x, y, test_x=test_x, test_y=test_y, num_classes=len(classes) or self.num_classes
            ).load()
        except InvalidInput as error:
            raise InvalidInput(f"{self.path}: {error}") from error
        if self.key is not None:
            keys, test_keys = self._named(stored, self.key), stored.get("test_" + self.key)
            data = replace(
                data, keys=words_of(keys), test_keys=None if test_keys is None else words_of(test_keys)
            )
        return hold_out(replace(data, classes=classes), self.test_fraction, "npz")

    def _stored(self) -> Mapping[str, Array]:
        data = read_bytes(self.path)
        try:
            with np.load(BytesIO(data), allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        except (ValueError, BadZipFile, AttributeError, EOFError) as error:
            raise InvalidInput(
                f"{self.path} is no archive of plain arrays ({error}); write one with "
                "numpy.savez_compressed(path, x=features, y=labels)"
            ) from None

    def _named(self, stored: Mapping[str, Array], name: str) -> Array:
        if name not in stored:
            raise InvalidInput(f"{self.path} has no array {name!r}; {nearest(name, stored)}")
        return stored[name]

    def _classes(self, words: Array, classes: tuple[str, ...], name: str) -> Array:
        return classes_of(words, classes, lambda row: f"{self.path}: array {name!r}, row {row}")
