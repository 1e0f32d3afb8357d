"""A picture of a sweep: the metric of each setting with its spread, and the learning curves."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from hanse.core import InvalidInput
from hanse.evaluation import as_bytes, as_number, as_seconds
from hanse.pages import PALETTE, draw_keys, draw_page, draw_table, escape, fit_chart, is_page
from hanse.sweeps.result import Setting, Spread, SweepResult

__all__ = ["chart", "drawing"]

SUFFIXES = (".png", ".svg", ".html")

NUM_CURVES = len(PALETTE)
"""The most settings whose curves can be told apart; the best are drawn."""

NUM_ROWS = 40
"""The most settings that fit on a page; the best are drawn."""


def drawing(path: Path | None) -> Callable[[SweepResult], None]:
    """Returns a function that draws a sweep to the path; without a path it draws nothing.

    Raises: InvalidInput: if it can't be drawn, so that the user learns of it before hours of work.
    """
    if path is None:
        return lambda result: None
    if path.suffix not in SUFFIXES:
        raise InvalidInput(f"--picture {path}: write a name that ends in {', '.join(SUFFIXES)}")
    if not path.absolute().parent.is_dir():
        raise InvalidInput(f"--picture {path}: there is no folder {str(path.parent)!r}")
    if path.suffix == ".html" and path.exists() and not is_page(path):
        raise InvalidInput(f"--picture {path}: Hanse did not write the file of this name; write another name")
    _altair()

    def draw(result: SweepResult) -> None:
        if path.suffix == ".html":
            path.write_text(sweep_html(result), encoding="utf-8")
        else:
            chart(result).save(str(path), **({"scale_factor": 2} if path.suffix == ".png" else {}))

    return draw


def _altair() -> Any:
    try:
        import_module("vl_convert")
        return import_module("altair")
    except ImportError:
        raise InvalidInput("pictures need the extra `report`: pip install 'hanse[report]'") from None


def chart(result: SweepResult) -> Any:
    """Makes an Altair chart. Raises: InvalidInput: if nothing was measured, or the extra is missing."""
    alt = _altair()
    if result.metric is None:
        raise InvalidInput("no metric was measured, so there is nothing to draw; write evaluate_every = 1")
    names = _names(result)
    if result.choices:
        tables = [_draw_chart_of_choices(alt, found) for found in _measure_choices(result)]
        return _style(alt.vconcat(*tables, spacing=30).resolve_scale(color="independent"))
    return _style(alt.vconcat(_ranking(alt, result, names), _curves(alt, result, names), spacing=30))


def _style(made: Any) -> Any:
    return (
        made.configure(font="system-ui, 'DejaVu Sans', sans-serif", background="white")
        .configure_view(stroke=None)
        .configure_axis(
            gridColor="#e9ecf0", labelOverlap="greedy", labelSeparation=8, titleFontWeight="normal"
        )
    )


def sweep_html(result: SweepResult) -> str:
    """Draws the page of a sweep: the settings, best first, their charts, failures and notes.

    Raises: InvalidInput: if nothing was measured, or the extra is missing.
    """
    alt, names = _altair(), _names(result)
    chart(result)  # raises if there is nothing to draw
    script = str(import_module("vl_convert").javascript_bundle()).replace("</script", "<\\/script")
    charts: dict[str, tuple[str, str, Any]] = {}
    colours: dict[str, str] = {}
    if not result.choices:
        colours = dict(zip(names[:NUM_CURVES], PALETTE, strict=False))
        charts["settings"] = (RANKED, BAR, _ranking(alt, result, names))
        best = "" if len(names) <= NUM_CURVES else f" of the best {NUM_CURVES}"
        about = f"{BAND} {_describe_ends(result)}".rstrip()
        charts["curves"] = (f"Learning curves{best}", about, _curves(alt, result, names))
    cards = [
        f'<section class="card"><h3>{escape(title)}</h3>'
        + (f'<p class="quiet">{escape(about)}</p>' if about else "")
        + (draw_keys(colours) if name == "curves" else "")
        + f'<div class="chart" id="{name}"></div></section>'
        for name, (title, about, _) in charts.items()
    ]
    lost = [
        f'<p class="finding">{escape(member)}: {escape(member.reason or member.status)}</p>'
        for member in result.failures
    ]
    cards += map(_draw_table_of_choices, _measure_choices(result))
    notes = [f'<p class="quiet">{escape(note[0].upper() + note[1:])}.</p>' for note in result.notes]
    table = f'<section class="card">{_draw_settings(result, names)}</section>'
    specs = [
        (name, fit_chart(_style(made.properties(title="")).to_dict(), legend=False))
        for name, (_, _, made) in charts.items()
    ]
    what = f"{len(result.settings)} settings, {len(result.members)} runs"
    about = f"{what}, of which {len(result.failures)} failed" if result.failures else what
    shown = "Choices" if result.choices else "Charts"
    parts = [table, *lost, *notes, f"<h2>{shown}</h2>", *cards]
    return draw_page("Sweep", about, parts, specs=specs, script=script)


RANKED, BAR = "Settings, best first", "Means over seeds, with one standard deviation on each side."
BAND = "Means over seeds, in a band of one standard deviation on each side."


def _draw_settings(result: SweepResult, names: list[str]) -> str:
    """Draws the table of the settings: means over seeds, and sample standard deviations."""
    costs: dict[str, tuple[str, Callable[[float], str]]] = {
        "rounds to target": ("rounds_to_target", lambda count: f"{count:.3g}"),
        "bytes up": ("bytes_up", as_bytes),
        "bytes down": ("bytes_down", as_bytes),
        "time": ("seconds", as_seconds),
    }
    shown = {head: said for head, said in costs.items() if any(s.costs[said[0]] for s in result.settings)}
    heads = ["setting", "runs", f"best {result.metric}", f"final {result.metric}", *shown]
    rows = []
    for name, setting in zip(names, result.settings, strict=True):
        done, asked = len(setting.completed), len(setting.members)
        measured = [_format_spread(setting.best), _format_spread(setting.final)]
        spent = [as_words(s.mean) if (s := setting.costs[key]) else "–" for key, as_words in shown.values()]
        rows.append([name, str(done) if done == asked else f"{done} of {asked}", *measured, *spent])
    return draw_table(heads, rows)


def _format_spread(spread: Spread | None) -> str:
    if spread is None:
        return "–"
    return as_number(spread.mean) + ("" if spread.std is None else f" ± {as_number(spread.std)}")


def _describe_ends(result: SweepResult) -> str:
    """Says of which settings some seeds ended before others."""
    fewer = [
        f"{place + 1} from round {full} on"
        for place, curve in result.curves().items()
        if place < NUM_CURVES and (full := _last_full(curve)) is not None and full < max(curve)
    ]
    some = ", ".join(fewer)
    return f"Dashed: some seeds had ended; the mean is over the others (setting {some})." if some else ""


def _last_full(curve: Mapping[int, Spread]) -> int | None:
    """Returns the last round that was measured with all seeds."""
    most = max((found.n for found in curve.values()), default=0)
    return max((round for round, found in curve.items() if found.n == most), default=None)


def _names(result: SweepResult) -> list[str]:
    """Names settings with a number, so that no two names are alike."""
    return [f"{place}. {setting}" for place, setting in enumerate(result.settings, start=1)]


def _ranking(alt: Any, result: SweepResult, names: list[str]) -> Any:
    rows = [
        {"setting": name, "mean": s.best.mean, "color": _color(i), **_ends(s.best), "n": s.best.n}
        for i, (name, s) in enumerate(zip(names, result.settings, strict=True))
        if s.best is not None
    ][:NUM_ROWS]
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y(
            "setting:N", sort=[row["setting"] for row in rows], title=None, axis=alt.Axis(labelLimit=400)
        ),
        color=alt.Color("color:N", scale=None),
        tooltip=["setting:N", "mean:Q", "low:Q", "high:Q", "n:Q"],
    )
    title = f"best {result.metric}"
    scale = alt.Scale(zero=False, nice=True)
    points = base.mark_point(filled=True, size=70).encode(x=alt.X("mean:Q", title=title, scale=scale))
    spreads = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=title, scale=scale), x2="high:Q")
    return (spreads + points).properties(width=560, height=26 * max(1, len(rows)), title=RANKED)


def _curves(alt: Any, result: SweepResult, names: list[str]) -> Any:
    rows, fewer = list[dict[str, Any]](), list[dict[str, Any]]()
    for i, curve in result.curves().items():
        full = _last_full(curve)
        for round, found in curve.items() if i < NUM_CURVES else ():
            row = {"who": names[i], "round": round, "mean": found.mean, **_ends(found), "seeds": found.n}
            if full is None or round <= full:
                rows.append(row)
            if full is not None and round >= full:
                fewer.append(row)
    shown = names[:NUM_CURVES]
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("round:Q", title="round", axis=alt.Axis(format="d", tickMinStep=1)),
        color=alt.Color(
            "who:N",
            scale=alt.Scale(domain=shown, range=list(PALETTE[: len(shown)])),
            legend=alt.Legend(title=None, orient="bottom", direction="vertical", labelLimit=560),
        ),
        opacity=alt.condition("indexof(off, datum.who) < 0", alt.value(1), alt.value(0)),
    )
    scale = alt.Scale(zero=False, nice=True)
    bands = base.mark_area(fillOpacity=0.18).encode(
        y=alt.Y("low:Q", title=result.metric, scale=scale), y2="high:Q"
    )
    along = {
        "y": alt.Y("mean:Q", title=result.metric, scale=scale),
        "tooltip": [alt.Tooltip("who:N", title="setting"), "round:Q", "mean:Q", "seeds:Q"],
    }
    lines = base.mark_line(strokeWidth=2).encode(**along)
    dashed = base.mark_line(strokeWidth=2, strokeDash=[5, 4]).encode(**along)
    dashed.data = alt.Data(values=fewer)
    best = "" if len(names) <= NUM_CURVES else f" of the best {NUM_CURVES}"
    layers = alt.layer(bands, lines, dashed).add_params(alt.param(name="off", value=[]))
    return layers.properties(width=560, height=300, title=f"Learning curves{best}")


@dataclass(frozen=True)
class _Found:
    """A number of each choice under each condition.

    Args:
      title: what it is.
      columns: the conditions, and perhaps the worst case.
      cells: by the name of a choice, for each column: the number, its text, and whether it is the best there.
      good_is_high: whether a higher number is better.
    """

    title: str
    columns: Sequence[str]
    cells: Mapping[str, Sequence[tuple[float | None, str, bool]]]
    good_is_high: bool

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the greatest number."""
        found = [number for row in self.cells.values() for number, *_ in row if number is not None] or [0.0]
        return min(found), max(found)


