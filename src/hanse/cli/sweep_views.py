"""Output of a sweep in a terminal: its progress on stderr, the comparison on stdout."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from hanse.cli.consoles import make_stderr, make_stdout
from hanse.cli.views import note
from hanse.columns import Columns
from hanse.evaluation import as_bytes, as_number, as_seconds
from hanse.runs import ENDED
from hanse.sweeps import RunOutcome, Seen, Setting, Spread, SweepPlan, SweepResult, bare, is_success, short

__all__ = ["sweep_page", "sweep_progress"]

LINES_EVERY_S = 30.0
"""The most seconds between two lines of redirected progress."""

NEGLIGIBLE = 1e-3
"""The share of the mean below which the spread of a cost is left out; --json shows it."""

REMEDY = "widen the window, or write --csv FILE"

NUM_FAILURES = 10
"""The most failures that are listed in full."""


# -- progress ----------------------------------------------------------------------------------


@contextmanager
def sweep_progress(plan: SweepPlan) -> Iterator[Seen]:
    """Shows the progress of a sweep: a bar in a terminal, and elsewhere a line for each run that ends."""
    for message in plan.notes:
        note(message)
    console = make_stderr()
    shown = _bar(console, plan) if console.is_terminal else _lines(plan)
    try:
        with shown as seen:
            yield seen
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; the store keeps what was done: sweep again to go on") from None


def _headline(plan: SweepPlan) -> str:
    num_settings = len(plan.members) // len(plan.sweep.seeds)
    there = len(plan.members) - len(plan.due)
    counts = f"{_many(num_settings, 'setting')} x {_many(len(plan.sweep.seeds), 'seed')}"
    return f"sweep: {counts} = {_many(len(plan.members), 'run')}" + (
        f", {there} done before" if there else ""
    )


def _many(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")


@contextmanager
def _bar(console: Console, plan: SweepPlan) -> Iterator[Seen]:
    columns = (
        TextColumn("{task.description}", style="dim"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[counts]}"),
        TimeElapsedColumn(),
    )
    due, lengths = plan.due, [plan.experiments[i].rounds for i in plan.due]
    there, failed, rounds = len(plan.members) - len(due), 0, [0] * len(due)
    console.print(Text(_headline(plan)))
    with Progress(*columns, console=console, expand=True) as bar:
        task = bar.add_task("rounds", total=max(1, sum(lengths)), counts=f"{there}/{len(plan.members)} runs")

        def seen(number: int, round: int, outcome: RunOutcome | None) -> None:
            nonlocal there, failed
            if outcome is not None:
                round = lengths[number]
                there += 1
                failed += outcome.status not in ENDED
                if outcome.status != "completed":
                    bar.console.print(
                        Text(_describe_end(plan, due[number], outcome), style="red"), soft_wrap=True
                    )
            rounds[number] = max(round, rounds[number])
            counts = f"{there}/{len(plan.members)} runs" + (f", {failed} failed" if failed else "")
            bar.update(task, completed=sum(rounds), counts=counts)

        yield seen
        bar.update(task, completed=max(1, sum(lengths)))


@contextmanager
def _lines(plan: SweepPlan) -> Iterator[Seen]:
    due, lengths = plan.due, [plan.experiments[i].rounds for i in plan.due]
    there, rounds = len(plan.members) - len(due), dict[int, int]()
    began_s = said_s = time.monotonic()

    def tell(what: str) -> None:
        nonlocal said_s
        said_s = time.monotonic()
        print(f"{there}/{len(plan.members)}  {what}  {said_s - began_s:.1f} s", file=sys.stderr, flush=True)

    def seen(number: int, round: int, outcome: RunOutcome | None) -> None:
        nonlocal there
        if outcome is not None:
            there += 1
            rounds.pop(number, None)
            tell(_describe_end(plan, due[number], outcome))
            return
        rounds[number] = round
        if time.monotonic() - said_s > LINES_EVERY_S:
            tell("rounds " + ", ".join(f"{done}/{lengths[i]}" for i, done in sorted(rounds.items())))

    print(_headline(plan), file=sys.stderr, flush=True)
    yield seen


def _describe_end(plan: SweepPlan, number: int, outcome: RunOutcome) -> str:
    return f"{plan.members[number]}: {_how(outcome.status, outcome.reason)}"


def _how(status: str, reason: str | None) -> str:
    reason = reason or ""
    return reason if reason.startswith(status) else f"{status}: {reason}" if reason else status


# -- the comparison ----------------------------------------------------------------------------


def sweep_page(result: SweepResult) -> None:
    """Prints the settings, best first, and the failures."""
    out = make_stdout()
    if result.choices:
        _print_choices(out, result)
    else:
        _print_settings(out, result)
    if result.failures:
        out.print()
    for member in result.failures[:NUM_FAILURES]:
        run = f" (run {member.run})" if member.run else ""
        out.print(Text(f"{member}{run}: {_how(member.status, member.reason)}", style="red"), soft_wrap=True)
    if len(result.failures) > NUM_FAILURES:
        out.print(f"and {len(result.failures) - NUM_FAILURES} more; --json names them all")
    for message in result.notes:
        note(message)


def _print_settings(out: Console, result: SweepResult) -> None:
    out.print(_comparison(result))


def _print_choices(out: Console, result: SweepResult) -> None:
    """Prints a table of choices and conditions for each figure: the metric, and what attacks achieved."""
    attack = sorted(  # successes first
        dict.fromkeys(name for setting in result.settings for name in setting.attack),
        key=_SHARES.__contains__,
    )
    figures: dict[str, Callable[[Setting], Spread | None]] = {}
    first = f"final {result.metric} (* the best under this condition)"
    if result.metric:
        figures[first] = lambda setting: setting.final
    if any(setting.costs["rounds_to_target"] for setting in result.settings):
        figures["rounds to target"] = lambda setting: setting.costs["rounds_to_target"]
    for name in attack:
        if name in _SHARES or is_success(name):
            words = _SHARES.get(name, f"final {name}: the success of the backdoor")
            figures[words] = lambda setting, name=name: setting.attack.get(name)  # type: ignore[misc]
    starred = [title for title in figures if title.startswith("final ")]
    for i, (title, pick) in enumerate(figures.items()):
        if title != first and not any(pick(setting) for setting in result.settings):
            continue
        out.print(Text(("\n" if i else "") + title, style="bold"))
        table = _matrix(result, pick, is_metric=title == first, stars=title in starred, brief=False)
        if len(table.choose(out.width)) < len(table.names):
            table = _matrix(result, pick, is_metric=title == first, stars=title in starred, brief=True)
        out.print(table)


def _matrix(
    result: SweepResult,
    pick: Callable[[Setting], Spread | None],
    *,
    is_metric: bool,
    stars: bool,
    brief: bool,
) -> Columns:
    """Makes a table with a row for each choice and a column for each condition.

    Args:
      is_metric: whether this is the metric that is compared, so that the worst is shown.
      stars: whether the best choice under each condition is marked.
      brief: whether deviations over seeds are left out.
    """
    names = short(list(dict.fromkeys(path for choice in result.choices for path in choice.over)))
    numbers = [*result.conditions, *(["worst case"] if is_metric else [])]
    table = Columns(*(names or [""]), *numbers, numbers=numbers, folded=names, remedy=REMEDY)
    for choice in result.choices:
        cells = [bare(said) for said in choice.over.values()] or ["as in the file"]
        for name in numbers:
            setting = choice.under.get(choice.worst if name == "worst case" else name)
            judged = stars and setting is not None and is_metric == (setting.success is None)
            best = judged and name in choice.under and result.find_best(name) is choice
            cells.append(_under(setting, pick, is_metric, brief) + (" *" if best else ""))
        table.add_row(*cells)
    return table


def _under(
    setting: Setting | None, pick: Callable[[Setting], Spread | None], is_metric: bool, brief: bool
) -> str:
    """Formats what was measured of a setting, or how its runs ended if nothing was."""
    if setting is None:
        return "not tried"
    if not setting.completed:
        return setting.members[0].status if is_metric else "\N{EN DASH}"
    found, some = pick(setting), len(setting.completed) < len(setting.members)
    said = "\N{EN DASH}" if found is None else as_number(found.mean) if brief else _of(found, as_number)
    return f"{said} ({_runs(setting)})" if some else said


_SHARES = {
    "precision": "liars among those whom the rule left out (precision)",
    "recall": "lies that the rule left out (recall)",
}


def _comparison(result: SweepResult) -> Columns:
    costs = _list_costs(result)
    measured = [f"best {result.metric}", f"final {result.metric}"] if result.metric else []
    found_out = dict.fromkeys(
        name
        for setting in result.settings
        for name, spread in setting.attack.items()
        if spread and (name in _SHARES or is_success(name))
    )
    heads = ["runs", *measured, *found_out, *(_COSTS[name][0] for name in costs)]
    tried = list(result.names.values())
    table = Columns(*(tried or [""]), *heads, numbers=heads, folded=tried, remedy=REMEDY)
    for setting in result.settings:
        tried = [bare(setting.over[path]) for path in result.names] or [""]
        found = [_of(setting.best, as_number), _of(setting.final, as_number)] if measured else []
        style = "" if len(setting.completed) == len(setting.members) else "yellow"
        attack = [_of(setting.attack.get(name), as_number) for name in found_out]
        cells = [_runs(setting), *found, *attack, *(_cost(setting, name) for name in costs)]
        table.add_row(*tried, *cells, style=style)
    return table


def _list_costs(result: SweepResult) -> list[str]:
    """Lists the costs that are not all zero."""
    costs = [setting.costs for setting in result.settings]
    there = [name for name in _COSTS if any((spread := cost[name]) and spread.mean for cost in costs)]
    return there if result.simulates_time else [name for name in there if name != "virtual_s"]


def _cost(setting: Setting, name: str) -> str:
    spread = setting.costs[name]
    said = _of(spread, _COSTS[name][1], least=NEGLIGIBLE)
    some = spread is not None and spread.n < len(setting.completed)
    return f"{said} ({spread.n} of {len(setting.completed)})" if some and spread else said


def _of(spread: Spread | None, word: Callable[[float], str], least: float = 0.0) -> str:
    if spread is None:
        return ""
    if spread.std is None or spread.std < least * abs(spread.mean):
        return word(spread.mean)
    return f"{word(spread.mean)} ± {word(spread.std)}"


def _runs(setting: Setting) -> str:
    done, asked = len(setting.completed), len(setting.members)
    return str(done) if done == asked else f"{done} of {asked}"


def _round(count: float) -> str:
    return f"{count:.3g}" if count < 1000 else f"{count:.0f}"


_COSTS: Mapping[str, tuple[str, Callable[[float], str]]] = {
    "rounds_to_target": ("rounds to target", _round),
    "bytes_up": ("bytes up", as_bytes),
    "bytes_down": ("bytes down", as_bytes),
    "seconds": ("time", as_seconds),
    "virtual_s": ("simulated time", as_seconds),
}
