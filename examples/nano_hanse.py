"""A whole federation on one page: a work, an algorithm, and one run of it on two runtimes.

    python examples/nano_hanse.py

Thirty parties hold unequal shares of the digits. In each round ten of them train a softmax regression on
their own data and send their updates in two bits per entry; the server adds the mean with momentum. The
program below is performed twice: by the simulation, client by client, and by message passing between
asyncio tasks that see only bytes and answer in any order. Both end with the same bits.
"""

import asyncio

from hanse.algorithms import evaluation
from hanse.core import (
    Algorithm,
    Contribution,
    DifferentiableLearner,
    Examples,
    Key,
    Keys,
    LocalProblem,
    Memory,
    Part,
    PartSpec,
    Program,
    Shared,
    Spec,
    Steps,
    Tensors,
    Work,
    gather,
    sample,
    tree_map,
    value,
    zeros_like,
)
from hanse.core.exchange import Progress, Record, digest, drive, training
from hanse.data import digits, dirichlet, partition_data
from hanse.learners import softmax
from hanse.simulation import InProcess, Simulation
from hanse.testing import ClientTasks, ConcurrentSimulation, adrive
from hanse.transforms import clip, quantize

# The work of ONE client: shared tensors and its own data in, named parts and new memory out. ------------


@value
class train_and_count(Work[DifferentiableLearner, Examples]):
    """Local SGD; the client counts, in its own memory, how often it was asked."""

    steps: Steps

    def run(
        self, learner: DifferentiableLearner, shared: Shared, data: Examples, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        update = learner.local_sgd(shared["params"], LocalProblem(data, self.steps, keys.public))
        return {"update": Part(update, weight=float(len(data)))}, {"asked": memory.get("asked", 0) + 1}


# The paper's pseudo-code: a generator that does no I/O. It yields commands and receives events. ------------


@value
class WithMomentum:
    params: Tensors
    velocity: Tensors


@value
class fed_avg_m(Algorithm[WithMomentum]):
    """FedAvg with server momentum (Hsu, Qi, Brown 2019, arXiv 1909.06335)."""

    lr: float = 0.5
    momentum: float = 0.7
    fraction: float = 1 / 3

    def init(self, params: Tensors, key: Key) -> WithMomentum:
        return WithMomentum(params, zeros_like(params))

    def round(self, state: WithMomentum, key: Key) -> Program[WithMomentum]:
        work = train_and_count(Steps(self.lr, epochs=2, batch_size=10))
        part_spec = PartSpec(Spec.of(state.params), uplink=(clip(5.0), quantize(bits=2)))

        chosen = yield from sample(key, fraction=self.fraction)
        shared = {"params": state.params}
        got = yield from gather(work, chosen.cohort, shared, key, update=part_spec)

        mean = got["update"].values
        velocity = tree_map(lambda v, u: self.momentum * v + u, state.velocity, mean)
        return WithMomentum(tree_map(lambda w, v: w + v, state.params, velocity), velocity)


# The clients' data, and the run. ------------

KEYS = Keys.from_seed(7)
DATA = partition_data(digits().load(), dirichlet(30, alpha=0.5), KEYS.public.fold_in("partition"))
LEARNER = softmax().bind(DATA.feature_shape, DATA.num_classes)


def program(rounds: int = 20) -> Program[Progress[WithMomentum]]:
    algorithm = fed_avg_m()
    start = Progress(0, algorithm.init(LEARNER.init(KEYS.public), KEYS.public))
    return training(algorithm, start, KEYS.public, rounds=rounds, evaluate=evaluation(LEARNER))


def show(record: Record) -> None:
    shown = ", ".join(f"{name} {number:.3f}" for name, number in record.metrics.items())
    print(f"round {record.round:2}: {shown}, {record.usage.bytes_up:6,} bytes up")


def simulated() -> str:
    clients = InProcess(LEARNER, DATA, KEYS)
    return digest(drive(program(), Simulation(clients, DATA.num_clients, KEYS), watch=show).state)


async def conversed() -> str:
    async with ClientTasks(LEARNER, DATA, KEYS) as clients:
        runtime = ConcurrentSimulation(clients, DATA.num_clients, KEYS)
        return digest((await adrive(program(), runtime)).state)


if __name__ == "__main__":
    one, other = simulated(), asyncio.run(conversed())
    print(f"simulated        {one}\nmessage passing  {other}")
    if one != other:
        raise SystemExit("the two runtimes disagree")
