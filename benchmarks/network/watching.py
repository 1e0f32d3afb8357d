"""What it costs to watch a server: python benchmarks/network/watching.py [MEMBERS]

It prints one JSON object: microseconds that metrics add to a request, milliseconds of a scrape with many
members and as many messages on the disk, and milliseconds to find how far a run is, as the live table does.
"""

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "network"))

from federation import FED_AVG, job

from hanse.network.server import Server
from hanse.network.server.monitoring import Meter, Metered


async def answer(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x" * 100})


async def time_requests(app: Any, count: int = 20_000) -> float:
    """Returns the seconds of a request to an application that does nothing."""

    async def receive() -> Any:
        return {"type": "http.request", "body": b"y" * 100}

    async def send(message: Any) -> None:
        return None

    began_s = time.perf_counter()
    for _ in range(count):
        await app({"type": "http"}, receive, send)
    return (time.perf_counter() - began_s) / count


def median_ms(act: Any, count: int = 20) -> float:
    took = []
    for _ in range(count):
        began_s = time.perf_counter()
        act()
        took.append(time.perf_counter() - began_s)
    return round(1000 * median(took), 2)


def main(num_members: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder), "0" * 64)
        meter = Meter(server)
        plain = min(asyncio.run(time_requests(answer)) for _ in range(5))
        metered = min(asyncio.run(time_requests(Metered(answer, meter))) for _ in range(5))
        with server.members._transaction() as db:
            rows = [
                (f"c{n}", "client", n, f"client {n}", f"{n:064x}", "active", 0.0, None)
                for n in range(num_members)
            ]
            db.executemany("INSERT INTO members VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        server.members._holders.update({n: f"c{n}" for n in range(num_members)})
        server.members._clients = server.members._parties = None
        run = server.lead(job(FED_AVG, 1, num_clients=num_members + 1))
        spool = Path(folder) / "runs" / run / "spool"
        for n in range(num_members):
            server.presence.hear(n)
            (spool / f"{n}.upload").write_bytes(b"z" * 100)
        led = server.run(run)
        found = {
            "members": num_members,
            "request_us": round(1e6 * (metered - plain), 2),
            "scrape_ms": median_ms(meter.write),
            "standing_ms": median_ms(lambda: led.standing),
        }
        led.mailbox.stop()
        led.join(10.0)
        print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5000)
