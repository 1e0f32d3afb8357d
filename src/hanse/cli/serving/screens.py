"""The screen of `hanse serve`: a live table where there is a terminal, else a line for each round.

Runs have threads of their own, which never wait for a terminal or a pipe: what they say is put into a queue,
and the thread that opened the screen writes it.
"""

import json
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from hanse.cli.consoles import make_stdout
from hanse.cli.views import result_page
from hanse.columns import Columns
from hanse.evaluation import as_bytes, as_number, as_seconds

if TYPE_CHECKING:
    from hanse.network.server import RoundReport, RunEnd, RunStanding

__all__ = ["LineScreen", "Screen", "TableScreen", "open_screen"]

NUM_ROUNDS = 8
"""The last rounds that the live table lists."""

LOOK_S = 1.0
"""The seconds after which the live table looks again how far the runs are."""


class Screen:
    """The screen of an operator. All but `say` and `report` are called by the thread that made it.

    Args:
      home: the server's folder.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self._queue: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._owner = threading.get_ident()

    def say(self, line: str) -> None:
        """Shows a line as soon as possible. Any thread may call this, and none waits."""
        self._queue.put(line)
        if threading.get_ident() == self._owner:
            self._write_lines()

    def report(self, report: "RoundReport") -> None:
        """Takes the report of a round. Any thread may call this, and none waits."""
        raise NotImplementedError

    def watch(self, find: "Callable[[], Sequence[RunStanding]]") -> None:
        """Shows what is new; called a few times a second. `find`: says how far the runs are."""
        self._write_lines()

    def conclude(self, end: "RunEnd") -> None:
        """Shows how a run has ended."""
        raise NotImplementedError

    def close(self) -> None:
        """Shows what is left."""
        self._write_lines()

    def _write_lines(self) -> None:
        while not self._queue.empty():
            self._write(self._queue.get())

    def _write(self, line: str) -> None:
        typer.echo(line)

    def _list_next(self, run: str) -> list[str]:
        store = f"--store {self.home / 'runs.db'}"
        return [f"hanse show {run} {store}", f"hanse release {run} --to model {store}"]


class LineScreen(Screen):
    """Lines for a file, a pipe or a journal."""

    def report(self, report: "RoundReport") -> None:
        self.say(f"run {report.run}: {describe_round(report)}")

    def conclude(self, end: "RunEnd") -> None:
        said = json.dumps(end.result) if end.result else end.reason
        self.say(f"run {end.run}: {end.status} {said}".rstrip())
        for found in end.result.get("findings", ()):
            self.say(f"run {end.run}: {found['text']}; {found['cure']}")
        if end.counted:
            self.say(f"run {end.run}: counted {describe_attendance(end)}")
        if end.is_over:
            self.say(f"next: {'; '.join(self._list_next(end.run))}")


class TableScreen(Screen):
    """A live table on a terminal, below the lines that stay."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self._console = make_stdout()
        self._live: Live | None = None
        self._rounds: dict[str, deque[RoundReport]] = {}
        self._standings: Sequence[RunStanding] = ()
        self._looked_s, self._is_new = 0.0, False

    def report(self, report: "RoundReport") -> None:
        self._rounds.setdefault(report.run, deque(maxlen=NUM_ROUNDS)).append(report)
        self._is_new = True
        if report.missed or report.abandoned is not None:  # who, and why, stays to be read
            self.say(f"run {report.run}: {describe_round(report)}")

    def watch(self, find: "Callable[[], Sequence[RunStanding]]") -> None:
        now_s = time.monotonic()
        if self._live is None or self._is_new or now_s - self._looked_s > LOOK_S:
            self._is_new, self._looked_s = False, now_s
            self._standings = find()
        if self._live is None:
            self._live = Live(
                get_renderable=self._draw,
                console=self._console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=sys.stderr.isatty(),
            )
            self._live.start()
        super().watch(find)
        self._live.refresh()

    def conclude(self, end: "RunEnd") -> None:
        self._stop()
        if "params_sha256" not in end.result or "experiment" not in end.settings:
            self.say(f"run {end.run}: {end.status} {end.reason}".rstrip())
            return
        counted = [("counted", describe_attendance(end))] if end.counted else []
        then = self._list_next(end.run) if end.is_over else ["serve the same settings again to go on"]
        result_page(end.settings["experiment"], end.result, counted, then)

    def close(self) -> None:
        self._stop()
        super().close()

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._write_lines()

    def _write(self, line: str) -> None:
        if all(line != f"run {one.run}: {one.doing}" for one in self._standings):  # the table shows it
            self._console.print(Text(line), soft_wrap=True)

    def _draw(self) -> RenderableType:
        parts: list[RenderableType] = []
        for one in self._standings:
            parts += [Text(line, style) for line, style in _describe_run(one)]
            rounds = list(self._rounds.get(one.run, ()))
            if rounds:
                parts.append(_tabulate(rounds, one.metric))
        return Group(*parts)


