"""Conversion of labels and keys, as people write them, into names and classes."""

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from decimal import Decimal

import numpy as np

from hanse.core import Array, InvalidInput, nearest
from hanse.data.files import ShowsCell, UnreadableRows

__all__ = [
    "check_groups_apart",
    "check_test_keys",
    "class_names",
    "classes_of",
    "find_gaps",
    "name_classes",
    "spell",
    "to_categories",
]

MANY_NUMBERS = 20
"""Numbers with more distinct values than this, most of which occur once, are hardly classes."""

GAPS = frozenset(
    ["", "nan", "NaN", "NAN", "null", "Null", "NULL", "None", "NaT", "NA", "N/A", "n/a", "#N/A", "<NA>"]
)
"""Words that stand for nothing where a label or a key should be; a class of such a name has to be listed."""

_NUMBER = re.compile(r"([+-]?)(0|[1-9][0-9]*)?(?:\.([0-9]*))?(?:[eE]([+-][0-9]{1,3}))?")
_TRUTH = {"true": "True", "false": "False"}
_SAME = {"0": "False", "1": "True", "False": "0", "True": "1"}


def spell(word: str) -> str:
    """Returns the one spelling of a number or truth value; other words, such as 007, stay as they are.

    >>> [spell(word) for word in ("1.0", "+2.50", "1e+05", "TRUE", "007", "1E5", "A1")]
    ['1', '2.5', '100000', 'True', '007', '1E5', 'A1']
    """
    if not word or word[0] not in "+-.0123456789":
        return _TRUTH.get(word.lower(), word) if word[:1] in "tTfF" else word
    found = _NUMBER.fullmatch(word)
    if found is None or not (found[2] or found[3]):
        return word
    plain = f"{Decimal(word):f}" if found[4] else word
    sign, digits = "-" if word[0] == "-" else "", plain.lstrip("+-")
    whole, _, decimals = digits.partition(".")
    whole, decimals = whole.lstrip("0") or "0", decimals.rstrip("0")
    number = f"{whole}.{decimals}" if decimals else whole
    return number if number == "0" else sign + number


def to_categories(values: Array, classes: Collection[str] = ()) -> Array:
    """Converts labels or keys to names: a number has one spelling, and a gap is an empty string.

    >>> to_categories(np.array([1.0, 2.5, 1e20, np.nan])).tolist()
    ['1', '2.5', '100000000000000000000', '']
    >>> to_categories(np.array(["1.0", "TRUE", "None"])).tolist()
    ['1', 'True', '']

    Args:
      values: text, numbers, truth values or objects, (n, ...).
      classes: names that are no gaps, and spelt as they are.
    """
    words, place = _distinct(values)
    names = [word if word in classes else _name(word) for word in words]
    return np.array(names, str)[place]


def _name(word: str) -> str:
    return "" if word in GAPS else spell(word)


def _distinct(values: Array) -> tuple[list[str], Array]:
    """Returns the distinct values as words, and the index of each value among them."""
    kind = values.dtype.kind
    if kind in "biuf":
        distinct, place = np.unique(values, return_inverse=True)
        return [_write(number) for number in distinct], place.reshape(values.shape)
    cells = values.ravel().tolist()
    if kind == "U":  # few are distinct
        written = {cell: _as_word(cell) for cell in dict.fromkeys(cells)}
        found = [written[cell] for cell in cells]
    else:
        found = [_as_word(cell) for cell in cells]
    words = dict.fromkeys(found)
    index = {word: i for i, word in enumerate(words)}
    place = np.fromiter(map(index.__getitem__, found), np.int64, len(found)).reshape(values.shape)
    return list(words), place


def _write(number: "np.generic") -> str:
    """Writes a number of NumPy in full, without an exponent."""
    if isinstance(number, np.floating):
        return np.format_float_positional(number, trim="-")
    return str(number)


