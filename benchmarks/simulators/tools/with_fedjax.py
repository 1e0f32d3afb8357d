"""FedJAX 0.0.17 on a newer JAX; it needs a few names that JAX has removed since."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax_models import loss
from turns import Turns
from workloads import norm


def main() -> None:
    for name in ("tree_map", "tree_leaves", "tree_flatten", "tree_unflatten"):
        if not hasattr(jax, name):
            setattr(jax, name, getattr(jax.tree_util, name))
    import fedjax
    from fedjax.algorithms import fed_avg

    turns = Turns()
    workload = turns.workload
    gradient = jax.grad(partial(loss, workload))
    fedjax.set_for_each_client_backend("jit")
    algorithm = fed_avg.federated_averaging(
        lambda params, batch, key: gradient(params, batch["x"], batch["y"]),
        fedjax.optimizers.sgd(workload.lr),
        fedjax.optimizers.sgd(1.0),
        fedjax.ShuffleRepeatBatchHParams(
            batch_size=workload.batch, num_epochs=1, drop_remainder=False, seed=0, skip_shuffle=True
        ),
    )
    state = algorithm.init({name: jnp.asarray(value) for name, value in workload.start.items()})
    key = jax.random.PRNGKey(0)
    for number in range(turns.num_rounds):
        clients: list[Any] = []
        for place in range(workload.cohort):
            x, y = workload.batches(number, place)
            examples = {"x": x, "y": y.astype(np.int32)}
            clients.append((str(place), fedjax.ClientDataset(examples), jax.random.fold_in(key, place)))
        state, _ = algorithm.apply(state, clients)
        jax.block_until_ready(state.params)
        turns.done(lambda: norm(state.params))  # noqa: B023  (it is called at once)


if __name__ == "__main__":
    main()
