"""The algorithms under contract, each in a setting that shows its teeth."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from noise import EVEN_EMPTY, private_avg
from secure import asks_twice, secure_avg, shared_sum
from support import KEYS, Few, Quadratic

from hanse.algorithms import (
    adagrad,
    adam,
    adamw,
    adding,
    any_staleness,
    apply_rest,
    async_sgd,
    averaging,
    choco_sgd,
    cocoa,
    dane,
    decentralised_sgd,
    dga,
    exponential_decay,
    fed_adagrad,
    fed_adam,
    fed_async,
    fed_avg,
    fed_buff,
    fed_dyn,
    fed_nova,
    fed_prox,
    fed_sgd,
    fed_yogi,
    fl_trust,
    fools_gold,
    giant,
    gradient_tracking,
    hinge_staleness,
    inverse_time,
    local_steps,
    map_reduce,
    momentum,
    nesterov,
    one_shot,
    ring,
    scaffold,
    sgd,
    star,
    step_decay,
    torus,
    trained_by,
    uniform,
    zeno,
)
from hanse.core import Algorithm, Close, Examples, Key, fixed_mean, stack
from hanse.core import sum as sum_
from hanse.core.exchange import find_classes
from hanse.privacy import adaptive_clip, banded, gaussian
from hanse.robust import (
    bucketing,
    centred_clipping,
    median,
    multi_krum,
    nearest_neighbour_mixing,
    norm_bound,
    recentre,
    worker_momentum,
)
from hanse.simulation import Devices, InProcess, heavy_tailed, ideal, unstable
from hanse.transforms import (
    cast,
    clip,
    deflate,
    none,
    per_round,
    quantize,
    random_mask,
    rotate,
    sign,
    subsample,
    top_k,
)

PATIENT = Close(minimum_fraction=1.0)

ALGORITHMS = {c for c in find_classes(Algorithm).values() if c.__module__.startswith("hanse.")}
"""All algorithms of Hanse: each needs a case below, or a contract of its own, and a reference round."""


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


def make() -> InProcess:
    """The backend of `support`, as worker processes build it."""
    return InProcess(Quadratic(), Few(), KEYS)


def descend(params: Any, data: Examples, config: Any, key: Key, memory: Any) -> Any:
    """A user's own training: two batches in a fresh order, with a velocity that lasts from round to round."""
    velocity = memory.setdefault("velocity", {name: np.zeros_like(w) for name, w in params.items()})
    for rows in np.array_split(key.rng().permutation(len(data)), 2):
        residual = (data.x[rows] @ params["w"] + params["b"] - data.y[rows]) / len(rows)
        for name, slope in (("w", data.x[rows].T @ residual), ("b", residual.sum())):
            velocity[name] = config["momentum"] * velocity[name] + slope
            params[name] = params[name] - config["lr"] * velocity[name]
    memory["steps"] = memory.get("steps", 0) + 2
    return params, None, {"loss": float(np.square(residual).sum()), "steps": memory["steps"]}


