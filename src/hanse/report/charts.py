"""Charts of runs. Page and image share one definition, a Vega-Lite specification that Altair makes."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from hanse.core import InvalidInput
from hanse.evaluation import metric_of, order_rows
from hanse.pages import PALETTE
from hanse.report.party_chart import draw_parties, thin_rows
from hanse.report.run_data import CENTRALISED, FEDERATED, ON_SITE, TRAINERS, RunData
from hanse.report.style import (
    COLOURS,
    choose_colours,
    choose_format,
    finish_chart,
    import_drawing,
    make_axis,
    make_colour,
    make_opacity,
)
from hanse.report.twins import describe_twins, find_twins
from hanse.runs import list_spans

__all__ = [
    "PARTIES",
    "Drawing",
    "draw_comparison",
    "draw_curve",
    "draw_run",
    "draw_spending",
    "draw_timeline",
    "html_script",
    "png",
]

PARTIES = "parties"
"""The name of the drawing of each party's row."""

AXES = {"round": "round", "epochs": "epochs of computation"}
DIRECTIONS = ("bytes up", "bytes down")
LOG_FROM = 4.0
"""The ratio of bytes between runs from which their axis is logarithmic."""

SHORT = {"round": "round", "epochs": "epoch of computation"}

MANY_LABELS = 12
SHOWN_CLIENTS = 120
NAMED_CLIENTS = 30

MAX_SPANS = 1500
MAX_DEVICES = 40
SPAN_COLOURS = {"download": PALETTE[7], "compute": PALETTE[0], "upload": PALETTE[1]}


ALL_BYTES = "The bytes of all clients together, from the first round on."


@dataclass(frozen=True)
class Drawing:
    """A chart.

    Args:
      name: the name of its image file.
      title: a few words on what it shows.
      about: how to read it.
      spec: Vega-Lite.
      wide: whether it takes a whole row of the page.
      colours: the colours of its curves, if keys on the page name them in place of a legend.
    """

    name: str
    title: str
    about: str
    spec: Mapping[str, Any]
    wide: bool = False
    colours: Mapping[str, str] = field(default_factory=dict)


def png(drawing: Drawing) -> bytes:
    """Draws the image, at twice the size for sharp print."""
    vl_convert = import_drawing("vl_convert")
    return bytes(vl_convert.vegalite_to_png(json.dumps(drawing.spec), scale=2.0))


@cache  # it is the same for all pages, and takes seconds to make
def html_script() -> str:
    """Returns one script with everything that a browser needs to draw, so that it fetches nothing."""
    return str(import_drawing("vl_convert").javascript_bundle()).replace("</script", "<\\/script")


def draw_run(run_data: RunData) -> Iterator[Drawing]:
    """Yields the charts of one run."""
    yield from _curves([run_data], list(run_data.metrics)[:2], beside=True)
    yield from _parties(run_data)
    yield from _spread(run_data)
    yield from _who_has_what(run_data)


def draw_curve(run_data: RunData, metric: str, against: str) -> Any:
    """Draws one metric of a run against rounds, epochs, or bytes up or down, as a chart of Altair."""
    if against not in (*AXES, *DIRECTIONS):
        raise InvalidInput(f"against is {against!r}; write one of {', '.join((*AXES, *DIRECTIONS))}")
    draw, end = (_curves, SHORT[against].split()[0]) if against in AXES else (_spending, _name(against))
    for drawing in draw([run_data], [metric], beside=True):
        if drawing.name.endswith(f"-{end}"):
            return import_drawing("altair").Chart.from_dict(drawing.spec)
    raise InvalidInput(
        f"{metric} has no finite values against {against}; draw it against another, or see rows()"
    )


def draw_comparison(runs_data: Sequence[RunData]) -> Iterator[Drawing]:
    """Yields charts that show several runs together."""
    shared = [name for name in runs_data[0].metrics if all(name in other.metrics for other in runs_data)]
    yield from _curves(runs_data, shared[:2], beside=False)


def draw_spending(runs_data: Sequence[RunData]) -> Iterator[Drawing]:
    """Yields the chart of the watched metric against the bytes up and the bytes down."""
    shared = [name for name in runs_data[0].metrics if all(name in other.metrics for other in runs_data)]
    yield from _spending(runs_data, shared[:1], beside=len(runs_data) == 1)


# -- curves ------------------------------------------------------------------------------------


