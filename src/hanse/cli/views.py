"""Output in a terminal: progress and messages on stderr, tables on stdout."""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from hanse.cli.consoles import (
    Pairs,
    make_pairs,
    make_stderr,
    make_stdout,
    print_assessment,
    print_confusion,
    print_standing,
)
from hanse.columns import Columns
from hanse.config import summary
from hanse.core.exchange import Record, Watch
from hanse.evaluation import as_bytes, as_cell, as_number, as_seconds, spent_on, tell_clients, tell_target
from hanse.runs import sentences

if TYPE_CHECKING:
    from hanse.runs import Case, Exchange, MessagePlan, Replayed, Session
    from hanse.store import RunInfo

__all__ = [
    "case_page",
    "comparison",
    "complain",
    "draw",
    "note",
    "overview",
    "plan_page",
    "progress",
    "replay_page",
    "result_page",
    "run_page",
    "say",
    "thin",
]

LINES_EVERY_S = 2.0
"""The least seconds between two lines of redirected progress."""

NUM_ROWS = 21
"""The most rounds that `show` lists; of more, some are left out evenly."""

_STYLES = {
    "running": "cyan",
    **dict.fromkeys(("incomplete", "interrupted", "stopped"), "yellow"),
    "diverged": "red",
    "failed": "red",
}


# -- messages ----------------------------------------------------------------------------------


def say(message: str) -> None:
    """Prints a message on stderr."""
    make_stderr().print(Text(message), soft_wrap=True)


def note(message: str) -> None:
    """Prints a note on stderr."""
    make_stderr().print(Text.assemble(("Note: ", "bold yellow"), message), soft_wrap=True)


def complain(message: str, more: Iterable[str] = ()) -> None:
    """Prints an error, and where it happened."""
    make_stderr().print(Text.assemble(("Error: ", "bold red"), "\n".join([message, *more])), soft_wrap=True)


# -- progress ----------------------------------------------------------------------------------


@contextmanager
def progress(session: "Session") -> Iterator[Watch]:
    """Shows the progress of a run: a bar in a terminal, and elsewhere a line now and then."""
    console = make_stderr()
    shown = _bar(console, session) if console.is_terminal else _lines(session)
    with shown as watch:
        for record in session.records[-1:]:
            watch(record)
        yield watch


@contextmanager
def _bar(console: Console, session: "Session") -> Iterator[Watch]:
    columns = (
        TextColumn("{task.description}", style="dim"),
        BarColumn(bar_width=None),
        TextColumn("{task.completed}/{task.total}"),
        TextColumn("{task.fields[metrics]}"),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
    )
    with Progress(*columns, console=console, expand=True) as bar:
        task = bar.add_task(f"run {session.run}", total=session.experiment.rounds, metrics="")

        def watch(record: Record) -> None:
            bar.update(task, completed=min(record.round, session.experiment.rounds))
            if record.metrics:
                bar.update(task, metrics=_metrics(record.metrics))

        yield watch
        bar.update(task, total=bar.tasks[0].completed)  # the run may have stopped before its last round


@contextmanager
def _lines(session: "Session") -> Iterator[Watch]:
    began_s = time.monotonic()
    due_s, unsaid = began_s, ""

    def watch(record: Record) -> None:
        nonlocal due_s, unsaid
        now_s = time.monotonic()
        measured = f"  {_metrics(record.metrics)}" if record.metrics else ""
        rounds = session.experiment.rounds
        at = f"round {record.round}/{rounds}" if record.round <= rounds else "finish"
        unsaid = f"{at}{measured}  {now_s - began_s:.1f} s"
        if now_s >= due_s:
            print(unsaid, file=sys.stderr, flush=True)
            due_s, unsaid = now_s + LINES_EVERY_S, ""

    print(f"run {session.run}: {session.experiment}", file=sys.stderr, flush=True)
    try:
        yield watch
    finally:
        if unsaid:
            print(unsaid, file=sys.stderr, flush=True)


# -- pages -------------------------------------------------------------------------------------


def result_page(
    settings: Mapping[str, Any],
    result: Mapping[str, Any],
    also: Pairs = (),
    then: Sequence[str] = (),
    store: str = "",
) -> None:
    """Prints how a run ended: metrics, costs and what `also` says, and `then` what to type next.

    `store`: the option by which a command finds the run's store, if it needs one.
    """
    from hanse.runs import describe_liars

    out = make_stdout()
    out.print(Text(summary(settings), style="bold"))
    out.print(Padding(_outcome(result), (1, 0)))
    print_assessment(out, result)
    print_standing(out, result, comparison(settings, result) if result.get("baselines") else None)
    see = () if then else [("see", f"hanse show {result['run']}{store}")]
    liars = describe_liars((), result.get("adversary"))
    out.print(make_pairs((*_costs(result, settings), *liars, *also, *see)))
    for line in then:  # a command that is long is still one line to copy
        out.print(Text.assemble(("next        ", "dim"), line), soft_wrap=True)


