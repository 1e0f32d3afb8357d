"""The machine of a run: the same processor type, versions and threads give the same bits."""

import platform
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_info

from hanse.core.exchange import Checkpoint
from hanse.version import __version__

__all__ = ["changes", "environment", "is_simulated"]


def is_simulated(checkpoint: Checkpoint | None) -> bool:
    """Returns whether the simulation can go on from a checkpoint."""
    from hanse.network.server import NetworkSnapshot

    return checkpoint is None or not isinstance(checkpoint.runtime, NetworkSnapshot)


def environment() -> dict[str, str]:
    """Collects all that bits depend on besides the settings. Call it where threads are limited."""
    own = str(Path(np.__file__).parent.parent / "numpy")
    blas = [pool for pool in threadpool_info() if pool["user_api"] == "blas" and own in pool["filepath"]]
    names = {f"{pool['internal_api']} {pool['version']} ({pool.get('architecture', '?')})" for pool in blas}
    return {
        "hanse": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": ", ".join(sorted(names)) or "unknown",
        "threads": str(max((pool["num_threads"] for pool in blas), default=1)),
        "cpu": _cpu(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    found = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(found, platform.processor() or platform.machine())


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Lists in words how two environments differ."""
    return [
        f"{name} {before.get(name, 'unknown')} became {now.get(name, 'unknown')}"
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    ]
