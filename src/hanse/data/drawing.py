"""A drawing of a description in the terminal: sizes and labels as bars."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from hanse.columns import Columns
from hanse.core import Array

__all__ = ["drawn"]

MAX_ROWS, MAX_LABELS, BAR = 20, 24, 12
EIGHTHS = " ▏▎▍▌▋▊▉█"
HEIGHTS = " ▁▂▃▄▅▆▇█"


class Described(Protocol):
    """The part of a `Description` that a drawing reads."""

    @property
    def num_clients(self) -> int: ...
    @property
    def num_test(self) -> int: ...
    @property
    def names(self) -> Sequence[str]: ...
    @property
    def labels(self) -> Sequence[str]: ...
    @property
    def columns(self) -> Sequence[str]: ...
    @property
    def feature_shape(self) -> Sequence[int]: ...
    @property
    def clients(self) -> Array: ...
    @property
    def counts(self) -> Array: ...
    @property
    def mixtures(self) -> Array: ...
    @property
    def sizes(self) -> Array: ...
    @property
    def test_sizes(self) -> Array: ...
    def summary(self) -> Mapping[str, float]: ...


def drawn(found: Described) -> RenderableType:
    """Draws totals, then clients x labels: a higher bar is a larger share of the client's examples.

    Of many clients it shows some, from the largest to the smallest; of many labels, the most frequent.
    """
    return Group(*_headlines(found), Text(), _grid(found), _legend(found))


def _headlines(found: Described) -> list[Text]:
    sums = found.summary()
    tested = int(sums["num_tested_clients"])
    parts = [
        _many(found.num_clients, "client"),
        _many(int(sums["num_examples"]), "example"),
        _many(len(found.labels), "label"),
        _many(len(found.columns), "column") if found.columns else f"features {_product(found.feature_shape)}",
        f"test set {found.num_test:,}" if found.num_test else "no test set",
        *([f"{tested:,} with tests of their own"] if tested else []),
        *([f"{len(found.clients):,} looked at"] if len(found.clients) < found.num_clients else []),
    ]
    spread = f"{sums['smallest']:,.0f} to {sums['largest']:,.0f}, median {sums['median']:,.0f}"
    skews = f"label skew {sums['label_skew']:.2f}, size skew {sums['size_skew']:.2f}"
    return [
        Text(" · ".join(parts), style="bold"),
        Text(f"examples a client: {spread}  ").append(_histogram(found.sizes)),
        Text(f"{skews} (0: all alike, 1: most unlike)"),
    ]


def _many(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _product(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "1"


def _histogram(sizes: Array) -> Text:
    """Draws the number of clients by how many examples they have, from few to many."""
    counts, _ = np.histogram(sizes, bins=min(24, max(1, int(np.ptp(sizes)) + 1)))
    levels = np.ceil(counts / counts.max() * (len(HEIGHTS) - 1)).astype(int)
    return Text("".join(HEIGHTS[level] for level in levels), style="cyan")


def _grid(found: Described) -> Columns:
    labels = _chosen_labels(found)
    mixtures, largest = found.mixtures[:, labels], _largest_share(found)
    tested = ["tests"] if found.test_sizes.any() else []
    grid = Columns(
        "client", "examples", "", "labels", *tested,
        numbers=("examples", "tests"), folded=("client",), first_out=("", "tests", "labels"),
    )  # fmt: skip
    for row in _chosen_rows(found).tolist():
        tests = [f"{found.test_sizes[row]:,}"] if tested else []
        bar = _bar(found.sizes[row] / found.sizes.max())
        shares = _columns(mixtures[row] / largest)
        grid.add_row(Text(found.names[row]), f"{found.sizes[row]:,}", bar, shares, *tests)
    whole = found.counts.sum(axis=0)[labels] / found.counts.sum()
    grid.add_row(Text("all", style="dim"), f"{found.sizes.sum():,}", "", _columns(whole / largest))
    return grid


def _largest_share(found: Described) -> float:
    """Returns the largest share of a label in a client, among the labels and clients that are shown."""
    return float(found.mixtures[np.ix_(_chosen_rows(found), _chosen_labels(found))].max())


def _chosen_rows(found: Described) -> Array:
    """Returns the positions of the clients to show."""
    number = len(found.clients)
    if number <= MAX_ROWS:
        return np.arange(number)
    by_size = np.argsort(-found.sizes, kind="stable")
    return np.asarray(by_size[np.linspace(0, number - 1, MAX_ROWS).astype(int)])


def _chosen_labels(found: Described) -> Array:
    if len(found.labels) <= MAX_LABELS:
        return np.arange(len(found.labels))
    return np.sort(np.argsort(-found.counts.sum(axis=0), kind="stable")[:MAX_LABELS])


def _bar(share: float) -> Text:
    eighths = round(share * BAR * 8)
    return Text("█" * (eighths // 8) + EIGHTHS[eighths % 8].strip(), style="cyan")


def _columns(shares: Array) -> Text:
    """Draws one column a label; a share that is not 0 is always visible."""
    top = len(HEIGHTS) - 1
    levels = np.where(shares > 0, np.clip(np.rint(shares * top), 1, top), 0).astype(int)
    wide, gap = (2, " ") if len(shares) <= 8 else (1, " " if len(shares) <= 16 else "")
    return Text(
        gap.join((HEIGHTS[level] if level else "·") * wide for level in levels.tolist()), style="green"
    )


def _legend(found: Described) -> Text:
    labels = _chosen_labels(found)
    names = ", ".join(found.labels[i] for i in labels.tolist())
    some = "" if len(labels) == len(found.labels) else f" (the {len(labels)} most frequent)"
    height = f"height: share in the client's examples; █ is {_largest_share(found):.0%}, · none"
    return Text(f"labels, left to right{some}: {names}\n{height}", style="dim")
