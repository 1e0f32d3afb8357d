"""The style that all charts share: colours, axes, formats and words."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from hanse.core import InvalidInput
from hanse.pages import PALETTE
from hanse.report.run_data import CENTRALISED, FEDERATED, ON_SITE

__all__ = [
    "COLOURS",
    "choose_colours",
    "choose_format",
    "finish_chart",
    "import_drawing",
    "make_axis",
    "make_colour",
    "make_opacity",
]

COLOURS = {FEDERATED: PALETTE[0], CENTRALISED: PALETTE[2], ON_SITE: PALETTE[1]}
"""The colours of models that all charts know."""


def make_colour(alt: Any, colours: Mapping[str, str]) -> Any:
    """Makes the colours of curves, by what each shows; with a legend, if there are several."""
    direction = "vertical" if _is_long(list(colours)) else "horizontal"
    shown = alt.Legend(title=None, orient="bottom", labelLimit=400, direction=direction)
    scale = alt.Scale(domain=list(colours), range=list(colours.values()))
    return alt.Color("who:N", scale=scale, legend=shown if len(colours) > 1 else None)


def choose_colours(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Chooses a colour for each curve."""
    places = {row["who"]: row.get("place", 0) for row in rows}
    return {name: COLOURS.get(name, PALETTE[place % len(PALETTE)]) for name, place in places.items()}


def make_opacity(alt: Any) -> Any:
    """Makes what hides the curves whose keys were pressed."""
    return alt.condition("indexof(off, datum.who) < 0", alt.value(1), alt.value(0))


def choose_format(metric: str | None) -> str:
    """Returns the d3 format of a metric's numbers."""
    return ".1%" if metric == "accuracy" else ".4~g"


def make_axis(alt: Any, metric: str | None) -> Any:
    """Returns the axis of a metric, in percent if it is a share."""
    return alt.Axis(format="%") if metric == "accuracy" else alt.Axis()


def _is_long(who: Sequence[str]) -> bool:
    return sum(map(len, who)) > 40


def finish_chart(chart: Any, **size: int) -> Mapping[str, Any]:
    """Gives a chart its size and the style of all, and returns its specification."""
    grey = "#5b6470"
    words = {"labelColor": grey, "titleColor": "#39424e", "titleFontWeight": "normal"}
    styled = (
        chart.properties(**size)
        .configure(font="system-ui, 'DejaVu Sans', sans-serif", background="white")
        .configure_view(stroke=None)
        .configure_axis(
            gridColor="#e9ecf0",
            domainColor="#c9cfd6",
            tickColor="#c9cfd6",
            labelOverlap="greedy",
            labelSeparation=8,
            **words,
        )
        .configure_legend(labelColor="#39424e")
    )
    spec: Mapping[str, Any] = styled.to_dict()
    return spec


def import_drawing(module: str) -> Any:
    """Imports a library that draws. Raises: InvalidInput: if it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        raise InvalidInput(
            f"reports are drawn with altair and vl-convert-python, which are not installed ({error}); run: "
            'pip install "hanse[report]"'
        ) from None
