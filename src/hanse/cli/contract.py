"""Questions about a client's own data, whose answers become its data contract."""

import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hanse.core import InvalidInput

if TYPE_CHECKING:
    from hanse.runs import Contract, Proposal, Wanted

__all__ = ["agree", "is_attended", "make_contract", "print_paragraph"]

WIDTH = 80


def is_attended() -> bool:
    """Returns whether somebody can answer questions: both input and output are a terminal's."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def print_paragraph(text: str, indent: str = "") -> None:
    """Prints a paragraph in lines of at most 80 columns."""
    for line in textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent + "  "):
        typer.echo(line)


def agree(news: Sequence[str]) -> bool:
    """Shows what is new in a plan, and asks whether to take part."""
    typer.echo("A plan that you have not approved yet. No data have been opened.\n")
    for line in news:
        typer.echo(line)
    typer.echo()
    return typer.confirm("Take part?")


def make_contract(
    folder: Path,
    source: str,
    test: str | None = None,
    wanted: "Wanted | None" = None,
    *,
    label: str | None = None,
    yes: bool = False,
    write: bool = True,
) -> "Contract":
    """Makes the contract of a client that has none: asks if somebody is there, or else takes the proposals.

    Args:
      folder: the client's.
      source: the file of data.
      test: a file of test examples.
      wanted: what the run wants; None: no run is known.
      label: the column to predict.
      yes: whether all proposals are accepted.
      write: whether the contract is written.

    Raises: InvalidInput: if the file can't be read, or nobody is there to settle a dangerous guess.
    """
    from hanse.runs import CONTRACT, propose

    file = folder / CONTRACT

    def look(label: str | None) -> "Proposal":
        found = propose(source, file, wanted, label)
        path = None if test is None else str(Path(test).absolute())
        return replace(found, contract=replace(found.contract, test=path))

    found = look(label)
    if is_attended() and not yes and write:
        contract = _ask(found, look, is_free=wanted is None)
    else:
        if found.unsure and not yes:
            raise InvalidInput(
                f"{found.contract.reader.path}: {found.unsure[0]}. Nobody is here to be asked, so {file} was "
                "not written: type the command at a terminal, accept the guess with --yes, or write the file "
                f"yourself: hanse init {source} --client --home {folder} --label COLUMN"
            )
        for line in found.notes:
            print_paragraph(line)
        contract = found.contract
    if write:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        contract.write()
        print_paragraph(f"wrote {file}: {_describe(contract)}")
    else:
        print_paragraph(f"there is no {file} yet; hanse join would write it: {_describe(contract)}")
    return contract


def _describe(contract: "Contract") -> str:
    """Describes a contract in a sentence."""
    from hanse.data import Tabular

    own = contract.reader
    if not isinstance(own, Tabular):
        return f"runs may use the arrays {own.x} and {own.y} of {own.path}"
    columns = [*own.numeric, *own.categorical]
    some = ", ".join(columns[:8]) + (f" and {len(columns) - 8} more" if len(columns) > 8 else "")
    return (
        f"runs may use {some or 'no column'}, and predict {', '.join(name for name in own.predicted if name)}"
    )


def _ask(found: "Proposal", look: Callable[[str | None], "Proposal"], is_free: bool) -> "Contract":
    """Shows what was found and asks what runs may use. Enter accepts a proposal."""
    from hanse.data import Tabular

    _show_found(found)
    own = found.contract.reader
    if isinstance(own, Tabular):
        if is_free and own.label is not None:
            label = _ask_column("Column to predict", own.label, found)
            if label != own.label:
                found = look(label)
                own = found.contract.reader
                assert isinstance(own, Tabular)
        elif own.label is not None:
            print_paragraph(f"The run predicts {own.label!r}.")
        chosen: dict[str, Any] = {}
        for option, words in (("numeric", "Columns of numbers"), ("categorical", "Columns of categories")):
            taken = (*own.predicted, own.group, *chosen.get("numeric", ()))
            question, proposed = f"{words} that runs may use", getattr(own, option)
            chosen[option] = _ask_columns(question, proposed, found, taken, are_numbers=option == "numeric")
        if not any(chosen.values()):
            raise InvalidInput("no column was allowed, so no run could use the data; nothing was written")
        gaps = [line for line in found.notes if " is empty in " in line]
        if gaps and own.incomplete == "refuse" and typer.confirm(f"{gaps[0]}. Leave them out?", default=True):
            chosen["incomplete"] = "skip"
        own = replace(own, **chosen)
    question = "Fewest rows; with fewer the file is taken to be broken"
    min_rows = _ask_number(question, found.contract.min_rows)
    test = found.contract.test
    if test is None:
        test = _ask_file("File of your own test examples")
    contract = replace(found.contract, reader=own, min_rows=min_rows, test=test)
    if not typer.confirm(f"Write {contract.file}?", default=True):
        raise InvalidInput("nothing was written, and nobody was joined")
    return contract


def _show_found(found: "Proposal") -> None:
    from hanse.network.protocol import printable

    typer.echo(f"{found.contract.reader.path}: {found.num_rows} rows")
    width = min(24, max(len(one.name) for one in found.columns))
    for one in found.columns[:MOST_COLUMNS]:
        odd = "  identifies rows or places?" if one.is_odd else ""
        line = f"  {one.name:<{width}.{width}}  {one.kind:<10}  {one.about}{odd}"
        typer.echo(printable(line)[:WIDTH].rstrip())
    if len(found.columns) > MOST_COLUMNS:
        typer.echo(f"  and {len(found.columns) - MOST_COLUMNS} more")
    if len(found.labels) > 1:
        print_paragraph(f"Could be predicted: {', '.join(found.labels[:8])}")
    for line in (*found.unsure, *found.notes):
        print_paragraph(f"- {line}")
    typer.echo()


MOST_COLUMNS = 40


def _ask_column(question: str, proposed: str, found: "Proposal") -> str:
    names = {one.name for one in found.columns}
    while (given := typer.prompt(question, default=proposed)) not in names:
        print_paragraph(f"there is no column {given!r}; write one of {', '.join(sorted(names))}")
    return str(given)


def _ask_number(question: str, proposed: int) -> int:
    given = ""
    while not given.isdecimal() or int(given) < 1:
        if given:
            print_paragraph("write a whole number from 1")
        given = str(typer.prompt(question, default=str(proposed))).strip()
    return int(given)


def _ask_file(question: str) -> str | None:
    """Asks for a file that exists; None: there is none."""
    while (given := typer.prompt(question, default="none")) != "none":
        if Path(given).is_file():
            return str(Path(given).absolute())
        print_paragraph(f"there is no file {given!r}; write a path, or none")
    return None


def _ask_columns(
    question: str,
    proposed: Sequence[str],
    found: "Proposal",
    taken: Sequence[str | None],
    *,
    are_numbers: bool,
) -> tuple[str, ...]:
    """Asks for names of columns, separated by commas, and again for those that seem to identify rows."""
    columns = {one.name: one for one in found.columns}

    def find_fault(name: str) -> str:
        if name not in columns:
            return f"{name!r} is not in the file"
        if name in taken:
            return f"{name!r} has another role already"
        is_text = are_numbers and columns[name].kind == "categories"
        return f"{name!r} holds words, no numbers" if is_text else ""

    default = ", ".join(proposed) or "none"
    while True:
        given = typer.prompt(question, default=default)
        if given == default:
            return tuple(proposed)
        said = (word.strip() for word in given.split(","))
        chosen = tuple(dict.fromkeys(word for word in said if word not in ("", "none")))
        if fault := next(filter(None, map(find_fault, chosen)), ""):
            print_paragraph(f"{fault}; write names of columns with commas between them, or none")
            continue
        odd = [name for name in chosen if columns[name].is_odd and name not in proposed]
        if all(typer.confirm(f"{name!r} seems to identify rows or places. Allow it?") for name in odd):
            return chosen
