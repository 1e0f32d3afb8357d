"""Results as HTML, which notebooks show in place of their text."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hanse.config import summary
from hanse.evaluation import as_bytes, as_number, as_seconds, table
from hanse.pages import escape

__all__ = ["draw_result"]

STYLE = "text-align:left;padding:2px 12px 2px 0"


def draw_result(
    facts: Mapping[str, Any], settings: Mapping[str, Any] | None, called: Sequence[str] = ()
) -> str:
    """Draws a result: how it ended, its metrics beside its baselines, its costs and findings.

    Args:
      facts: the result as plain data, see `Result.to_json`.
      settings: of its experiment, if they can be written down.
      called: its name and tags.
    """
    reason = f": {facts['reason']}" if facts["reason"] else ""
    run = "a run that is not kept" if facts["run"] is None else f"run {facts['run']}"
    parts = [f"<b>{escape(' '.join([run, *called]))}</b> {escape(facts['status'] + reason)}"]
    if settings is not None:
        parts.append(f"<small>{escape(summary(settings))}</small>")
    parts += [f"{escape(finding['text'])}; {escape(finding['cure'])}" for finding in facts["findings"]]
    body = "".join(f"<div>{part}</div>" for part in parts)
    if settings is not None and facts["final"] and facts["baselines"]:
        heads, rows = table(settings, facts)
    else:
        heads, rows = _metrics(facts)
    sent = f"{as_bytes(facts['bytes_up'])} up, {as_bytes(facts['bytes_down'])} down"
    costs = f"{facts['rounds']:,} rounds, {sent}, {as_seconds(facts['seconds'])}"
    return f"<div>{body}{_table(heads, rows)}<div><small>{escape(costs)}</small></div></div>"


def _metrics(facts: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    rows = {word: facts[word] for word in ("final", "best") if facts[word]}
    names = list(dict.fromkeys(name for row in rows.values() for name in row if name != "round"))
    cells = [
        [word, str(row["round"]), *(as_number(row.get(name)) for name in names)] for word, row in rows.items()
    ]
    return ["", "round", *names], cells


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [_line("th", heads), *(_line("td", row) for row in rows)]
    return f"<table>{''.join(lines)}</table>" if len(lines) > 1 else ""


def _line(tag: str, cells: Sequence[str]) -> str:
    inner = "".join(f'<{tag} style="{STYLE}">{escape(cell)}</{tag}>' for cell in cells)
    return f"<tr>{inner}</tr>"
