"""The picture of each party's row: a dumbbell from the model of the party alone to the federated one."""

from collections.abc import Mapping, Sequence
from typing import Any

from hanse.evaluation import HELPED, HURT, UNCLEAR, order_rows

__all__ = ["draw_parties", "thin_rows"]

MOST_DRAWN = 120
"""The most parties that are drawn; of more, some are left out evenly."""

VERDICTS = {HELPED: "#2e7d4f", UNCLEAR: "#9aa4af", HURT: "#b23a48"}
LONGEST_NAME = 220
SIZES = (180, 100, 45)
"""The sizes of the models' points, in the order of drawing: where all are equal, rings show it."""


def thin_rows(rows: Sequence[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], int]:
    """Returns the rows that are drawn, from the party that federation hurt most, and of how many each is one.

    The first and the last are always drawn.
    """
    ordered = order_rows(rows)
    step = -(-len(ordered) // MOST_DRAWN)
    last = [row for row in ordered[-1:] if (len(ordered) - 1) % max(1, step)]
    return [*ordered[:: max(1, step)], *last], step


def draw_parties(
    alt: Any,
    rows: Sequence[Mapping[str, Any]],
    trainers: Mapping[str, str],
    colour: Any,
    axis: Any,
    form: str,
) -> Any:
    """Draws the watched metric of each party under each model; a line joins federated and on-site.

    Args:
      alt: Altair.
      rows: the rows to draw, in their order.
      trainers: the names of the models, as people read them, by their names in rows.
      colour: of the models.
      axis, form: of the metric, and the format of its numbers.
    """
    metric = rows[0]["metric"]
    labels = _label_rows(rows)
    is_small = len(rows) > 30
    points, gains = _list_points(rows, labels, trainers, 0.4 if is_small else 1.0), _list_gains(rows, labels)
    y_axis = alt.Axis(
        labelLimit=LONGEST_NAME,
        labelFontSize=9 if is_small else 12,
        labelOverlap=False,
        ticks=False,
        grid=True,
    )
    y = alt.Y("party:N", sort=labels, title=None, axis=y_axis)
    x_title = f"{metric.replace('_', ' ')} on own test examples"
    along = {"title": x_title, "axis": axis, "scale": alt.Scale(zero=False)}
    dots = (
        alt.Chart(alt.Data(values=points))
        .mark_point(filled=True, opacity=1, stroke="white", strokeWidth=1)
        .encode(
            x=alt.X("y:Q", **along),
            y=y,
            color=colour,
            size=alt.Size("size:Q", scale=None, legend=None),
            tooltip=[
                alt.Tooltip("party:N"),
                alt.Tooltip("who:N", title="model"),
                alt.Tooltip("y:Q", title=metric, format=form),
                alt.Tooltip("tests:Q", title="test examples"),
            ],
        )
    )
    lines = [_draw_gains(alt, gains, y, along, form, 2 if is_small else 4)] if gains else []
    return alt.layer(*lines, dots).properties(height=(12 if is_small else 26) * len(rows))


def _label_rows(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Labels rows by the names of the parties, and those of one name also by their numbers."""
    names = [f"{row['party']}" for row in rows]
    twice = {name for name in names if names.count(name) > 1}
    return [
        f"{name} ({row['number']})" if name in twice else name for name, row in zip(names, rows, strict=True)
    ]


def _list_points(
    rows: Sequence[Mapping[str, Any]], labels: Sequence[str], trainers: Mapping[str, str], scale: float
) -> list[dict[str, Any]]:
    """Lists a point for each party and model that was measured there."""
    sizes = dict(zip([*trainers.values()][::-1], SIZES[::-1], strict=False))
    found = [
        (label, row, words, (row.get(trainer) or {}).get(row["metric"]))
        for label, row in zip(labels, rows, strict=True)
        for trainer, words in trainers.items()
    ]
    return [
        {
            "party": label,
            "who": words,
            "y": number,
            "tests": row["test_examples"],
            "size": sizes[words] * scale,
        }
        for label, row, words, number in found
        if number is not None
    ]


def _list_gains(rows: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> list[dict[str, Any]]:
    """Lists a line for each party of which it is known whether federation helped it."""
    return [
        {
            "party": label,
            "from": row["on_site"][row["metric"]],
            "to": row["federated"][row["metric"]],
            "verdict": row["verdict"],
            "gain": row["gain"],
            "low": row["gain_low"],
            "high": row["gain_high"],
        }
        for label, row in zip(labels, rows, strict=True)
        if row["verdict"] is not None
    ]


def _draw_gains(
    alt: Any, gains: Sequence[Mapping[str, Any]], y: Any, along: Mapping[str, Any], form: str, width: int
) -> Any:
    """Draws the lines from the model of the party alone to the federated one."""
    scale = alt.Scale(domain=list(VERDICTS), range=list(VERDICTS.values()))
    legend = alt.Legend(title="federation", orient="top", symbolType="stroke", symbolStrokeWidth=4)
    return (
        alt.Chart(alt.Data(values=gains))
        .mark_rule(strokeWidth=width)
        .encode(
            x=alt.X("from:Q", **along),
            x2="to:Q",
            y=y,
            stroke=alt.Stroke("verdict:N", scale=scale, legend=legend),
            tooltip=[
                alt.Tooltip("party:N"),
                alt.Tooltip("verdict:N", title="federation"),
                *(alt.Tooltip(f"{name}:Q", title=name, format=form) for name in ("gain", "low", "high")),
            ],
        )
    )