def _curves(runs_data: Sequence[RunData], metrics: Sequence[str], *, beside: bool) -> Iterator[Drawing]:
    for metric in metrics:
        for axis in AXES:
            rows = _rows(runs_data, metric, axis, beside)
            if rows:
                rules = _rules(runs_data[0], metric) if beside else []
                yield Drawing(
                    f"{metric}-per-{SHORT[axis].split()[0]}",
                    f"{metric.replace('_', ' ').capitalize()} per {SHORT[axis]}",
                    describe_twins(rows),
                    _curve(rows, metric, axis, rules),
                    colours=choose_colours([*rows, *rules]),
                )


def _spending(runs_data: Sequence[RunData], metrics: Sequence[str], *, beside: bool) -> Iterator[Drawing]:
    for metric in metrics:
        for direction in DIRECTIONS:
            rows = _rows(runs_data, metric, direction, beside)
            if any(row["x"] for row in rows):
                yield Drawing(
                    f"{metric}-against-{_name(direction)}",
                    f"{metric.replace('_', ' ').capitalize()} against {direction}",
                    _join(ALL_BYTES, describe_twins(rows)),
                    _curve_of_bytes(rows, metric, direction),
                    colours=choose_colours(rows),
                )


def _name(direction: str) -> str:
    return direction.replace(" ", "-")


def _rows(runs_data: Sequence[RunData], metric: str, axis: str, beside: bool) -> list[dict[str, Any]]:
    rows = []
    for place, run_data in enumerate(runs_data):
        name = FEDERATED if beside else run_data.label
        for point in run_data.points():
            if point.get(metric) is not None and point[axis] is not None:
                rows.append({"x": point[axis], "y": point[metric], "who": name, "place": place})
        if beside and axis == "epochs" and rows:
            curve = run_data.baselines.get("centralised", {}).get("curve", ())
            rows += [{"x": p["epoch"], "y": p[metric], "who": CENTRALISED} for p in curve if metric in p]
    return [row for row in rows if _is_finite(row["y"])]


def _is_finite(number: float | None) -> bool:
    return number is not None and abs(number) < float("inf")


def _rules(run_data: RunData, metric: str) -> list[dict[str, Any]]:
    """Returns a horizontal line for the final metric of each baseline."""
    ends = {TRAINERS.get(name, name): row["final"].get(metric) for name, row in run_data.baselines.items()}
    return [{"y": end, "who": name} for name, end in ends.items() if _is_finite(end)]


def _curve(
    rows: list[dict[str, Any]], metric: str, axis: str, rules: list[dict[str, Any]]
) -> Mapping[str, Any]:
    alt = import_drawing("altair")
    colour = make_colour(alt, choose_colours([*rows, *rules]))
    x = alt.X("x:Q", title=AXES[axis], axis=alt.Axis(tickCount=6))
    layers = [_line(alt, rows, metric, x, colour, SHORT[axis])]
    if rules:
        dashed = alt.Chart(alt.Data(values=rules)).mark_rule(strokeDash=[5, 4], strokeWidth=1.5)
        tips = [
            alt.Tooltip("who:N", title="run"),
            alt.Tooltip("y:Q", title=metric, format=choose_format(metric)),
        ]
        layers.append(dashed.encode(y="y:Q", color=colour, opacity=make_opacity(alt), tooltip=tips))
    return finish_chart(alt.layer(*layers).add_params(alt.param(name="off", value=[])), width=440, height=220)


def _join(*sentences: str) -> str:
    return " ".join(filter(None, sentences))


def _line(alt: Any, rows: list[dict[str, Any]], metric: str, x: Any, colour: Any, x_title: str) -> Any:
    y = alt.Y("y:Q", title=metric.replace("_", " "), axis=make_axis(alt, metric), scale=alt.Scale(zero=False))
    tips = [
        alt.Tooltip("who:N", title="run"),
        alt.Tooltip("x:Q", title=x_title, format=".3~s"),
        alt.Tooltip("y:Q", title=metric, format=choose_format(metric)),
    ]
    line = alt.Chart(alt.Data(values=rows)).mark_line(
        strokeWidth=2, interpolate="linear", point=alt.OverlayMarkDef(size=14) if len(rows) <= 60 else False
    )
    line = line.encode(x=x, y=y, color=colour, opacity=make_opacity(alt), tooltip=tips)
    twins, who = find_twins(rows), list(dict.fromkeys(row["who"] for row in rows))
    if not twins:
        return line
    dashes = alt.Scale(domain=who, range=[[5, 5] if name in twins else [1, 0] for name in who])
    return line.encode(strokeDash=alt.StrokeDash("who:N", scale=dashes, legend=None))


