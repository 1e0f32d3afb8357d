"""Guesses at how a file of text is read, with a comment on each."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from hanse.data import (
    DELIMITERS,
    NeedsSetting,
    csv,
    find_formats,
    find_limit,
    read_bytes,
    tell_encoding,
    text_lines,
)

__all__ = ["SETTLE", "Said", "guess_reader", "is_unsettled", "list_doubts"]

SETTLE = "SETTLE THIS"
"""The words in a comment on a guess that only the owner of the data can confirm."""

Said: TypeAlias = tuple[str, object, str]
"""A setting: its name, its value, and a comment."""

NUM_GUESSES = 40
"""The most settings that are tried one after the other, so that a file can be read."""

GAP_WORDS = (
    "n/a", "N/A", "na", "NA", "n.a.", "N.A.", "k.A.", "#N/A", "#NV", "<NA>", "None", "none", "null", "NULL",
    "nan", "NaN", "-", "--", "---", ".", "..", "?",
)  # fmt: skip
"""Words that stand for a missing value in many files, and hardly for anything else."""


def is_unsettled(said: Said) -> bool:
    """Returns whether a guess is one that only the owner of the data can confirm."""
    return SETTLE in said[2]


def list_doubts(file: str | Path | None) -> list[str]:
    """Lists the guesses in a settings file that nobody has confirmed, each with its line."""
    if file is None:
        return []
    lines = Path(file).read_bytes().decode("utf-8", "replace").splitlines()
    return [
        f"{file}, line {number}: {line.partition('#')[0].strip()}: {said.strip().removeprefix(SETTLE + ': ')}"
        for number, line in enumerate(lines, start=1)
        if not line.startswith("#") and SETTLE in (said := line.partition("#")[2])
    ]


def guess_reader(path: str) -> tuple[csv, list[Said]]:
    """Chooses settings that read a file, as the messages about it ask for; returns them with comments.

    Raises: InvalidInput: if no setting reads it.
    """
    encoding = tell_encoding(read_bytes(path))
    names = _missing_names(path, encoding or "latin-1")
    reader, comments = csv(path, encoding=encoding or "latin-1", columns=names), dict[str, str]()
    if names:
        comments["columns"] = "the file names no columns: write their names"
    if encoding is None:
        comments["encoding"] = f'{SETTLE}: it can\'t be told; others are "cp1251", "cp437", "mac-roman"'
    elif encoding != "utf-8":
        comments["encoding"] = _explain_encoding(encoding)
    reader = _settle(reader, comments)
    words = _read_words(reader)
    gaps = tuple(
        word
        for word in GAP_WORDS
        if word not in reader.missing and any(word in own for own in words.values())
    )
    if gaps:
        reader = replace(reader, missing=(*reader.missing, *gaps))
    odd = [word for word in reader.missing[len(csv(path).missing) :] if word not in GAP_WORDS]
    if reader.missing != csv(path).missing:
        comments["missing"] = _explain_missing(odd)
    if reader.censored is not None:
        comments["censored"] = _explain_censored(words)
    forms = {
        name: found
        for name, own in words.items()
        if name not in reader.drop and (found := find_formats(own.difference(["", *reader.missing])))
    }
    if forms:
        reader = replace(reader, dates={name: found[0] for name, found in forms.items()})
        comments["dates"] = _explain_dates(forms)
    return reader, [(name, getattr(reader, name), comment) for name, comment in comments.items()]


def _settle(reader: csv, comments: dict[str, str]) -> csv:
    """Adds settings until a file can be read, and a comment on each. Raises: InvalidInput."""
    for _ in range(NUM_GUESSES):
        try:
            reader.rows(reader.path, None)
            break
        except NeedsSetting as error:
            settings = dict(error.settings)
            if not settings and "can't be told" not in str(error):
                raise
            if not settings:
                settings = _choose_comma(reader)
                if not settings.items() - {(name, getattr(reader, name)) for name in settings}:
                    raise
                comments |= dict.fromkeys(settings, f"{SETTLE}: {COMMAS[next(iter(settings))]}")
            elif "censored" in settings:
                settings = {"censored": "limit"}
            elif "1,234 is 1234 then" in str(error):
                comments |= dict.fromkeys(settings, f"{SETTLE}: {COMMAS['thousands']}")
            reader = replace(reader, **settings)
            comments |= {
                name: COMMENTS.get(name, "") for name in settings if SETTLE not in comments.get(name, "")
            }
    return reader


def _choose_comma(reader: csv) -> dict[str, str]:
    """Chooses what the comma in numbers such as 1,234 is, where the file does not tell."""
    with text_lines(reader.path, reader.encoding) as text:
        first = next((line for line in text if line.strip()), "")
    delimiter = reader.delimiter or max(DELIMITERS, key=first.count)
    return {"decimal": ","} if delimiter == ";" else {"thousands": ","}


COMMAS = {
    "decimal": '1,234 is read as 1.234; if it is 1234, write thousands = "," in place of decimal',
    "thousands": '1,234 is read as 1234; if it is 1.234, write decimal = "," in place of thousands',
}

COMMENTS = {
    "decimal": "the decimal point of the file's numbers: 3,5 is read as 3.5",
    "thousands": "between groups of three digits, as in 12 345 or 12.345",
    "drop": f"left out: {SETTLE}, they could not be read as numbers",
    "delimiter": "between cells",
}


def _read_words(reader: csv) -> dict[str, set[str]]:
    """Reads the distinct words, and numbers with a mark such as "<", of columns that are not just numbers."""
    raw = replace(reader, missing=(), censored=None)
    names = [*reader.rows(reader.path, None).columns]
    columns = replace(raw, categorical=tuple(name for name in names if name not in raw.drop)).rows(
        raw.path, None
    )
    found: dict[str, set[str]] = {}
    for name, column in columns.columns.items():
        if column.dtype.kind == "U":
            words = {str(word) for word in np.unique(column)}
            if not all(map(_is_number, words)):
                found[name] = words
    return found


def _is_number(word: str) -> bool:
    return re.fullmatch(r"[-+]?\d*[.,]?\d+", word) is not None


def _explain_encoding(encoding: str) -> str:
    if encoding == "cp1252":
        return 'Western European text; "latin-1" and "cp1250" are others: look at the words with accents'
    return "of the file's text, as the file's first bytes tell"


def _explain_missing(odd: Sequence[str]) -> str:
    if not odd:
        return "cells that are read as missing; take out a word that is a category of yours"
    words = ", ".join(map(_quote, odd))
    cure = "replace them in the file if they mean something"
    return f"{SETTLE}: {words} stood among numbers and are read as missing; {cure}"


def _explain_censored(words: Mapping[str, set[str]]) -> str:
    columns = {
        name: sorted(word for word in own if find_limit(word) is not None) for name, own in words.items()
    }
    some = "; ".join(
        f"{name}: {', '.join(map(_quote, own[:3]))}" + ", ..." * (len(own) > 3)
        for name, own in columns.items()
        if own
    )
    example = next((find_limit(own[0]) for own in columns.values() if own), "5")
    return (
        f'{SETTLE}: numbers behind < or > ({some}) become that limit, such as {example}; "half" halves a '
        'limit behind <, "missing" makes a gap; all parties need the same'
    )


def _explain_dates(forms: Mapping[str, Sequence[str]]) -> str:
    unsure = [name for name, found in forms.items() if {"%d/%m/%Y", "%m/%d/%Y"} <= {*found}]
    mark = (
        f'{SETTLE}: day and month of {", ".join(unsure)} can\'t be told apart, and "%m/%d/%Y" fits, too; '
        * bool(unsure)
    )
    return f"{mark}each becomes a number, the days since 2000-01-01; or drop the column"


def _quote(word: str) -> str:
    return json.dumps(word, ensure_ascii=False)


def _missing_names(path: str, encoding: str) -> tuple[str, ...]:
    """Makes up names for columns if the first line of a file holds data."""
    with text_lines(path, encoding) as text:
        first = next((line for line in text if line.strip()), "")
    cells = first.strip().split(max(DELIMITERS, key=first.count))
    if not any(re.fullmatch(r"[-+]?\d+(\.\d+)?", cell.strip()) for cell in cells):
        return ()
    return tuple(f"c{i}" for i in range(1, len(cells) + 1))
