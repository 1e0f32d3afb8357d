"""Memory follows the outcome of each ticket: failed, refused, late or counted, as in the simulation."""

import re
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation import NUM_CLIENTS, federation, job, learner, population, simulate

from hanse.algorithms import fed_avg, scaffold
from hanse.core import Algorithm, Close, PartyId
from hanse.core.exchange import Record
from hanse.network.server.mailbox import Mailbox
from hanse.simulation import Devices
from hanse.transforms import quantize, rotate, top_k

FATES = (
    ("counted", "counted", "counted", "fails", "late"),
    ("refused", "counted", "late", "counted", "counted"),
    ("counted", "fails", "counted", "late", "counted"),
    ("late", "counted", "refused", "counted", "counted"),
)
"""The fate of each client's ticket, in each round. Three are counted, which closes the round."""

WHY = {"fails": "failed", "refused": "refused", "late": "it"}
"""The first word of the reasons for which the server counts no ticket of such a fate."""

CLOSE = Close(goal=3)
CASES: dict[str, Algorithm[Any]] = {
    "control variates": scaffold(lr=0.3, fraction=1.0, batch_size=50, close=CLOSE),
    "error feedback": fed_avg(
        lr=0.5, fraction=1.0, batch_size=50, uplink=(top_k(0.05), quantize(4)), close=CLOSE
    ),
    "versions of the model": fed_avg(
        lr=0.5, fraction=1.0, batch_size=50, downlink=(rotate(), quantize(4)), close=CLOSE
    ),
}


class Fated(Devices):
    """Simulated devices that drop out whenever the client's ticket is not counted."""

    draws = False

    def __init__(self) -> None:
        self.num_asked = Counter[PartyId]()

    def duration_s(self, party: PartyId, key: Any) -> float | None:
        assert isinstance(party, int)
        self.num_asked[party] += 1
        return 1.0 if FATES[self.num_asked[party] - 1][party] == "counted" else None


class Progress:
    """The events of a run that its clients wait for."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._num_known, self._num_rounds = 0, 0

    def see(self) -> None:
        """Notes that the run has heard one more ticket, whether it was answered or failed."""
        with self._changed:
            self._num_known += 1
            self._changed.notify_all()

    def watch(self, record: Record) -> None:
        with self._changed:
            self._num_known, self._num_rounds = 0, record.round
            self._changed.notify_all()

    def await_others(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._num_known >= count, 60.0)

    def await_end(self, round: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._num_rounds >= round, 60.0)


class FatedLearner:
    """A learner that brings about the fate of each of its tickets."""

    def __init__(self, number: int, progress: Progress) -> None:
        self._learner, self._number, self._progress = learner(), number, progress
        self._round = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._learner, name)

    def local_sgd(self, *given: Any, **more: Any) -> Any:
        self._round += 1
        fates = FATES[self._round - 1]
        update = self._learner.local_sgd(*given, **more)
        match fates[self._number]:
            case "fails":
                raise RuntimeError("no such luck")
            case "refused":
                return {name: np.full_like(values, np.nan) for name, values in update.items()}
            case "late":
                self._progress.await_end(self._round)
        if self._number == max(n for n, fate in enumerate(fates) if fate == "counted"):
            self._progress.await_others(NUM_CLIENTS - 1 - fates.count("late"))  # then it closes the round
        return update


@pytest.fixture
def progress(monkeypatch: pytest.MonkeyPatch) -> Progress:
    """Lets clients see what arrives in the mailbox."""
    progress = Progress()
    for name in ("arrive", "fail"):
        act = getattr(Mailbox, name)

        def seen(self: Mailbox, *given: Any, act: Any = act) -> None:
            act(self, *given)
            progress.see()

        monkeypatch.setattr(Mailbox, name, seen)
    return progress


@pytest.mark.parametrize("algorithm", CASES.values(), ids=CASES)
def test_models_and_memories_are_those_of_the_simulation(
    algorithm: Algorithm[Any], progress: Progress, tmp_path: Path
) -> None:
    due = simulate(algorithm, len(FATES), Fated())
    with federation(tmp_path, stay=True) as here:
        run = here.server.lead(job(algorithm, len(FATES), watch=progress.watch))
        people, reads = population(), Counter[int]()

        def read(number: int) -> Any:
            reads[number] += 1
            return people.client(number)

        for number in range(NUM_CLIENTS):
            own = FatedLearner(number, progress)
            here.enter_one(number, lambda plan, n=number: read(n), lambda plan, own=own: own)
        assert here.ended(run) == due
        assert reads == Counter(range(NUM_CLIENTS))  # once a run
        events = here.events()
    for number in range(NUM_CLIENTS):
        whys = re.findall(rf"client {number}: run \w+: ticket \d+ is not counted: (\w+)", events)
        assert whys == [WHY[fates[number]] for fates in FATES if fates[number] != "counted"]
