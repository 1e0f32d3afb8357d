"""The speed of each chain, at client and server, for an update of the CNN (1,663,370 float32), on one core.

    python benchmarks/compression/speed.py

Times are processor time, not wall-clock time, so that a busy machine matters less. They are medians of
`REPEATS`. For comparison, each run also measures the rate of a plain copy of the same update.
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))

from machine import save

from hanse.core import Chain, Keys, Part, Spec, Total
from hanse.core.exchange import Message, pack
from hanse.transforms import (
    cast,
    clip,
    deflate,
    low_rank,
    per_block,
    per_round,
    quantize,
    random_mask,
    rotate,
    sign,
    subsample,
    top_k,
)

REPEATS = 21
CNN = {
    "conv1.weight": (32, 1, 5, 5),
    "conv1.bias": (32,),
    "conv2.weight": (64, 32, 5, 5),
    "conv2.bias": (64,),
    "dense1.weight": (512, 3136),
    "dense1.bias": (512,),
    "dense2.weight": (10, 512),
    "dense2.bias": (10,),
}
CHAINS: dict[str, tuple[Any, ...]] = {
    "rotate, 2 bits": (rotate(), quantize(2)),
    "6.25%, rotate, 2 bits": (subsample(0.0625), rotate(), quantize(2)),
    "6.25%, rotate, 2 bits, deflate": (subsample(0.0625), rotate(), quantize(2), deflate()),
    "top 1%, 4 bits, deflate": (top_k(0.01), quantize(4), deflate()),
    "clip": (clip(1.0),),
    "rotate": (rotate(),),
    "1 bit": (quantize(1),),
    "2 bits": (quantize(2),),
    "3 bits": (quantize(3),),
    "8 bits": (quantize(8),),
    "2 bits in blocks of 256": (quantize(2, per_block(256)),),
    "25%": (subsample(0.25),),
    "25%, shared": (subsample(0.25, drawn=per_round()),),
    "top 1%": (top_k(0.01),),
    "top 10%": (top_k(0.1),),
    "sign": (sign(),),
    "bfloat16": (cast("bfloat16"),),
    "float16": (cast("float16"),),
    "deflate": (deflate(),),
    "mask of 25%": (random_mask(0.25),),
    "rank 1/16": (low_rank(fraction=1 / 16),),
    "rank 1/4": (low_rank(fraction=1 / 4),),
}


def median_s(function: Callable[[], Any]) -> float:
    """Return seconds of processor time; the first call is not counted."""
    function()
    times = []
    for _ in range(REPEATS):
        began = time.process_time()
        function()
        times.append(time.process_time() - began)
    return statistics.median(times)


def main() -> None:
    """Measure every chain and a plain copy."""
    rng = np.random.default_rng(0)
    update = {n: (rng.standard_normal(s) * 1e-3).astype(np.float32) for n, s in CNN.items()}
    num_bytes = sum(v.nbytes for v in update.values())
    keys = Keys.from_seed(0)

    def rate(seconds: float) -> int | None:
        return round(num_bytes / seconds / 1e6) if seconds > 1e-4 else None

    copy_s = median_s(lambda: {name: v.copy() for name, v in update.items()})
    chains = {}
    for name, uplink in CHAINS.items():
        chain = Chain.bind(Spec.of(update), uplink)
        plans = chain.plan(chain.init(), keys.public)
        space = chain.space(plans, keys.public)
        part = Part(update if space is None else space.zero())
        sent, memory = chain.encode(plans, part, {}, keys)

        def client() -> Any:
            chain.space(plans, keys.public)  # noqa: B023
            return chain.encode(plans, part, memory, keys)  # noqa: B023

        def server() -> Any:
            opened = chain.open(plans, sent, keys.public)  # noqa: B023
            return chain.decode(chain.init(), plans, Total(opened.values, 1.0, 1), keys.secret)  # noqa: B023

        client_s, server_s = median_s(client), median_s(server)
        chains[name] = {
            "message_bytes": len(pack(Message(0, {"update": sent}))),
            "client_ms": round(client_s * 1e3, 2),
            "server_ms": round(server_s * 1e3, 2),
            "client_mb_per_s": rate(client_s),
            "server_mb_per_s": rate(server_s),
            "client_in_copies": round(client_s / copy_s, 1),
            "server_in_copies": round(server_s / copy_s, 1),
        }
    slowest = max(max(c["client_ms"], c["server_ms"]) for c in chains.values())
    save(
        __file__,
        {
            "float32_bytes": num_bytes,
            "copy_ms": round(copy_s * 1e3, 2),
            "slowest_ms": slowest,
            "chains": chains,
        },
    )


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
