"""Guesses at how a file of text is read, with a comment on each."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from hanse.config.words import (
    find_gap_codes,
    find_units,
    find_variants,
    is_grouped_by_points,
    is_pointed,
    seem_codes,
)
from hanse.data import (
    NeedsSetting,
    csv,
    find_date_in_numbers,
    find_formats,
    find_limit,
    part_dates,
    read_bytes,
    read_names,
    read_words,
    tell_encoding,
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
        f"{file}, line {number}: {line.partition('#')[0].strip().rstrip(',')}: "
        f"{said.strip().removeprefix(SETTLE + ': ')}"
        for number, line in enumerate(lines, start=1)
        if not line.startswith("#") and SETTLE in (said := line.partition("#")[2])
    ]


def guess_reader(path: str) -> tuple[csv, list[Said]]:
    """Chooses settings that read a file, as the messages about it ask for; returns them with comments.

    A mapping in place of a list has a comment on each entry.

    Raises: InvalidInput: if no setting reads it.
    """
    encoding = tell_encoding(read_bytes(path))
    reader, comments = csv(path, encoding=encoding or "latin-1"), dict[str, str]()
    names = _missing_names(reader)
    if names:
        reader = replace(reader, columns=names)
        comments["columns"] = "the file names no columns: write their names"
    if encoding is None:
        comments["encoding"] = f'{SETTLE}: it can\'t be told; others are "cp1251", "cp437", "mac-roman"'
    elif encoding != "utf-8":
        comments["encoding"] = _explain_encoding(encoding)
    reader = _settle(reader, comments)
    written = read_words(reader)
    kinds = _kinds(reader)
    reader = _guess_points(reader, written, kinds, comments)
    reader = _guess_gaps(reader, written, kinds, comments)
    kinds = _kinds(reader)
    gaps = ("", *reader.missing)
    words = {name: own.difference(gaps) for name, own in written.items() if name not in reader.drop}
    if reader.censored is not None:
        comments["censored"] = _explain_censored(words)
    reader, unreadable = _guess_dates(reader, words, kinds, comments)
    reader, categories = _guess_categories(reader, words, kinds)
    unreadable |= {name: _explain_unread(name, written[name].difference(gaps)) for name in reader.drop}
    reader = replace(reader, drop=tuple(unreadable))
    said: list[Said] = [
        (name, getattr(reader, name), comment)
        for name, comment in comments.items()
        if name not in ("drop", "categorical")
    ]
    said += [
        (name, reasons, "")
        for name, reasons in (("drop", unreadable), ("categorical", categories))
        if reasons
    ]
    return reader, said


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


Words: TypeAlias = Mapping[str, set[str]]
"""The distinct cells of each column, as they are written."""


def _kinds(reader: csv) -> Mapping[str, str]:
    """Reads which columns hold numbers, "f", and which words, "U"."""
    return {name: column.dtype.kind for name, column in reader.rows(reader.path, None).columns.items()}


def _guess_points(reader: csv, words: Words, kinds: Mapping[str, str], comments: dict[str, str]) -> csv:
    """Decides what the point in numbers such as 1.234 is, where nothing else in the file tells."""
    if not reader.separators.are_plain or read_names(reader)[1] == ",":
        return reader
    numbers = {name: words[name] for name, kind in kinds.items() if kind == "f"}
    pointed = {
        word
        for name, own in numbers.items()
        if name not in reader.drop and find_date_in_numbers(own.difference(["", *reader.missing])) is None
        for word in own
        if "." in word and word not in reader.missing
    }
    if not is_grouped_by_points(pointed):
        return reader
    word = min(pointed)
    comments["decimal"] = COMMENTS["decimal"]
    comments["thousands"] = (
        f"{SETTLE}: {word} is read as {word.replace('.', '')}; if it is a number with three decimals, remove "
        "the lines decimal and thousands"
    )
    return replace(reader, decimal=",", thousands=".")


def _guess_gaps(reader: csv, words: Words, kinds: Mapping[str, str], comments: dict[str, str]) -> csv:
    """Finds words and numbers that stand for a missing value."""
    default = csv(reader.path).missing
    own = [words[name] for name in words if name not in reader.drop]
    gaps = [word for word in GAP_WORDS if word not in reader.missing and any(word in one for one in own)]
    codes = dict[str, list[str]]()
    for name, one in words.items():
        if kinds.get(name) == "f" and name not in reader.drop:
            plain = {reader.separators.to_plain(word) or "": word for word in one.difference(reader.missing)}
            for code in find_gap_codes([w for w in plain if re.fullmatch(r"[-+]?\d+(\.\d*)?", w)]):
                codes.setdefault(plain[code], []).append(name)
    codes = {  # a gap in one column is a gap in all, so the number must mean nothing elsewhere
        code: names
        for code, names in codes.items()
        if all(code not in one or name in names or kinds.get(name) == "U" for name, one in words.items())
    }
    reader = replace(reader, missing=(*reader.missing, *gaps, *codes))
    if reader.missing != default:
        odd = [word for word in reader.missing[len(default) :] if word not in (*GAP_WORDS, *codes)]
        comments["missing"] = _explain_missing(odd, codes)
    return reader


def _guess_dates(
    reader: csv, words: Words, kinds: Mapping[str, str], comments: dict[str, str]
) -> tuple[csv, dict[str, str]]:
    """Finds columns of dates; returns also those that should be dates and can't be read, with the reason."""
    forms, marks, unreadable, odd = dict[str, str](), list[str](), dict[str, str](), list[str]()
    for name, kind in kinds.items():
        if name not in words or not words[name]:
            continue
        if kind == "f":
            form = find_date_in_numbers(words[name])
            if form is not None:
                forms[name] = form
                marks.append(f"{min(words[name])} in {name} could be a number, too: then take {name} out")
            continue
        found = find_formats(words[name])
        if found:
            forms[name] = found[0]
            if {"%d/%m/%Y", "%m/%d/%Y"} <= {*found}:
                marks.append(f'day and month of {name} can\'t be told apart, and "%m/%d/%Y" fits, too')
            continue
        parted = part_dates(words[name])
        if parted is None:
            continue
        form, rest = parted
        some = ", ".join(map(_quote, rest[:3]))
        if len(rest) <= MAX_ODD and not any(map(find_formats, ([word] for word in rest))):
            forms[name] = form
            odd += rest
        else:
            unreadable[name] = (
                f"{SETTLE}: most cells are dates of the form {form}, but not {some}; write all in one form"
            )
    if odd:
        said = f"{SETTLE}: {', '.join(map(_quote, odd))} stood among dates and are read as missing"
        comments["missing"] = "; ".join(
            [said, *filter(None, [comments.get("missing", "").replace(f"{SETTLE}: ", "")])]
        )
        reader = replace(reader, missing=(*reader.missing, *odd))
    if forms:
        comments["dates"] = f"{SETTLE}: {'; '.join(marks)}; " * bool(marks) + DAYS
    return replace(reader, dates=forms), unreadable