def _curve_of_bytes(rows: list[dict[str, Any]], metric: str, direction: str) -> Mapping[str, Any]:
    """Draws the metric against bytes, on a logarithmic axis if the runs differ much."""
    alt = import_drawing("altair")
    sent = [row for row in rows if row["x"]]  # a logarithmic scale has no 0
    ends = [max(row["x"] for row in sent if row["who"] == name) for name in {r["who"] for r in sent}]
    many = bool(ends) and max(ends) > LOG_FROM * min(ends)
    scale = alt.Scale(type="log") if many else alt.Scale()
    x = alt.X("x:Q", title=direction, scale=scale, axis=alt.Axis(tickCount=6, format=".2~s"))
    chart = _line(alt, sent if many else rows, metric, x, make_colour(alt, choose_colours(rows)), direction)
    return finish_chart(chart.add_params(alt.param(name="off", value=[])), width=440, height=220)


# -- clients -----------------------------------------------------------------------------------


def _spread(run_data: RunData) -> Iterator[Drawing]:
    clients = (run_data.result or {}).get("clients")
    if not clients or not clients["each"]:
        return
    metric = metric_of(run_data.settings, clients["mean"])
    found = {CENTRALISED: run_data.baselines.get("centralised", {}).get("clients"), FEDERATED: clients}
    found[ON_SITE] = run_data.baselines.get("on_site", {}).get("clients")
    told = {who: row for who, row in found.items() if row and metric in row["mean"]}
    alt = import_drawing("altair")
    each = [{"who": who, "y": y} for who, row in told.items() for y in row["each"][metric] if _is_finite(y)]
    sums = [
        {"who": who, "y": row[word][metric], "what": words}
        for who, row in told.items()
        for word, words in (("mean", "mean"), ("worst_tenth", "worst tenth"))
        if _is_finite(row[word][metric])
    ]
    x = alt.X(
        "y:Q", title=f"{metric} of each client", axis=make_axis(alt, metric), scale=alt.Scale(zero=False)
    )
    y = alt.Y("who:N", title=None, sort=list(told), axis=alt.Axis(labelFontSize=12, labelColor="#39424e"))
    ticks = alt.Chart(alt.Data(values=each)).mark_tick(opacity=0.35, thickness=2, size=26)
    marks = alt.Chart(alt.Data(values=sums)).mark_point(size=110, filled=True, opacity=1, stroke="white")
    shape = alt.Shape(
        "what:N",
        scale=alt.Scale(domain=["mean", "worst tenth"], range=["diamond", "triangle-left"]),
        legend=alt.Legend(title=None, orient="bottom", symbolFillColor="#7a8fa3"),
    )
    tips = [
        "who:N",
        alt.Tooltip("what:N", title=" "),
        alt.Tooltip("y:Q", title=metric, format=choose_format(metric)),
    ]
    colours = choose_colours([{"who": who} for who in told])
    scale = alt.Scale(domain=list(colours), range=list(colours.values()))
    plain = alt.Color("who:N", scale=scale, legend=None)
    chart = alt.layer(
        ticks.encode(x=x, y=y, color=plain),
        marks.encode(x=x, y=y, shape=shape, color=plain, tooltip=tips),
    )
    on = "; ".join(dict.fromkeys(f"{who}: {row['on']}" for who, row in told.items()))
    if len({row["on"] for row in told.values()}) == 1:
        on = clients["on"]
    yield Drawing(
        "clients",
        "The final model at each client",
        f"One line for each client, measured on {on}. The worst tenth is the mean over the tenth of clients "
        "with the worst metric.",
        finish_chart(chart, width=900, height=42 * len(told) + 10),
        wide=True,
    )


def _parties(run_data: RunData) -> Iterator[Drawing]:
    """Yields the chart of each party's row."""
    rows = (run_data.result or {}).get("parties") or ()
    drawn, step = thin_rows(rows)
    if not drawn:
        return
    names = {"on_site": ON_SITE, "centralised": CENTRALISED, "federated": FEDERATED}
    trainers = {name: words for name, words in names.items() if name in drawn[0]}
    alt, metric = import_drawing("altair"), drawn[0]["metric"]
    about = "From the party that federation helped least to the one that it helped most."
    about += f" Every {step}th is drawn." if step > 1 else ""
    left_out = len(rows) - len(order_rows(rows))
    about += f" {left_out:,} that can't be compared are not drawn." if left_out else ""
    colour = make_colour(alt, {words: COLOURS[words] for words in trainers.values()})
    chart = draw_parties(alt, drawn, trainers, colour, make_axis(alt, metric), choose_format(metric))
    yield Drawing(PARTIES, "Each party under each model", about, finish_chart(chart, width=720), wide=True)


