"""NumPy's archives of arrays."""

import math
import struct
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import KW_ONLY, replace
from functools import partial
from gzip import GzipFile
from io import BytesIO
from os import SEEK_CUR, fspath
from typing import IO, Any, Literal
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np
from numpy.lib import format as npy

from hanse.core import Array, InvalidInput, nearest, value
from hanse.data.checks import check_fractions
from hanse.data.datasets import Dataset, TrainTest, arrays, hold_out
from hanse.data.files import NeedsSetting, reading
from hanse.data.labels import check_groups_apart, check_test_keys, find_gaps, name_classes, to_categories
from hanse.data.tables import check_incomplete

__all__ = ["npz"]

ROWS = "#rows"
"""The name under which arrays that lost some of their rows hold the numbers of those that they kept."""
PREFIXES = ("", "test_", "validation_")
"""The beginnings of the names of arrays for training, for testing, and to choose by."""


@value
class npz(Dataset):
    """Arrays in a .npz file. Labels are classes if they are text or integers, real targets otherwise.

    Arrays whose names start with "test_", such as `test_x`, are the test examples; without them some are
    held out. Those that start with "validation_" are the examples to choose by.

    >>> npz("scans.npz", y="diagnosis", key="hospital").x
    'x'

    Args:
      path: of the file.
      x: the array of features, (n, ...).
      y: the array of labels, (n, ...).
      key: the array that names the owner of each example; `by_key()` makes the owners the clients.
      num_classes: of integer labels; by default the largest plus one.
      test_fraction: of the examples, held out at random, the same in every run, if there are no test arrays.
      incomplete: "skip" leaves out examples with a gap in label or key, and counts them; "refuse" does not.
      validation_fraction: of the examples, held out to choose by, if there are no validation arrays: then
        `stop` and sweeps watch these.
      group: the array of what each example belongs to, such as a patient: examples of one group are held out
        together, also by `client_test_fraction`.
    Raises: InvalidInput: if an array is missing, or can't be used.
    """

    path: str
    _: KW_ONLY
    x: str = "x"
    y: str = "y"
    key: str | None = None
    num_classes: int | None = None
    test_fraction: float = 0.2
    incomplete: Literal["refuse", "skip"] = "refuse"
    validation_fraction: float = 0.0
    group: str | None = None

    def __post_init__(self) -> None:
        check_incomplete(self.incomplete)
        object.__setattr__(self, "path", fspath(self.path))
        check_fractions(self.test_fraction, self.validation_fraction)

    def load(self) -> TrainTest:
        """Reads the arrays."""
        stored, notes = self.complete(self.read_arrays(), (self.x, self.y, self.key, self.group))
        x, y = self.find_array(stored, self.x), self.find_array(stored, self.y)
        labels = {prefix: stored[prefix + self.y] for prefix in PREFIXES if prefix + self.y in stored}
        classes: tuple[str, ...] = ()
        if y.dtype.kind in "US":
            whose = f"{self.path}: array {self.y!r}"
            classes, labels = name_classes(
                labels, whose, lambda prefix, i: self.at(self.y, i, stored, prefix)
            )
        try:
            data = arrays(
                x,
                labels[""],
                test_x=stored.get("test_" + self.x),
                test_y=labels.get("test_"),
                validation_x=stored.get("validation_" + self.x),
                validation_y=labels.get("validation_"),
                num_classes=len(classes) or self.num_classes,
                test_fraction=0.0,  # some are held out below, with their keys
            ).load()
        except InvalidInput as error:
            raise InvalidInput(f"{self.path}: {error}") from error
        more: dict[str, Any] = {"classes": classes} if classes else {}
        if self.key is not None:
            keys, test_keys = self.find_array(stored, self.key), stored.get("test_" + self.key)
            more["keys"] = keys = to_categories(keys)
            more["test_keys"] = test_keys = None if test_keys is None else to_categories(test_keys)
            name = "test_" + self.key
            remedy = f"Leave the array {name} out if they shall test the model at the server alone"
            check_test_keys(keys, test_keys, lambda row: self.at(str(self.key), row, stored, "test_"), remedy)
        if self.group is not None:
            more["groups"] = self._read_groups(stored)
        data = replace(data, **more, notes=notes)
        return hold_out(data, self.test_fraction, "npz", self.validation_fraction)

    def _read_groups(self, stored: Mapping[str, Array]) -> Array:
        """Reads the groups to train on, and checks that none is held out as well."""
        assert self.group is not None
        sides = [to_categories(self.find_array(stored, self.group))]
        for prefix in PREFIXES[1:]:
            if prefix + self.y in stored:
                groups = to_categories(self.find_array(stored, prefix + self.group))
                for side in sides:
                    check_groups_apart(side, groups, partial(self._place, stored, prefix))
                sides.append(groups)
        return sides[0]

    def _place(self, stored: Mapping[str, Array], prefix: str, row: int) -> str:
        return self.at(str(self.group), row, stored, prefix)

    def at(self, name: str, row: int, stored: Mapping[str, Array], prefix: str = "") -> str:
        """Returns the place of a row in the file, for messages: rows that were left out count, too."""
        number = int(stored[prefix + ROWS][row]) if prefix + ROWS in stored else row
        return f"{self.path}: array {prefix + name!r}, row {number}"

    def complete(
        self, stored: Mapping[str, Array], names: Sequence[str | None]
    ) -> tuple[Mapping[str, Array], tuple[str, ...]]:
        """Leaves out the examples with a gap in a label in words or in a key; notes how many they are.

        Args:
          names: of the arrays of features, labels and keys.
        Raises: InvalidInput: if there are gaps, and they are to be refused.
        """
        kept, notes = dict(stored), []
        roles = names[1:]
        for prefix, name in ((prefix, name) for prefix in PREFIXES for name in roles if name):
            array = kept.get(prefix + name)
            if array is None or (name not in (self.key, self.group) and array.dtype.kind not in "US"):
                continue
            gaps = find_gaps(array)
            count = np.count_nonzero(gaps)
            if not count:
                continue
            if self.incomplete == "refuse" or count == len(gaps):
                raise NeedsSetting(
                    f"{self.at(name, int(gaps.argmax()), kept, prefix)} is empty (in {count} of {len(gaps)} "
                    'rows); fill it in, or write incomplete = "skip" to leave these rows out',
                    **({"incomplete": "skip"} if count < len(gaps) else {}),
                )
            notes.append(
                f"{self.path}: {count} of {len(gaps)} rows have no {prefix + name!r} and are left out"
            )
            kept.setdefault(prefix + ROWS, np.arange(len(gaps)))
            for other in {prefix + n for n in (*names, ROWS) if n} & kept.keys():
                if len(kept[other]) == len(gaps):
                    kept[other] = kept[other][~gaps]
        return kept, tuple(notes)

    def take_rows(self, stored: Mapping[str, Array], passes: Array) -> Mapping[str, Array]:
        """Takes the rows where a mask is true; messages go on counting the others."""
        every = {**stored, ROWS: np.arange(len(passes))}
        return {name: one[passes] if one.shape[:1] == passes.shape else one for name, one in every.items()}

    def read_arrays(self, names: Collection[str] | None = None) -> Mapping[str, Array]:
        """Reads the arrays of these names, or all. Raises: InvalidInput: if it is no archive of arrays."""
        with reading(self.path) as file:
            gzipped = isinstance(getattr(file, "raw", None), GzipFile)  # where seeking backwards is slow
            source: IO[bytes] = BytesIO(file.read()) if gzipped else file
            try:
                return _arrays(source, names)
            except (ValueError, BadZipFile, EOFError, RuntimeError, zlib.error, struct.error) as error:
                raise InvalidInput(
                    f"{self.path} is not an archive of plain arrays ({error}); write one with "
                    "numpy.savez_compressed(path, x=features, y=labels)"
                ) from None

    def find_array(self, stored: Mapping[str, Array], name: str) -> Array:
        if name not in stored:
            option = {self.x: "x", self.y: "y"}.get(name, "key")
            known = [other for other in stored if not other.endswith(ROWS)]
            raise InvalidInput(
                f"{self.path} has no array {name!r}; {nearest(name, known)}; write {option} = ... "
                "with the name of one"
            )
        return stored[name]


