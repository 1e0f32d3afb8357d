"""Reading of users' files: open them, unpack gzip, and explain what is wrong with them."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from io import BufferedReader, TextIOWrapper
from pathlib import Path
from typing import IO, Any

from hanse.core import InvalidInput, nearest

__all__ = ["extra", "read_bytes", "reading", "text_lines"]

GZIP = b"\x1f\x8b"


def extra(module: str, name: str, whose: str) -> Any:
    """Imports a library that only some readers need.

    Args:
      module: to import.
      name: of the extra that installs it.
      whose: the reader that the message names.

    Raises: InvalidInput: if it is not installed; the message says how to install it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise InvalidInput(
            f"{whose} needs the library {module.partition('.')[0]} ({error}); install it with: "
            f"pip install 'hanse[{name}]'"
        ) from error


@contextmanager
def reading(path: str) -> Iterator[IO[bytes]]:
    """Opens a file's bytes, unpacked if they are gzipped, whatever its name.

    Raises: InvalidInput: if there is no such file, or it can't be read to its end.
    """
    try:
        with open(path, "rb") as file:
            if file.peek(2)[:2] == GZIP:
                with gzip.open(file) as unpacked, BufferedReader(unpacked) as buffered:
                    yield buffered
            else:
                yield file
    except FileNotFoundError:
        raise InvalidInput(f"no file {path!r}; {_neighbour(Path(path))}") from None
    except IsADirectoryError:
        raise InvalidInput(f"{path!r} is a folder; name a file in it: {_files(Path(path))}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InvalidInput(f"{path} is a broken .gz file ({error}); fetch it again") from None
    except OSError as error:
        raise InvalidInput(f"{path} can't be read: {error.strerror or error}") from None


def _files(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "it holds none"


def _neighbour(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"there is no folder {str(folder)!r} either"
    here = nearest(path.name, (found.name for found in folder.iterdir() if found.is_file()))
    return f"in {str(folder.absolute())!r}: {here}" if here.startswith("did") else f"look in {str(folder)!r}"


def read_bytes(path: str) -> bytes:
    """Reads a whole file. Raises: InvalidInput: as `reading`."""
    with reading(path) as file:
        return file.read()


@contextmanager
def text_lines(path: str, encoding: str) -> Iterator[TextIOWrapper]:
    """Opens a file as text and leaves line ends as they are.

    Raises: InvalidInput: as `reading`; if it is not text in this encoding, naming the line.
    """
    try:
        with reading(path) as file, TextIOWrapper(file, _with_mark(encoding), newline="") as text:
            yield text
    except LookupError:
        raise InvalidInput(
            f'encoding is {encoding!r}, which is unknown; write "utf-8" or "latin-1"'
        ) from None
    except UnicodeDecodeError:
        raise InvalidInput(_where_not_text(path, encoding)) from None


def _with_mark(encoding: str) -> str:
    """Lets UTF-8 start with a byte order mark, which spreadsheets write."""
    return "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding


def _where_not_text(path: str, encoding: str) -> str:
    instead = 'save the file as UTF-8, or write encoding = "latin-1" (or what it was saved in)'
    with reading(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode(encoding)
            except UnicodeDecodeError as error:
                before = line[: error.start].decode(encoding, "replace")[-20:]
                return (
                    f"{path}, line {number}: byte 0x{line[error.start]:02x} after {before!r} is not "
                    f"{encoding} text; {instead}"
                )
    return f"{path} is not {encoding} text; {instead}"
