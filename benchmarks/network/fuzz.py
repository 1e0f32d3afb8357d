"""Send generated requests to the API, and mutated bytes to the decoder. Nothing may crash.

    python benchmarks/network/fuzz.py decoder --count 1000000
    python benchmarks/network/fuzz.py guided --count 1000000      # needs: pip install atheris
    python benchmarks/network/fuzz.py api --count 100000          # needs: pip install schemathesis

`decoder` mutates valid messages of every shape (`mutations.py`): out comes a MessageError, or a message
that suits its ticket and can be folded. `guided` lets libFuzzer choose the mutations by what code they reach.
`api` is in `generated.py`. With `--keep`, the result is written into fuzz.json.
"""

import argparse
import contextlib
import gc
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

instrumented: Any = contextlib.nullcontext()
if "guided" in sys.argv:
    import atheris  # type: ignore[import-not-found,unused-ignore]

    instrumented = atheris.instrument_imports(include=["hanse"])
with instrumented:
    from mutations import mutated, shapes

    from hanse.core import layout
    from hanse.core.errors import MessageError
    from hanse.core.values import unpack

layout.MAPPED_BYTES = 0  # files as small as these are read as large ones are


def memory_mb(pid: int | str = "self") -> float:
    """Return the memory that a process holds now."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


# -- the decoder -----------------------------------------------------------------------------------


SHM = "/dev/shm" if Path("/dev/shm").exists() else None


def stored(folder: str, data: bytes) -> layout.Stored:
    """Return bytes as a file."""
    path = Path(folder) / "message"
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    return layout.Stored(path)


def fuzz_decoder(count: int, seed: int) -> dict[str, Any]:
    every, dice = shapes(), random.Random(seed)
    ended: Counter[str] = Counter()
    wrong: dict[str, Any] = {}
    memory: list[float] = []
    seconds = np.ones(count)
    folder = tempfile.mkdtemp(dir=SHM)
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda *about: stopped.append(1))  # then it tells what it has
    for number in range(count):
        if stopped:
            count, seconds = number, seconds[:number]
            break
        if number % max(1, count // 4) == min(1000, count // 8):
            gc.collect()
            memory.append(round(memory_mb(), 1))
        shape = dice.choice(every)
        data = mutated(shape.valid, dice)
        given = stored(folder, data) if number % 2 else data
        began = time.thread_time()
        try:
            with np.errstate(all="ignore"):
                shape.give(given)
            ended["taken"] += 1
        except MessageError:
            ended["MessageError"] += 1
        except Exception as error:  # a finding
            ended[type(error).__name__] += 1
            wrong.setdefault(type(error).__name__, (shape.name, str(error)[:300], data[:2000].hex()))
        seconds[number] = time.thread_time() - began
    shutil.rmtree(folder)
    gc.collect()
    memory.append(round(memory_mb(), 1))
    seconds.sort()
    return {
        "count": count,
        "shapes": len(every),
        "ended": ended,
        "wrong": wrong,
        "memory_mb": memory,
        "median_us": round(1e6 * seconds[len(seconds) // 2]),
        "p99_us": round(1e6 * seconds[len(seconds) * 99 // 100]),
        "max_ms": round(1e3 * float(seconds[-1]), 1),
        "four_times_as_long_takes": growth(),
    }


def _value(skeleton: str) -> bytes:
    head = json.dumps({"__metadata__": {"hanse": skeleton}}).encode()
    return len(head).to_bytes(8, "little") + head


def _many_tensors(count: int) -> bytes:
    head: dict[str, Any] = {"__metadata__": {"hanse": "1"}}
    head |= {f"t{n}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for n in range(count)}
    text = json.dumps(head).encode()
    return len(text).to_bytes(8, "little") + text


GROWING: dict[str, Callable[[int], bytes]] = {
    "empty lists": lambda n: _value("[" + ",".join(["[]"] * n) + "]"),
    "keys of one hash": lambda n: _value(
        '{"$":"map","items":[' + ",".join(f"[{i * (2**61 - 1)},1]" for i in range(n)) + "]}"
    ),
    "keys": lambda n: _value('{"$":"map","items":[' + ",".join(f"[{i},1]" for i in range(n)) + "]}"),
    "names": lambda n: _value("{" + ",".join(f'"{i}":1' for i in range(n)) + "}"),
    "a kind of many letters": lambda n: _value('{"$":"' + "kind" * n + '"}'),
    "a float of many digits": lambda n: _value("1" * n + ".0"),
    "integers of many digits": lambda n: _value("[" + ",".join(["9" * 4000] * (n // 400)) + "]"),
    "bytes": lambda n: _value('{"$":"bytes","hex":"' + "ab" * n + '"}'),
    "one tensor, often": lambda n: _value("[" + ",".join(['{"$":"tensor","at":"a"}'] * n) + "]"),
    "tensors of no size": _many_tensors,
}


def growth(size: int = 20_000) -> dict[str, float]:
    """Return how many times longer four times as much takes: 4 is linear, 16 would be quadratic."""

    def seconds(data: bytes) -> float:
        best = float("inf")
        for _ in range(5):
            began = time.thread_time()
            with contextlib.suppress(MessageError):
                unpack(data)
            best = min(best, time.thread_time() - began)
        return best

    return {name: round(seconds(make(4 * size)) / seconds(make(size)), 1) for name, make in GROWING.items()}


def guided(count: int, seed: int) -> dict[str, Any]:
    """Fuzz with coverage. On a finding, libFuzzer prints it, keeps the input, and ends the process."""
    every = shapes()
    ended: Counter[str] = Counter()
    memory: list[float] = []
    folder = tempfile.mkdtemp(dir=SHM)

    def one(data: bytes) -> None:
        data = data or b"\0"
        shape = every[data[0] % 128 % len(every)]
        done = sum(ended.values())
        if done in (1000, count // 2, count - 1):
            memory.append(round(memory_mb(), 1))
        if done == count - 1:
            print(json.dumps({"count": count, "ended": ended, "memory_mb": memory}), flush=True)
        try:
            with np.errstate(all="ignore"):
                shape.give(stored(folder, data[1:]) if data[0] & 128 else data[1:])
            ended["taken"] += 1
        except MessageError:
            ended["MessageError"] += 1

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        dice = random.Random(seed)
        if len(data) < 10 or dice.random() < 0.1:
            at = dice.randrange(len(every))
            return bytes([at + dice.choice([0, 128])]) + every[at].valid
        if dice.random() < 0.5:
            return bytes(atheris.Mutate(data, max_size))
        return (data[:1] + mutated(data[1:], dice))[:max_size]

    options = [f"-runs={count}", f"-seed={seed + 1}", "-max_len=16384", "-rss_limit_mb=2048", "-timeout=5"]
    atheris.Setup([sys.argv[0], *options], one, custom_mutator=mutate)
    atheris.Fuzz()
    return {}


def main() -> int:
    """Run one of them."""
    ask = argparse.ArgumentParser()
    ask.add_argument("what", choices=["api", "decoder", "guided"])
    ask.add_argument("--count", type=int, default=10_000)
    ask.add_argument("--seed", type=int, default=0)
    ask.add_argument("--keep", action="store_true")
    given = ask.parse_args()
    if given.what == "api":
        from generated import fuzz_api

        found = fuzz_api(given.count, given.seed)
    else:
        found = (fuzz_decoder if given.what == "decoder" else guided)(given.count, given.seed)
    print(json.dumps(found))
    if given.keep:
        sys.path.insert(0, str(Path(__file__).parents[1] / "core"))
        from machine import keep

        keep(__file__, given.what, found)
    return int(bool(found.get("wrong")))


if __name__ == "__main__":
    sys.exit(main())
