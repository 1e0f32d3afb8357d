"""Secure means over the network: the bits of the simulation, and nothing of a client in what is sent."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation import NUM_CLIENTS, InThread, Threaded, federation, job, simulated
from test_leaks import Overhearing

from benchmarks.privacy.served_schedules import check_served
from hanse.algorithms import fed_avg
from hanse.core import Key, PartSpec, Spec, mean
from hanse.core.exchange import PLAN_DIGEST, pending, unpack
from hanse.network.client.client import Client
from hanse.network.server import https
from hanse.privacy.secure_sums import secure_mean, secure_sum
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


@pytest.mark.parametrize("silent", [None, "mask_parts"])
def test_a_secure_mean_ends_in_the_bits_of_the_simulation(silent: str | None, tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        run = here.lead(job(ALGORITHM, ROUNDS))
        here.enter(range(SILENT))
        here.enter([SILENT], kind=vanishing(silent) if silent else Threaded)
        result = here.end(run, status="incomplete" if silent else "completed")
        assert [r.abandoned for r in here.records] == [None] * (ROUNDS + 1)
        counted_all = silent is None
        counted = [(r.usage.counted, r.usage.dropped) for r in here.records[1:]]
        assert counted == [(NUM_CLIENTS - (not counted_all), int(not counted_all))] * ROUNDS
    assert result["params_sha256"] == simulated(ALGORITHM, ROUNDS, Vanished(silent) if silent else ideal())
    kept = [
        path for path in tmp_path.rglob("*") if path.suffix in (".task", ".message") or path.name == "memory"
    ]
    for secret in (b"~secure sum/", b"~pending/"):
        assert not [path for path in kept if secret in path.read_bytes()], "it outlives the sum"
    assert len(kept) > SILENT


@pytest.mark.parametrize("into", [secure_mean(colluders=0.0), mean()], ids=["secure", "plain"])
def test_a_server_hears_no_number_of_a_client(
    into: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All bytes that reach it are searched for the numbers of each update, also as integers of the sum.

    The clients are listed in a roster, so they sign. The search finds what a plain mean sends.
    """
    heard: list[Overhearing] = []
    make = https.application

    def overhear(*given: Any) -> Any:
        heard.append(Overhearing(make(*given)))
        return heard[-1]

    monkeypatch.setattr(https, "application", overhear)
    updates: list[Any] = []
    plans = set[str]()

    class WatchingBackend(InThread):
        def compute(self, task: Any, payload: Any, *more: Any) -> Any:
            message, fork = super().compute(task, payload, *more)
            if payload.work.signs:
                plans.add(more[0][PLAN_DIGEST])
            if "update" in payload.uplink:
                updates.append(fork.changed.get(pending("update")) or unpack(message).parts["update"])
            return message, fork

    class Watching(Client):
        backend = WatchingBackend

    with federation(tmp_path) as here:
        roster = tuple(here.client_home(number).identity.public for number in range(NUM_CLIENTS))
        listed = replace(into, roster=roster) if into.hides else into
        algorithm = replace(ALGORITHM, into=listed)
        run = here.lead(job(algorithm, 1))
        here.enter(range(NUM_CLIENTS), kind=Watching)
        result = here.end(run)
        assert [record.usage.counted for record in here.records[1:]] == [NUM_CLIENTS]
    whole = b"".join(data for one in heard for data in one.heard)
    assert len(updates) == NUM_CLIENTS
    assert [len(plan) for plan in plans] == [64] * into.hides, "all compare one plan"
    found = 0
    for update in updates:
        numbers = np.concatenate([values.ravel() for values in update.values.values()])
        spellings = [number.tobytes() for number in numbers[np.abs(numbers) > 1e-3]]
        assert len(spellings) > 100
        if into.hides:
            spec = PartSpec(Spec.of(update.values), (clip(1.0),)).chain().out
            spellings += [n.tobytes() for n in listed.make_encoding(spec).encode(update) if 2**20 < n < 2**63]
        found += sum(spelling in whole for spelling in spellings if len(spelling) == 8 or not into.hides)
    assert (found == 0) == into.hides
    assert all(bytes.fromhex(key) in whole for key in roster) == into.hides, (
        "who proves its key, says whose it is"
    )
    assert result["params_sha256"] == simulated(algorithm, 1)


def test_a_client_may_leave_a_sum_of_listed_parties_before_any_phase() -> None:
    """The envelopes that clients have approved admit each number of those who are left."""
    leaves = [[4, 4, phase, 4, 4] for phase in range(5)]
    assert check_served(secure_sum(max_value=1e7, max_weight=10.0, bits=64), leaves) == [True] * 5