def run_page(
    info: "RunInfo",
    records: Sequence[Record],
    sent: Mapping[str, Any] | None = None,
    claim: str | None = None,
    store: str = "",
) -> None:
    """Prints all that is known of a run: `sent`, the bytes of its clients, and `claim`, what it promises.

    `store`: the option by which a command finds the run's store, if it needs one.
    """
    from hanse.runs import describe_liars, describe_releases, describe_traffic

    out = make_stdout()
    settings = info.settings["experiment"]
    out.print(Text(summary(settings), style="bold"))
    began = info.created.astimezone().strftime("%Y-%m-%d %H:%M")
    head = [("run", f"{info.run}, begun {began}")]
    head += [("name", info.name)] if info.name is not None else []
    head += [("tags", " ".join(info.tags))] if info.tags else []
    head += list(_own_code(info.settings))
    standing = [("status", info.status), ("rounds", _of_rounds(info.rounds, settings))]
    result = standing if info.result is None else list(_costs(info.result, settings))
    can_go_on = info.status in ("interrupted", "stopped", "failed")
    back = [("go on", f"hanse resume {info.run}{store}")] if can_go_on else []
    out.print(Padding(make_pairs([*head, *result, *back]), (1, 0)))
    if (found := info.result) is not None:
        print_assessment(out, found)
        print_confusion(out, found)
        print_standing(out, found, comparison(settings, found) if found.get("baselines") else None)
    if records:
        out.print(_rounds(records))
        out.print()
        out.print(_ledger(records))
        out.print()
        out.print(
            make_pairs(("releases", words) for words in describe_releases(record.usage for record in records))
        )
        out.print(make_pairs([("privacy", claim)] if claim else []))
        out.print(make_pairs(describe_liars(records, (info.result or {}).get("adversary"))))
    if sent is not None:
        out.print(make_pairs([("bytes by client", describe_traffic(sent))]))
    out.print(make_pairs(info.environment.items()))


