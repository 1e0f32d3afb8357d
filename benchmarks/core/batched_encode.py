"""The time of a round of many tiny clients: without transforms, with clipping, and with other transforms.

    python benchmarks/core/batched_encode.py

30 rounds of all 140 clients with about ten digits each, softmax, one epoch, in one process with one thread.
Each way is measured in turn, several times; the median of its seconds and the median ratio to no transform
are saved. Seconds are those of the processor, because these machines are shared.
"""

import statistics
import time
from typing import Any

from machine import save

import hanse
from hanse.algorithms import fed_avg
from hanse.core import Transform
from hanse.data import digits, iid, partition_data
from hanse.simulation import batched, sequential
from hanse.transforms import cast, clip, quantize

CLIENTS, ROUNDS, TURNS = 140, 30, 7
PEOPLE = partition_data(digits().load(), iid(CLIENTS), hanse.core.Key.from_seed(0))
WAYS: dict[str, tuple[Transform, ...]] = {
    "no transform": (),
    "clip": (clip(0.1),),
    "clip and cast": (clip(0.1), cast("bfloat16")),
    "clip and quantize, which draws for each client alone": (clip(0.1), quantize(4)),
}


def run(uplink: tuple[Transform, ...], execution: Any = batched()) -> tuple[float, str]:
    """Return the seconds of all rounds, and the hash of the parameters."""
    rounds = hanse.rounds(
        data=PEOPLE,
        algorithm=fed_avg(lr=0.3, fraction=1.0, epochs=1, uplink=uplink),
        rounds=ROUNDS + 1,
        evaluate_every=0,
        execution=execution,
    )
    next(rounds)  # which warms up
    began = time.process_time()
    for _ in rounds:
        pass
    return time.process_time() - began, rounds.result.params_sha256


def main() -> None:
    """Measure and save."""
    turns = [{name: run(uplink) for name, uplink in WAYS.items()} for _ in range(TURNS)]
    alone = {name: run(uplink, sequential())[1] for name, uplink in WAYS.items()}
    save(
        __file__,
        {
            name: {
                "seconds": round(statistics.median(turn[name][0] for turn in turns), 3),
                "ratio": round(
                    statistics.median(turn[name][0] / turn["no transform"][0] for turn in turns), 3
                ),
                "same bits as one by one": turns[0][name][1] == alone[name],
            }
            for name in WAYS
        }
        | {"aim": "clip below 1.3 times no transform"},
    )


if __name__ == "__main__":
    main()