OWN = trained_by(descend, {"lr": 0.02, "momentum": 0.5}, metrics=("loss", "steps"))

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
    "fed_avg_downlink": _case(
        fed_avg(lr=0.02, fraction=0.7, epochs=2, uplink=(sign(),), downlink=(rotate(), quantize(8))),
        devices=unstable(0.2),
        rounds=4,
    ),
    "scaffold_downlink": _case(
        scaffold(lr=0.02, fraction=0.7, downlink=(top_k(0.3),)), devices=unstable(0.2)
    ),
    "fed_buff_downlink": Case(
        fed_buff(lr=0.02, concurrency=4, buffer_size=2, downlink=(cast("float16"),)),
        rounds=5,
        devices=unstable(0.2, heavy_tailed()),
    ),
    "fed_sgd": _case(fed_sgd(lr=0.001, into=sum_())),
    "scaffold": _case(
        scaffold(lr=0.02, fraction=0.7, epochs=2, batch_size=4), devices=unstable(0.2), rounds=4
    ),
    "fl_trust": _case(fl_trust(lr=0.02, fraction=0.7, epochs=2, uplink=(quantize(8),), trusted="server")),
    "zeno": _case(zeno(lr=0.02, fraction=1.0, epochs=2, num_byzantine=1, trusted="server")),
    "fools_gold": _case(fools_gold(lr=0.02, fraction=0.7, epochs=2)),
    "giant": _case(giant(fraction=0.7), rounds=2, unreliable=unstable(0.06)),
    "map_reduce": _case(map_reduce(lr=0.02), rounds=2),
    "map_reduce_collecting": _case(
        map_reduce(lr=0.001, uplink=(cast("float16"),), into=stack()), devices=unstable(0.2), rounds=2
    ),
    "dga": Case(dga(lr=0.02, delay=2), rounds=6, devices=unstable(0.1, heavy_tailed())),
    "dga_of_several_steps": Case(
        dga(
            lr=exponential_decay(0.02),
            delay=3,
            num_steps=3,
            batch_size=4,
            uplink=(quantize(8),),
            downlink=(cast("float16"),),
            close=PATIENT,
        ),
        rounds=5,
        devices=unstable(0.05),
    ),
    "dga_without_delay": _case(dga(lr=0.02, delay=0, batch_size=4), rounds=2),
    "async_sgd": Case(
        async_sgd(lr=0.01, batch_size=4, staleness=hinge_staleness(1.0, 1), downlink=(cast("float16"),)),
        rounds=8,
        devices=unstable(0.2, heavy_tailed()),
    ),
    "fed_async": Case(
        fed_async(lr=0.02, concurrency=4, epochs=2, mu=0.5, uplink=(top_k(0.5),)),
        rounds=6,
        devices=unstable(0.2, heavy_tailed()),
    ),
    "fed_async_at_any_staleness": Case(
        fed_async(lr=0.02, staleness=any_staleness(), concurrency=None),
        rounds=4,
        devices=heavy_tailed(),
    ),
    "fed_avg_momentum_decaying": _case(
        fed_avg(
            lr=inverse_time(0.02, half_life=2),
            fraction=1.0,
            server=momentum(0.5),
            server_lr=step_decay(1.0, every=2),
        ),
        devices=unstable(0.2),
    ),
    "fed_sgd_adagrad": _case(fed_sgd(lr=exponential_decay(0.1), server=adagrad()), rounds=2),
    "nesterov": _case(nesterov(lr=0.02, fraction=0.7)),
    "fed_avg_adamw": _case(
        fed_avg(fraction=0.7, client=adamw(0.02, epochs=2, batch_size=4), server=adam(0.1)),
        devices=unstable(0.2),
    ),
    "scaffold_momentum": _case(
        scaffold(
            fraction=0.7, client=sgd(0.01, momentum=0.5, num_steps=3, batch_size=4), server=momentum(0.5)
        ),
        devices=unstable(0.2),
    ),
    "fed_prox": _case(fed_prox(lr=0.02, fraction=0.7, epochs=2, batch_size=4, mu=1.0), rounds=2),
    "fed_nova": _case(fed_nova(lr=0.02, fraction=0.7, epochs=2, batch_size=4, mu=0.5), rounds=2),
    "fed_dyn": _case(
        fed_dyn(lr=0.02, fraction=0.7, epochs=2, batch_size=4, alpha=1.0), devices=unstable(0.2), rounds=4
    ),
    "fed_adagrad": _case(fed_adagrad(lr=0.02, fraction=0.7, batch_size=4), rounds=2),
    "fed_adam": _case(fed_adam(lr=0.02, fraction=0.7, batch_size=4), rounds=2),
    "fed_yogi": _case(fed_yogi(lr=0.02, fraction=0.7, batch_size=4), rounds=2),
    "one_shot": _case(one_shot(), rounds=2),
    "one_shot_by_steps": _case(one_shot(local_steps(0.02, batch_size=4)), rounds=1),
    "dane": _case(dane(1.0, fraction=0.7), rounds=2),
    "cocoa": _case(cocoa(averaging()), rounds=2, unreliable=unstable(0.06)),
    "cocoa_adding": _case(cocoa(adding(), fraction=0.7, epochs=2), rounds=4),
    "fed_avg_robust": _case(
        fed_avg(
            lr=0.02,
            fraction=1.0,
            uplink=(clip(2.0), quantize(8)),
            into=norm_bound(1.5, nearest_neighbour_mixing(1, multi_krum(1, 2))),
        ),
        devices=unstable(0.05),
    ),
    "fed_avg_with_history": _case(
        fed_avg(
            lr=0.02, fraction=0.7, uplink=(worker_momentum(0.5), recentre()), into=centred_clipping(0.3, 3)
        ),
        devices=unstable(0.2),
    ),
    "fed_buff_median": Case(
        fed_buff(lr=0.02, concurrency=4, buffer_size=3, into=bucketing(2, median()), rest=apply_rest()),
        devices=unstable(0.2, heavy_tailed()),
    ),
    "fed_buff": Case(
        fed_buff(lr=0.02, concurrency=4, buffer_size=2), rounds=5, devices=unstable(0.2, heavy_tailed())
    ),
    "trained_by": _case(fed_avg(fraction=0.7, client=OWN), devices=unstable(0.2), rounds=4),
    "trained_by_compressed": _case(
        fed_adam(fraction=0.7, client=OWN, uplink=(top_k(0.5), quantize(4)), downlink=(cast("float16"),))
    ),
    "fed_buff_apply_rest": Case(
        fed_buff(lr=0.02, concurrency=4, buffer_size=3, rest=apply_rest()),
        devices=unstable(0.2, heavy_tailed()),
    ),
    "fed_buff_trained_by": Case(
        fed_buff(concurrency=4, buffer_size=2, client=OWN),
        rounds=5,
        devices=unstable(0.2, heavy_tailed()),
    ),
    "decentralised_sgd": _case(
        decentralised_sgd(star(), 0.02, batch_size=4, link_failure=0.2), devices=unstable(0.2), rounds=4
    ),
    "choco_sgd": _case(
        choco_sgd(ring(), 0.02, link_failure=0.2, compression=(top_k(0.5, none()),), gamma=0.5),
        devices=unstable(0.2),
    ),
    "gradient_tracking": _case(gradient_tracking(torus(2), 0.02), devices=unstable(0.2)),
    "private_avg": Case(private_avg(), rounds=5),  # may not abandon a round in which nobody was drawn
    "fed_avg_noised": Case(
        fed_avg(
            lr=0.02,
            sampling_rate=0.3,
            weighting=uniform(),
            uplink=(clip(1.0), gaussian(0.5)),
            into=fixed_mean(1.8),
            close=EVEN_EMPTY,
        ),
        devices=unstable(0.2),
    ),
    "fed_avg_correlated": Case(
        fed_avg(
            lr=0.02,
            fraction=0.3,
            separation=2,
            weighting=uniform(),
            uplink=(adaptive_clip(0.5), banded(0.5, num_bands=3, separation=2)),
            into=fixed_mean(2.0),
            close=EVEN_EMPTY,
        ),
        devices=unstable(0.2),
    ),
    "secure_avg": Case(secure_avg(), devices=unstable(0.06)),
    "shared_avg": Case(secure_avg(into=shared_sum()), devices=unstable(0.03), rounds=2),
    "asks_twice": Case(asks_twice(), rounds=1),
}
