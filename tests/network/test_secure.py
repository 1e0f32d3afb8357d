"""A reducer that hides, over the network: the server sees only masked values, and the bits are the same."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation import NUM_CLIENTS, InThread, Threaded, federation, job, simulated
from secure import secure_avg

from hanse.core import Key
from hanse.core.exchange import Coordinator
from hanse.network.client.client import Client
from hanse.simulation import Devices, ideal

ALGORITHM = secure_avg(lr=0.5)
ROUNDS = 2
SILENT = NUM_CLIENTS - 1


class VanishingBackend(InThread):
    """Advertises its key, and can't be asked for its masked update."""

    def compute(self, task: Any, payload: Any, *more: Any) -> Any:
        if type(payload.work).__name__ == "send_masked":
            raise RuntimeError("gone")
        return super().compute(task, payload, *more)


class Vanishing(Client):
    """Advertises its key, and can't be asked for its masked update."""

    backend = VanishingBackend


class Vanished(Devices):
    """Simulated devices of which one never answers each third of its tickets."""

    def __init__(self) -> None:
        self.num_asked = 0

    def duration_s(self, party: Any, key: Key) -> float | None:
        if party != SILENT:
            return 1.0
        self.num_asked += 1
        return None if self.num_asked % 3 == 0 else 1.0


@pytest.mark.parametrize("silent", [False, True], ids=["all answer", "one vanishes between two phases"])
def test_a_sum_that_hides_ends_in_the_bits_of_the_simulation(
    silent: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    receive = Coordinator.receive
    monkeypatch.setattr(Coordinator, "receive", lambda *given: seen.append(receive(*given)) or seen[-1])
    with federation(tmp_path) as here:
        run = here.lead(job(ALGORITHM, ROUNDS))
        here.enter(range(SILENT))
        here.enter([SILENT], kind=Vanishing if silent else Threaded)
        result = here.end(run, status="incomplete" if silent else "completed")
        assert [r.abandoned for r in here.records] == [None] * (ROUNDS + 1)
        assert ("error, which its own log describes (internal)" in here.events()) == silent
        counted = [(r.usage.counted, r.usage.dropped) for r in here.records[1:]]
        assert counted == [(NUM_CLIENTS - silent, int(silent))] * ROUNDS, "clients, not phases"
        assert ("is not counted: it was not in the protocol's last phase" in here.events()) == silent
    hidden = [message for message in seen if "update" in message.parts]
    assert len(hidden) == NUM_CLIENTS * ROUNDS
    assert {message.parts["update"] for message in hidden} == {None}
    masked = [
        message.parts["masked"].values["update/weights"] for message in seen if "masked" in message.parts
    ]
    assert len(masked) == (NUM_CLIENTS - silent) * ROUNDS
    assert all(values.dtype == np.uint64 and values.max() > 2**62 for values in masked)
    monkeypatch.undo()
    assert result["params_sha256"] == simulated(ALGORITHM, ROUNDS, Vanished() if silent else ideal())
