"""Hanse, by its public API. Without a third argument it chooses how to compute.

python with_hanse.py WORKLOAD NUM_ROUNDS [jax | torch | module | bfloat16 | 2bits]
"""

import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from ours import model, num_classes
from turns import Turns
from workloads import Workload, norm

import hanse
from hanse.algorithms import fed_avg
from hanse.core import Examples
from hanse.core.exchange import Record
from hanse.data import from_clients
from hanse.learners import Model, bfloat16, jax_engine, softmax, torch_engine, torch_module
from hanse.transforms import quantize


def own_module(workload: Workload) -> Model:
    """A user's own module, unchanged."""
    from torch_models import MODULES

    return torch_module(MODULES[workload.model])


CHOICES: dict[str, Any] = {
    "jax": partial(model, engine=jax_engine()),
    "torch": partial(model, engine=torch_engine()),
    "module": own_module,
    "bfloat16": partial(model, engine=torch_engine(precision=bfloat16())),
}
LONG = 10_000
"""The rounds of the run: if it is long enough, Hanse starts worker processes."""
WARM_S = 8.0


class Enough(Exception):
    """End a run after the measured rounds."""


@dataclass
class Watching:
    """Take turns at the end of each round."""

    turns: Turns
    until_s: float | None = None
    is_warm: bool = False

    def __call__(self, record: Record) -> None:
        if self.until_s is None:
            self.turns.first(warm=False)
            self.until_s = time.perf_counter() + WARM_S
        elif self.is_warm:
            self.turns.done()
        elif time.perf_counter() > self.until_s:
            self.turns.warm()
            self.is_warm = True
        if self.turns.over:
            raise Enough


def main() -> None:
    turns = Turns()
    workload = turns.workload
    x, y = workload.data
    choice = turns.choices[0] if turns.choices else None
    made = CHOICES.get(choice, model)(workload)
    train = partial(
        hanse.run,
        data=from_clients(
            [Examples(x[i], y[i]) for i in range(workload.clients)], num_classes=num_classes(workload)
        ),
        model=made,
        algorithm=fed_avg(
            workload.lr,
            workload.cohort / workload.clients,
            epochs=1,
            batch_size=workload.batch,
            uplink=(quantize(2),) if choice == "2bits" else (),
        ),
        evaluate_every=0,
        initial=None if isinstance(made, softmax) else workload.folder / "start.safetensors",
    )
    with suppress(Enough):
        train(rounds=LONG, watch=Watching(turns))
    turns.say("checksum", norm(train(rounds=1).params))


if __name__ == "__main__":
    main()
