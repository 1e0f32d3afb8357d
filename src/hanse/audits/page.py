"""The page of an audit: one HTML file that needs no other, and fetches nothing."""

import base64
import html
import math
import struct
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from hanse.audits.session import AuditResult
from hanse.audits.subject import Section
from hanse.config import as_toml
from hanse.core import Array
from hanse.version import __version__

__all__ = ["draw_audit"]

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, 'DejaVu Sans', sans-serif; color: #1f2730; background: #f5f6f8; margin: 0; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 24px 48px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 34px 0 8px; }
p { margin: 4px 0 10px; max-width: 62em; } .quiet { color: #5b6470; font-size: 14px; }
.missing { border-left: 4px solid #c2410c; padding: 2px 0 2px 12px; }
.card { background: #fff; border: 1px solid #e3e7ec; border-radius: 8px; padding: 14px 16px;
  margin: 0 0 14px; overflow-x: auto; }
.yes { color: #2e7d4f; font-weight: 600; } .no { color: #b3261e; font-weight: 600; }
table { border-collapse: collapse; }
td, th { padding: 5px 18px 5px 0; text-align: left; vertical-align: top; }
th { font-weight: 500; color: #5b6470; } thead th { border-bottom: 1px solid #d5dae0; }
td { font-variant-numeric: tabular-nums; } td.short { white-space: nowrap; }
svg { max-width: 100%; height: auto; display: block; margin-top: 12px; }
svg text { font: 12px system-ui, 'DejaVu Sans', sans-serif; fill: #5b6470; }
.pictures { display: flex; flex-wrap: wrap; gap: 14px; } .pictures figure { margin: 0; }
.pictures img { width: 64px; height: 64px; image-rendering: pixelated; border: 1px solid #d5dae0; }
figcaption { font-size: 13px; color: #5b6470; }
pre { font-size: 13px; line-height: 1.45; white-space: pre-wrap; margin: 8px 0 0; overflow-wrap: anywhere; }
details summary { cursor: pointer; } footer { margin-top: 30px; font-size: 13px; color: #5b6470; }
code { font-size: 13px; overflow-wrap: anywhere; }
@media (max-width: 600px) { main { padding: 18px 12px 32px; }
  td, th { padding-right: 10px; font-size: 13px; } }
@media print { body { background: #fff; } .card { break-inside: avoid; } }
"""

MOST_COLUMNS = 12
"""The most features of a row that are shown."""

LEAST_RATE = 1e-3
"""The left and lower end of the axes of a curve, which are logarithmic."""


def draw_audit(result: AuditResult, *, show_rows: bool = False) -> str:
    """Draws the page of an audit.

    Args:
      show_rows: whether rows of numbers are shown beside what was read of them, and not masked.
    """
    parts = [*_draw_claims(result)]
    for section in result.sections.values():
        parts += _draw_section(section, show_rows)
    parts.append(
        f'<h2>Settings</h2><section class="card"><p><code>{_text(result.about)}</code></p><p>Data: sha256 '
        f"<code>{result.data_sha256}</code></p><details><summary>All settings</summary>"
        f"<pre>{_text(as_toml(result.settings))}</pre></details></section>"
    )
    body = "\n".join(parts)
    return f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Audit</title><style>{STYLE}</style></head>
<body><main>
<h1>A federation, attacked as it is configured</h1>
<p class="quiet">The attacks were simulated on the data that the settings name. They show what these attacks
find, not that no other finds more.</p>
{body}
<footer>Written by Hanse {__version__}. This file needs no other; it fetches nothing.</footer>
</main></body></html>
"""


def _text(words: object) -> str:
    return html.escape(str(words))


def _draw_claims(result: AuditResult) -> Iterator[str]:
    yield "<h2>Claims</h2>"
    if not result.claims:
        yield '<p class="quiet">The settings make no claims; write some in the table [audit].</p>'
        return
    rows = []
    for claim in result.claims:
        number = "not measured" if claim.measured is None else f"{claim.measured:.4g}"
        word = '<span class="yes">holds</span>' if claim.holds else '<span class="no">does not hold</span>'
        rows.append(
            f"<tr><td>{_text(claim.name)}</td><td>{claim.limit:g}</td><td>{number}</td><td>{word}</td></tr>"
        )
    heads = "".join(f"<th>{head}</th>" for head in ("claim", "at most", "measured", ""))
    yield (
        f'<section class="card"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
        "</section>"
    )


def _draw_section(section: Section, show_rows: bool) -> Iterator[str]:
    yield f"<h2>{_text(section.title)}</h2>"
    if section.missing is not None:
        yield f'<p class="missing">Not measured: {_text(section.missing)}.</p>'
        return
    yield f'<p class="quiet">{_text(section.about)}</p>'
    heads = "".join(f"<th>{_text(head)}</th>" for head in section.heads)
    rows = "".join(f"<tr>{''.join(map(_draw_cell, row))}</tr>" for row in section.rows)
    drawn = _draw_curve(section.curve) if section.curve else ""
    yield (
        f'<section class="card"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>{drawn}'
        "</section>"
    )
    yield from _draw_pictures(section)
    yield from _draw_records(section, show_rows)


def _draw_pictures(section: Section) -> Iterator[str]:
    for caption, pictures in section.pictures.items():
        images = "".join(f'<img alt="{_text(caption)}" src="{_encode(one)}">' for one in pictures)
        yield (
            f'<section class="card"><p class="quiet">{_text(caption)}</p><div class="pictures">{images}</div>'
            "</section>"
        )


def _encode(picture: Array) -> str:
    """Encodes a picture of numbers from 0 (white) to 1 (black) as the address of a PNG image."""
    grey = np.round(255 * (1 - np.asarray(picture))).astype(np.uint8)
    lines = b"".join(b"\0" + line.tobytes() for line in grey)
    head = struct.pack(">IIBBBBB", grey.shape[1], grey.shape[0], 8, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", head), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b"")):
        png += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _draw_records(section: Section, show_rows: bool) -> Iterator[str]:
    if not section.records:
        return
    lines = []
    for name, row in section.records:
        cells = [f"{number:.3g}" if show_rows else "•••" for number in row[:MOST_COLUMNS].tolist()]
        lines.append(f"<tr>{''.join(map(_draw_cell, [name, *cells]))}</tr>")
    masked = "" if show_rows else " They are masked; hanse audit --show-rows shows them."
    yield (
        f'<section class="card"><p class="quiet">The first {MOST_COLUMNS} features of one row, as the model '
        f"takes them, beside what is read of it.{masked}</p><table><tbody>{''.join(lines)}</tbody></table>"
        "</section>"
    )


def _draw_cell(words: str) -> str:
    is_short = len(words) <= 12  # a number and its unit stay on one line
    return f"<td{' class=short' if is_short else ''}>{_text(words)}</td>"


def _draw_curve(curve: Sequence[tuple[float, float]]) -> str:
    """Draws true positives over false positives, both on logarithmic axes, beside a coin."""
    size, left, top = 300, 56, 10

    def place(false: float, true: float) -> str:
        across, up = (1 - math.log(max(rate, LEAST_RATE)) / math.log(LEAST_RATE) for rate in (false, true))
        return f"{left + across * size:.1f},{top + (1 - up) * size:.1f}"

    points = dict.fromkeys(place(false, true) for false, true in curve)
    ticks = []
    for rate in (0.001, 0.01, 0.1, 1.0):
        x, y = place(rate, rate).split(",")
        ticks.append(
            f'<text x="{x}" y="{top + size + 18}" text-anchor="middle">{rate:.4g}</text>'
            f'<text x="{left - 8}" y="{y}" text-anchor="end" dominant-baseline="middle">{rate:.4g}</text>'
        )
    low, high = place(LEAST_RATE, LEAST_RATE), place(1, 1)
    return (
        f'<svg viewBox="0 0 {left + size + 20} {top + size + 44}" width="{left + size + 20}" role="img" '
        'aria-label="true positives over false positives">'
        f'<rect x="{left}" y="{top}" width="{size}" height="{size}" fill="none" stroke="#d5dae0"/>'
        f'<polyline points="{low} {high}" fill="none" stroke="#9aa3ad" stroke-dasharray="4 4"/>'
        f'<polyline points="{" ".join(points)}" fill="none" stroke="#1f5fbf" stroke-width="2"/>'
        f'{"".join(ticks)}<text x="{left + size / 2}" y="{top + size + 38}" text-anchor="middle">'
        "false positives; dashed: a coin</text>"
        f'<text x="14" y="{top + size / 2}" text-anchor="middle" transform="rotate(-90 14 {top + size / 2})">'
        "true positives</text></svg>"
    )
