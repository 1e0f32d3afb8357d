"""The text of a first settings file: guesses as TOML, with a comment on each."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from hanse.config.guesses import SETTLE, Said
from hanse.config.plain_data import as_key
from hanse.config.writing import inline

__all__ = ["Guess", "starting_file"]


@dataclass(frozen=True)
class Guess:
    """A guess at the contents of a file.

    Args:
      data: settings of the data set, with a comment on each; a mapping stands for a list, with a comment on
        each entry.
      key: whether a column names the party that each row belongs to.
      num_parties: the number of these parties.
      is_number: whether the value to predict is a number.
      columns: a list of the columns, for a comment.
      parties: settings of the file of each party, where each has one.
    """

    data: Sequence[Said]
    key: bool
    num_parties: int
    is_number: bool
    columns: str = ""
    parties: Mapping[str, Sequence[Said]] = field(default_factory=dict)


def starting_file(guess: Guess) -> str:
    """Writes the settings as TOML with comments."""
    return "\n".join(_lines(guess)) + "\n"


def _lines(guess: Guess) -> Iterator[str]:
    few = guess.key and guess.num_parties <= 20
    yield from (
        "# A first run on your data. A setting that is left out has its default; --set changes any of them.",
        f"# Each guess has a comment. Where it says {SETTLE}, only you can know: confirm or change the guess",
        "# and remove the two words. Until then hanse data describe lists it.",
        "",
        "rounds = 50            # at most; with [stop] it may end sooner",
        "seed = 0               # decides every draw: the same seed gives the same bits",
        'baselines = ["centralised", "on_site"]   # what the run is compared with; [] for none',
    )
    if not guess.key or guess.parties:
        yield "client_test_fraction = 0.2   # each client keeps some examples to test on"
    yield from ("", "[data]")
    if guess.columns:
        yield f"# Columns: {_one_line(guess.columns)}"
    yield from _settings(guess.data)
    for name, own in guess.parties.items():
        yield from ("", f"[data.parties.{as_key(name)}]")
        yield from _settings(own)
    yield from ("", "[partition]             # which client has which rows")
    if guess.key:
        yield f'name = "by_key"         # one client for each of the {guess.num_parties} parties'
    else:
        yield from (
            'name = "dirichlet"      # no column names a party: clients that differ are made up'
            if not guess.is_number
            else 'name = "iid"            # no column names a party: clients are made up',
            "num_clients = 10",
        )
        if not guess.is_number:
            yield "alpha = 0.5             # a smaller alpha makes their labels differ more"
    yield from ("", "[model]")
    yield (
        'name = "least_squares"'
        if guess.is_number
        else 'name = "softmax"         # for any number of classes'
    )
    yield "l2 = 1e-4               # regulariser"
    yield from (
        "",
        "[algorithm]",
        'name = "fed_avg"',
        f"lr = {0.02 if guess.is_number else 0.1}                # the clients' step size: vary this first",
        f"fraction = {1.0 if few or not guess.key else 0.2}          # the share of clients in each round",
        "epochs = 1              # local passes over the data",
        "batch_size = 32",
    )


def _settings(lines: Sequence[Said]) -> Iterator[str]:
    """Writes settings, and lists with a comment on each entry."""
    for name, said, comment in lines:
        behind = f"   # {_one_line(comment)}" if comment else ""
        if not isinstance(said, dict) or name == "dates":
            yield f"{name} = {inline(said)}{behind}"
            continue
        yield f"{name} = [{behind}"
        yield from (f"  {inline(entry)},   # {_one_line(why)}" for entry, why in said.items())
        yield "]"


def _one_line(words: str) -> str:
    """Writes a comment that no line end or control character cuts."""
    short = words if len(words) < 400 else words[:397] + "..."
    return re.sub(r"[\x00-\x1f\x7f]", lambda found: json.dumps(found[0])[1:-1], short)
