"""The style of all pages that Hanse writes: one HTML file that fetches nothing, by day and by night."""

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hanse.version import __version__

__all__ = ["PALETTE", "STYLE", "draw_keys", "draw_page", "draw_table", "escape", "fit_chart", "is_page"]

PALETTE = ("#3b7dd8", "#d9732b", "#3a9160", "#a067bd", "#d0525f", "#7a8fa3", "#b58d1f", "#2f9aa8")
"""Colours of curves, which can be seen on white and on dark."""

STYLE = """
:root { color-scheme: light dark; --page: #f5f6f8; --card: #fff; --ink: #1f2730; --soft: #5b6470;
  --line: #e3e7ec; --rule: #d5dae0; --grid: #e9ecf0; --warn: #c2410c; --yes: #2e7d4f; --no: #b3261e; }
@media screen and (prefers-color-scheme: dark) { :root { --page: #12161b; --card: #1a2027; --ink: #e4e8ed;
  --soft: #a3adb8; --line: #2c343d; --rule: #3a444f; --grid: #2a323b; --warn: #f08a4b; --yes: #6cc08b;
  --no: #f2867e; } }
body { font: 15px/1.5 system-ui, 'DejaVu Sans', sans-serif; color: var(--ink); background: var(--page);
  margin: 0; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 24px 48px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 34px 0 8px; }
h3 { font-size: 14px; margin: 0 0 6px; } h1, h2, h3, p, summary { overflow-wrap: anywhere; }
p { margin: 4px 0 10px; max-width: 62em; } .quiet, .what { color: var(--soft); font-size: 14px; }
.finding, .missing { border-left: 4px solid var(--warn); padding: 2px 0 2px 12px; }
.headline { font-size: 17px; margin: 14px 0; padding-left: 20px; max-width: 62em; }
.scroll { overflow: auto; max-height: 560px; } .parties details { margin-top: 8px; }
.answer { font-size: 18px; margin: 14px 0 18px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 14px 16px;
  margin: 0 0 14px; overflow-x: auto; }
.grid { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 14px; }
.grid .card { margin: 0; } .grid .wide { grid-column: 1 / -1; } .grid + .card { margin-top: 14px; }
table { border-collapse: collapse; font-size: 14px; }
td, th { padding: 5px 14px 5px 0; text-align: right; vertical-align: top; }
td:first-child, th:first-child { text-align: left; } th { font-weight: 500; color: var(--soft); }
thead th { border-bottom: 1px solid var(--rule); } tr.own td { font-weight: 600; }
td { font-variant-numeric: tabular-nums; white-space: nowrap; }
td:first-child { white-space: normal; min-width: 8em; overflow-wrap: anywhere; }
.long td:first-child { min-width: 18em; }
.heat td:not(:first-child) { background: color-mix(in srgb, var(--of) var(--at, 0%), transparent);
  padding: 6px 14px; border: 2px solid var(--card); }
.heat th:not(:first-child) { padding: 5px 14px; max-width: 13em; }
.heat td:first-child { min-width: 11em; }
.heat td.best { font-weight: 700; }
.words td, .words th { text-align: left; white-space: normal; } td.short { white-space: nowrap; }
pre { font-size: 13px; line-height: 1.45; white-space: pre-wrap; margin: 8px 0 0; overflow-wrap: anywhere; }
details summary { cursor: pointer; } footer { margin-top: 30px; font-size: 13px; color: var(--soft); }
code { font-size: 13px; overflow-wrap: anywhere; }
.yes { color: var(--yes); font-weight: 600; } .no { color: var(--no); font-weight: 600; }
.chart, .vega-embed { width: 100%; } svg { max-width: 100%; height: auto; }
.chart svg text, .drawn text { fill: var(--soft); } .drawn text { font: 12px system-ui, sans-serif; }
.chart .role-axis-grid line { stroke: var(--grid); }
.chart .role-axis-domain line, .chart .role-axis-tick line { stroke: var(--rule); }
.chart .background { fill: none; }
.drawn .frame { stroke: var(--rule); } .drawn .coin { stroke: var(--soft); }
#vg-tooltip-element { background: var(--card) !important; color: var(--ink) !important;
  border-color: var(--rule) !important; max-width: 90vw; }
#vg-tooltip-element td.key { color: var(--soft) !important; }
.keys { margin: 0 0 10px; display: flex; flex-wrap: wrap; gap: 6px; }
.keys button { font: 14px/1.4 system-ui, 'DejaVu Sans', sans-serif; color: var(--ink); cursor: pointer;
  background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 3px 12px;
  max-width: 100%; text-align: left; overflow-wrap: anywhere; }
.keys button::before { content: ""; display: inline-block; width: 11px; height: 11px; border-radius: 6px;
  background: var(--of); margin-right: 7px; }
.keys button[aria-pressed=false] { opacity: .45; text-decoration: line-through; }
.pictures { display: flex; flex-wrap: wrap; gap: 14px; } .pictures figure { margin: 0; }
.pictures img { width: 64px; height: 64px; image-rendering: pixelated; border: 1px solid var(--rule); }
figcaption { font-size: 13px; color: var(--soft); }
@media (max-width: 760px) { .grid { grid-template-columns: minmax(0, 1fr); } }
@media (max-width: 600px) { main { padding: 18px 12px 32px; } .card { padding: 12px; }
  .pictures { gap: 5px; } .pictures img { width: 34px; height: 34px; }
  td, th { padding-right: 12px; font-size: 13px; } td:first-child { min-width: 6em; }
  table:not(.words) td:first-child, table:not(.words) th:first-child { position: sticky; left: -12px;
    background: var(--card); padding-left: 12px; max-width: 11em; }
  .long td:first-child { min-width: 11em; } }
@media print { body { background: #fff; } .card { break-inside: avoid; overflow: visible; }
  h2, h3 { break-after: avoid; } main { padding: 0; } }
"""

