"""The page of an audit: one HTML file that needs no other, and fetches nothing."""

import base64
import math
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from hanse.audits.session import AuditResult
from hanse.audits.subject import Section
from hanse.config import as_toml
from hanse.core import Array
from hanse.pages import PALETTE, draw_page, escape

__all__ = ["draw_audit", "draw_pictures"]

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
        f'<h2>Settings</h2><section class="card"><p><code>{escape(result.about)}</code></p><p>Data: sha256 '
        f"<code>{result.data_sha256}</code></p><details><summary>All settings</summary>"
        f"<pre>{escape(as_toml(result.settings))}</pre></details></section>"
    )
    return draw_page("A federation, attacked as it is configured", result.intro, parts, name="Audit")


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
            f"<tr><td>{escape(claim.name)}</td><td>{claim.limit:g}</td><td>{number}</td><td>{word}</td></tr>"
        )
    heads = "".join(f"<th>{head}</th>" for head in ("claim", "at most", "measured", ""))
    yield (
        f'<section class="card"><table class="words"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></section>"
    )


def _draw_section(section: Section, show_rows: bool) -> Iterator[str]:
    yield f"<h2>{escape(section.title)}</h2>"
    if section.missing is not None:
        yield f'<p class="missing">Not measured: {escape(section.missing)}.</p>'
        return
    yield f'<p class="quiet">{escape(section.about)}</p>'
    heads = "".join(f"<th>{escape(head)}</th>" for head in section.heads)
    rows = "".join(f"<tr>{''.join(map(_draw_cell, row))}</tr>" for row in section.rows)
    drawn = _draw_curve(section.curve) if section.curve else ""
    yield (
        f'<section class="card"><table class="words"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table>{drawn}</section>"
    )
    if section.is_private and section.pictures and not show_rows:
        yield '<p class="quiet">Pictures of real rows are masked; hanse audit --show-rows shows them.</p>'
    else:
        yield from _draw_pictures(section)
    yield from _draw_records(section, show_rows)


def _draw_pictures(section: Section) -> Iterator[str]:
    rows = []
    for caption, pictures in section.pictures.items():
        images = "".join(f'<img alt="{escape(caption)}" src="{_encode(one)}">' for one in pictures)
        rows.append(f'<p class="quiet">{escape(caption)}</p><div class="pictures">{images}</div>')
    if rows:
        yield f'<section class="card">{"".join(rows)}</section>'


def draw_pictures(rows: Mapping[str, Sequence[Array]]) -> str:
    """Draws pictures in rows under their captions, as an SVG image that needs no other file.

    Args:
      rows: pictures of numbers from 0 to 1, (height, width), by caption.
    """
    side, gap, line, margin = 80, 10, 30, 16
    width = 2 * margin + max(len(pictures) for pictures in rows.values()) * (side + gap) - gap
    parts, y = list[str](), margin
    for caption, pictures in rows.items():
        parts.append(f'<text x="{margin}" y="{y + 17}">{escape(caption)}</text>')
        for i, one in enumerate(pictures):
            place = f'x="{margin + i * (side + gap)}" y="{y + line}" width="{side}" height="{side}"'
            parts.append(f'<image {place} href="{_encode(one)}"/><rect {place} class="edge"/>')
        y += line + side + gap
    height = y - gap + margin
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img"><style>text {{ font: 18px system-ui, sans-serif; fill: #1f2730; }} '
        "image { image-rendering: pixelated; } .edge { fill: none; stroke: #d5dae0; }</style>"
        f'<rect width="{width}" height="{height}" rx="8" fill="#fff"/>\n' + "\n".join(parts) + "\n</svg>\n"
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
        f'<section class="card"><p class="quiet">The first {MOST_COLUMNS} features of rows, as the model '
        f"takes them: what is read, and originals where they are known.{masked}</p>"
        f"<table><tbody>{''.join(lines)}</tbody></table></section>"
    )


def _draw_cell(words: str) -> str:
    is_short = len(words) <= 12  # a number and its unit stay on one line
    return f"<td{' class=short' if is_short else ''}>{escape(words)}</td>"


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
        f'<svg class="drawn" viewBox="0 0 {left + size + 20} {top + size + 44}" '
        f'width="{left + size + 20}" role="img" '
        'aria-label="true positives over false positives">'
        f'<rect x="{left}" y="{top}" width="{size}" height="{size}" class="frame" fill="none"/>'
        f'<polyline points="{low} {high}" class="coin" fill="none" stroke-dasharray="4 4"/>'
        f'<polyline points="{" ".join(points)}" fill="none" stroke="{PALETTE[0]}" stroke-width="2"/>'
        f'{"".join(ticks)}<text x="{left + size / 2}" y="{top + size + 38}" text-anchor="middle">'
        "false positives; dashed: a coin</text>"
        f'<text x="14" y="{top + size / 2}" text-anchor="middle" transform="rotate(-90 14 {top + size / 2})">'
        "true positives</text></svg>"
    )
