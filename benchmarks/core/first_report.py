"""From `git clone` to the first report, as `make demo` does it, in a fresh clone and a fresh environment.

    python benchmarks/core/first_report.py

Prints wall-clock and processor seconds of each part; the installer mostly waits for downloads.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import save

PROJECT = Path(__file__).resolve().parents[2]


def timed(*command: str, folder: Path) -> dict[str, float]:
    """Return wall-clock and processor seconds of one command."""
    before, began = os.times(), time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return {"wall_s": round(time.perf_counter() - began, 1), "processor_s": round(processor, 1)}


def main() -> None:
    """Clone, install, and draw the first pages."""
    with tempfile.TemporaryDirectory() as parent:
        clone = Path(parent, "hanse")
        result = {
            "clone": timed("git", "clone", "--quiet", str(PROJECT), str(clone), folder=Path(parent)),
            "install": timed("make", ".venv/.installed", f"PYTHON={sys.executable}", folder=clone),
            "demo": timed("make", "demo", folder=clone),
        }
        pages = sorted(str(page.relative_to(clone)) for page in clone.glob("demo/*/index.html"))
    save(__file__, {**result, "pages": pages})


if __name__ == "__main__":
    main()
