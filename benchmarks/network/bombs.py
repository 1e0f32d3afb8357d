"""What a hostile server costs a client: memory, bytes and lines, in a process of its own, over TLS.

    python benchmarks/network/bombs.py --keep            # all of them, and writes bombs.json
    python benchmarks/network/bombs.py --only orders     # one

For each case a client meets a server that sends one kind of bomb for some seconds. Its peak memory is
compared with that of a client that met an honest server and answered a ticket. The bytes that it has read, as
its sockets gave them, are compared with the limits that are stated: of each answer, of each object as its
order announces it, and of how often a client polls. The script fails if the growth is 100 MB or more, if
there were more bytes, or if a message was sent to a server that asked for nothing honest.
"""

import argparse
import contextlib
import functools
import gzip
import hashlib
import itertools
import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))
sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "network"))

from federation import learner, population
from machine import save
from played import Heard, HostileServer

from hanse.core.exchange import pack
from hanse.network.client import Client, ClientHome
from hanse.network.protocol import make

MOST_MB = 100
JSON_BYTES, PLANS_BYTES = 1 << 20, 4 << 20
READING_BYTES = 6 << 16
"""What may be read beyond a limit before it is noticed: a block of 256 KB, headers and what TLS reads."""

POLLS, POLLS_PER_S = 100, 1
"""The polls of a client that sends no messages: at first, and for each second."""

BLOCK = b"a" * (1 << 16)
OBJECT_BYTES = 4 << 20


# -- the client ------------------------------------------------------------------------------------


def work(folder: str, seconds: str) -> None:
    """Work as a client for so many seconds, and print what that took."""
    said, read, receive = [0, 0], [0], ssl.SSLSocket.recv

    def count(socket: ssl.SSLSocket, *given: Any) -> bytes:
        data = receive(socket, *given)
        read[0] += len(data)
        return data

    def hear(line: str) -> None:
        said[0] += 1
        said[1] += len(line)

    ssl.SSLSocket.recv = count  # type: ignore[method-assign, assignment]
    home, mine = ClientHome(Path(folder)), population().client(0)
    client = Client(home, lambda plan: mine, learner, hear)
    thread = threading.Thread(target=client.run, daemon=True)
    thread.start()
    thread.join(float(seconds))
    status = Path("/proc/self/status").read_text()
    lines = list(home.audit.lines())
    found = {
        "peak_mb": round(int(status.partition("VmHWM:")[2].split()[0]) / 1024, 1),
        "read_bytes": read[0],
        "lines_said": said[0],
        "chars_said": said[1],
        "audit_lines": len(lines),
        "audit_bytes": home.audit.path.stat().st_size,
        "files": sum(len(files) for _, _, files in os.walk(home.folder)),
        "sent": sum(line["what"] == "sent" for line in lines),
        "failed": sorted({line["code"] for line in lines if line["what"] == "fails"}),
    }
    print(json.dumps(found), flush=True)
    os._exit(0)


# -- the server ------------------------------------------------------------------------------------


@functools.cache
def honest() -> tuple[Any, Any, Any, Any]:
    """Return a plan, a payload, a task and an order that a client answers."""
    from test_envelope import ORDER, PAYLOAD, PLAN, TASK  # not in the client, whose memory is measured

    return PLAN, PAYLOAD, TASK, ORDER


@dataclass
class Bomb:
    """What a server sends.

    Args:
      poll: answers polls, until the client has told how a ticket ended.
      objects: answers downloads.
      message: answers the chunks of a message.
      once: whether polls are answered once, and then only when the ticket has ended.
      limit_bytes: what a client may read in all, given the seconds and the requests that it has sent.
    """

    poll: Callable[[HostileServer, Heard], Iterable[bytes]]
    objects: Callable[[HostileServer, Heard], Iterable[bytes]] = lambda server, heard: []
    message: bytes = b'{"offset": 0, "durable": true}'
    once: bool = False
    limit_bytes: Callable[[float, list[Heard]], int] = lambda seconds, heard: int(
        (POLLS + POLLS_PER_S * seconds + 1) * (JSON_BYTES + 4096)
    )


def told(heard: list[Heard]) -> int:
    """Return the limit for a client that asks again and again, of whose requests none is answered well."""
    return sum(JSON_BYTES + READING_BYTES for _ in heard)


def raw(data: bytes) -> Iterable[bytes]:
    """Answer with these bytes, as downloads come."""
    return [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data]


def answering(content: Callable[[], bytes], **headers: str) -> Bomb:
    """Answer all polls with a signed body."""
    return Bomb(
        lambda server, heard: server.sign(heard, content(), **headers),
        limit_bytes=lambda seconds, heard: told(heard),
    )


def compressed(content: bytes) -> Bomb:
    """Answer all polls with a body that is small only until it is decompressed."""
    body = gzip.compress(content, 6)
    return answering(lambda: body, Content_Encoding="gzip")


