"""The date and machine that every committed result names."""

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """Return the date, processor and versions."""
    import numpy as np

    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown"


def save(script: str, result: dict[str, Any]) -> None:
    """Print a result and write it into the folder of the script that measured it."""
    text = json.dumps({"machine": machine(), **result}, indent=2)
    Path(script).with_suffix(".json").write_text(text + "\n")
    print(text)


def keep(script: str, what: str, result: dict[str, Any]) -> None:
    """Add one of a script's results to the file of all of them."""
    path = Path(script).with_suffix(".json")
    every = json.loads(path.read_text()) if path.exists() else {}
    every[what] = {"machine": machine(), "load": round(os.getloadavg()[1], 1), **result}
    path.write_text(json.dumps(every, indent=2, sort_keys=True) + "\n")
