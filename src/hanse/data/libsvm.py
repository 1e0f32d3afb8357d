"""The text format of LIBSVM: a label and the features that are not zero."""

from collections.abc import Iterator
from dataclasses import KW_ONLY
from os import fspath

import numpy as np

from hanse.core import Array, Examples, InvalidInput, value
from hanse.data.checks import check_fractions
from hanse.data.datasets import Dataset, TrainTest, hold_out
from hanse.data.files import text_lines
from hanse.data.labels import class_names, classes_of, to_categories

__all__ = ["libsvm"]

MAX_VALUES = 2_000_000_000
"""Most values that features may have, since examples are kept dense."""


@value
class libsvm(Dataset):
    """A file of lines such as "-1 3:1 11:0.5 # comment"; .gz is unpacked. Features are dense, float32.

    Features are numbered from 1. Labels are classes, in the order of their numbers (-1 and 1 become 0 and
    1), unless `regression` is true.

    Args:
      path: of the file.
      test: a file of test examples; without it, some are held out.
      num_features: by default the largest number in the files. Needed where parties read files of their own.
      classes: all labels, in order; by default those in the file. Needed there too.
      regression: whether labels are numbers to predict.
      test_fraction: of the examples, held out at random, the same in every run, where `test` is not given.
      validation: a file of examples to choose by: then `stop` and sweeps watch these.
      validation_fraction: of the examples, held out to choose by where `validation` is not given.
    Raises: InvalidInput: naming the file, the line, and what to write instead.
    References: Chang, Lin, "LIBSVM: a library for support vector machines", ACM TIST 2011.
    """

    path: str
    _: KW_ONLY
    test: str | None = None
    num_features: int | None = None
    classes: tuple[str, ...] = ()
    regression: bool = False
    test_fraction: float = 0.2
    validation: str | None = None
    validation_fraction: float = 0.0

    def __post_init__(self) -> None:
        for name in ("path", "test", "validation"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, fspath(getattr(self, name)))
        check_fractions(self.test_fraction, self.validation_fraction)

    def load(self) -> TrainTest:
        """Reads the file, and the files of test and validation examples if there are some."""
        paths = {"train": self.path, "test": self.test, "validation": self.validation}
        named = {name: _Sparse(path) for name, path in paths.items() if path is not None}
        files = list(named.values())
        largest = max(file.largest for file in files)
        num_features = self.num_features or max(1, largest)
        if largest > num_features:
            file = max(files, key=lambda file: file.largest)
            raise InvalidInput(
                f"{file.path} has a feature {largest}, and num_features is {num_features}; write "
                f"{largest} or more"
            )
        classes = self.classes
        if not self.regression and not classes:
            classes = class_names(to_categories(files[0].labels), whose=f"{self.path}: the label")
        found = {n: Examples(f.dense(num_features), self._labels(f, classes)) for n, f in named.items()}
        data = TrainTest(
            found["train"],
            found.get("test"),
            len(classes) or None,
            validation=found.get("validation"),
            classes=classes,
        )
        return hold_out(data, self.test_fraction, "libsvm", self.validation_fraction)

    def _labels(self, file: "_Sparse", classes: tuple[str, ...]) -> Array:
        if self.regression:
            return file.labels
        return classes_of(file.labels, classes, lambda row: f"{file.at(row)}: the label")


class _Sparse:
    """A file's labels and its values that are not zero."""

    def __init__(self, path: str) -> None:
        self.path = path
        labels: list[float] = []
        sizes: list[int] = []
        features: list[int] = []
        values: list[float] = []
        self._lines: list[int] = []
        with text_lines(path, "utf-8") as text:
            for number, line in enumerate(text, start=1):
                tokens = line.partition("#")[0].split()
                if not tokens:
                    continue
                self._lines.append(number)
                labels.append(self._number(tokens[0], "the label"))
                before = len(features)
                for feature, found in self._pairs(tokens[1:]):
                    features.append(feature)
                    values.append(found)
                sizes.append(len(features) - before)
        if not labels:
            raise InvalidInput(f"{path} is empty; give at least 1 example")
        self.labels = np.array(labels)
        self.largest = max(features, default=0)
        self._rows = np.repeat(np.arange(len(labels)), sizes)
        self._columns, self._values = np.array(features, np.int64) - 1, np.array(values)

    def at(self, row: int) -> str:
        """Returns the file and line of a row, for messages."""
        return f"{self.path}, line {self._lines[row]}"

    def _number(self, token: str, what: str) -> float:
        try:
            number = float(token)
        except ValueError:
            number = np.nan
        if not np.isfinite(number):
            raise InvalidInput(
                f"{self.at(-1)}: {what} is {token!r}; a line is a number and pairs feature:value, such as "
                '"-1 3:1 11:0.5"'
            )
        return number

    def _pairs(self, tokens: list[str]) -> Iterator[tuple[int, float]]:
        last = 0
        for token in tokens:
            feature, colon, found = token.partition(":")
            if feature == "qid":
                raise InvalidInput(
                    f"{self.at(-1)}: {token!r} ranks examples in groups, which is not supported"
                )
            if not colon or not feature.isdecimal():
                raise InvalidInput(
                    f'{self.at(-1)}: {token!r} is not a pair feature:value; write pairs such as "3:1", '
                    "features from 1"
                )
            if int(feature) <= last:
                raise InvalidInput(
                    f"{self.at(-1)}: feature {feature} after feature {last}; write them in order, from 1, "
                    "each once"
                )
            last = int(feature)
            yield last, self._number(found, f"feature {feature}")

    def dense(self, num_features: int) -> Array:
        """Returns the features as a dense array, (n, num_features)."""
        if len(self.labels) * num_features > MAX_VALUES:
            raise InvalidInput(
                f"{self.path} has {len(self.labels)} examples of {num_features} features, which are "
                f"{4e-9 * len(self.labels) * num_features:.0f} GB when kept dense, as they are here; select "
                "features first"
            )
        x = np.zeros((len(self.labels), num_features), np.float32)
        x[self._rows, self._columns] = self._values
        return x
