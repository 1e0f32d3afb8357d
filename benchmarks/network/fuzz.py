"""Throws generated requests at the API, and mutated bytes at the decoder. Nothing may crash.

    python benchmarks/network/fuzz.py api --count 100000
    python benchmarks/network/fuzz.py decoder --count 1000000

`api` draws requests from the OpenAPI description: paths, methods, parameters and bodies that fit, and that
don't; most are signed by a client, an observer or the operator. No answer may be a 5xx but 503 and 507.
`decoder` mutates a valid message: what comes out is a MessageError, or a message that suits its ticket.
"""

import argparse
import asyncio
import json
import random
import resource
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from hanse.core.coordinator import Coordinator
from hanse.core.errors import MessageError
from hanse.core.keys import Key, Keys
from hanse.core.party import Message
from hanse.core.program import Channel, Dispatch
from hanse.core.reducers import sum as sum_
from hanse.core.spec import Spec
from hanse.core.values import pack, value
from hanse.core.work import Part, Work
from hanse.network.server import Server, application
from hanse.network.signing import Identity, sha256


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# -- the decoder -----------------------------------------------------------------------------------


@value
class nothing(Work[Any, Any]):
    """Stands in a dispatch."""

    def run(self, learner: Any, shared: Any, data: Any, memory: Any, keys: Keys) -> Any:
        raise NotImplementedError


def mutated(data: bytes, dice: random.Random) -> bytes:
    """The bytes with some of them changed, removed, doubled or inserted."""
    body = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(body)) if body else 0
        match dice.randrange(6):
            case 0 if body:
                body[at] = dice.randrange(256)
            case 1 if body:
                body[at] ^= 1 << dice.randrange(8)
            case 2:
                del body[at : at + dice.randrange(1, 32)]
            case 3:
                body[at:at] = bytes(dice.randrange(256) for _ in range(dice.randrange(1, 16)))
            case 4:
                body[at:at] = body[at : at + dice.randrange(1, 64)]
            case _:
                word = dice.choice(
                    [b'"$"', b"null", b"{}", b"[]", b"-1", b"1e999", b'"Part"', b'"key"', b"9" * 30]
                )
                body[at : at + len(word)] = word
    return bytes(body)


def fuzz_decoder(count: int, seed: int) -> dict[str, Any]:
    dice = random.Random(seed)
    tensors = {"w": np.arange(12, dtype=np.float32).reshape(3, 4), "b": np.zeros(4)}
    desk = Coordinator(1, Key.from_seed(1))
    channels = {
        "update": Channel(Spec.of(tensors)),
        "seen": Channel(Spec.of({"n": np.zeros(())}), into=sum_()),
    }
    ticket = desk.dispatch(Dispatch(nothing(), (0,), {"p": tensors}, channels, Key.from_seed(2))).tickets[0]
    valid = pack(Message(ticket, {"update": Part(tensors, 3.0), "seen": Part({"n": np.zeros(())})}))
    desk.receive(ticket, valid)
    ended: Counter[str] = Counter()
    leaks: dict[str, str] = {}
    for number in range(count):
        data = mutated(valid, dice)
        try:
            desk.receive(ticket, data)
            ended["taken"] += 1
        except MessageError:
            ended["MessageError"] += 1
        except Exception as error:  # the runtime turns these into a refusal too
            ended[type(error).__name__] += 1
            leaks.setdefault(type(error).__name__, f"{error}"[:200])
        if number == 1000:
            early = peak_mb()
    return {"count": count, "ended": ended, "others": leaks, "grew_mb": round(peak_mb() - early, 1)}


# -- the API ---------------------------------------------------------------------------------------


def junk(dice: random.Random, depth: int = 0) -> Any:
    """Any JSON."""
    kinds = [None, True, -1, 0, 1.5, 10**40, "", "c0", "\x00\ud7ff", "a" * 300, "0" * 64]
    if depth < 3 and dice.random() < 0.4:
        if dice.random() < 0.5:
            return [junk(dice, depth + 1) for _ in range(dice.randrange(4))]
        words = ["wire", "wait_s", "have", "know", "name", "role", "number", "state", "why", "trace", "x"]
        return {dice.choice(words): junk(dice, depth + 1) for _ in range(dice.randrange(5))}
    return dice.choice(kinds)


