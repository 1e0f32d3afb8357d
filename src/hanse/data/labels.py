"""Conversion of labels, as people write them, into classes."""

from collections.abc import Callable, Sequence

import numpy as np

from hanse.core import Array, InvalidInput, nearest

__all__ = ["class_names", "classes_of", "to_categories"]

MANY_NUMBERS = 20
"""Numbers with more distinct values than this, most of which occur once, are hardly classes."""


def to_categories(values: Array) -> Array:
    """Converts labels or keys to text, whole numbers without a decimal point.

    >>> to_categories(np.array([1.0, 2.5])).tolist()
    ['1', '2.5']
    """
    if values.dtype.kind == "U":
        return values
    distinct, inverse = np.unique(values, return_inverse=True)
    names = [_word(value) for value in distinct.tolist()]
    return np.array(names)[inverse.reshape(values.shape)]


def _word(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def class_names(categories: Array, *, whose: str) -> tuple[str, ...]:
    """Returns the distinct labels in order: by size if all are numbers, else alphabetically.

    >>> class_names(np.array(["10", "9", "9"]), whose="y")
    ('9', '10')

    Raises: InvalidInput: if there is only one, or if they seem to be measurements.
    """
    names, counts = np.unique(categories, return_counts=True)
    if len(names) == 1:
        raise InvalidInput(
            f"{whose} is {str(names[0])!r} in every row; a model separates at least 2 classes: choose "
            f'another column, or write classes = ["{names[0]}", "..."] if other parties hold the others'
        )
    numbers = _numbers(names)
    if numbers is None:
        return tuple(names.tolist())
    if len(names) > MANY_NUMBERS and 2 * len(names) > counts.sum():
        raise InvalidInput(
            f"{whose} holds {len(names)} different numbers in {counts.sum()} rows, such as {names[0]}; "
            "if they are to be predicted as numbers, name the column as target = ... instead of label = ..."
        )
    return tuple(names[np.argsort(numbers, kind="stable")].tolist())


def _numbers(categories: Array) -> Array | None:
    try:
        return categories.astype(np.float64)
    except ValueError:
        return None


def _same_number(word: str, names: Sequence[str]) -> int | None:
    """The class whose name is the same number, spelt otherwise: 1.0 is 1."""
    try:
        number = float(word)
        return [float(name) for name in names].index(number)
    except ValueError:
        return None


def _surplus(word: str, names: Sequence[str]) -> str:
    """Suggests a setting if the label is a class with something after it, as in Adult's test file."""
    ends = [word.removeprefix(name) for name in names if name and word.startswith(name)]
    return f' Or write strip = "{min(ends, key=len)}", in CSV' if ends else ""


def classes_of(categories: Array, names: Sequence[str], where: Callable[[int], str]) -> Array:
    """Returns the class of each label, (n,).

    Args:
      categories: labels as text.
      names: of the classes.
      where: names the place of a row, for the message.

    Raises: InvalidInput: if a label is none of them.
    """
    known = np.array(names)
    order = np.argsort(known)
    place = np.minimum(np.searchsorted(known, categories, sorter=order), len(known) - 1)
    classes: Array = order[place]
    wrong = known[classes] != categories
    for row in np.flatnonzero(wrong).tolist():
        same = _same_number(str(categories[row]), names)
        if same is None:
            break
        classes[row], wrong[row] = same, False
    if wrong.any():
        row = int(wrong.argmax())
        word = str(categories[row])
        raise InvalidInput(
            f"{where(row)} is {word!r}, which is not a class; {nearest(word, names)}{_surplus(word, names)}"
        )
    return classes.astype(np.int64)