@contextmanager
def open_screen(home: Path) -> "Iterator[Screen]":
    """Opens the screen that suits standard output."""
    screen = TableScreen(home) if make_stdout().is_terminal else LineScreen(home)
    try:
        yield screen
    finally:
        screen.close()


def _describe_run(one: "RunStanding") -> Iterator[tuple[str, str]]:
    of = "" if one.num_rounds is None else f" of {one.num_rounds}"
    metrics = "".join(f", {name} {as_number(metric, '')}" for name, metric in one.metrics.items())
    yield f"run {one.run}: {one.status}, {one.round}{of} rounds{metrics}", "bold"
    since = "the last round" if one.round or one.metrics else "the beginning"
    yield f"{one.doing}; {as_seconds(one.round_s)} since {since}", ""
    yield one.describe_members(), ""
    yield f"{as_bytes(one.bytes_up)} up, {as_bytes(one.bytes_down)} down so far", "dim"


def _tabulate(rounds: "Sequence[RoundReport]", metric: str) -> Columns:
    measured = [name for report in rounds[::-1] for name in report.metrics]
    metric = metric if metric in measured else next(iter(measured), "metric")
    names = ("round", metric, "counted", "missing", "late", "refused", "up", "down", "time")
    least = ("down", "up", "late", "time")
    table = Columns(*names, numbers=names, first_out=least, remedy="widen the window")
    for report in rounds:
        counts = ["", "", "", ""]
        if report.num_counted is not None:
            total = report.num_counted + len(report.missed)
            others = (report.missing, report.late, report.refused)
            counts = [f"{report.num_counted} of {total}", *(str(len(some) or "") for some in others)]
        if report.abandoned is not None:
            counts[0] = "abandoned"
        sizes = [as_bytes(report.bytes_up), as_bytes(report.bytes_down), as_seconds(report.seconds)]
        table.add_row(str(report.round), as_number(report.metrics.get(metric), ""), *counts, *sizes)
    return table


def describe_round(report: "RoundReport") -> str:
    """Describes a round in a line: who was counted, metrics, bytes and time."""
    abandoned = "" if report.abandoned is None else f"was abandoned: {report.abandoned}"
    metrics = ", ".join(f"{name} {as_number(metric, '')}" for name, metric in report.metrics.items())
    sent = f"{as_bytes(report.bytes_up)} up, {as_bytes(report.bytes_down)} down"
    said = (abandoned, report.describe_counts(), metrics, sent, as_seconds(report.seconds))
    return f"round {report.round} {'; '.join(filter(None, said))}"


def describe_attendance(end: "RunEnd") -> str:
    """Describes in how many rounds each client was counted.

    Many clients that were counted in all of their rounds are not named.
    """
    few = {party: both for party, both in end.counted.items() if both[0] < both[1]}
    shown = end.counted if len(end.counted) <= MOST_NAMED else dict(list(few.items())[:MOST_NAMED])
    words = [f"{end.describe(party)} in {both[0]} of {both[1]} rounds" for party, both in shown.items()]
    num_more = len(end.counted) - len(shown)
    return ", ".join([*words, *([f"{num_more} more"] if num_more else [])])


MOST_NAMED = 20
"""The most clients that a result names."""
