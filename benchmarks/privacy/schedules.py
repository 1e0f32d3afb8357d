"""Every way in which six clients can leave a secure sum: the total is exact to the integer, or there is none.

python benchmarks/privacy/schedules.py    writes schedules.json beside this file, and fails at a difference

Each of six clients leaves before one of the four exchanges of the protocol, or never: 5^6 = 15,625 schedules,
and 300 of them through a simulation. Random schedules of 100 clients, of which each has fewer neighbours than
others, follow.
"""

import json
import platform
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from hanse.core import (
    Array,
    CompositionError,
    Contribution,
    Examples,
    Key,
    Keys,
    Memory,
    Part,
    PartSpec,
    Population,
    RoundAbandoned,
    Shared,
    Spec,
    TensorSpec,
    Work,
    gather,
    value,
)
from hanse.core.exchange import drive
from hanse.privacy.secure_sums import (
    Thresholds,
    advertise,
    deal,
    draw_neighbours,
    draw_secrets,
    mask,
    reveal,
    secure_mean,
    secure_sum,
    unmask,
)
from hanse.simulation import Devices, InProcess, Simulation

NEVER = 4
"""The number of exchanges; a client that leaves before exchange 4 never leaves."""

ROUND = b"round 7"
SIZE = 5
KEY = Key.from_seed(5)


@dataclass(frozen=True)
class Result:
    """What became of a schedule.

    Args:
      total: None: the sum was abandoned.
      alive: whose vectors are in the total, or would be.
      thresholds: those of the clients that were ready; None: too few were.
      num_last: how many revealed shares.
      short: whether some client had too few neighbours left to reveal its secret.
    """

    total: Array | None
    alive: tuple[int, ...]
    thresholds: Thresholds | None
    num_last: int = 0
    short: bool = False


def vector_of(client: int) -> Array:
    """Makes the vector of a client: integers of all sizes."""
    return KEY.fold_in("vector", client).rng().integers(2**32, size=SIZE, dtype=np.uint32)


@lru_cache(maxsize=512)
def _advertise(client: int) -> tuple[bytes, bytes]:
    secrets = draw_secrets(KEY.fold_in("secrets", client).secret_rng().bytes)
    return secrets, advertise(secrets)


@lru_cache(maxsize=1024)
def _deal(ready: tuple[int, ...], sums: secure_sum) -> tuple[Thresholds, list[Any], list[Any]]:
    """Lets all that are ready deal; seats are places in `ready`."""
    thresholds = sums.find_thresholds(len(ready))
    neighbours = draw_neighbours(thresholds, KEY.fold_in("graph"))
    dealt = []
    for seat, client in enumerate(ready):
        adverts = {other: _advertise(ready[other])[1] for other in neighbours[seat]}
        dealt.append(deal(ROUND, _advertise(client)[0], seat, adverts, thresholds.num_shares))
    return thresholds, neighbours, dealt


@lru_cache(maxsize=4096)
def _mask(ready: tuple[int, ...], dealers: frozenset[int], seat: int, sums: secure_sum) -> Array:
    _, neighbours, _ = _deal(ready, sums)
    adverts = {other: _advertise(ready[other])[1] for other in neighbours[seat] if other in dealers}
    masked = vector_of(ready[seat])
    mask(masked, ROUND, _advertise(ready[seat])[0], seat, adverts)
    return masked


def play(leaves: Sequence[int], sums: secure_sum) -> Result:
    """Plays a schedule: the number of the exchange before which each client leaves.

    Raises: RoundAbandoned: never; it is a result.
    """
    ready = tuple(client for client, at in enumerate(leaves) if at > 0)
    try:
        thresholds, neighbours, dealt = _deal(ready, sums)
    except CompositionError:
        return Result(None, (), None)
    needed = thresholds.num_shares
    by_seat = [leaves[client] for client in ready]
    dealers, alive, last = (
        frozenset(seat for seat, at in enumerate(by_seat) if at > exchange) for exchange in (1, 2, 3)
    )
    who = tuple(ready[seat] for seat in sorted(alive))
    if min(len(dealers), len(alive)) < needed:
        return Result(None, who, thresholds, len(last))
    total = np.zeros(SIZE, np.uint32)
    for seat in alive:
        total += _mask(ready, dealers, seat, sums)
    partners = {seat: [o for o in neighbours[seat] if o in dealers] for seat in dealers}
    revealed = {}
    for seat in last:
        mail = {other: dealt[other].sealed[seat] for other in partners[seat]}
        revealed[seat] = reveal(dealt[seat].opening, mail, seat, dealt[seat].kept, alive)
    counts = Counter(of for shares in revealed.values() for of in shares)
    wanted = [s for s in dealers if s in alive or any(o in alive for o in partners[s])]
    short = any(counts[seat] < needed for seat in wanted)
    adverts = {seat: _advertise(ready[seat])[1] for seat in dealers}
    try:
        unmask(total, ROUND, adverts, partners, alive, revealed, needed)
    except RoundAbandoned:
        return Result(None, who, thresholds, len(last), short)
    return Result(total, who, thresholds, len(last), short)


def check(leaves: Sequence[int], sums: secure_sum) -> bool:
    """Checks a schedule against the sum of integers; returns whether there was a total."""
    found = play(leaves, sums)
    if found.total is None:
        thresholds = found.thresholds
        enough = thresholds is not None and min(len(found.alive), found.num_last) >= thresholds.num_shares
        assert not enough or found.short, f"{leaves}: abandoned, and {found.num_last} were left"
        return False
    expected = np.zeros(SIZE, np.uint32)
    for client in found.alive:
        expected += vector_of(client)
    assert np.array_equal(found.total, expected), f"{leaves}: {found.total} is not {expected}"
    assert found.thresholds is not None
    assert found.num_last >= found.thresholds.num_shares, leaves
    return True


