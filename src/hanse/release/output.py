"""Files of predictions: CSV or Parquet, written whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hanse.core import InvalidInput
from hanse.data import extra

if TYPE_CHECKING:
    from hanse.release.bundle import Predictions

__all__ = ["check_output", "write_predictions"]

ENDINGS = (".csv", ".parquet")


def check_output(path: Path, *, force: bool = False) -> None:
    """Checks, before anything is computed, that predictions can be written to a file.

    Args:
      path: ends in .csv or .parquet.
      force: whether an existing file is replaced.

    Raises: InvalidInput: if they can't.
    """
    if path.suffix.lower() not in ENDINGS:
        raise InvalidInput(
            f"{path} ends in neither .csv nor .parquet; predictions are written as one of these"
        )
    if path.suffix.lower() == ".parquet":
        extra("pyarrow.parquet", "parquet", "a file .parquet")
    if not path.parent.is_dir():
        raise InvalidInput(f"there is no folder {str(path.parent)!r} for {path.name}; make it first")
    if path.is_dir():
        raise InvalidInput(f"{path} is a folder; name a file in it: {path / 'predictions.csv'}")
    if path.exists() and not force:
        raise InvalidInput(f"{path} exists already; write another name, or --force to replace it")


def write_predictions(found: "Predictions", path: Path, *, force: bool = False) -> None:
    """Writes predictions to a file, in the order of the rows.

    Args:
      path, force: see `check_output`.

    Raises: InvalidInput: if they can't be written; then an existing file is left as it was.
    """
    check_output(path, force=force)
    with _write_beside(path) as new:
        if path.suffix.lower() == ".csv":
            new.write_text(found.as_csv(), encoding="utf-8", newline="")
        else:
            table = extra("pyarrow", "parquet", "a file .parquet").table(found.arrays())
            extra("pyarrow.parquet", "parquet", "a file .parquet").write_table(table, new)


@contextmanager
def _write_beside(path: Path) -> Iterator[Path]:
    """Yields a file beside another, whose place it takes once it is written."""
    new = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield new
        new.replace(path)
    except OSError as error:
        raise InvalidInput(f"{path} can't be written: {error.strerror or error}") from error
    finally:
        new.unlink(missing_ok=True)