def fitting(schema: dict[str, Any], dice: random.Random) -> Any:
    """JSON that nearly fits a schema."""
    if dice.random() < 0.1:
        return junk(dice)
    if "anyOf" in schema:
        return fitting(dice.choice(schema["anyOf"]), dice)
    if "enum" in schema:
        return dice.choice(schema["enum"])
    match schema.get("type"):
        case "object" if "properties" in schema:
            return {k: fitting(s, dice) for k, s in schema["properties"].items() if dice.random() < 0.8}
        case "object":
            return {dice.choice(["run", "x", "0"]): fitting(schema.get("additionalProperties", {}), dice)}
        case "array":
            return [fitting(schema.get("items", {}), dice) for _ in range(dice.randrange(3))]
        case "integer":
            return dice.choice([0, 1, -1, 5, 2**31, 2**63, 10**30])
        case "number":
            return dice.choice([0, 0.0, 1e-3, -1, 1e308])
        case "null":
            return None
        case _:
            return dice.choice(["", "c0", "run", "client", "trained", "0" * 64, "\u00e9", "a" * 250])


PATHS = [
    "0",
    "c0",
    "nowhere",
    "0" * 64,
    "f" * 64,
    "-1",
    "1" * 30,
    "%00",
    "..",
    "%2e%2e%2f",
    "\u00e9",
    "operator",
]


async def fuzz_api(count: int, seed: int) -> dict[str, Any]:
    dice = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder), "ab" * 32, stay=True)
        app = application(server)
        described = app.openapi()
        operations = [(m, p, o) for p, ms in described["paths"].items() for m, o in ms.items()]
        who = {"operator": Identity.generate(), "o-1": Identity.generate(), "c0": Identity.generate()}
        server.members.appoint("operator", "operator", who["operator"].public)
        server.members.appoint("o-1", "observer", who["o-1"].public)
        secret, _ = server.members.invite(number=0)
        server.members.join(secret, who["c0"].public)
        statuses: Counter[int] = Counter()
        wrong: list[Any] = []
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="https://server") as http:
            for number in range(count):
                method, path, about = dice.choice(operations)
                if dice.random() < 0.05:
                    method = dice.choice(["get", "put", "post", "delete", "patch", "head", "options"])
                while "{" in path:
                    head, _, rest = path.partition("{")
                    path = head + dice.choice(PATHS) + rest.partition("}")[2]
                params = {
                    p["name"]: fitting(p["schema"], dice)
                    for p in about.get("parameters", [])
                    if p["in"] == "query" and dice.random() < 0.9
                }
                params = {name: str(given) for name, given in params.items()}
                content = about.get("requestBody", {}).get("content", {})
                schema = content.get("application/json", {}).get("schema", {})
                body = json.dumps(fitting(schema, dice)).encode() if content else b""
                if content and dice.random() < 0.1:
                    body = mutated(body or b"x", dice)
                body = body.replace(b'"wait_s": 1', b'"wait_s": 0').replace(b'"wait_s": 5', b'"wait_s": 0')
                request = http.build_request(method.upper(), path, params=params, content=body)
                if dice.random() < 0.7:
                    name = dice.choice(list(who))
                    url = str(request.url)
                    request.headers.update(who[name].sign(name, request.method, url, sha256(body)))
                if dice.random() < 0.1:
                    request.headers["authorization"] = dice.choice(["Bearer " + "0" * 32, "Bearer x", ""])
                if dice.random() < 0.05:
                    request.headers["content-length"] = dice.choice(["-1", "x", "99999999999", "1", ""])
                if dice.random() < 0.05 and "signature-input" in request.headers:
                    field = dice.choice(["signature", "signature-input", "content-digest"])
                    given = mutated(request.headers[field].encode(), dice)
                    request.headers[field] = "".join(chr(c) for c in given if 31 < c < 127)
                if "revoke" in path or "leave" in path:
                    continue
                response = await http.send(request)
                statuses[response.status_code] += 1
                if response.status_code >= 500 and response.status_code not in (503, 507):
                    wrong.append(
                        (method, str(request.url), body[:200].decode("latin-1"), response.text[:200])
                    )
                if number == 1000:
                    early = peak_mb()
        server.members.close()
    grew = round(peak_mb() - early, 1)
    return {"count": count, "statuses": dict(sorted(statuses.items())), "grew_mb": grew, "wrong": wrong[:10]}


def main() -> int:
    """Runs one of them."""
    ask = argparse.ArgumentParser()
    ask.add_argument("what", choices=["api", "decoder"])
    ask.add_argument("--count", type=int, default=10_000)
    ask.add_argument("--seed", type=int, default=0)
    given = ask.parse_args()
    if given.what == "decoder":
        found = fuzz_decoder(given.count, given.seed)
    else:
        found = asyncio.run(fuzz_api(given.count, given.seed))
    print(json.dumps(found))
    return int(bool(found.get("wrong")))


if __name__ == "__main__":
    sys.exit(main())
