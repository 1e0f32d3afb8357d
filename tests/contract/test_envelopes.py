"""The envelopes of a run, found before it begins, admit all that it really asks, and little else."""

from typing import Any

import pytest
from cases import CASES, Case, make
from support import KEYS, Quadratic

from hanse.algorithms import evaluation
from hanse.core.exchange import Command, Dispatch, Event, Progress, drive, training
from hanse.network.protocol.envelope import Envelopes, describe_ticket
from hanse.network.protocol.wire import Plan
from hanse.network.server.job import RunJob
from hanse.network.server.rehearsal import foresee
from hanse.simulation import Simulation


class Listening(Simulation):
    """A simulation that describes each ticket as its client would."""

    def __init__(self, case: Case) -> None:
        super().__init__(make(), 6, KEYS, case.devices)
        self.forms: list[Any] = []

    def perform(self, command: Command[Any]) -> Event:
        event = super().perform(command)
        if isinstance(command, Dispatch):
            for ticket in event.tickets:  # type: ignore[attr-defined]
                payload, task = self.coordinator.payload(ticket), self.coordinator.task(ticket)
                self.forms.append(describe_ticket(payload, task))
        return event


@pytest.mark.parametrize("name", CASES)
def test_all_that_a_run_asks_is_within_its_envelopes(name: str) -> None:
    case, learner = CASES[name], Quadratic()
    begin = Progress(0, case.algorithm.init(learner.init(KEYS.public), KEYS.public))

    def program(progress: Progress[Any]) -> Any:
        measure = evaluation(learner, tuple(range(6)))
        return training(case.algorithm, progress, KEYS.public, rounds=case.rounds, evaluate=measure)

    job = RunJob(Plan("", "{}", None, (3,), None), lambda: begin, program, learner, lambda role: None, 6)
    found, why = foresee(job)
    assert why == ""
    assert found == Envelopes.read(found.write())
    if name in ("fed_avg_masked_quantized", "fed_buff", "cocoa"):
        assert found == foresee(job)[0], "a server that starts again must make the same plan"
    runtime = Listening(case)
    drive(program(begin), runtime)
    assert len(runtime.forms) > 6
    runtime.forms = [
        form for form in runtime.forms if form["role"] in ("client", "test")
    ]  # what members are asked
    for form in runtime.forms:
        assert found.find_beyond(form) == ""
    assert {e.work for e in found} >= {form["work"]["$"] for form in runtime.forms}
