"""A picture of a sweep: the metric of each setting with its spread, and the learning curves."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from hanse.core import InvalidInput
from hanse.sweeps.result import Setting, Spread, SweepResult

__all__ = ["chart", "drawing"]

SUFFIXES = (".png", ".svg", ".html")

NUM_CURVES = 8
"""The most settings whose curves can be told apart; the best are drawn."""

NUM_ROWS = 40
"""The most settings that fit on a page; the best are drawn."""

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555", "#b8a500")
"""The colours of Okabe and Ito, which colour-blind readers can tell apart."""


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
    _altair()

    def draw(result: SweepResult) -> None:
        options: dict[str, Any] = {".png": {"scale_factor": 2}, ".svg": {}, ".html": {"inline": True}}
        chart(result).save(str(path), **options[path.suffix])

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
        return _style(alt, _choices(alt, result))
    both = alt.hconcat(_ranking(alt, result, names), _curves(alt, result, names), spacing=30)
    return _style(alt, both)


def _style(alt: Any, made: Any) -> Any:
    return made.configure_view(stroke=None).configure_axis(gridColor="#eeeeee").configure(font="sans-serif")


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
    title = f"best {result.metric}, mean ± standard deviation over seeds"
    scale = alt.Scale(zero=False, nice=True)
    points = base.mark_point(filled=True, size=70).encode(x=alt.X("mean:Q", title=title, scale=scale))
    spreads = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=title, scale=scale), x2="high:Q")
    return (spreads + points).properties(width=360, height={"step": 26}, title="Settings, best first")


def _curves(alt: Any, result: SweepResult, names: list[str]) -> Any:
    rows = [
        {"setting": names[i], "round": round, "mean": found.mean, **_ends(found)}
        for i, curve in result.curves().items()
        if i < NUM_CURVES
        for round, found in curve.items()
    ]
    shown = names[:NUM_CURVES]
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("round:Q", title="round"),
        color=alt.Color(
            "setting:N", scale=alt.Scale(domain=shown, range=list(COLORS[: len(shown)])), legend=None
        ),
    )
    scale = alt.Scale(zero=False, nice=True)
    bands = base.mark_area(opacity=0.18).encode(
        y=alt.Y("low:Q", title=result.metric, scale=scale), y2="high:Q"
    )
    lines = base.mark_line(strokeWidth=2).encode(
        y=alt.Y("mean:Q", title=result.metric, scale=scale), tooltip=["setting:N", "round:Q", "mean:Q"]
    )
    best = "" if len(names) <= NUM_CURVES else f" of the best {NUM_CURVES}"
    return (bands + lines).properties(width=460, height=320, title=f"Learning curves{best}")


def _choices(alt: Any, result: SweepResult) -> Any:
    """Draws tables of choices and conditions: the metric with the worst case, and what backdoors reach."""
    metric = _table(
        alt, result, f"Final {result.metric}", lambda setting: setting.final.mean if setting.final else None
    )
    if not any(setting.success is not None for setting in result.settings):
        return metric
    title = "Success of the backdoor (attack_accuracy)"
    success = _table(alt, result, title, lambda setting: setting.success, is_harm=True)
    return alt.vconcat(metric, success, spacing=30).resolve_scale(color="independent")


def _table(
    alt: Any,
    result: SweepResult,
    title: str,
    pick: Callable[[Setting], float | None],
    *,
    is_harm: bool = False,
) -> Any:
    columns = [*result.conditions, "worst case"]
    if is_harm:
        columns = [name for name in result.conditions if _has_success(result, name)]
    names = [str(choice) or "as in the file" for choice in result.choices]
    rows = list[dict[str, Any]]()
    for name, choice in zip(names, result.choices, strict=True):
        for column in columns:
            setting = choice.under.get(choice.worst if column == "worst case" else column)
            found = None if setting is None else pick(setting)
            ended = setting is not None and not setting.completed
            said = setting.members[0].status if setting and ended else ""
            text = f"{found:.3f}" if found is not None else said
            rows.append({"choice": name, "condition": column, "value": found, "text": text})
    base = alt.Chart(alt.Data(values=rows[: NUM_ROWS * len(columns)])).encode(
        x=alt.X("condition:N", sort=columns, title=None,
                axis=alt.Axis(orient="top", labelAngle=-25, labelLimit=420)),
        y=alt.Y("choice:N", sort=names, title=None, axis=alt.Axis(labelLimit=320)),
    )  # fmt: skip
    good_is_high = result.higher_is_better and not is_harm
    scale = alt.Scale(scheme="blues" if good_is_high else "oranges")
    boxes = base.mark_rect(stroke="white").encode(
        color=alt.Color("value:Q", scale=scale, legend=None), tooltip=["choice:N", "condition:N", "text:N"]
    )
    drawn = [row["value"] for row in rows if row["value"] is not None]
    middle = (min(drawn) + max(drawn)) / 2 if drawn else 0.0
    ink = alt.condition(f"datum.value > {middle}", alt.value("white"), alt.value("#222222"))
    texts = base.mark_text(fontSize=12).encode(text="text:N", color=ink)
    return (boxes + texts).properties(
        width=alt.Step(110), height=alt.Step(28), title=alt.Title(title, anchor="start")
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
    return COLORS[place] if place < NUM_CURVES else "#999999"