def _who_has_what(run_data: RunData) -> Iterator[Drawing]:
    data = (run_data.result or {}).get("data")
    if not data:
        return
    sizes = data["sizes"]
    order = sorted(range(len(sizes)), key=lambda n: -sizes[n])
    step = -(-len(order) // SHOWN_CLIENTS)
    order = order[::step]
    names = data["names"] or [str(number) for number in range(len(sizes))]
    alt = import_drawing("altair")
    counts = data["label_counts"]
    labels = data["classes"] or [str(i) for i in range(data["num_classes"] or 0)]
    rows = [
        {"client": names[n], "label": labels[i] if counts else "examples", "place": i, "n": count}
        for n in order
        for i, count in enumerate(counts[n] if counts else [sizes[n]])
        if count
    ]
    few = len(order) <= NAMED_CLIENTS
    x_axis = alt.Axis(labels=few, ticks=few, labelAngle=-35 if few else 0, labelLimit=140)
    x = alt.X("client:N", sort=[names[n] for n in order], title="clients, from the largest to the smallest",
              axis=x_axis)  # fmt: skip
    tips = ["client:N", "label:N", alt.Tooltip("n:Q", title="examples")]
    base = alt.Chart(alt.Data(values=rows))
    if counts and len(labels) > MANY_LABELS:
        chart = base.mark_rect().encode(
            x=x,
            y=alt.Y("label:N", title="label", sort=labels),
            color=alt.Color("n:Q", title="examples", scale=alt.Scale(scheme="blues")),
            tooltip=tips,
        )
    else:
        columns = 5 if max(map(len, labels), default=0) <= 4 else 2
        legend = alt.Legend(title="label", orient="bottom", columns=columns) if counts else None
        colour = alt.Color("label:N", sort=labels, scale=alt.Scale(scheme="tableau10"), legend=legend)
        chart = base.mark_bar().encode(
            x=x, y=alt.Y("sum(n):Q", title="examples"), color=colour, tooltip=tips, order="place:Q"
        )
    some = f" Every {step}th is shown." if step > 1 else ""
    yield Drawing(
        "who-has-what",
        "The data of each client",
        f"{data['num_clients']:,} clients hold {sum(sizes):,} training examples; the common test set has "
        f"{data['test']:,}.{some}",
        finish_chart(chart, width=820, height=220),
        wide=True,
    )


# -- the simulated clock -----------------------------------------------------------------------


def draw_timeline(run_data: RunData) -> Iterator[Drawing]:
    """Yields the chart of the first rounds whose tickets have times, as many as can be seen."""
    rows: list[dict[str, object]] = []
    devices: dict[str, None] = {}
    for record in run_data.records:
        for times in record.usage.times:
            party = str(times.party)
            if len(devices) < MAX_DEVICES:
                devices[party] = None
            if party in devices and len(rows) < MAX_SPANS:
                rows += [
                    {"who": party, "what": what, "from": begin_s, "to": end_s, "round": record.round}
                    for what, begin_s, end_s in list_spans(times)
                    if end_s > begin_s
                ]
    if not rows:
        return
    alt = import_drawing("altair")
    shown = [party for party in devices if any(row["who"] == party for row in rows)]
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_bar()
        .encode(
            x=alt.X("from:Q", title="virtual seconds"),
            x2="to:Q",
            y=alt.Y("who:N", title="client", sort=shown, axis=alt.Axis(labelOverlap=False)),
            color=alt.Color(
                "what:N",
                title=None,
                legend=alt.Legend(orient="top"),
                scale=alt.Scale(domain=list(SPAN_COLOURS), range=list(SPAN_COLOURS.values())),
            ),
            tooltip=["who:N", "what:N", "from:Q", "to:Q", "round:Q"],
        )
    )
    about = f"The first {max(int(str(row['round'])) for row in rows)} rounds. Gaps are waiting."
    yield Drawing(
        "timeline",
        "The simulated clock",
        about,
        finish_chart(chart, width=820, height=max(60, 14 * len(shown))),
        wide=True,
    )
