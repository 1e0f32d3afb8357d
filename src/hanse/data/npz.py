"""NumPy's archives of arrays."""

import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import KW_ONLY, replace
from gzip import GzipFile
from io import BytesIO
from os import SEEK_CUR, fspath
from typing import IO, Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np
from numpy.lib import format as npy

from hanse.core import Array, InvalidInput, nearest, value
from hanse.data.checks import check_test_fraction
from hanse.data.datasets import Dataset, TrainTest, arrays, hold_out
from hanse.data.files import reading
from hanse.data.labels import class_names, classes_of, to_categories

__all__ = ["npz"]


@value
class npz(Dataset):
    """Arrays in a .npz file. Labels are classes if they are text or integers, real targets otherwise.

    Arrays whose names start with "test_", such as `test_x`, are the test examples; without them some are
    held out.

    >>> npz("scans.npz", y="diagnosis", key="hospital").x
    'x'

    Args:
      path: of the file.
      x: the array of features, (n, ...).
      y: the array of labels, (n, ...).
      key: the array that names the owner of each example; `by_key()` makes the owners the clients.
      num_classes: of integer labels; by default the largest plus one.
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
        check_test_fraction(self.test_fraction)

    def load(self) -> TrainTest:
        """Reads the arrays."""
        stored = self._read_arrays()
        x, y = self._find_array(stored, self.x), self._find_array(stored, self.y)
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
        more: dict[str, Any] = {"classes": classes} if classes else {}
        if self.key is not None:
            keys, test_keys = self._find_array(stored, self.key), stored.get("test_" + self.key)
            more["keys"] = to_categories(keys)
            more["test_keys"] = None if test_keys is None else to_categories(test_keys)
        return hold_out(replace(data, **more) if more else data, self.test_fraction, "npz")

    def _read_arrays(self) -> Mapping[str, Array]:
        with reading(self.path) as file:
            gzipped = isinstance(getattr(file, "raw", None), GzipFile)  # where seeking backwards is slow
            source: IO[bytes] = BytesIO(file.read()) if gzipped else file
            try:
                return _arrays(source)
            except (ValueError, BadZipFile, EOFError, RuntimeError, zlib.error, struct.error) as error:
                raise InvalidInput(
                    f"{self.path} is not an archive of plain arrays ({error}); write one with "
                    "numpy.savez_compressed(path, x=features, y=labels)"
                ) from None

    def _find_array(self, stored: Mapping[str, Array], name: str) -> Array:
        if name not in stored:
            raise InvalidInput(f"{self.path} has no array {name!r}; {nearest(name, stored)}")
        return stored[name]

    def _classes(self, categories: Array, classes: tuple[str, ...], name: str) -> Array:
        return classes_of(categories, classes, lambda row: f"{self.path}: array {name!r}, row {row}")


def _arrays(file: IO[bytes]) -> dict[str, Array]:
    """Reads all arrays of an archive. Raises: ValueError, BadZipFile, ...: if it is none, or broken."""
    arrays: dict[str, Array] = {}
    with ZipFile(file) as archive:
        for info in archive.infolist():
            if not info.filename.endswith(".npy"):
                continue
            with archive.open(info) as member:
                found = _as_it_lies(file, info, member) if info.compress_type == ZIP_STORED else None
            if found is None:
                with archive.open(info) as member:
                    found = npy.read_array(member, allow_pickle=False)
            arrays[info.filename.removesuffix(".npy")] = found
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
