"""Pages about runs: one HTML file that needs no other, and its charts as images."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hanse.config import as_toml, summary
from hanse.core import InvalidInput
from hanse.evaluation import (
    MOST_ROWS,
    NAMES,
    TEST_SET,
    as_bytes,
    as_number,
    as_percent,
    as_seconds,
    describe_assessment,
    describe_consensus,
    describe_on_site,
    describe_rows,
    metric_of,
    order_rows,
    spent_on,
    table,
    tabulate_metrics,
    tabulate_rows,
)
from hanse.pages import draw_keys, draw_page, draw_table, escape, fit_chart, is_page
from hanse.report.charts import (
    PARTIES,
    Drawing,
    draw_comparison,
    draw_run,
    draw_spending,
    draw_timeline,
    html_script,
    png,
)
from hanse.report.confusion import draw_confusion
from hanse.report.run_data import RunData
from hanse.runs import (
    ENDED,
    OF_MARKED,
    describe_liars,
    describe_parallelism,
    flows_of,
    ledger_table,
    measure_parallelism,
    sentences,
)

__all__ = ["compare_page", "report_page", "write"]


def report_page(run_data: RunData) -> tuple[str, tuple[Drawing, ...]]:
    """Makes the page of one run, and its charts."""
    others, spent = tuple(draw_run(run_data)), tuple(draw_spending([run_data]))
    drawings = (*others, *spent)
    result = run_data.result
    parts = [f'<p class="what">{escape(summary(run_data.settings))}</p>']
    if result is None or run_data.status not in ENDED:
        parts.append(f"<p>This run is {escape(run_data.status)}: the page shows the rounds until then.</p>")
    elif run_data.status != "completed":
        parts.append(f"<p>This run is {escape(run_data.status)}. What it lacks:</p>")
    for line in sentences((result or {}).get("findings", ())):
        parts.append(f'<p class="finding">{escape(line)}.</p>')
    parts.append(_headline(result or {}))
    if result is not None and result["final"]:
        parts.append(f'<p class="answer">{_answer(run_data.settings, result)}</p>')
        parts.append(f'<section class="card">{_table(run_data.settings, result)}</section>')
        parts.append(_notes(run_data, result))
        parts += [_metrics(result), draw_confusion(result)]
    parts.append(_parties(result or {}, [d for d in others if d.name == PARTIES]))
    parts.append(_section("How training went", [d for d in others if not d.wide]))
    parts.append(_section("What was sent", spent) + _ledger(run_data))
    busy = tuple(draw_timeline(run_data))
    drawings = (*drawings, *busy)
    parts.append(_section("Who was busy with what", busy))
    parts.append(_section("The clients", [d for d in others if d.wide and d.name != PARTIES]))
    parts.append("<h2>Settings</h2>" + _settings(run_data, opened=True))
    return _page(f"Run {run_data.run}", run_data.created, parts, drawings), drawings


def compare_page(runs_data: Sequence[RunData], about: str = "") -> tuple[str, tuple[Drawing, ...]]:
    """Makes the page that compares several runs, and its charts."""
    curves, spent = tuple(draw_comparison(runs_data)), tuple(draw_spending(runs_data))
    drawings = (*curves, *spent)
    parts = [f'<p class="answer">{escape(about)}</p>'] if about else []
    parts.append(f'<section class="card">{_comparison(runs_data)}</section>')
    parts.append(_section("How training went", curves))
    parts.append(_section("What was sent", spent))
    parts.append("<h2>Settings</h2>")
    parts += [
        f"<h3>{escape(run_data.label)}</h3>{_settings(run_data, opened=False)}" for run_data in runs_data
    ]
    when = f"{len(runs_data)} runs, the first of {runs_data[0].created}"
    return _page("Runs compared", when, parts, drawings), drawings


def write(folder: Path, page: str, drawings: Iterable[Drawing], *, images: bool = True) -> Path:
    """Writes the page, and images beside it; returns the path of the page.

    Raises: InvalidInput: if a file of somebody else would be replaced.
    """
    path = folder / "index.html"
    pictures = {folder / f"{drawing.name}.png": drawing for drawing in drawings} if images else {}
    taken = [file.name for file in (path, *pictures) if file.exists()]
    if taken and not is_page(path):
        raise InvalidInput(
            f"{folder} holds {', '.join(taken)}, which Hanse did not write; name another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    for place, drawing in pictures.items():
        place.write_bytes(png(drawing))
    return path


# -- parts -------------------------------------------------------------------------------------


def _page(title: str, when: str, parts: Iterable[str], drawings: Sequence[Drawing]) -> str:
    specs = [(d.name, fit_chart(d.spec, legend=not d.colours)) for d in drawings]
    return draw_page(title, when, parts, specs=specs, script=html_script())


def _section(title: str, drawings: Iterable[Drawing], first: str = "") -> str:
    cards = [first] if first else []
    colours = dict[str, str]()
    for drawing in drawings:
        colours |= drawing.colours
        about = f'<p class="quiet">{escape(drawing.about)}</p>' if drawing.about else ""
        wide = " wide" if drawing.wide else ""
        cards.append(
            f'<section class="card{wide}"><h3>{escape(drawing.title)}</h3>{about}'
            f'<div class="chart" id="{escape(drawing.name)}"></div></section>'
        )
    grid = f'{draw_keys(colours)}<div class="grid">{"".join(cards)}</div>'
    return f"<h2>{escape(title)}</h2>{grid}" if cards else ""


def _answer(settings: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """Sums up in a sentence or two how the federated model compares with its baselines."""
    metric = metric_of(settings, result["final"]) or ""
    say = as_percent if metric == "accuracy" else as_number
    said = f"Trained together, without sharing rows: <b>{say(result['final'][metric])}</b> {escape(metric)}"
    ends = {row["name"]: row for row in result.get("baselines") or ()}
    if "centralised" in ends:
        said += f"; with all rows in one place, {say(ends['centralised']['final'].get(metric))}"
    if "on_site" in ends:
        mean = " on average" * (ends["on_site"].get("on") in (None, TEST_SET))
        said += f"; each party alone, {say(ends['on_site']['final'].get(metric))}{mean}"
    for name, success in result["final"].items():
        if name.startswith(OF_MARKED) and name.endswith("accuracy"):
            said += (
                f"; a backdoor succeeds on <b>{as_percent(success)}</b> of its test examples ({escape(name)})"
            )
    clients = result.get("clients")
    if clients:
        mean, worst = (clients[word].get(metric) for word in ("mean", "worst_tenth"))
        said += f". Over clients it is {say(mean)} on average, and {say(worst)} for the worst-off tenth"
    return said + "."


def _table(settings: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    heads, rows = table(settings, result)
    own = {i for i, row in enumerate(rows) if row[0] == NAMES["federated"]}
    return draw_table(heads, rows, own)


def _metrics(result: Mapping[str, Any]) -> str:
    """Makes the table of the final model's metrics beside those of a constant predictor."""
    told = result.get("assessment")
    if not told or not told["metrics"]:
        return ""
    heads, rows = tabulate_metrics(told)
    shown = draw_table(heads, [[name.replace("_", " "), *cells] for name, *cells in rows])
    about = escape(describe_assessment(told))
    return f'<section class="card"><p class="quiet">{about}</p>{shown}</section>'