def _as_word(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace").strip()
    if isinstance(value, float):
        return np.format_float_positional(value, trim="-")
    return str(value).strip()


def find_gaps(values: Array, classes: Collection[str] = ()) -> Array:
    """Returns which rows have a gap in a column of labels, keys or targets, (n,)."""
    if values.dtype.kind in "biu" or (
        values.dtype.kind == "U" and GAPS.isdisjoint(word.strip() for word in {*values.ravel().tolist()})
    ):
        return np.zeros(len(values), bool)
    gaps = np.isnan(values) if values.dtype.kind == "f" else to_categories(values, classes) == ""
    return np.asarray(gaps.reshape(len(values), -1).any(axis=1))


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
            f'another column, or write classes = ["{names[0]}", ...] if other parties hold the others'
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


def classes_of(
    labels: Array,
    names: Sequence[str],
    where: Callable[[int], str],
    *,
    can_strip: Callable[[str], bool] = lambda end: False,
) -> Array:
    """Returns the class that a data set, a plan or a model gives to each label, (n,).

    A number is the class of the same number, however it is spelt; of two classes 0 and 1, false is 0 and
    true is 1.

    Args:
      labels: text, numbers or truth values.
      names: of the classes.
      where: names the place of a row, for the message.
      can_strip: whether the reader may strip these characters from text and change nothing but labels.

    Raises: InvalidInput: if a label is none of them, naming its row.
    """
    spelt = [spell(name) for name in names]
    known = {name: i for i, name in enumerate(spelt)} | {name: i for i, name in enumerate(names)}
    if sorted(spelt) in (["0", "1"], ["False", "True"]):
        known |= {_SAME[name]: i for i, name in enumerate(spelt)}
    words, place = _distinct(labels)
    found = np.array([known.get(word, known.get(spell(word), -1)) for word in words], np.int64)
    classes: Array = found[place]
    if (found < 0).any():
        row = int(np.argmax(classes < 0))
        word = words[int(place[row])]
        strip = _surplus(words, names, can_strip)
        said = f"{where(row)} is {word!r}, which is not a class; {_describe(word, names)}"
        concealed = f"{where(row)} holds no class (so in {np.count_nonzero(classes < 0)} rows)"
        concealed = f"{concealed}; {_list_some(names)}"
        if not strip:
            raise ShowsCell(said, concealed)
        raise UnreadableRows(
            f"{said}. Or write strip = {json.dumps(strip, ensure_ascii=False)}",
            f"{concealed}. Or write strip = ... with what stands behind the classes' names",
            strip=strip,
        )
    return classes


def _describe(word: str, names: Sequence[str]) -> str:
    return _list_some(names) if _are_counted(names) else nearest(word, names)


def _list_some(names: Sequence[str]) -> str:
    if _are_counted(names):
        return f"the classes are 0 to {len(names) - 1}"
    return f"the classes are {', '.join(map(repr, names[:6]))}" + ", ..." * (len(names) > 6)


def _are_counted(names: Sequence[str]) -> bool:
    return len(names) > 2 and tuple(names) == tuple(map(str, range(len(names))))


def _surplus(words: Sequence[str], names: Sequence[str], can_strip: Callable[[str], bool]) -> str:
    """Returns what stands after the classes' names, if to strip it makes each label the class it means."""
    for end in sorted(
        {word[len(name) :] for word in words for name in names if word.startswith(name)} - {""}
    ):
        meant = {name: name for name in names} | {name + end: name for name in names}
        chars = end + " "
        if all(word.strip(chars) == meant.get(word) for word in (*words, *names)) and can_strip(chars):
            return end
    return ""


def name_classes(
    labels: Mapping[str, Array], whose: str, where: Callable[[str, int], str]
) -> tuple[tuple[str, ...], dict[str, Array]]:
    """Names the classes of labels that are text; returns the names, and all labels as classes.

    Args:
      labels: "" to train on, which name the classes, and such as "test_" that are held out.
      whose: begins a message about all labels.
      where: names the place of a row in "", "test_" or another.

    Raises: InvalidInput: at a gap, or a label held out that the others do not hold.
    """
    classes = class_names(to_categories(labels[""]), whose=whose)

    def find(prefix: str) -> Array:
        return classes_of(labels[prefix], classes, lambda row: where(prefix, row))

    return classes, {prefix: find(prefix) for prefix in labels}


def check_groups_apart(groups: Array | None, others: Array | None, where: Callable[[int], str]) -> None:
    """Checks that no group stands on both sides. Raises: InvalidInput: naming the first row that does."""
    if groups is None or others is None:
        return
    shared = np.isin(others, np.unique(groups))
    if shared.any():
        row = int(shared.argmax())
        raise InvalidInput(
            f"{where(row)} is {str(others[row])!r}, and other rows of that group are on another side (so in "
            f"{np.count_nonzero(shared)} rows here); keep a group's rows in one file, or leave group out"
        )


def check_test_keys(
    keys: Array | None, test_keys: Array | None, where: Callable[[int], str], remedy: str
) -> None:
    """Checks that each key of given test examples is one of the training examples' keys.

    Raises: InvalidInput: naming the first row whose key is not.
    """
    if keys is None or test_keys is None:
        return
    strange = ~np.isin(test_keys, np.unique(keys))
    if strange.any():
        row = int(strange.argmax())
        known = np.unique(keys).tolist()
        raise InvalidInput(
            f"{where(row)} is {str(test_keys[row])!r}, and no training example has that key (so in "
            f"{np.count_nonzero(strange)} rows); {nearest(str(test_keys[row]), known)}. {remedy}"
        )