def _measure_choices(result: SweepResult) -> Iterator[_Found]:
    """Yields the metric of each choice with the worst case, and how far backdoors succeed."""
    if not result.choices:
        return
    columns = [*result.conditions, "worst case"]
    yield _Found(
        f"Final {result.metric}",
        columns,
        _list_cells(result, columns, lambda setting: setting.final.mean if setting.final else None),
        result.higher_is_better,
    )
    harmed = [name for name in result.conditions if _has_success(result, name)]
    if harmed:
        cells = _list_cells(result, harmed, lambda setting: setting.success, is_harm=True)
        yield _Found("Success of the backdoor (attack_accuracy)", harmed, cells, good_is_high=False)


def _list_cells(
    result: SweepResult,
    columns: Sequence[str],
    pick: Callable[[Setting], float | None],
    *,
    is_harm: bool = False,
) -> dict[str, list[tuple[float | None, str, bool]]]:
    cells: dict[str, list[tuple[float | None, str, bool]]] = {}
    for choice in result.choices:
        row = cells.setdefault(str(choice) or "as in the file", [])
        for name in columns:
            setting = choice.under.get(choice.worst if name == "worst case" else name)
            found = None if setting is None else pick(setting)
            ended = setting is not None and not setting.completed
            said = setting.members[0].status if setting and ended else ""
            judged = setting is not None and name in choice.under and is_harm == (setting.success is not None)
            best = judged and result.find_best(name) is choice
            row.append((found, f"{found:.3f}" if found is not None else said, best))
    return cells


