"""A run beside its baselines: the rows of a table for terminals, pages and cards."""

from collections.abc import Iterator, Mapping
from typing import Any

from hanse.core.exchange import OF_VALIDATION
from hanse.evaluation.clients import OWN_TEST, OWN_TRAINING, TEST_SET
from hanse.evaluation.formats import as_bytes, as_cell, as_number, as_seconds

__all__ = ["NAMES", "describe_on_site", "metric_of", "name_stop_metric", "spent_on", "table", "tell_target"]

NAMES = {"federated": "federated", "centralised": "centralised (pooled)", "on_site": "on-site (each alone)"}


def metric_of(settings: Mapping[str, Any], metrics: Mapping[str, Any]) -> str | None:
    """Returns the watched metric if it was measured, or else the first metric that was."""
    watched = str(settings["stop"]["metric"])
    return watched if watched in metrics else next((name for name in metrics if name != "round"), None)


def name_stop_metric(settings: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """Returns the metric that can stop a run, as records name it: on validation examples, if it had some."""
    watched = str(settings["stop"]["metric"])
    on_validation = OF_VALIDATION + watched
    if any(finding["code"] == "led_by_validation" for finding in result.get("findings", ())):
        return watched  # these examples were used up
    return on_validation if on_validation in (result["final"] or ()) else watched


def tell_target(
    settings: Mapping[str, Any], result: Mapping[str, Any], target: int | None
) -> Iterator[tuple[str, str]]:
    """Yields a line about the target of a run, if it has one; `target` is the round that reached it."""
    stop = settings["stop"]
    if stop["target"] is not None:
        reached = "not reached" if target is None else f"reached in round {target}"
        yield "target", f"{name_stop_metric(settings, result)} {stop['target']:g}, {reached}"


def table(settings: Mapping[str, Any], result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Makes heads and rows: centralised, federated, on-site. A dash stands for a number that is not known."""
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


ON_SITE = {
    None: "means over parties, each of which counts once.",  # as runs of earlier versions have it
    TEST_SET: "means over the parties' models on the common test set, weighted by their training examples.",
    OWN_TEST: "of all parties' own test examples together, as the federated ones; each party's model "
    "predicts its own.",
    OWN_TRAINING: "of all training examples together, as the federated ones; each party's model predicts "
    "its own.",
}
"""The meaning of the metrics of on-site training, by the examples that they were measured on."""


def describe_on_site(result: Mapping[str, Any]) -> str:
    """Returns a sentence on what the on-site metrics of a result are means of; empty: it has none."""
    row = next((row for row in result.get("baselines") or () if row["name"] == "on_site"), None)
    return "" if row is None else f"On-site metrics are {ON_SITE[row.get('on')]}"


def _row(row: Mapping[str, Any], names: list[str], metric: str | None, target: bool) -> list[str]:
    cells = [NAMES.get(row["name"], row["name"])]
    cells += [as_cell(row["final"], name, "–") for name in names]
    if metric:
        clients = row.get("clients") or {"mean": {}, "worst_tenth": {}}
        cells += [as_number(clients[word].get(metric)) for word in ("mean", "worst_tenth")]
    if target:
        epochs = row.get("epochs_to_target")
        rounds = row.get("to_target")
        cells.append(str(rounds) if rounds is not None else f"{epochs} epochs" if epochs is not None else "–")
    moved = row["bytes_up"] + row["bytes_down"]
    return [*cells, as_bytes(moved) if moved else "–", as_seconds(row["seconds"])]


def spent_on(result: Mapping[str, Any]) -> str:
    """Formats the shares of a run's time by activity, and the executions of its clients.

    >>> spent_on({"spent": {"compute": 3.0, "fold": 1.0}, "executions": ["one process"]})
    'compute 75%, fold 25% · one process'
    """
    spent = result["spent"]
    whole = sum(spent.values()) or 1.0
    shares = ((what, 100 * seconds / whole) for what, seconds in spent.items())
    said = ", ".join(f"{what} {share:.0f}%" for what, share in shares if share >= 0.5)
    executions = "; then ".join(result.get("executions") or ())
    return f"{said} · {executions}" if executions else said