def _headline(result: Mapping[str, Any]) -> str:
    lines = "".join(f"<li>{escape(line[:1].upper() + line[1:])}.</li>" for line in result.get("headline", ()))
    return f'<ul class="headline">{lines}</ul>' if lines else ""


def _parties(result: Mapping[str, Any], drawings: Sequence[Drawing]) -> str:
    """Makes the section of each party's row: a table and a picture, and a table of each other metric."""
    rows = result.get("parties") or ()
    if not rows:
        return ""
    watched = rows[0]["metric"]
    others = dict.fromkeys(name for row in rows for name in row["federated"] or () if name != watched)
    about = escape(". ".join(line[:1].upper() + line[1:] for line in describe_rows(rows)) + ".")
    if len(rows) > MOST_ROWS:  # who lost comes first
        ordered = order_rows(rows)
        rows = [*ordered, *(row for row in rows if row not in ordered)]
    tables = f'<div class="scroll">{draw_table(*tabulate_rows(rows, watched))}</div>'
    tables += "".join(
        f"<details><summary>{escape(name)}</summary>"
        f'<div class="scroll">{draw_table(*tabulate_rows(rows, name))}</div></details>'
        for name in others
    )
    card = f'<section class="card wide parties"><p class="quiet">{about}</p>{tables}</section>'
    return _section("Each party", drawings, card)