def _draw_table_of_choices(found: _Found) -> str:
    """Draws choices as a table of a page, whose cells have colours."""
    low, high = found.ends
    lines = []
    for name, row in found.cells.items():
        cells = []
        for number, text, best in row:
            part = 0.0 if number is None else (number - low) / ((high - low) or 1.0)
            mark = ' class="best"' if best else ""
            cells.append(f'<td{mark} style="--at: {5 + 45 * part:.0f}%">{escape(text)}</td>')
        lines.append(f"<tr><td>{escape(name)}</td>{''.join(cells)}</tr>")
    heads = "".join(f"<th>{escape(head)}</th>" for head in ("choice", *found.columns))
    hue = PALETTE[0 if found.good_is_high else 1]
    return (
        f'<section class="card"><h3>{escape(found.title)}</h3>'
        '<p class="quiet">Bold: the best choice under a condition.</p>'
        f'<table class="heat" style="--of: {hue}"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></section>"
    )


def _draw_chart_of_choices(alt: Any, found: _Found) -> Any:
    """Draws choices as a chart, for images."""
    rows = [
        {"choice": name, "condition": column, "value": number, "text": text}
        for name, row in found.cells.items()
        for column, (number, text, _) in zip(found.columns, row, strict=True)
    ][: NUM_ROWS * len(found.columns)]
    names = list(found.cells)
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("condition:N", sort=list(found.columns), title=None,
                axis=alt.Axis(orient="top", labelAngle=-25, labelLimit=420)),
        y=alt.Y("choice:N", sort=names, title=None, axis=alt.Axis(labelLimit=320)),
    )  # fmt: skip
    scale = alt.Scale(scheme="blues" if found.good_is_high else "oranges")
    boxes = base.mark_rect(stroke="white").encode(
        color=alt.Color("value:Q", scale=scale, legend=None), tooltip=["choice:N", "condition:N", "text:N"]
    )
    ink = alt.condition(f"datum.value > {sum(found.ends) / 2}", alt.value("white"), alt.value("#222222"))
    texts = base.mark_text(fontSize=12).encode(text="text:N", color=ink)
    return (boxes + texts).properties(
        width=alt.Step(110), height=28 * len(names), title=alt.Title(found.title, anchor="start")
    )


def _has_success(result: SweepResult, condition: str) -> bool:
    """Returns whether the success of a backdoor was measured under a condition."""
    return any(
        condition in choice.under and choice.under[condition].success is not None for choice in result.choices
    )


def _ends(spread: Spread) -> dict[str, float]:
    std = spread.std or 0.0
    return {"low": spread.mean - std, "high": spread.mean + std}


def _color(place: int) -> str:
    return PALETTE[place] if place < NUM_CURVES else "#999999"
