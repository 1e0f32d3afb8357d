"""The algorithms under contract, each in a setting that shows its teeth."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from secure import secure_avg
from support import KEYS, Few, Quadratic

from hanse.algorithms import fed_avg, fed_buff, fed_sgd, giant, scaffold
from hanse.core.program import Close
from hanse.core.reducers import sum as sum_
from hanse.simulation import Clients, Devices, heavy_tailed, ideal, unstable
from hanse.transforms import (
    cast,
    clip,
    deflate,
    per_round,
    quantize,
    random_mask,
    rotate,
    sign,
    subsample,
    top_k,
)

PATIENT = Close(minimum_fraction=1.0)


@dataclass(frozen=True)
class Case:
    """An algorithm, and how long and on which devices it is run.

    `impatient` is the same algorithm set to abandon a round in which anybody is missing.
    """

    algorithm: Any
    rounds: int = 3
    devices: Devices = ideal()
    impatient: Any = None
    unreliable: Devices = unstable(0.15)


def _case(algorithm: Any, **options: Any) -> Case:
    return Case(algorithm, impatient=replace(algorithm, close=PATIENT), **options)


def make(recall: Callable[[Any], Any]) -> Clients:
    """The clients of `support`, as worker processes build them."""
    return Clients(Quadratic(), Few(), KEYS, recall)


CASES = {
    "fed_avg": _case(fed_avg(lr=0.02, fraction=0.7, epochs=2, batch_size=4)),
    "fed_avg_clipped_goal": _case(
        fed_avg(lr=0.02, fraction=1.0, uplink=(clip(0.5),), close=Close(goal=3)),
        devices=unstable(0.2, heavy_tailed()),
    ),
    "fed_avg_masked_quantized": _case(
        fed_avg(lr=0.02, fraction=1.0, epochs=3, uplink=(random_mask(0.5), quantize(2)))
    ),
    "fed_avg_sketched": _case(
        fed_avg(lr=0.02, fraction=1.0, uplink=(subsample(0.5), rotate(), quantize(3), deflate())), rounds=2
    ),
    "fed_avg_shared_mask": _case(
        fed_avg(
            lr=0.02,
            fraction=1.0,
            uplink=(random_mask(0.5, drawn=per_round()), rotate(), cast("bfloat16")),
        ),
        rounds=2,
    ),
    "fed_avg_top_k_with_feedback": _case(
        fed_avg(lr=0.02, fraction=0.7, uplink=(clip(0.5), top_k(0.3), cast("float16"))),
        devices=unstable(0.2),
    ),
    "scaffold_signs_with_feedback": _case(
        scaffold(lr=0.02, fraction=0.7, batch_size=4, uplink=(sign(),)), devices=unstable(0.2)
    ),
    "fed_sgd": _case(fed_sgd(lr=0.001, into=sum_())),
    "scaffold": _case(
        scaffold(lr=0.02, fraction=0.7, epochs=2, batch_size=4), devices=unstable(0.2), rounds=4
    ),
    "giant": Case(giant(fraction=0.7), rounds=2),
    "fed_buff": Case(
        fed_buff(lr=0.02, concurrency=4, buffer_size=2), rounds=5, devices=unstable(0.2, heavy_tailed())
    ),
    "secure_avg": Case(secure_avg(), devices=unstable(0.06)),
}
