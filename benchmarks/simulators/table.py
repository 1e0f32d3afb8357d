"""A page of the results."""

from collections.abc import Mapping
from typing import Any

from workloads import Workload

NEAR = 1e-6
"""Norms of the parameters after the first round that are taken to be equal, relatively."""


COLUMNS = (
    "tool",
    "seconds a round (least, most)",
    "ratio",
    "rounds",
    "start-up, s",
    "first round done, s",
    "memory, MB",
    "norm",
)


def markdown(results: Mapping[str, Any], workloads: Mapping[str, Workload]) -> str:
    """Return one table per workload."""
    machine = results["machine"]
    lines = [
        "# Seconds per round, compared with other simulators",
        "",
        f"Measured on {machine['date']}, {machine['cores']} cores ({machine['processor']}), Python "
        f"{machine['python']}, by `python benchmarks/simulators/run.py`. The tools take turns. A ratio is a "
        "tool's median over that of Hanse as it chooses itself. Start-up is the time from the start of the "
        "process to the end of its first round, less a median round: imports, data, compilation. Memory is "
        "that of all processes of a tool, shared pages counted once. `norm` is that of the parameters after "
        "the first round.",
        "",
    ]
    for name, tools in results["workloads"].items():
        lines += _table(workloads[name], tools)
    return "\n".join(lines)


def _table(workload: Workload, tools: Mapping[str, Any]) -> list[str]:
    ours = tools.get("hanse", {}).get("seconds")
    due = tools.get("torch loop", {}).get("checksum")
    lines = [
        f"## {workload.name}: {workload.about}",
        "",
        f"{workload.cohort} of {workload.clients:,} clients of {workload.examples} examples, batches of "
        f"{workload.batch}.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{'---|' * len(COLUMNS)}",
    ]
    for name, found in tools.items():
        if "failed" in found:
            lines.append(f"| {name} | failed: {found['failed'][:100]} | | | | | | |")
            continue
        spread = f"**{found['seconds']:.4g}** ({found['min']:.4g}, {found['max']:.4g})"
        ratio = f"{found['seconds'] / ours:.2f}" if ours else ""
        lines.append(
            f"| {name} | {spread} | {ratio} | {found['rounds']} | {found['startup_s']:.1f} | "
            f"{found['first_round_s']:.1f} | {found['peak_mb']} | {_norm(found['checksum'], due)} |"
        )
    return [*lines, ""]


def _norm(checksum: float | None, due: float | None) -> str:
    if checksum is None:
        return "-"
    if due is None or abs(checksum - due) <= NEAR * due:
        return f"{checksum:.8g}"
    return f"{checksum:.8g} ({(checksum - due) / due:+.1e})"
