"""A run beside its baselines, in words: the rows of one table for terminals, pages and cards."""

from collections.abc import Mapping
from typing import Any

__all__ = ["NAMES", "as_bytes", "as_number", "as_seconds", "metric_of", "spent_on", "table"]

NAMES = {"federated": "federated", "centralised": "centralised (pooled)", "on_site": "on-site (each alone)"}


def metric_of(settings: Mapping[str, Any], metrics: Mapping[str, Any]) -> str | None:
    """The watched metric where it was measured, or else the first that was."""
    watched = str(settings["stop"]["metric"])
    return watched if watched in metrics else next((name for name in metrics if name != "round"), None)


def table(settings: Mapping[str, Any], result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Heads and rows: centralised, federated, on-site. A dash stands where a thing has no such number."""
    final = result["final"] or {}
    metric = metric_of(settings, final)
    names = [name for name in (metric, "loss") if name is not None]
    names = list(dict.fromkeys(names))
    target = settings["stop"]["target"] is not None
    heads = ["", *names]
    heads += [f"clients: mean {metric}", f"worst tenth {metric}"] if metric else []
    heads += ["rounds to target"] if target else []
    heads += ["bytes", "seconds"]
    federated = {
        "name": "federated",
        "final": final,
        "clients": result.get("clients"),
        "bytes_up": result["bytes_up"],
        "bytes_down": result["bytes_down"],
        "seconds": result["seconds"],
        "to_target": result["rounds_to_target"],
    }
    by_name = {str(row["name"]): row for row in result.get("baselines") or ()}
    rows = [row for name in ("centralised",) if (row := by_name.pop(name, None))]
    rows += [federated, *by_name.values()]
    return heads, [_row(row, names, metric, target) for row in rows]


def _row(row: Mapping[str, Any], names: list[str], metric: str | None, target: bool) -> list[str]:
    cells = [NAMES.get(row["name"], row["name"])]
    cells += [as_number(row["final"].get(name)) for name in names]
    if metric:
        clients = row.get("clients") or {"mean": {}, "worst_tenth": {}}
        cells += [as_number(clients[word].get(metric)) for word in ("mean", "worst_tenth")]
    if target:
        epochs = row.get("epochs_to_target")
        rounds = row.get("to_target")
        cells.append(str(rounds) if rounds is not None else f"{epochs} epochs" if epochs is not None else "–")
    moved = row["bytes_up"] + row["bytes_down"]
    return [*cells, as_bytes(moved) if moved else "–", as_seconds(row["seconds"])]


def as_number(number: float | None) -> str:
    """Four digits after the point; a dash for nothing."""
    if number is None:
        return "–"
    return f"{number:.4f}" if 1e-3 <= abs(number) < 1e4 or number == 0 else f"{number:.3g}"


def as_bytes(count: float) -> str:
    """In a unit that suits.

    >>> as_bytes(2_500_000)
    '2.5 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def spent_on(result: Mapping[str, Any]) -> str:
    """What a run's time went to, and how its clients were computed.

    >>> spent_on({"spent": {"compute": 3.0, "fold": 1.0}, "ways": ["one process"]})
    'compute 75%, fold 25% · one process'
    """
    spent = result["spent"]
    whole = sum(spent.values()) or 1.0
    shares = ((what, 100 * seconds / whole) for what, seconds in spent.items())
    said = ", ".join(f"{what} {share:.0f}%" for what, share in shares if share >= 0.5)
    executions = "; then ".join(result.get("ways") or ())
    return f"{said} · {executions}" if executions else said


def as_seconds(seconds: float) -> str:
    """In a unit that suits."""
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 600 else f"{seconds / 60:.3g} min"
