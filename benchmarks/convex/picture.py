"""Draw results.json: the gap against rounds of communication, and against local computation.

python benchmarks/convex/picture.py
"""

import json
from pathlib import Path
from typing import Any

import altair as alt

HERE = Path(__file__).parent
AXES = {"round": "rounds of communication", "passes": "local computation (passes over a client's own data)"}
COLOURS = {
    "gradient descent": "#9e9e9e",
    "Nesterov": "#4d4d4d",
    "DANE mu = 0": "#b2182b",
    "DANE mu = .003": "#ef8a62",
    "GIANT": "#e6ab02",
    "CoCoA (averaging)": "#a6d96a",
    "CoCoA+ (adding)": "#1a9850",
    "FedAvg, 20 local steps": "#2166ac",
    "SCAFFOLD, 20 local steps": "#67a9cf",
    "FedDyn, 20 local steps": "#762a83",
    "one-shot averaging": "#000000",
}


def draw(report: dict[str, Any], path: Path) -> None:
    """Write the picture."""
    points = [
        {"algorithm": ran["algorithm"], "split": ran["split"], "round": t, "gap": gap, "passes": passes}
        for ran in report["runs"]
        for t, gap, passes in ran["curve"]
        if t > 0 and gap > 1e-9 and ran["algorithm"] in COLOURS
    ]
    splits = list(dict.fromkeys(point["split"] for point in points))
    rows = [
        alt.hconcat(*(_panel([p for p in points if p["split"] == split], split, axis) for axis in AXES))
        for split in splits
    ]
    chart = alt.vconcat(*rows).configure_legend(title=None, symbolType="stroke", labelLimit=240)
    chart.save(path, ppi=100)


def _panel(points: list[dict[str, Any]], split: str, axis: str) -> Any:
    colour = alt.Color(
        "algorithm:N", scale=alt.Scale(domain=list(COLOURS), range=list(COLOURS.values())), sort=list(COLOURS)
    )
    logs = alt.Scale(type="log", nice=False)
    base = alt.Chart(alt.Data(values=points)).encode(
        x=alt.X(f"{axis}:Q", title=AXES[axis], scale=logs, axis=alt.Axis(tickCount=5, grid=False)),
        y=alt.Y(
            "gap:Q",
            title="objective less optimum",
            scale=alt.Scale(type="log", domain=[1e-9, 10], clamp=True),
            axis=alt.Axis(format=".0e", values=[10.0**e for e in range(-9, 2)]),
        ),
        color=colour,
    )
    once = base.transform_filter("datum.algorithm === 'one-shot averaging'").mark_point(filled=True, size=70)
    return (base.mark_line(strokeWidth=2) + once).properties(width=430, height=300, title=split)


if __name__ == "__main__":
    draw(json.loads((HERE / "results.json").read_text()), HERE / "convex.png")
