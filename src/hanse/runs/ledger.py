"""The bytes that a run sent, by client and by stage: rows for tables, and plain data."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hanse.core.exchange import Flow, Usage
from hanse.evaluation import as_bytes

if TYPE_CHECKING:
    from hanse.store import Runs

__all__ = ["as_json", "describe_releases", "describe_traffic", "flows_of", "ledger_table", "traffic"]

MAX_LISTED_CLIENTS = 1000
"""The most clients whose bytes are listed one by one."""


def flows_of(usages: Iterable[Usage]) -> tuple[Flow, ...]:
    """Merges the flows of all rounds, by name and stage."""
    return Flow.merge(flow for usage in usages for flow in usage.flows)


def as_json(flows: Iterable[Flow]) -> list[dict[str, Any]]:
    """Returns flows as plain data: `bytes` by stage, "raw" first."""
    return [
        {
            "direction": flow.direction,
            "name": flow.name,
            "messages": flow.messages,
            "bytes": [
                {"stage": stage, "bytes": size}
                for stage, size in zip(("raw", *flow.stages), flow.num_bytes, strict=True)
            ],
        }
        for flow in flows
    ]


def ledger_table(
    flows: Sequence[Flow], bytes_up: float, bytes_down: float
) -> tuple[list[str], list[list[str]]]:
    """Makes heads and rows of a table: each name raw and after each stage, then headers, then the total sent.

    Shares refer to the raw bytes of the same name, or of the same direction.
    """
    heads = ["", "messages", "stage", "bytes", "of raw"]
    rows: list[list[str]] = []
    for direction, num_bytes in (("up", bytes_up), ("down", bytes_down)):
        own = [flow for flow in flows if flow.direction == direction]
        for flow in own:
            rows += _rows(flow)
        raw, last = (_sum(flow.num_bytes[at] for flow in own) for at in (0, -1))
        if last is not None and num_bytes >= last:
            rows.append([f"{direction}, all", "", "names, headers, tasks", as_bytes(num_bytes - last), ""])
        rows.append([f"{direction}, all", "", "sent", as_bytes(num_bytes), _share(num_bytes, raw)])
    return heads, rows


def _rows(flow: Flow) -> list[list[str]]:
    raw = flow.num_bytes[0]
    rows = [[f"{flow.direction} {flow.name}", f"{flow.messages:,}", "raw", _size(raw), ""]]
    for stage, size in zip(flow.stages, flow.num_bytes[1:], strict=True):
        rows.append(["", "", stage, _size(size), _share(size, raw)])
    return rows


def _sum(sizes: Iterable[int | None]) -> int | None:
    found = list(sizes)
    return None if None in found else sum(size for size in found if size is not None)


def _size(size: int | None) -> str:
    return "–" if size is None else as_bytes(size)


def _share(size: float | None, raw: int | None) -> str:
    """Formats a share as 1/16, above a half as a percentage, and from ten on as a multiple.

    >>> [_share(size, 10_000) for size in (5, 625, 9_000, 99_960, 107_000)]
    ['1/2,000', '1/16', '90 %', '999.6 %', '11 times']
    """
    if not raw or size is None:
        return ""
    times = size / raw
    if times >= 10:
        return f"{times:,.0f} times"
    return f"{100 * times:.4g} %" if times > 1 / 2 or not size else f"1/{_format_ratio(raw / size)}"


def _format_ratio(ratio: float) -> str:
    return f"{ratio:.3g}" if ratio < 100 else f"{ratio:,.0f}"


# -- by client ---------------------------------------------------------------------------------


def traffic(runs: "Runs", run: str) -> dict[str, Any] | None:
    """Returns the bytes of each client that took part, or None if none is known.

    For many clients these are only the mean and the client with the most bytes, up and down.
    """
    rows = runs.traffic(run)
    if not rows:
        return None
    found: dict[str, Any] = {"num_clients": len(rows)}
    sent = {client: (up, down) for client, up, down in rows}
    for at, direction in enumerate(("up", "down")):
        client = max(sent, key=lambda client: sent[client][at])
        mean = sum(sizes[at] for sizes in sent.values()) / len(sent)
        found[direction] = {"mean": mean, "most": sent[client][at], "client": client}
    if len(rows) <= MAX_LISTED_CLIENTS:
        found["each"] = [{"client": client, "up": up, "down": down} for client, up, down in rows]
    return found


def describe_traffic(found: Mapping[str, Any]) -> str:
    """Formats the bytes of clients in a line."""
    said = [
        f"{direction} {as_bytes(found[direction]['mean'])} on average, "
        f"at most {as_bytes(found[direction]['most'])} "
        f"({'' if isinstance(found[direction]['client'], str) else 'client '}{found[direction]['client']})"
        for direction in ("up", "down")
    ]
    return f"{found['num_clients']:,} took part; {'; '.join(said)}"


def describe_releases(usages: Iterable[Usage]) -> Iterator[str]:
    """Formats the noised totals that were decoded: how many there were of each kind, and their noise."""
    found = Counter(
        (one.part, one.release.mechanism, one.release.noise_multiplier, one.sampling)
        for usage in usages
        for one in usage.releases
    )
    for (part, mechanism, noise, sampling), times in found.items():
        asked = f"each client asked with probability {sampling:g}"
        yield f"{times:,} of {part!r}: {mechanism}, noise multiplier {noise:g}, {asked}"
