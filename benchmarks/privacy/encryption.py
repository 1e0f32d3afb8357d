"""The costs of an encrypted sum for client, server and key holder, with the CNN of 1,663,370 parameters.

python benchmarks/privacy/encryption.py    writes encryption.json beside it, and fails if a client takes 4 s

Each ticket is measured whole, in processor seconds: a client rounds, encrypts and computes its evidence. The
total is compared bit for bit with that of secure_sum(bits=32) and with a sum of plain integers.
"""

import json
import platform
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from hanse.core import Keys, Part, PartSpec, Population, Spec, Work, gather, value
from hanse.core.exchange import drive, pack
from hanse.privacy import encrypted_sum
from hanse.privacy.secure_sums import secure_sum
from hanse.simulation import InProcess, Simulation
from hanse.transforms import clip

NUM_PARAMETERS, NUM_CLIENTS, MOST_S = 1_663_370, 3, 4.0
KEYS = Keys.from_seed(0)


class Nobody(Population[None]):
    """Clients without data."""

    num_clients = NUM_CLIENTS

    def client(self, number: int) -> None:
        return None

    def role(self, name: str) -> None:
        return None


@value
class send_update(Work[Any, Any]):
    """Emits an update of the size of a CNN's."""

    def run(self, learner: Any, shared: Any, data: Any, memory: Any, keys: Any) -> Any:
        update = keys.public.rng().normal(size=NUM_PARAMETERS).astype(np.float32)
        return {"update": Part({"w": update / np.linalg.norm(update)})}, memory


class Measuring(InProcess):
    """Measures each ticket in processor seconds, and its message in bytes."""

    def __init__(self) -> None:
        super().__init__(None, Nobody(), KEYS, together=False)
        self.found: dict[str, list[tuple[float, int]]] = {}

    def compute_ticket(self, before: Any, task: Any, payload: Any, timer: Any = None) -> Any:
        began_s = time.process_time()
        message, fork = super().compute_ticket(before, task, payload, timer)
        spent_s = time.process_time() - began_s
        self.found.setdefault(type(payload.work).__name__, []).append((spent_s, len(pack(message))))
        return message, fork


def perform(into: Any) -> tuple[Any, dict[str, list[tuple[float, int]]], float]:
    backend = Measuring()
    runtime = Simulation(backend, NUM_CLIENTS, KEYS, parties=into.parties)
    spec = Spec.of({"w": np.zeros(NUM_PARAMETERS, np.float32)})
    part_spec = PartSpec(spec, (clip(1.0),), into)

    def program() -> Any:
        got = yield from gather(
            send_update(), tuple(range(NUM_CLIENTS)), {}, KEYS.public.fold_in("update"), update=part_spec
        )
        return got["update"].values["w"]

    began_s = time.process_time()
    total = drive(program(), runtime)
    return total, backend.found, time.process_time() - began_s


def main() -> None:
    into = encrypted_sum(NUM_CLIENTS)
    total, found, whole_s = perform(into)
    other, _, _ = perform(secure_sum(bits=32, max_weight=1.0, max_clients=into.max_cohort))
    client_s = max(spent_s for spent_s, _ in found["encrypt_pending"])
    computed_s = sum(spent_s for tickets in found.values() for spent_s, _ in tickets)
    result = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}, busy",
        "parameters": NUM_PARAMETERS,
        "clients": NUM_CLIENTS,
        "client_s": round(client_s, 2),
        "client_mb": round(found["encrypt_pending"][0][1] / 1e6, 1),
        "key_holder_keys_s": round(found["make_keys"][0][0], 3),
        "key_holder_decrypt_s": round(found["decrypt_sum"][0][0], 2),
        "server_s": round(whole_s - computed_s, 2),
        "bits_equal_to_secure_sum": bool(np.array_equal(total, other)),
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    assert client_s < MOST_S, f"a client took {client_s:.2f} s, and {MOST_S} are allowed"
    assert result["bits_equal_to_secure_sum"]


if __name__ == "__main__":
    main()
