"""Draw family_iid.json and family_shards.json: the best accuracy so far against megabytes sent.

python benchmarks/compression/picture.py

The axis of accuracy is the logarithm of the error, so that the last points are distinct. All messages of a
chain have one size, so megabytes grow with rounds. After `deflate` sizes differ a little; the mean is drawn.
"""

import json
from itertools import accumulate
from pathlib import Path
from typing import Any

import altair as alt

HERE = Path(__file__).parent
PANELS = {"family_iid": "IID, 100 rounds", "family_shards": "two digits a client, 200 rounds"}
ROWS = {
    "fewer bits": ("8 bits", "4 bits", "2 bits", "1 bit", "rotate, 1 bit"),
    "a sketch of fewer entries": (
        "25%",
        "6.25%",
        "25%, rotate, 2 bits",
        "6.25%, rotate, 2 bits",
        "6.25%, rotate, 2 bits, deflate",
    ),
    "structured": ("mask of 25%", "mask of 6.25%", "rank 1/4", "rank 1/16"),
    "biased, with and without feedback": (
        "top 1%",
        "top 1%, without feedback",
        "top 1%, 4 bits, deflate",
        "sign",
        "sign, without feedback",
    ),
}
COLOURS = ("#1b6ca8", "#d1495b", "#2a9d5c", "#e09f1f", "#6a4c93")
ACCURACY = alt.Y(
    "error:Q",
    title="accuracy, best so far",
    scale=alt.Scale(type="log", domain=[0.5, 0.02], nice=False),
    axis=alt.Axis(
        values=[0.5, 0.3, 0.2, 0.1, 0.05, 0.03, 0.02],
        labelExpr="format(1 - datum.value, '.0%')",
        gridOpacity=0.5,
    ),
)
MEGABYTES = alt.X(
    "megabytes:Q",
    title="megabytes sent up, all clients together",
    scale=alt.Scale(type="log", domain=[0.05, 2000], nice=False),
    axis=alt.Axis(values=[0.1, 1, 10, 100, 1000], format="~g", gridOpacity=0.5),
)


def main() -> None:
    """Write family.png."""
    results = {name: json.loads((HERE / f"{name}.json").read_text()) for name in PANELS}
    rows = [
        alt.hconcat(*(_panel(results[name], PANELS[name], row, chains) for name in PANELS), spacing=30)
        for row, chains in ROWS.items()
    ]
    chart = alt.vconcat(*rows, spacing=14).resolve_scale(color="independent")
    chart.configure_legend(title=None, symbolType="stroke", symbolStrokeWidth=3, labelLimit=260).save(
        HERE / "family.png", ppi=110
    )


def _panel(result: dict[str, Any], title: str, row: str, names: tuple[str, ...]) -> Any:
    points = [
        {
            "chain": name,
            "megabytes": result["chains"][name]["megabytes_up"] * t / result["rounds"],
            "error": 1 - a,
        }
        for name in ("none", *names)
        for t, a in enumerate(_best(result["chains"][name]["accuracy_by_round"][0]))
        if t > 0
    ]
    colour = alt.Color(
        "chain:N",
        scale=alt.Scale(domain=["none", *names], range=["#777777", *COLOURS[: len(names)]]),
        sort=["none", *names],
    )
    lines = (
        alt.Chart(alt.Data(values=points))
        .mark_line(strokeWidth=2, clip=True)
        .encode(x=MEGABYTES, y=ACCURACY, color=colour)
    )
    target = alt.Chart(alt.Data(values=[{"error": 0.05}])).mark_rule(strokeDash=[4, 4], color="#555555")
    return (target.encode(y=ACCURACY) + lines).properties(width=400, height=210, title=f"{row}; {title}")


def _best(accuracies: str) -> list[float]:
    return list(accumulate(map(float, accuracies.split()), max))


if __name__ == "__main__":
    main()
