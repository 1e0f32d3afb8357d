"""The idx format of MNIST and similar data sets."""

import math
from dataclasses import KW_ONLY
from os import fspath
from pathlib import Path

import numpy as np

from hanse.core import Array, Examples, InvalidInput, value
from hanse.data.checks import check_fractions, count_classes
from hanse.data.datasets import Dataset, TrainTest, hold_out
from hanse.data.files import read_bytes

__all__ = ["idx", "mnist", "read_idx"]

DTYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
"""Types of entries, by the third byte of a file."""


def read_idx(path: str) -> Array:
    """Reads the array in an idx file; .gz is unpacked.

    The format: two zero bytes, a byte for the type and one for the number of dimensions, each dimension
    as a big-endian 32-bit integer, and the entries in order.

    Raises: InvalidInput: if it is not an idx file, or is cut off.
    """
    data = read_bytes(path)
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in DTYPES:
        raise InvalidInput(
            f"{path} is not an idx file: it starts with {data[:4].hex(' ') or 'nothing'}, an idx file with "
            f"00 00 and one of {', '.join(f'{code:02x}' for code in DTYPES)}"
        )
    dtype, start = np.dtype(DTYPES[data[2]]), 4 + 4 * data[3]
    shape = [int(size) for size in np.frombuffer(data[4:start], ">u4")]
    due = start + dtype.itemsize * math.prod(shape)
    if len(shape) < data[3] or len(data) != due:
        raise InvalidInput(
            f"{path} is cut off or damaged: {len(data)} bytes, and its header says {due}; fetch it again"
        )
    return np.frombuffer(data, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


@value
class idx(Dataset):
    """Images and labels in idx files; .gz is unpacked.

    Args:
      images: file of (n, ...) features; bytes are scaled to [0, 1], as float32.
      labels: file of (n,) classes.
      test_images: file of test features; without it, some examples are held out.
      test_labels: file of their labels.
      test_fraction: of the examples, held out at random, the same in every run.
      validation_fraction: of the examples, held out to choose by: then `stop` and sweeps watch these.
    Raises: InvalidInput: if a file is missing, cut off or of another kind, or the two don't fit.
    References: LeCun, Cortes, Burges, "The MNIST database of handwritten digits".
    """

    images: str
    labels: str
    _: KW_ONLY
    test_images: str | None = None
    test_labels: str | None = None
    test_fraction: float = 0.2
    validation_fraction: float = 0.0

    def __post_init__(self) -> None:
        for name in ("images", "labels", "test_images", "test_labels"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, fspath(getattr(self, name)))
        if (self.test_images is None) != (self.test_labels is None):
            raise InvalidInput("one of test_images and test_labels is given alone; give both, or neither")
        check_fractions(self.test_fraction, self.validation_fraction)

    def load(self) -> TrainTest:
        """Reads the files."""
        train = _examples(self.images, self.labels)
        test = None
        if self.test_images is not None and self.test_labels is not None:
            test = _examples(self.test_images, self.test_labels)
        num_classes = count_classes(train.y, *([] if test is None else [test.y]))
        return hold_out(
            TrainTest(train, test, num_classes), self.test_fraction, "idx", self.validation_fraction
        )


def _examples(images: str, labels: str) -> Examples:
    x, y = read_idx(images), read_idx(labels)
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise InvalidInput(f"{labels} holds an array of shape {y.shape} and {y.dtype}; name a file of labels")
    if x.ndim < 2 or len(x) != len(y):
        raise InvalidInput(
            f"{images} holds an array of shape {x.shape}, {labels} {len(y)} labels; name the files of one set"
        )
    if x.dtype == np.uint8:
        x = x / np.float32(255)
    return Examples(x.astype(np.float32, copy=False), y.astype(np.int64))


FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@value
class mnist(Dataset):
    """MNIST, or a data set in files of the same names (Fashion-MNIST, KMNIST), as .gz or unpacked.

    Features are images of 28 x 28 pixels in [0, 1], float32; 60,000 to train on and 10,000 to test on.

    Args:
      folder: the folder with the four files, such as train-images-idx3-ubyte.gz.
      validation_fraction: of the 60,000, held out to choose by: then `stop` and sweeps watch these.
    Raises: InvalidInput: if a file is missing, cut off or of another kind.
    References: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition",
      Proceedings of the IEEE 1998.
    """

    folder: str
    _: KW_ONLY
    validation_fraction: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", fspath(self.folder))
        check_fractions(0.0, self.validation_fraction)

    def load(self) -> TrainTest:
        """Reads the four files."""
        images, labels, test_images, test_labels = (self._file(name) for name in FILES)
        return idx(
            images,
            labels,
            test_images=test_images,
            test_labels=test_labels,
            validation_fraction=self.validation_fraction,
        ).load()

    def _file(self, name: str) -> str:
        for candidate in (
            name + ".gz",
            name,
            name.replace("-idx", ".idx"),
            name.replace("-idx", ".idx") + ".gz",
        ):
            path = Path(self.folder, candidate)
            if path.is_file():
                return str(path)
        if not Path(self.folder).is_dir():
            raise InvalidInput(f"no folder {self.folder!r}; name the one that holds {FILES[0]}.gz")
        raise InvalidInput(
            f"{self.folder!r} holds no {name}.gz (or unpacked); MNIST has 4 files: {', '.join(FILES)}"
        )