def streaming(head: bytes, block: bytes, pause_s: float = 0.0) -> Bomb:
    """Answer all polls without an end."""

    def stream(server: HostileServer, heard: Heard) -> Iterator[bytes]:
        yield head
        while True:
            time.sleep(pause_s)
            yield block

    return Bomb(stream, limit_bytes=lambda seconds, heard: told(heard))


def flooding(content: Callable[[int], dict[str, Any]]) -> Bomb:
    """Answer each poll at once with other news."""
    number = itertools.count()
    return Bomb(
        lambda server, heard: server.sign(heard, json.dumps(content(next(number))).encode()),
        objects=lambda server, heard: waits(),
    )


def waits() -> Iterator[bytes]:
    """Answer never."""
    while True:
        time.sleep(60.0)
        yield b""


def ordering(
    plan: bytes | None = None,
    payload: bytes | None = None,
    *,
    endless: bool = False,
    message: bytes = Bomb.message,
) -> Bomb:
    """Order one ticket, of which a part is no honest one; None: it is honest."""
    a_plan, a_payload, task, order = honest()
    plan = pack(replace(a_plan, run="r")) if plan is None else plan
    payload = pack(a_payload) if payload is None else payload
    objects = {hashlib.sha256(data).hexdigest(): data for data in (plan, payload)}
    names = list(objects)
    said = {**order.model_dump(), "run": "r", "ticket": 1, "plan": names[0], "plan_bytes": len(plan)}
    said |= {"payload": names[1], "payload_bytes": len(payload), "task": pack(replace(task, ticket=1)).hex()}

    def fetch(server: HostileServer, heard: Heard) -> Iterable[bytes]:
        name = heard.path.partition("?")[0].rpartition("/")[2]
        if endless and name == names[1]:
            return itertools.chain([b"HTTP/1.1 200 OK\r\n\r\n"], itertools.repeat(BLOCK))
        return raw(objects[name])

    def limit(seconds: float, heard: list[Heard]) -> int:
        fetched = [len(objects[name]) for one in heard for name in names if one.path.endswith(name)]
        fetched = [size + READING_BYTES for size in fetched]
        return sum(fetched) + sum(8192 for one in heard if "/objects/" not in one.path)

    return Bomb(
        lambda server, heard: server.sign(heard, json.dumps({"work": [said]}).encode()),
        fetch,
        message,
        once=True,
        limit_bytes=limit,
    )


def planning(**fields: Any) -> Bomb:
    """Order a ticket of a plan with other fields, which is as large as it may be."""
    return ordering(plan=pack(replace(honest()[0], run="r", **fields)))


def heading(text: bytes) -> Bomb:
    """Order a ticket of a payload with this header."""
    return ordering(payload=len(text).to_bytes(8, "little") + text)


