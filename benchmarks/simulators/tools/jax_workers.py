"""The best bare technique for dense networks: a JAX process a core, each scanning its clients in one call.

Parameters in shared memory, no framework.
"""

import multiprocessing
import os
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
from turns import Turns
from workloads import Workload, norm


def train(workload: Workload, share: int, num_shares: int, memory: str, pipe: Connection) -> None:
    """Train every `num_shares`-th client of each requested round, and add up their parameters."""
    os.environ["NPROC"] = "1"
    import jax
    import jax.numpy as jnp
    from jax import lax
    from jax.flatten_util import ravel_pytree
    from jax_models import loss

    flat, unravel = ravel_pytree({name: jnp.asarray(value) for name, value in workload.start.items()})

    @jax.jit
    def trained(flat: Any, xs: Any, ys: Any) -> Any:
        def client(total: Any, data: Any) -> Any:
            def step(params: Any, batch: Any) -> Any:
                slope = jax.grad(lambda p: loss(workload, p, *batch))(params)
                return jax.tree.map(lambda w, g: w - workload.lr * g, params, slope), None

            end, _ = lax.scan(step, unravel(flat), data)
            return total + ravel_pytree(end)[0], None

        return lax.scan(client, jnp.zeros_like(flat), (xs, ys))[0]

    block = SharedMemory(memory)
    shared = np.ndarray((1 + num_shares, flat.size), np.float32, buffer=block.buf)
    pipe.send("ready")
    while (number := pipe.recv()) is not None:
        own = [workload.batches(number, place) for place in range(share, workload.cohort, num_shares)]
        steps = (workload.num_steps, workload.batch)
        xs, ys = (np.stack(v).reshape(len(own), *steps, *v[0].shape[1:]) for v in zip(*own, strict=True))
        shared[1 + share] = np.asarray(trained(shared[0], xs, ys.astype(np.int32)))
        pipe.send("done")


def main() -> None:
    turns = Turns()
    workload = turns.workload
    start = np.concatenate([workload.start[name].ravel() for name in sorted(workload.start)])  # as JAX sorts
    num_shares = os.cpu_count() or 1
    block = SharedMemory(create=True, size=(1 + num_shares) * start.nbytes)
    shared = np.ndarray((1 + num_shares, start.size), np.float32, buffer=block.buf)
    shared[0] = start
    context, pipes = multiprocessing.get_context("spawn"), []
    for share in range(num_shares):
        pipe, theirs = context.Pipe()
        arguments = (workload, share, num_shares, block.name, theirs)
        context.Process(target=train, args=arguments, daemon=True).start()
        pipes.append(pipe)
    for pipe in pipes:
        pipe.recv()
    for number in range(turns.num_rounds):
        for pipe in pipes:
            pipe.send(number)
        for pipe in pipes:
            pipe.recv()
        shared[0] = shared[1:].sum(0) / workload.cohort
        turns.done(partial(norm, [shared[0]]))
    for pipe in pipes:
        pipe.send(None)
    del shared
    block.close()
    block.unlink()


if __name__ == "__main__":
    main()
