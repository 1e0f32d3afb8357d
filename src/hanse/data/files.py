"""Reading of users' files: open them, unpack gzip, and explain what is wrong with them."""

import codecs
import gzip
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from io import BufferedReader, TextIOWrapper
from pathlib import Path
from typing import IO, Any

from hanse.core import InvalidInput, nearest

__all__ = [
    "NeedsSetting",
    "ShowsCell",
    "UnreadableRows",
    "explain_encoding",
    "extra",
    "read_bytes",
    "reading",
    "tell_encoding",
    "text_lines",
]

GZIP = b"\x1f\x8b"


class NeedsSetting(InvalidInput):
    """A file can be used with other settings of its reader, which the message names.

    Args:
      message: the sentence for the file's owner.
      settings: the settings that it names first.
    """

    settings: dict[str, Any]

    def __init__(self, message: str, **settings: Any) -> None:
        InvalidInput.__init__(self, message)
        self.settings = settings


class ShowsCell(InvalidInput):
    """A message about a file that shows a cell of it.

    Args:
      message: the sentence for the file's owner.
      concealed: the same without any cell, for logs that others may see.
    """

    def __init__(self, message: str, concealed: str) -> None:
        super().__init__(message)
        self.concealed = concealed


class UnreadableRows(NeedsSetting, ShowsCell):
    """Some rows of a file can't be read as its reader is set.

    Args:
      message, concealed: see `ShowsCell`.
      settings: see `NeedsSetting`.
    """

    def __init__(self, message: str, concealed: str, **settings: Any) -> None:
        ShowsCell.__init__(self, message, concealed)
        self.settings = settings


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
            f'encoding is {encoding!r}, which is unknown; write "utf-8", "cp1252" or "utf-16"'
        ) from None
    except UnicodeError:
        raise explain_encoding(path, encoding) from None


def _with_mark(encoding: str) -> str:
    """Lets UTF-8 start with a byte order mark, which spreadsheets write."""
    return "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding


MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Bytes at the beginning of a file that tell its encoding."""

_NOT_WESTERN = re.compile(rb"[A-Za-z][\x80-\x91\x93-\xbf][A-Za-z]|[\xc0-\xff]{3}")
"""Bytes that Windows' encoding of Western European languages would hardly have in a word."""


def tell_encoding(content: bytes) -> str | None:
    """Tells the encoding of text; None if it can't be told."""
    marked = next((name for mark, name in MARKS if content.startswith(mark)), None)
    zeros = [content[i:4096:2].count(0) for i in (0, 1)]
    if marked is None and max(zeros) > len(content[:4096]) / 8:
        marked = "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
    with suppress(UnicodeDecodeError):
        if marked is None and content.decode() is not None:
            return "utf-8"
    likely = marked or ("cp1252" if 0 not in content and not _NOT_WESTERN.search(content) else None)
    try:
        return None if likely is None or not content.decode(likely) else likely
    except UnicodeDecodeError:
        return None


def explain_encoding(path: str, encoding: str) -> InvalidInput:
    """Explains why a file is not text in an encoding, and names the encoding that it seems to have."""
    content = read_bytes(path)
    try:
        content.decode(_with_mark(encoding))
        start = max(0, content.find(0))
    except UnicodeDecodeError as error:
        start = error.start
    except UnicodeError:  # without a byte order mark, where one is needed
        start = 0
    line = content[content.rfind(b"\n", 0, start) + 1 : start]
    number, before = content.count(b"\n", 0, start) + 1, line.decode(encoding, "replace")[-20:]
    word = content[max(start - len(line), start - 8) : start + 9].splitlines()[0]
    what = f"{path}, line {number}: byte 0x{content[start]:02x}"
    why = f"is not {encoding} text"
    likely = tell_encoding(content)
    if likely is None or likely == encoding:
        cure = "and what it was saved in can't be told; save the file as UTF-8"
        return ShowsCell(f"{what} after {before!r} {why}, {cure}", f"{what} {why}, {cure}")
    shown = f", which reads {word.decode(likely)!r} there" if likely == "cp1252" else ""
    cure = f'save the file as UTF-8, or write encoding = "{likely}"'
    return UnreadableRows(
        f"{what} after {before!r} {why}; {cure}{shown}", f"{what} {why}; {cure}", encoding=likely
    )