def _arrays(file: IO[bytes], names: Collection[str] | None) -> dict[str, Array]:
    """Reads all arrays of an archive. Raises: ValueError, BadZipFile, ...: if it is none, or broken."""
    arrays: dict[str, Array] = {}
    with ZipFile(file) as archive:
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if name == info.filename or (names is not None and name not in names):
                continue
            with archive.open(info) as member:
                found = _as_it_lies(file, info, member) if info.compress_type == ZIP_STORED else None
            if found is None:
                with archive.open(info) as member:
                    found = npy.read_array(member, allow_pickle=False)
            arrays[name] = found
    return arrays


_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def _as_it_lies(file: IO[bytes], info: ZipInfo, member: IO[bytes]) -> Array | None:
    """Reads an uncompressed array straight into its memory, so that other threads can run meanwhile.

    Returns: None if NumPy has to read it.
    """
    read_header = _HEADERS.get(npy.read_magic(member))
    if read_header is None:
        return None
    shape, in_columns, dtype = read_header(member)
    head_bytes, num_bytes = member.tell(), math.prod(shape) * dtype.itemsize
    if dtype.hasobject or not num_bytes or head_bytes + num_bytes != info.file_size:
        return None
    array = np.empty(shape[::-1] if in_columns else shape, dtype)
    content = array.reshape(-1).view(np.uint8)
    file.seek(info.header_offset + 26)  # to the lengths of the name and extra field that precede the member
    file.seek(sum(struct.unpack("<HH", file.read(4))), SEEK_CUR)
    sum_of_head = zlib.crc32(file.read(head_bytes))
    num_read = file.readinto(content)  # type: ignore[attr-defined]
    if num_read != num_bytes or zlib.crc32(content.data, sum_of_head) != info.CRC:
        raise BadZipFile(f"{info.filename} is broken")
    return array.T if in_columns else array