NESTED = "[]," * ((PLANS_BYTES - 50_000) // 3)
PATTERN = {"role": "client", "work": {"$": "x", "a": []}, "uplink": {}, "shared": {}, "downlink": {}}


def pattern() -> str:
    """Write envelopes whose pattern is as large as a plan may be."""
    given = {"pattern": {**PATTERN, "own": {}, "plans": {}}, "fewest": 0, "is_phase": False}
    return json.dumps([given]).replace('"a": []', f'"a": [{NESTED}[]]')


def orders(number: int) -> dict[str, Any]:
    """Make new orders, which together are as large as an answer may be."""
    one = {**honest()[3].model_dump(), "run": "r", "task": "00" * 2000}
    return {"work": [{**one, "ticket": number * 1000 + i} for i in range(220)]}


def certificates(number: int) -> dict[str, Any]:
    """Announce another certificate in each answer."""
    return {"certificate": pems()[number % len(pems())]}


@functools.cache
def pems() -> list[str]:
    """Make some certificates."""
    with tempfile.TemporaryDirectory() as folder:
        made = []
        for number in range(40):
            (place := Path(folder) / str(number)).mkdir()
            made.append(make(place, ("127.0.0.1",))[0].read_text())
    return made


def many(content: bytes, end: bytes = b"") -> bytes:
    """Repeat a text up to the largest answer, less a little."""
    return content * ((JSON_BYTES - 1000) // len(content)) + end


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 872415232\r\n\r\n"
CASES: dict[str, Callable[[], Bomb]] = {
    "honest": ordering,
    "compressed answer of 300 MB": lambda: compressed(bytes(300 << 20)),
    "endless answer": lambda: streaming(HEAD, BLOCK),
    "endless headers": lambda: streaming(b"HTTP/1.1 200 OK\r\n", b"X-A: " + BLOCK + b"\r\n"),
    "slow answer": lambda: streaming(HEAD, b"a", 0.5),
    "answer of lists": lambda: answering(lambda: b'{"work": [' + many(b"[],", b"[]]}")),
    "answer of wrong orders": lambda: answering(lambda: b'{"work": [' + many(b"1,", b"1]}")),
    "answer of wrong outcomes": lambda: answering(lambda: b'{"decisions": [' + b"{}," * 90_000 + b"{}]}"),
    "answer of wrong ends": lambda: answering(
        lambda: json.dumps({"ended": {f"{i:x}": 1 for i in range(90_000)}}).encode()
    ),
    "orders": lambda: flooding(orders),
    "outcomes": lambda: flooding(
        lambda n: {
            "decisions": [
                {"run": "r", "ticket": n * 1000 + i, "counted": False, "why": "y" * 5000} for i in range(190)
            ]
        }
    ),
    "ends of runs": lambda: flooding(lambda n: {"ended": {f"run{n}x{i}": "failed" for i in range(30_000)}}),
    "certificates": lambda: flooding(certificates),
    "plan: nested settings": lambda: planning(settings='{"a":[' + NESTED + "[]]}"),
    "plan: deep settings": lambda: planning(settings='{"a":' + "[" * 100_000 + "]" * 100_000 + "}"),
    "plan: envelopes": lambda: planning(envelopes=f"[{NESTED}[]]"),
    "plan: pattern of an envelope": lambda: planning(envelopes=pattern()),
    "plan: imports": lambda: planning(imports=tuple(() for _ in range(200_000))),
    "payload: header of lists": lambda: heading(
        b'{"__metadata__":{"hanse":"[' + b"[]," * ((PLANS_BYTES - 100) // 3) + b'[]]"}}'
    ),
    "payload: header without limit": lambda: heading(
        b'{"__metadata__":{"hanse":"[' + b"[]," * (10 << 20) + b'[]]"}}'
    ),
    "payload: never ends": lambda: ordering(payload=bytes(OBJECT_BYTES), endless=True),
    "a chunk is asked for ever": lambda: ordering(message=b'{"offset": 0, "durable": false}'),
}
ANSWERED = ("honest", "a chunk is asked for ever")
"""The cases in which a message leaves."""

LEAST_BYTES = 100_000
"""A client that has read less has not met the bomb; but for those that send little."""


def meet(bomb: Bomb, seconds: float, folder: Path) -> dict[str, Any]:
    """Let a client meet a server, and return what that took."""
    ended = threading.Event()

    def answer(heard: Heard) -> Iterable[bytes]:
        path = heard.path.partition("?")[0]
        if "/objects/" in path:
            return bomb.objects(server, heard)
        if path.endswith("/message"):
            if b"true" in bomb.message:
                ended.set()
            return server.sign(heard, bomb.message)
        if path.endswith("/failure"):
            ended.set()
        if path != "/v1/work":
            return server.sign(heard, b"{}")
        if bomb.once and any(one.path == path for one in server.heard[:-1]):
            ended.wait(seconds + 60.0)
        return server.sign(heard, b'{"over": true}') if ended.is_set() else bomb.poll(server, heard)

    (folder / "server").mkdir()
    with HostileServer(folder / "server", answer) as server:
        home = ClientHome(folder / "client")
        member = {"url": server.url, "certificate": server.pem, "server_key": server.identity.public}
        home.enter({**member, "id": "c0", "number": 0})
        home.run("r")
        command = [sys.executable, __file__, "work", str(home.folder), str(seconds)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        try:
            said, _ = child.communicate(timeout=seconds + 60.0)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # what computes its tickets, too
        found: dict[str, Any] = json.loads(said.splitlines()[-1])
        heard = list(server.heard)
    uploads = [len(one.body) for one in heard if one.method == "PUT"]
    found |= {"requests": len(heard), "uploads": len(uploads), "uploaded_bytes": sum(uploads)}
    return {**found, "limit_bytes": bomb.limit_bytes(seconds, heard)}


def main() -> int:
    """Send all of them."""
    ask = argparse.ArgumentParser()
    ask.add_argument("--only", default="", help="the cases whose names begin like this")
    ask.add_argument("--seconds", type=float, default=3.0)
    ask.add_argument("--keep", action="store_true", help="write the result to bombs.json")
    given = ask.parse_args()
    found: dict[str, Any] = {}
    wrong = []
    for name, make_bomb in CASES.items():
        if name != "honest" and not name.startswith(given.only):
            continue
        with tempfile.TemporaryDirectory() as folder:
            one = meet(make_bomb(), given.seconds, Path(folder))
        one["grew_mb"] = round(one["peak_mb"] - found.get("honest", one)["peak_mb"], 1)
        found[name] = one
        print(name, json.dumps(one), flush=True)
        if one["read_bytes"] < LEAST_BYTES and name not in (*ANSWERED, "slow answer"):
            wrong.append(f"{name}: not met")
        if one["grew_mb"] >= MOST_MB or one["read_bytes"] > one["limit_bytes"]:
            wrong.append(name)
        if bool(one["sent"]) != (name == "honest") or (one["uploads"] and name not in ANSWERED):
            wrong.append(name)
    print("wrong:", wrong or "none")
    if given.keep:
        save(__file__, {"seconds": given.seconds, "load": round(os.getloadavg()[1], 1), **found})
    return int(bool(wrong))


if __name__ == "__main__":
    if sys.argv[1:2] == ["work"]:
        work(*sys.argv[2:])
    sys.exit(main())