def draw_schedule(num_clients: int, rng: random.Random, *, leaving: float) -> list[int]:
    """Draws a schedule in which each client leaves with a probability, at some exchange."""
    return [rng.randrange(NEVER) if rng.random() < leaving else NEVER for _ in range(num_clients)]


# -- through a simulation --------------------------------------------------------------------------

NUMBERS = Spec(
    {"x": TensorSpec((3,), "float32"), "n": TensorSpec((), "int64"), "r": TensorSpec((2, 2), "float64")}
)


def numbers_of(client: int) -> Part:
    """Makes the numbers of a client, which are real and whole, and its weight."""
    rng = KEY.fold_in("numbers", client).rng()
    real = {"x": rng.normal(size=3).astype(np.float32), "r": rng.normal(size=(2, 2)) * 1000}
    return Part({**real, "n": np.array(10_000_000_000 * client - 7)}, client + 1.0)


@value
class emit_numbers(Work[Any, Any]):
    """Emits the numbers of a client."""

    def run(
        self, learner: Any, shared: Shared, data: Any, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        return {"numbers": numbers_of(int(data.y[0]))}, memory


class Numbered(Population):
    """Clients that know their own numbers, and nothing else."""

    num_clients = 6  # type: ignore[assignment]

    def client(self, number: int) -> Examples:
        return Examples(np.zeros((1, 1)), np.array([number]))

    def role(self, name: str) -> Examples:
        raise KeyError(name)


class Leaving(Devices):
    """Devices that answer the work, and leave before one of the exchanges of the protocol."""

    def __init__(self, leaves: Sequence[int]) -> None:
        self.leaves, self.asked = leaves, dict.fromkeys(range(len(leaves)), 0)

    def duration_s(self, party: Any, key: Key) -> float | None:
        self.asked[party] += 1
        return None if self.asked[party] > self.leaves[party] + 1 else 1.0


def check_simulated(leaves: Sequence[int], into: secure_sum | secure_mean) -> bool:
    """Checks a schedule in a simulation against the sum of integers; returns whether there was a total."""
    part_spec, encoding = PartSpec(NUMBERS, into=into), into.make_encoding(NUMBERS)
    runtime = Simulation(
        InProcess(None, Numbered(), Keys.from_seed(3)), 6, Keys.from_seed(3), Leaving(leaves)
    )
    ready = sum(at > 0 for at in leaves)
    alive = [client for client, at in enumerate(leaves) if at > 2]
    enough = ready >= 3 and sum(at > 3 for at in leaves) >= into.find_thresholds(ready).num_shares
    try:
        got: Any = drive(gather(emit_numbers(), tuple(range(6)), {}, KEY, numbers=part_spec), runtime)
    except RoundAbandoned:
        if enough:
            raise
        return False
    assert enough, leaves
    assert got.parties == tuple(alive), leaves
    whole = np.zeros(encoding.num_values, encoding.dtype)
    for client in alive:
        whole += encoding.encode(numbers_of(client))
    values, weight = encoding.decode(whole)
    assert (got["numbers"].weight, got["numbers"].count) == (weight, len(alive))
    assert weight == sum(client + 1 for client in alive)
    for name, numbers in values.items():
        is_mean, of_part = isinstance(into, secure_mean), got["numbers"].values[name]
        expected = numbers / weight if is_mean else numbers
        dtype = "float64" if is_mean and name == "n" else NUMBERS.tensors[name].dtype
        assert of_part.dtype == dtype, (leaves, name)
        assert np.array_equal(of_part, expected.astype(dtype)), (leaves, name)
    return True


def draw_many(number: int, seed: int) -> list[list[int]]:
    """Draws schedules of six clients that end with a total about as often as not."""
    rng = random.Random(seed)
    return [draw_schedule(6, rng, leaving=(0.2, 0.4, 0.7)[i % 3]) for i in range(number)]


def main() -> None:
    began = time.process_time()
    all_of_six = list(product(range(NEVER + 1), repeat=6))
    of_six = sum(check(leaves, secure_sum()) for leaves in all_of_six)
    six_s, began = time.process_time() - began, time.process_time()
    kinds = (secure_sum(max_value=1e12, max_weight=1e3), secure_mean(max_value=1e12, max_weight=1e3))
    simulated = [check_simulated(leaves, kinds[i % 2]) for i, leaves in enumerate(draw_many(300, 1))]
    simulated_s, began = time.process_time() - began, time.process_time()
    rng = random.Random(0)
    shares = [0.0, 0.1, 0.2, 0.3, 0.5, 0.7] * int(sys.argv[1] if len(sys.argv) > 1 else 5)
    of_hundred = [check(draw_schedule(100, rng, leaving=share), secure_sum()) for share in shares]
    result = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "six clients": {
            "schedules": len(all_of_six),
            "exact": of_six,
            "abandoned": len(all_of_six) - of_six,
            "processor_s": round(six_s, 1),
        },
        "six clients, simulated": {
            "schedules": len(simulated),
            "exact": sum(simulated),
            "abandoned": len(simulated) - sum(simulated),
            "processor_s": round(simulated_s, 1),
        },
        "100 clients": {
            "thresholds": str(secure_sum().find_thresholds(100)),
            "schedules": len(shares),
            "exact": sum(of_hundred),
            "abandoned": len(shares) - sum(of_hundred),
            "processor_s": round(time.process_time() - began, 1),
        },
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