def _own_code(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields the modules of users that a run has imported, and the changes of them that were accepted."""
    for found in settings.get("imports", ()):
        yield "imports", f"{found['name']}, {found['kind']}, {found['digest']}"
    for entry in settings.get("accepted_imports", ()):
        said = "; ".join(f"{change['what']} ({change['now'][:14]}...)" for change in entry["changes"])
        yield "accepted", f"{said}, by {entry['command']} after round {entry['round']}, {entry['at']}"


def plan_page(settings: Mapping[str, Any], plan: "MessagePlan") -> None:
    """Prints what a run will send: each message by stage, then a round, then the run."""
    out = make_stdout()
    out.print(Text(summary(settings), style="bold"))
    out.print()
    varies = False
    for what, exchanges in (("", plan.later), (", to measure", plan.evaluation)):
        for exchange in exchanges:
            answer = (
                "" if exchange.answered == exchange.asked else f"; the server waits for {exchange.answered}"
            )
            out.print(Text(f"{exchange.work}{what}: one of {exchange.asked:,} clients{answer}"))
            out.print(Padding(_exchange(exchange), (0, 0, 1, 2)))
            if exchange.secure:
                out.print(Padding(Text(f"secure sum: {exchange.secure}"), (0, 0, 1, 2)))
            varies = varies or bool(exchange.varying)
    out.print(make_pairs(_format_plan(plan)))
    out.print(make_pairs([("privacy", f"as planned, {plan.claim}")] if plan.claim else []))
    out.print(make_pairs([("who sees what" if i == 0 else "", view) for i, view in enumerate(plan.views)]))
    if settings.get("adversary"):
        note("some clients lie in this run, as the settings of adversary say")
    if varies:
        note(f"* depends on the data; this is the size that client {plan.client} would send now")
    if plan.asynchronous:
        note("the server does not wait for all clients that it asked: a round is one of its steps")


def _exchange(exchange: "Exchange") -> Columns:
    from hanse.runs import ledger_table

    usage = exchange.usage
    heads, rows = ledger_table(usage.flows, usage.bytes_up, usage.bytes_down)
    marks = {stage for _, stage in exchange.varying}
    shown = [head for head in heads if head != "messages"]
    table = Columns(*shown, numbers=("bytes", "of raw"), folded=("", "stage"), first_out=("of raw",))
    for name, _, stage, *sizes in rows:
        table.add_row(name, f"{stage} *" if stage in marks else stage, *sizes)
    return table


def _format_plan(plan: "MessagePlan") -> Iterator[tuple[str, str]]:
    def line(bytes_up: float, bytes_down: float, seconds: float | None) -> str:
        took = "" if seconds is None else f", {as_seconds(seconds)} on the link"
        return f"{as_bytes(bytes_up)} up, {as_bytes(bytes_down)} down{took}"

    one, seconds = [e.usage for e in plan.later], plan.seconds(plan.later)
    up, down = sum(usage.bytes_up for usage in one), sum(usage.bytes_down for usage in one)
    yield "a round, each client", line(up, down, seconds)
    first = [e.usage for e in plan.first]
    begins = sum(usage.bytes_up for usage in first), sum(usage.bytes_down for usage in first)
    if any(abs(a - b) > 0.01 * b for a, b in zip(begins, (up, down), strict=True)):
        yield "its first round", line(*begins, plan.seconds(plan.first))
    up, down = sum(e.bytes_up for e in plan.later), sum(e.bytes_down for e in plan.later)
    yield "a round, all clients", line(up, down, None)
    yield f"the run, {plan.rounds:,} rounds", line(plan.total("up"), plan.total("down"), plan.run_s)
    if plan.evaluations:
        yield "measurements in it", f"{plan.evaluations:,}"
    computed = sum(e.compute_s for e in plan.later)
    yield "computing", f"not counted; client {plan.client} took {as_seconds(computed)} here"


def comparison(settings: Mapping[str, Any], result: Mapping[str, Any]) -> Columns:
    """Makes the table of a run beside its baselines."""
    from hanse.evaluation import table

    heads, rows = table(settings, result)
    shown = Columns(*heads, numbers=heads[1:])
    for row in rows:
        shown.add_row(*row)
    return shown


def case_page(case: "Case") -> None:
    """Prints a ticket that is about to be done again."""
    names = ", ".join(sorted(case.memory)) or "nothing"
    head = [("work", str(case.payload.work)), ("examples", f"{len(case.data):,}"), ("remembers", names)]
    lacks = [("not here", case.lacks)] if case.lacks else []
    out = make_stdout()
    out.print(Text(f"ticket {case.task.ticket} of {case.task.party}", style="bold"))
    out.print(make_pairs([*head, *lacks]))


def replay_page(done: "Replayed") -> None:
    """Prints the outcome of a ticket that was done again."""
    out = make_stdout()
    said = done.to_json()
    names, numbers = ("part", "weight", "tensor", "shape", "norm or value"), ("weight", "norm or value")
    table = Columns(*names, numbers=numbers, folded=("tensor",), first_out=("weight", "shape"))
    for name, part in said["parts"].items():
        for key, about in part["values"].items():
            shape = f"{about['dtype']} {tuple(about['shape'])}"
            size = about.get("norm", about.get("value"))
            weight = f"{part['weight']:g}"
            table.add_row(name, weight, key, shape, size if isinstance(size, str) else f"{size:.6g}")
    out.print(Padding(table, (1, 0)))
    then, now = done.case.sha256, done.sha256
    compared = "" if then is None else ", as it was sent" if then == now else f"; {then} was sent"
    message = f"{as_bytes(len(done.message))}, SHA-256 {now}{compared}"
    out.print(make_pairs([("message", message), ("remembers", ", ".join(sorted(done.memory)) or "nothing")]))


def draw(what: Any) -> None:
    """Prints anything that rich can show in a terminal."""
    console = make_stdout()
    if console.is_terminal:
        console.width = min(console.width, 120)
    console.print(what)


def overview(infos: Sequence["RunInfo"]) -> None:
    """Prints the runs in a store."""
    is_named, is_tagged = any(info.name for info in infos), any(info.tags for info in infos)
    called = (*(("name",) if is_named else ()), *(("tags",) if is_tagged else ()))
    names = ("run", *called, "begun", "status", "round", "final", "what")
    table = Columns(*names, numbers=("round",), folded=("what", "tags"), first_out=("begun", "round"))
    for info in infos:
        settings = info.settings["experiment"]
        what = " · ".join(settings[name]["name"] for name in ("algorithm", "model", "data"))
        table.add_row(
            info.run,
            *((info.name or "",) if is_named else ()),
            *((" ".join(info.tags),) if is_tagged else ()),
            info.created.astimezone().strftime("%m-%d %H:%M"),
            Text(info.status, style=_STYLES.get(info.status, "")),
            f"{min(info.rounds, settings['rounds'])}/{settings['rounds']}",
            _format_metric(settings["stop"]["metric"], (info.result or {}).get("final")),
            what,
        )
    make_stdout().print(table)


def _format_metric(metric: str, measured: Mapping[str, Any] | None) -> str:
    if not measured:
        return ""
    name = metric if metric in measured else next(name for name in measured if name != "round")
    return f"{name} {as_number(measured[name], '')}"


def _outcome(result: Mapping[str, Any]) -> Columns:
    rows = {word: dict(result[word]) for word in ("final", "best") if result[word]}
    metrics = list(dict.fromkeys(name for row in rows.values() for name in row if name != "round"))
    table = Columns("", "round", *metrics, numbers=("round", *metrics))
    for word, row in rows.items():
        table.add_row(word, str(row["round"]), *(as_cell(row, name) for name in metrics))
    return table


def _of_rounds(done: int, settings: Mapping[str, Any]) -> str:
    """Formats the rounds that are done; one more than the settings ask for is the algorithm's finish."""
    asked = settings["rounds"]
    return f"{asked} of {asked}, and the finish" if done > asked else f"{done} of {asked}"


def _costs(result: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    rounds, target = result["rounds"], result["rounds_to_target"]
    yield "status", _status(result)
    for line in sentences(result.get("findings", ())):
        yield "note", line
    abandoned = f", {result['rounds_abandoned']} abandoned" if result["rounds_abandoned"] else ""
    yield "rounds", f"{_of_rounds(rounds, settings)}{abandoned}"
    yield from tell_target(settings, result, target)
    yield "bytes up", _per_round(as_bytes, result["bytes_up"], rounds)
    yield "bytes down", _per_round(as_bytes, result["bytes_down"], rounds)
    yield from tell_clients(settings, result)
    yield "time", _per_round(as_seconds, result["seconds"], rounds)
    if result.get("spent"):
        yield "spent on", spent_on(result)
    yield "sha256", result["params_sha256"]


def _ledger(records: Sequence[Record]) -> Columns:
    """Makes the table of the bytes sent, raw and after each stage."""
    from hanse.runs import flows_of, ledger_table

    usages = [record.usage for record in records]
    up, down = sum(usage.bytes_up for usage in usages), sum(usage.bytes_down for usage in usages)
    heads, rows = ledger_table(flows_of(usages), up, down)
    numbers = ("messages", "bytes", "of raw")
    shown = Columns(*heads, numbers=numbers, folded=("", "stage"), first_out=("messages",))
    for row in rows:
        shown.add_row(*row)
    return shown


def _status(result: Mapping[str, Any]) -> str:
    status, reason = result["status"], result["reason"] or ""
    if reason.startswith(status):
        return str(reason)
    return f"{status}: {reason}" if reason else str(status)


def _rounds(records: Sequence[Record]) -> Columns:
    """Makes the table of rounds; of many, some that are evenly spread, and the last."""
    metrics = tuple(dict.fromkeys(name for record in records for name in record.metrics))
    names = ("round", *metrics, "clients", "dropped", "bytes up", "bytes down", "time")
    table = Columns(*names, numbers=names, first_out=("dropped", "time", "clients"))
    for record in thin(records, NUM_ROWS):
        usage = record.usage
        measured = [as_number(record.metrics.get(name), "") for name in metrics]
        counts = [
            str(usage.counted),
            str(usage.dropped),
            as_bytes(usage.bytes_up),
            as_bytes(usage.bytes_down),
        ]
        table.add_row(str(record.round), *measured, *counts, as_seconds(record.seconds))
    return table


def thin(records: Sequence[Record], most: int) -> list[Record]:
    """Returns every round, or every 2nd, 5th, 10th, 20th ... so that few enough are left; and the last."""
    steps = (digit * 10**power for power in range(20) for digit in (1, 2, 5))
    step = next(step for step in steps if len(records) <= step * most)
    return [record for record in records[:-1] if record.round % step == 0] + list(records[-1:])


# -- numbers -----------------------------------------------------------------------------------


def _metrics(metrics: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {as_number(metric, '')}" for name, metric in metrics.items())


def _per_round(word: Any, total: float, rounds: int) -> str:
    return f"{word(total)}, {word(total / rounds)} a round" if rounds else str(word(total))