EMBED = """
const drawn = [];
for (const [name, spec] of SPECS)
  vegaEmbed("#" + name, spec, {actions: false, renderer: "svg"}).then(({view}) => drawn.push([spec, view]));
const off = new Set(), keys = [...document.querySelectorAll(".keys button")];
for (const key of keys) key.addEventListener("click", () => {
  const who = key.dataset.who;
  if (!off.delete(who)) off.add(who);
  for (const other of keys) other.setAttribute("aria-pressed", !off.has(other.dataset.who));
  for (const [spec, view] of drawn)
    if ((spec.params || []).some(param => param.name === "off")) view.signal("off", [...off]).runAsync();
});
"""
"""Draws the charts; a press of a key hides its curves in all of them."""


def escape(words: object) -> str:
    """Escapes words for HTML."""
    return html.escape(str(words))


LONG = 24
"""The characters from which on the first cell of a row is given room, and takes several lines."""

MARK = "Written by Hanse"
"""The words in each page by which it is known again."""


def is_page(path: Path) -> bool:
    """Returns whether a file is a page that Hanse wrote, which a newer one may replace."""
    return path.is_file() and MARK.encode() in path.read_bytes()


def draw_page(
    title: str,
    about: str,
    parts: Iterable[str],
    *,
    name: str = "",
    specs: Sequence[tuple[str, Mapping[str, Any]]] = (),
    script: str = "",
) -> str:
    """Draws a page.

    Args:
      title, about: its heading and the line below it.
      parts: its body, as HTML.
      name: its name in a tab of the browser, if that is not the title.
      specs: the charts, in Vega-Lite, by the id of the element that shows each.
      script: what draws the charts, which a page without charts needs not.
    """
    charts = json.dumps(list(specs)).replace("<", "\\u003c")
    body = "\n".join(parts)
    drawing = f"<script>{script}</script>\n<script>{EMBED.replace('SPECS', charts)}</script>" if specs else ""
    return f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(name or title)}</title><style>{STYLE}</style></head>
<body><main>
<h1>{escape(title)}</h1>
<p class="quiet">{escape(about)}</p>
{body}
<footer>{MARK} {__version__}. This file needs no other; it fetches nothing.</footer>
</main>
{drawing}
</body></html>
"""


def draw_table(heads: Sequence[str], rows: Sequence[Sequence[str]], own: Iterable[int] = ()) -> str:
    """Draws a table of numbers. `own`: the rows that are set in bold."""
    marked = set(own)
    top = "".join(f"<th>{escape(head)}</th>" for head in heads)
    lines = []
    for i, row in enumerate(rows):
        mark = ' class="own"' if i in marked else ""
        lines.append(f"<tr{mark}>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>")
    is_long = any(row and len(row[0]) > LONG for row in rows)
    kind = ' class="long"' if is_long else ""
    return f"<table{kind}><thead><tr>{top}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def draw_keys(colours: Mapping[str, str]) -> str:
    """Draws the keys of curves, which hide and show them in all charts of the page."""
    if len(colours) < 2:
        return ""
    buttons = [
        f'<button type="button" aria-pressed="true" data-who="{escape(who)}" style="--of: {colour}">'
        f"{escape(who)}</button>"
        for who, colour in colours.items()
    ]
    return f'<div class="keys">{"".join(buttons)}</div>'


def fit_chart(spec: Mapping[str, Any], *, legend: bool = True) -> dict[str, Any]:
    """Makes a chart as wide as the element that shows it.

    Args:
      legend: whether it has one; where keys stand beside it, it needs none.
    """
    made: dict[str, Any] = json.loads(json.dumps(spec))
    layers = made.get("layer", [made])
    for encoding in [layer["encoding"] for layer in layers] if not legend else []:
        if encoding.get("color", {}).get("field") == "who":
            encoding["color"]["legend"] = None
    size = {"width": "container", "autosize": {"type": "fit-x", "contains": "padding"}}
    return {**made, **size, "config": {**made.get("config", {}), "background": None}}