DAYS = "each becomes a number, the days since 2000-01-01; or drop the column"
MAX_ODD = 5
"""Words among dates that are read as missing are at most so many."""


def _guess_categories(reader: csv, words: Words, kinds: Mapping[str, str]) -> tuple[csv, dict[str, str]]:
    """Finds columns whose cells may mean something else than categories or numbers, with the reason."""
    reasons = {}
    for name, kind in kinds.items():
        own = words.get(name, set())
        if name in reader.dates or not own:
            continue
        code = seem_codes(own) if kind == "f" else None
        units, variants = (find_units(own), find_variants(own)) if kind == "U" else ((), ())
        if code is not None:
            reasons[name] = (
                f"{SETTLE}: cells such as {_quote(code)} look like codes; if they are numbers, take it out"
            )
        elif units:
            reasons[name] = (
                f"{SETTLE}: numbers with a unit ({', '.join(map(_quote, units))}) are words; write numbers "
                "of one unit alone, to use them as numbers"
            )
        elif kind == "U" and reader.decimal == "," and all(map(is_pointed, own)):
            reasons[name] = (
                f"{SETTLE}: numbers with a point, such as {_quote(min(own))}, are words where the file's "
                "numbers have a comma; write them alike, to use them as numbers"
            )
        elif variants:
            reasons[name] = (
                f"{SETTLE}: {' and '.join(map(_quote, variants))} seem to mean the same; write them alike"
            )
        elif name in reader.categorical:
            reasons[name] = f"{SETTLE}: numbers and words, which are read as categories"
    return replace(reader, categorical=tuple(reasons)), reasons


def _explain_unread(name: str, words: set[str]) -> str:
    if re.fullmatch(r"column \d+", name):
        return "it has no name"
    odd = [word for word in sorted(words) if re.fullmatch(r"[-+]?[\d.,]+", word) is None]
    shown = f", such as {', '.join(map(_quote, odd[:3]))}" * bool(odd)
    return f"{SETTLE}: some cells are no numbers{shown}; mend it, or keep it by categorical"


def _choose_comma(reader: csv) -> dict[str, str]:
    """Chooses what the comma in numbers such as 1,234 is, where the file does not tell."""
    return {"decimal": ","} if read_names(reader)[1] == ";" else {"thousands": ","}


COMMAS = {
    "decimal": '1,234 is read as 1.234; if it is 1234, write thousands = "," in place of decimal',
    "thousands": '1,234 is read as 1234; if it is 1.234, write decimal = "," in place of thousands',
}

COMMENTS = {
    "decimal": "the decimal point of the file's numbers: 3,5 is read as 3.5",
    "thousands": "between groups of three digits, as in 12 345 or 12.345",
    "delimiter": "between cells",
    "comment": f"{SETTLE}: lines that begin so are left out; is none of them a row?",
}


def _explain_encoding(encoding: str) -> str:
    if encoding == "cp1252":
        return 'Western European text; "latin-1" and "cp1250" are others: look at the words with accents'
    return "of the file's text, as the file's first bytes tell"


def _explain_missing(odd: Sequence[str], codes: Mapping[str, Sequence[str]]) -> str:
    told = [f"{', '.join(map(_quote, odd))} stood among numbers"] if odd else []
    told += [f"{code} lies far from the other numbers of {', '.join(names)}" for code, names in codes.items()]
    if not told:
        return "cells that are read as missing; take out a word that is a category of yours"
    return f"{SETTLE}: {'; '.join(told)}: read as missing; take out what means something, and mend the file"


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


def _quote(word: str) -> str:
    return json.dumps(word, ensure_ascii=False)


def _missing_names(reader: csv) -> tuple[str, ...]:
    """Makes up names for columns if the first line of a file holds data."""
    first, delimiter = read_names(reader)
    cells = first.strip().split(delimiter)
    if not any(re.fullmatch(r"[-+]?\d+(\.\d+)?", cell.strip()) for cell in cells):
        return ()
    return tuple(f"c{i}" for i in range(1, len(cells) + 1))
