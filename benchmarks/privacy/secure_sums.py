"""What secure sums cost, beside a plain mean.

    python benchmarks/privacy/secure_sums.py            all, in about a quarter of an hour
    python benchmarks/privacy/secure_sums.py large      one part of it: crowd, large, table or cnn

    crowd   n = 1,000 clients, k = 80 and 40 neighbours, 1,000 numbers, all parties in one process
    large   n = 1,000, k = 80, 1.66 million numbers of 32 bits, a tenth lost after it dealt shares: all masks
            of all clients are really made, and the total is compared with the sum of integers
    table   bytes and seconds of a round of FedAvg with 10, 100 and 1,000 clients, plain and secure
    cnn     the same for 10 clients of 200 images and a CNN of 1.66 million parameters

Seconds are those of the processor. Where the machine is busy they grow, so masks are compared with AES-CTR
alone over as many bytes, measured in the same run. Results are in secure_sums.json beside this file.
"""

import json
import platform
import sys
import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

import hanse
from hanse.algorithms import fed_avg
from hanse.core import (
    Contribution,
    Examples,
    Key,
    Keys,
    Memory,
    Part,
    PartSpec,
    Population,
    Shared,
    Spec,
    TensorSpec,
    Work,
    gather,
    value,
)
from hanse.core.exchange import drive
from hanse.data import arrays, digits, iid
from hanse.learners import cnn, softmax
from hanse.privacy.secure_sums import (
    add_masks,
    advertise,
    deal,
    draw_neighbours,
    draw_secrets,
    make_encoding,
    mask,
    reveal,
    secure_mean,
    secure_sum,
    unmask,
)
from hanse.simulation import InProcess, Simulation, sequential
from hanse.transforms import clip

RESULTS = Path(__file__).with_suffix(".json")
KEY = Key.from_seed(1)
LARGE = 1_663_370  # parameters of the CNN of McMahan et al.
ROUND = b"round"


def seconds() -> float:
    return time.process_time()


# -- a crowd in one process ------------------------------------------------------------------------