def _notes(run_data: RunData, result: Mapping[str, Any]) -> str:
    notes = []
    rows = result.get("baselines") or ()
    if rows:
        epochs = rows[0]["epochs"]
        notes.append(
            f"Baselines have the run's budget: {epochs} passes over each example, as many as it made on "
            "average, with its step and batch sizes, from the same start."
        )
        if any(row["name"] == "on_site" for row in rows):
            notes.append(describe_on_site(result))
        if any(row["bytes_up"] for row in rows):
            notes.append("Centralised bytes are the rows themselves.")
    clients = result.get("clients")
    if clients:
        others = sorted({row["clients"]["on"] for row in rows if row["clients"]} - {clients["on"]})
        notes.append(
            f"Clients were measured on {clients['on']}" + (f" (or {others[0]})" if others else "") + "."
        )
    parallelism = describe_parallelism(run_data.records, measure_parallelism(run_data.records))
    parallelism += describe_consensus(run_data.records)
    notes += [f"{heading.capitalize()}: {said}." for heading, said in parallelism]
    notes += [
        f"{heading.capitalize()}: {said}."
        for heading, said in describe_liars(run_data.records, result.get("adversary"))
    ]
    if result.get("spent"):
        notes.append(f"Time went to {spent_on(result)}.")
    return f'<p class="quiet">{escape(" ".join(notes))}</p>' if notes else ""


def _comparison(runs_data: Sequence[RunData]) -> str:
    measured = dict.fromkeys(name for run_data in runs_data for name in run_data.metrics)
    metrics = [  # a run in which nobody lies has no success of an attack
        name
        for name in measured
        if name.startswith(OF_MARKED) or all(name in other.metrics for other in runs_data)
    ]
    heads = ["run", "status", *metrics, "rounds", "epochs", "bytes up", "raw", "bytes down", "seconds"]
    judged = [(run_data.result or {}).get("adversary") for run_data in runs_data]
    heads += ["liars left out", "liars among those left out"] if any(judged) else []
    rows = []
    for run_data, found in zip(runs_data, judged, strict=True):
        last = ([*run_data.points()] or [{}])[-1]
        seconds = sum(record.seconds for record in run_data.records)
        cells = [as_number(last.get(name)) for name in metrics]
        epochs = last.get("epochs")
        rows.append(
            [
                f"{run_data.label} · {run_data.run[:6]}"
                if run_data.run[:6] not in run_data.label
                else run_data.label,
                run_data.status,
                *cells,
                str(last.get("round", "–")),
                "–" if epochs is None else f"{epochs:.3g}" if epochs < 10 else f"{epochs:.0f}",
                as_bytes(last.get("bytes up", 0)),
                _raw_up(run_data),
                as_bytes(last.get("bytes down", 0)),
                as_seconds(seconds),
                *([_as_share(found, "recall"), _as_share(found, "precision")] if any(judged) else []),
            ]
        )
    return draw_table(heads, rows)


def _as_share(found: Mapping[str, Any] | None, name: str) -> str:
    share = None if found is None else found[name]
    return "–" if share is None else as_percent(share)


def _raw_up(run_data: RunData) -> str:
    """Formats the bytes that clients would have sent without any stage."""
    raw = [
        flow.num_bytes[0] for flow in flows_of(r.usage for r in run_data.records) if flow.direction == "up"
    ]
    known = [size for size in raw if size is not None]
    return as_bytes(sum(known)) if known and len(known) == len(raw) else "–"


def _ledger(run_data: RunData) -> str:
    usages = [record.usage for record in run_data.records]
    flows = flows_of(usages)
    if not flows:
        return ""
    up, down = sum(usage.bytes_up for usage in usages), sum(usage.bytes_down for usage in usages)
    about = "The encoded messages of all clients and rounds: the bytes of raw tensors, and after each stage."
    told = f'<p class="quiet">{about}</p>'
    return f'<section class="card">{told}{draw_table(*ledger_table(flows, up, down))}</section>'


def _settings(run_data: RunData, *, opened: bool) -> str:
    environment = "\n".join(f"{name}: {said}" for name, said in run_data.environment.items())
    sha = (run_data.result or {}).get("params_sha256")
    model = f"<p>Model: sha256 <code>{escape(sha)}</code></p>" if sha else ""
    return (
        f'<section class="card"><details{" open" if opened else ""}><summary>'
        f"{escape(summary(run_data.settings))}"
        f"</summary><pre>{escape(as_toml(run_data.settings))}</pre></details>"
        f"<details><summary>The machine</summary><pre>{escape(environment)}</pre></details>{model}"
        "</section>"
    )
