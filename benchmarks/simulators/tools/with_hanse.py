"""Hanse, by its public API. With no further word it computes as it chooses itself.

python with_hanse.py WORKLOAD NUM_ROUNDS [jax | torch | module | bfloat16]
"""

from functools import partial
from typing import Any

from ours import model, num_classes
from turns import Turns
from workloads import Workload, norm

import hanse
from hanse.algorithms import fed_avg
from hanse.core.learner import Examples
from hanse.data import from_clients
from hanse.learners import Model, jax_engine, torch_engine, torch_module


def own_module(workload: Workload) -> Model:
    """The module that one has anyway, unchanged."""
    from torch_models import MODULES

    return torch_module(MODULES[workload.model])


CHOICES: dict[str, Any] = {
    "jax": partial(model, engine=jax_engine()),
    "torch": partial(model, engine=torch_engine()),
    "module": own_module,
}


def main() -> None:
    turns = Turns()
    workload = turns.workload
    x, y = workload.data
    chosen = CHOICES[turns.choices[0]] if turns.choices else model
    train = partial(
        hanse.run,
        data=from_clients(
            [Examples(x[i], y[i]) for i in range(workload.clients)], num_classes=num_classes(workload)
        ),
        model=chosen(workload),
        algorithm=fed_avg(workload.lr, workload.cohort / workload.clients, batch_size=workload.batch),
        evaluate_every=0,
        initial=workload.folder / "start.safetensors"
        if chosen is not model or workload.model != "softmax"
        else None,
    )
    train(rounds=turns.num_rounds, watch=lambda record: turns.done())
    turns.say("checksum", norm(train(rounds=1).params))


if __name__ == "__main__":
    main()