@value
class emit_row(Work[Any, Any]):
    """Emits a row of numbers that its number decides."""

    size: int

    def run(
        self, learner: Any, shared: Shared, data: Any, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        return {"row": Part({"x": row_of(int(data.y[0]), self.size)})}, memory


def row_of(number: int, size: int) -> Any:
    return KEY.fold_in("row", number).rng().uniform(-1, 1, size).astype(np.float32)


class Crowd(Population):
    """Clients that know their numbers."""

    def __init__(self, num: int) -> None:
        self._num = num

    @property
    def num_clients(self) -> int:
        return self._num

    def client(self, number: int) -> Examples:
        return Examples(np.zeros((1, 1)), np.array([number]))

    def role(self, name: str) -> Examples:
        raise KeyError(name)


def measure_crowd(num: int, size: int, into: secure_sum) -> dict[str, Any]:
    """Times a sum with all parties in one process, and compares it with the sum of integers."""
    spec = Spec({"x": TensorSpec((size,), "float32")})
    keys = Keys.from_seed(1)
    runtime = Simulation(InProcess(None, Crowd(num), keys), num, keys)
    began = seconds()
    program = gather(emit_row(size), tuple(range(num)), {}, KEY, row=PartSpec(spec, into=into))
    got: Any = drive(program, runtime)
    took = seconds() - began
    encoding = into.make_encoding(spec)
    whole = np.zeros(encoding.num_values, encoding.dtype)
    for number in range(num):
        whole += encoding.encode(Part({"x": row_of(number, size)}))
    assert np.array_equal(got["row"].values["x"], encoding.decode(whole)[0]["x"].astype(np.float32))
    return {"thresholds": str(into.find_thresholds(num)), "numbers": size, "processor_s": round(took, 1)}


def crowd() -> dict[str, Any]:
    return {
        "k = 80": measure_crowd(1000, 1000, secure_sum(0.2, 0.1, max_value=1.0, num_neighbours=80)),
        "k = 40": measure_crowd(1000, 1000, secure_sum(0.0, 0.1, max_value=1.0, num_neighbours=40)),
    }


# -- a large model, of which a tenth of the clients is lost ------------------------------------------


def large(num: int = 1000, size: int = LARGE, num_neighbours: int = 80) -> dict[str, Any]:
    sums = secure_sum(0.2, 0.1, max_value=1.0, max_weight=1.0, bits=32, num_neighbours=num_neighbours)
    thresholds = sums.find_thresholds(num)
    spec = Spec({"x": TensorSpec((size,), "float32")})
    encoding = make_encoding(spec, 32, max_value=1.0, max_weight=1.0, max_clients=num)
    neighbours = draw_neighbours(thresholds, KEY.fold_in("graph"))
    secrets = [draw_secrets(KEY.fold_in("secrets", seat).secret_rng().bytes) for seat in range(num)]
    adverts = {seat: advertise(secrets[seat]) for seat in range(num)}
    began = seconds()
    dealt = [
        deal(
            ROUND,
            secrets[seat],
            seat,
            {other: adverts[other] for other in neighbours[seat]},
            thresholds.num_shares,
        )
        for seat in range(num)
    ]
    deal_s = (seconds() - began) / num
    alive = set(range(num)) - set(range(0, num, 10))
    base = row_of(0, size)
    total, exact = np.zeros(encoding.num_values, np.uint32), np.zeros(encoding.num_values, np.uint32)
    client_s, server_s = list[float](), 0.0
    for seat in sorted(alive):
        part = Part({"x": np.roll(base, seat)})
        began = seconds()
        masked = encoding.encode(part)
        encoded = masked.copy()
        mask(masked, ROUND, secrets[seat], seat, {other: adverts[other] for other in neighbours[seat]})
        client_s.append(seconds() - began)
        exact += encoded
        began = seconds()
        total += masked
        server_s += seconds() - began
    began = seconds()
    revealed = {}
    for seat in alive:
        mail = {other: dealt[other].sealed[seat] for other in neighbours[seat]}
        revealed[seat] = reveal(dealt[seat].opening, mail, seat, dealt[seat].kept, alive)
    reveal_s = (seconds() - began) / len(alive)
    began, began_wall = seconds(), time.perf_counter()
    unmask(total, ROUND, adverts, dict(enumerate(neighbours)), alive, revealed, thresholds.num_shares)
    unmask_s, unmask_wall_s = seconds() - began, time.perf_counter() - began_wall
    assert np.array_equal(total, exact), "the total is not the sum of integers"
    lost = set(range(num)) - alive
    num_masks = len(alive) + sum(other in alive for seat in lost for other in neighbours[seat])
    cipher_s, mask_s = time_masks(encoding.num_values)
    return {
        "thresholds": str(thresholds),
        "numbers": size,
        "bits": 32,
        "lost": num - len(alive),
        "client_deal_s": round(deal_s, 4),
        "client_mask_s": {"mean": round(sum(client_s) / len(client_s), 3), "least": round(min(client_s), 3)},
        "client_reveal_s": round(reveal_s, 4),
        "server_add_s": round(server_s, 2),
        "server_unmask_s": round(unmask_s, 2),
        "server_unmask_by_the_clock_s": round(unmask_wall_s, 2),
        "masks_at_the_server": num_masks,
        "aes_alone_s_a_mask": round(cipher_s, 5),
        "a_mask_s": round(mask_s, 5),
        "server_s_if_aes_took_0.82_ms": round((server_s + unmask_s) * 0.00082 / cipher_s, 1),
        "client_s_if_aes_took_0.82_ms": round(min(client_s) * 0.00082 / cipher_s, 3),
    }


def time_masks(size: int) -> tuple[float, float]:
    """Times AES-256 in counter mode over so many numbers of 32 bits, and a mask of as many, one by one."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    zeros, buffer = bytes(4 * size), bytearray(4 * size + 15)
    total, ciphers, masks = np.zeros(size, np.uint32), [], []
    for number in range(30):
        key = bytes([number]) * 32
        began = seconds()
        Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update_into(zeros, buffer)
        ciphers.append(seconds() - began)
        began = seconds()
        add_masks(total, [(key, True)])
        masks.append(seconds() - began)
    return sorted(ciphers)[15], sorted(masks)[15]


# -- beside a plain mean -----------------------------------------------------------------------------


def measure_round(more: int, **experiment: Any) -> tuple[float, int, int]:
    """Measures a round: its seconds, and the bytes that all clients send and receive.

    The first run of a process loads modules, so it is not timed.
    """
    hanse.run(rounds=1, evaluate_every=0, **experiment)
    took, usage = {}, None
    for rounds in (1, 1 + more):
        began = seconds()
        result = hanse.run(rounds=rounds, evaluate_every=0, **experiment)
        took[rounds] = seconds() - began
        usage = result.records[-1].usage
    assert usage is not None
    return (took[1 + more] - took[1]) / more, usage.bytes_up, usage.bytes_down


def compare(
    num: int, algorithm: fed_avg, into: secure_mean, more: int | None = None, **experiment: Any
) -> dict[str, Any]:
    rows = {}
    for name, chosen in (("plain", algorithm), ("secure", replace(algorithm, into=into))):
        took, up, down = measure_round(
            more or max(2, 300 // num), algorithm=chosen, partition=iid(num), **experiment
        )
        rows[name] = {"processor_s": round(took, 3), "bytes_up": up, "bytes_down": down}
    ratios = {f"{what}_ratio": round(rows["secure"][what] / rows["plain"][what], 2) for what in rows["plain"]}
    return {"thresholds": str(into.find_thresholds(num)), **rows, **ratios}


def table() -> dict[str, Any]:
    algorithm = fed_avg(0.5, fraction=1.0, uplink=(clip(1.0),))
    common = {"data": digits(), "model": softmax(), "execution": sequential(1)}
    return {f"{num} clients": compare(num, algorithm, secure_mean(), **common) for num in (10, 100, 1000)}


def compare_cnn() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    images = rng.random((2500, 28, 28), np.float32), rng.integers(10, size=2500)
    algorithm = fed_avg(0.05, fraction=1.0, batch_size=10, uplink=(clip(1.0),))
    into = secure_mean(bits=64)
    return compare(10, algorithm, into, 2, data=arrays(*images), model=cnn(), execution=sequential(1))


def main() -> None:
    parts = {"crowd": crowd, "large": large, "table": table, "cnn": compare_cnn}
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in sys.argv[1:] or parts:
        print(name, flush=True)
        machine = f"{platform.machine()}, 2 cores shared with others, Python {platform.python_version()}"
        found[name] = {"date": date.today().isoformat(), "machine": machine, **parts[name]()}
        print(json.dumps(found[name], indent=1), flush=True)
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
