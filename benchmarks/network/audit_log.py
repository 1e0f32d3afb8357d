"""Times the opening of a client's audit log of 200,000 lines: python benchmarks/network/audit_log.py."""

import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from hanse.network.client import AuditLog

LINES = 200_000


def main() -> None:
    with TemporaryDirectory() as folder:
        log = AuditLog(Path(folder) / "audit.jsonl")
        about = {"run": "abcdef", "work": "local_sgd", "bytes": 5300, "sha256": "ab" * 32}
        began_s = time.perf_counter()
        for ticket in range(LINES):
            log.write("sends", sync=False, ticket=ticket, **about)
        again = AuditLog(log.path)
        seconds = {"write all without waiting for the disk": time.perf_counter() - began_s}
        steps = {
            "open": lambda: again.head(),
            "write a line": lambda: again.write("sent", ticket=LINES),
            "find the head of ten lines ago": lambda: again.head_at(LINES - 10),
            "check all": lambda: sum(1 for _ in again.lines()),
        }
        for what, act in steps.items():
            began_s = time.perf_counter()
            act()
            seconds[what] = time.perf_counter() - began_s
        print(json.dumps({"MB": log.path.stat().st_size / 1e6, "seconds": seconds}, indent=1))


if __name__ == "__main__":
    main()
