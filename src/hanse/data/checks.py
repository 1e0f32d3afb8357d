"""Checks of examples before anyone trains on them."""

import math

import numpy as np

from hanse.core import Array, Examples, InvalidInput

__all__ = ["check_examples", "check_fractions", "check_labels", "check_test_fraction", "count_classes"]


def check_examples(examples: Examples, num_classes: int | None, *, whose: str) -> None:
    """Checks that features are finite numbers, and that labels are finite numbers or classes from 0.

    A table of features (a structured array) has columns of float64, where NaN is a missing value, and
    of text, where an empty string is a missing value.

    Args:
      examples: to be checked.
      num_classes: of the labels; None: they are not classes.
      whose: starts each message.

    Raises: InvalidInput: if they are not, naming the first row that is wrong.
    """
    if len(examples) == 0:
        raise InvalidInput(f"{whose}: no examples; give at least 1")
    if examples.x.dtype.names is None:
        _check_finite(examples.x, "feature", whose)
        if examples.x[0].size == 0:
            raise InvalidInput(
                f"{whose}: features of shape {examples.x.shape}; give at least 1 feature a row"
            )
    else:
        _check_table(examples.x, whose)
    if num_classes is None:
        _check_finite(examples.y, "label", whose)
    else:
        check_labels(examples.y, num_classes, whose=whose)


def _check_finite(values: Array, noun: str, whose: str) -> None:
    if values.dtype.kind in "USO" and noun == "label":
        check_labels(values, 0, whose=whose)
    if values.dtype.kind not in "biuf":
        raise InvalidInput(
            f"{whose}: {noun}s of dtype {values.dtype}; give numbers, for example {noun}s.astype(float)"
        )
    if values.dtype.kind != "f" or math.isfinite(np.vdot(values, values)) or np.isfinite(values).all():
        return  # the sum of squares takes a fraction of the time and usually suffices
    row, *column = (int(i) for i in np.argwhere(~np.isfinite(values))[0])
    place = f", column {column[0] if len(column) == 1 else tuple(column)}" if column else ""
    raise InvalidInput(
        f"{whose}: the {noun} in row {row}{place} is {values[row, *column]}; "
        f"give a finite number there, or leave row {row} out with numpy.delete(..., {row}, axis=0)"
    )


def _check_table(table: Array, whose: str) -> None:
    if table.ndim != 1 or not table.dtype.names:
        raise InvalidInput(f"{whose}: a table of shape {table.shape} and dtype {table.dtype}; give one a row")
    for name in table.dtype.names:
        column = table[name]
        if column.ndim != 1 or (column.dtype != np.float64 and column.dtype.kind != "U"):
            raise InvalidInput(
                f"{whose}: column {name!r} is of dtype {table.dtype[name]}; a table has columns of float64 "
                "and of text"
            )
        if column.dtype.kind == "f" and np.isinf(column).any():
            row = int(np.isinf(column).argmax())
            raise InvalidInput(
                f"{whose}: column {name!r} in row {row} is {column[row]}; give a finite number, or nan where "
                "it is missing"
            )


def check_labels(labels: Array, num_classes: int, *, whose: str) -> None:
    """Checks that labels are one integer a row, from 0 to `num_classes`, exclusive.

    Raises: InvalidInput: if they are not, naming the first row that is wrong.
    """
    if labels.dtype.kind in "USO":
        raise InvalidInput(
            f"{whose}: labels of dtype {labels.dtype}, such as {labels.ravel()[0]!r}; number the classes "
            "in the same way for all: labels = numpy.searchsorted(sorted_names_of_all_classes, labels)"
        )
    if labels.ndim != 1 or labels.dtype.kind not in "biu":
        raise InvalidInput(
            f"{whose}: labels of shape {labels.shape} and dtype {labels.dtype}; classes are one "
            "integer a row: write labels.ravel().astype(int), or leave num_classes out for real targets"
        )
    wrong = (labels < 0) | (labels >= num_classes)
    if wrong.any():
        row = int(wrong.argmax())
        raise InvalidInput(
            f"{whose}: the label in row {row} is {labels[row]}; {num_classes} classes are the "
            f"integers 0 to {num_classes - 1}: renumber them with "
            "numpy.unique(labels, return_inverse=True)[1], "
            f"or write num_classes={int(labels.max()) + 1}"
        )


def count_classes(*labels: Array) -> int | None:
    """Returns the largest class plus one if all labels are one integer a row, else None.

    >>> count_classes(np.array([0, 2, 1]))
    3

    Raises: InvalidInput: if the smallest is not 0: then they are numbered in some other way.
    """
    if not all(y.ndim == 1 and y.dtype.kind in "biu" for y in labels):
        return None
    smallest = min((int(y.min()) for y in labels if len(y)), default=0)
    if smallest != 0:
        raise InvalidInput(
            f"the smallest label is {smallest}; classes are counted from 0: renumber them with "
            "numpy.unique(labels, return_inverse=True)[1], give num_classes if class 0 is merely "
            "absent, or write labels.astype(float) if they are not classes"
        )
    return max((int(y.max()) for y in labels if len(y)), default=-1) + 1


def check_test_fraction(fraction: float) -> None:
    """Checks that holding out this share leaves data to train on. Raises: InvalidInput: if it does not."""
    if not 0 <= fraction <= 0.99:
        raise InvalidInput(f"test_fraction is {fraction}; write a number from 0 to 0.99, such as 0.2")


def check_fractions(test: float, validation: float) -> None:
    """Checks that holding out these shares leaves data to train on. Raises: InvalidInput: if it does not."""
    check_test_fraction(test)
    if not (0 <= validation <= 0.99 and test + validation <= 0.99):
        raise InvalidInput(
            f"validation_fraction is {validation} and test_fraction {test}; write numbers from 0 on, whose "
            "sum is 0.99 at most, such as 0.1 and 0.2"
        )
