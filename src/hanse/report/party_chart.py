"""The picture of each party's row: a dumbbell from the model of the party alone to the federated one."""

from collections.abc import Mapping, Sequence
from typing import Any

from hanse.evaluation import HELPED, HURT, UNCLEAR, order_rows

__all__ = ["draw_parties", "thin_rows"]

MOST_DRAWN = 120
"""The most parties that are drawn; of more, some are left out evenly."""

VERDICTS = {HELPED: "#2e7d4f", UNCLEAR: "#9aa4af", HURT: "#b23a48"}
LONGEST_NAME = 220


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
    names = [f"{row['party']}" for row in rows]
    twice = {name for name in names if names.count(name) > 1}
    labels = [
        f"{name} ({row['number']})" if name in twice else name for name, row in zip(names, rows, strict=True)
    ]
    points, lines = [], []
    for label, row in zip(labels, rows, strict=True):
        found = {trainer: (row.get(trainer) or {}).get(metric) for trainer in trainers}
        points += [
            {"party": label, "who": trainers[trainer], "y": number, "tests": row["test_examples"]}
            for trainer, number in found.items()
            if number is not None
        ]
        if row["verdict"] is not None:
            ends = {"from": found["on_site"], "to": found["federated"]}
            told = {
                "verdict": row["verdict"],
                "gain": row["gain"],
                "low": row["gain_low"],
                "high": row["gain_high"],
            }
            lines.append({"party": label, **ends, **told})
    small = len(rows) > 30
    y_axis = alt.Axis(
        labelLimit=LONGEST_NAME, labelFontSize=9 if small else 12, labelOverlap=False, ticks=False, grid=True
    )
    y = alt.Y("party:N", sort=labels, title=None, axis=y_axis)
    scale = alt.Scale(zero=False)
    x_title = f"{metric.replace('_', ' ')} on own test examples"
    tips = [
        alt.Tooltip("party:N"),
        alt.Tooltip("who:N", title="model"),
        alt.Tooltip("y:Q", title=metric, format=form),
        alt.Tooltip("tests:Q", title="test examples"),
    ]
    size = 40 if small else 110
    dots = (
        alt.Chart(alt.Data(values=points))
        .mark_point(filled=True, size=size, opacity=1, stroke="white", strokeWidth=1)
        .encode(x=alt.X("y:Q", title=x_title, axis=axis, scale=scale), y=y, color=colour, tooltip=tips)
    )
    if not lines:
        return dots.properties(height=(12 if small else 26) * len(rows))
    joined = [
        alt.Tooltip("party:N"),
        alt.Tooltip("verdict:N", title="federation"),
        *(alt.Tooltip(f"{name}:Q", title=name, format=form) for name in ("gain", "low", "high")),
    ]
    rules = (
        alt.Chart(alt.Data(values=lines))
        .mark_rule(strokeWidth=2 if small else 4)
        .encode(
            x=alt.X("from:Q", title=x_title, axis=axis, scale=scale),
            x2="to:Q",
            y=y,
            stroke=alt.Stroke(
                "verdict:N",
                scale=alt.Scale(domain=list(VERDICTS), range=list(VERDICTS.values())),
                legend=alt.Legend(
                    title="federation", orient="bottom", symbolType="stroke", symbolStrokeWidth=4
                ),
            ),
            tooltip=joined,
        )
    )
    return alt.layer(rules, dots).properties(height=(12 if small else 26) * len(rows))
