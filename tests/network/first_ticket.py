"""The first ticket of a run, for tests of what computes it."""

from typing import Any

import learning
from federation import KEYS, SHAPE, SOFTMAX

from hanse.algorithms import fed_avg
from hanse.core import Key
from hanse.core.exchange import Coordinator, Dispatch, Payload, Sample, Task
from hanse.network.client.ticket_process import TicketBackend
from hanse.network.protocol.wire import Plan

PLAN = Plan("run", "{}", SOFTMAX, SHAPE, 10)


def ticket() -> tuple[Task, Payload]:
    """The first ticket of a run."""
    algorithm = fed_avg(lr=0.5, fraction=1.0, batch_size=50)
    start = algorithm.init(learning.bound(SOFTMAX).init(KEYS.public), KEYS.public)
    program, coordinator = algorithm.round(start, KEYS.public), Coordinator(5, KEYS.secret)
    command: Any = next(program)
    while not isinstance(command, Dispatch):
        assert isinstance(command, Sample)
        command = program.send(coordinator.sample(command))
    (number, *_) = coordinator.dispatch(command).tickets
    return coordinator.task(number), coordinator.payload(number)


def computed(backend: TicketBackend, limit_s: float | None = None) -> tuple[bytes, Any]:
    return backend.compute(*ticket(), {"own": 1}, Key.from_seed(3), limit_s)
