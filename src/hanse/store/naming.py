"""The names, tags and ids of runs, and which run someone means."""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import NamedTuple

from hanse.core import InvalidInput, StoreError

__all__ = ["LAST", "Known", "check_name", "check_tags", "find_meant"]

LAST = "last"
"""The word for the newest run, in place of an id or a name."""

MAX_LENGTH = 64
SHOWN = 5


class Known(NamedTuple):
    """The words by which a run is called: its id, and its name if it has one."""

    run: str
    name: str | None

    def __str__(self) -> str:
        return self.run if self.name is None else f"{self.run} ({self.name})"


def check_name(name: str) -> str:
    """Returns a name for a run. Raises: InvalidInput: if it can't be one."""
    _check_word("name", name)
    if name == LAST:
        raise InvalidInput(f"name {name!r} stands for the newest run already; take another, such as last-1")
    if re.fullmatch("[0-9a-f]{12}", name):
        raise InvalidInput(f"name {name!r} has the form of a run's id; take another")
    return name


def check_tags(tags: Sequence[str]) -> tuple[str, ...]:
    """Returns tags of a run, each once. Raises: InvalidInput: if one of them can't be a tag."""
    if isinstance(tags, str):
        raise InvalidInput(f"tags is the string {tags!r}; write a list of tags, such as [{tags!r}]")
    return tuple(dict.fromkeys(_check_word("tag", tag) for tag in tags))


def _check_word(what: str, given: object) -> str:
    word = given if isinstance(given, str) else ""
    if not re.fullmatch(r"\w[\w.+-]*", word) or len(word) > MAX_LENGTH:
        raise InvalidInput(
            f"{what} {given!r} can't be used; write at most {MAX_LENGTH} letters, digits and . _ + - without "
            "spaces, beginning with a letter or digit, such as slow-start.2"
        )
    return word


def find_meant(given: str, known: Sequence[Known], *, option: str = "") -> str:
    """Returns the id of the run that is meant by "last", an id, a name, or the beginning of an id.

    >>> find_meant("slow", [Known("5e1f00aa11bb", "slow"), Known("90c2aa30ff01", None)])
    '5e1f00aa11bb'

    Args:
      given: what someone wrote. A whole id or a whole name goes before the beginning of an id.
      known: all runs, newest first.
      option: follows the command that the message names, such as " --store runs.db".

    Raises: StoreError: if it is none of them or several, with the runs that may have been meant.
    """
    if given == LAST and known:
        return known[0].run
    exact = [one.run for one in known if given in (one.run, one.name)]
    begun = exact[:1] or [one.run for one in known if given and one.run.startswith(given)]
    if len(begun) == 1:
        return begun[0]
    if begun:
        several = ", ".join(str(one) for one in known if one.run in begun[:SHOWN])
        raise StoreError(f"{len(begun)} runs begin with {given!r}: {several}; write more of the one you mean")
    raise StoreError(f"there is no run {given!r}: {_hint(given, known)} `hanse ls{option}` lists them")


def _hint(given: str, known: Sequence[Known]) -> str:
    if not known:
        return "none has begun;"
    words = {word: str(one) for one in known for word in _words(one, len(given))}
    close = get_close_matches(given, words, n=1) if given else []
    return f"did you mean {words[close[0]]}?" if close else f"the newest is {known[0]};"


def _words(one: Known, length: int) -> Iterable[str]:
    """Yields what someone may have mistyped: the beginning of the id, and the name."""
    yield one.run[:length]
    if one.name is not None:
        yield one.name
