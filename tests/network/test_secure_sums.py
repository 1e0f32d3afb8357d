"""Secure means over the network: the bits of the simulation, and nothing of a client in what is sent."""

from pathlib import Path
from typing import Any

import pytest
from federation import NUM_CLIENTS, InThread, Threaded, federation, job, simulated

from hanse.algorithms import fed_avg
from hanse.core import Key
from hanse.network.client.client import Client
from hanse.privacy.secure_sums import secure_mean
from hanse.simulation import Devices, ideal
from hanse.transforms import clip

ALGORITHM = fed_avg(lr=0.5, fraction=1.0, batch_size=50, uplink=(clip(1.0),), into=secure_mean())
ROUNDS = 2
SILENT = NUM_CLIENTS - 1
PHASES = ("advertise_keys", "deal_shares", "mask_parts", "reveal_shares")


def vanishing(phase: str) -> type[Client]:
    """A kind of client that can't be asked for one phase of the protocol."""

    class VanishingBackend(InThread):
        def compute(self, task: Any, payload: Any, *more: Any) -> Any:
            if type(payload.work).__name__ == phase:
                raise RuntimeError("gone")
            return super().compute(task, payload, *more)

    class Vanishing(Client):
        backend = VanishingBackend

    return Vanishing


class Vanished(Devices):
    """Simulated devices of which one never answers one phase of each round."""

    def __init__(self, phase: str) -> None:
        self.phase, self.num_asked = 1 + PHASES.index(phase), 0

    def duration_s(self, party: Any, key: Key) -> float | None:
        if party != SILENT:
            return 1.0
        self.num_asked += 1
        if self.num_asked <= self.phase:
            return 1.0
        self.num_asked = 0
        return None


@pytest.mark.parametrize("silent", [None, "mask_parts", "reveal_shares"])
def test_a_secure_mean_ends_in_the_bits_of_the_simulation(silent: str | None, tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        run = here.lead(job(ALGORITHM, ROUNDS))
        here.enter(range(SILENT))
        here.enter([SILENT], kind=vanishing(silent) if silent else Threaded)
        result = here.end(run, status="incomplete" if silent == "mask_parts" else "completed")
        assert [r.abandoned for r in here.records] == [None] * (ROUNDS + 1)
        counts_all = silent in (None, "reveal_shares")  # who has sent its part is in the total
        counted = [(r.usage.counted, r.usage.dropped) for r in here.records[1:]]
        assert counted == [(NUM_CLIENTS - (not counts_all), int(not counts_all))] * ROUNDS
    assert result["params_sha256"] == simulated(ALGORITHM, ROUNDS, Vanished(silent) if silent else ideal())
