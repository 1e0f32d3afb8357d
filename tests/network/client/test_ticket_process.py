"""A ticket is computed in a child process, to the same bits, and is really stopped; errors stay readable."""

import json
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import learning
import numpy as np
import pytest
from federation import InThread, population
from first_ticket import PLAN, computed, ticket
from forked import DEVNULL, PIPE, python

from hanse.core import HanseError, InvalidInput, Key, PartSpec, Spec, TensorSpec, layout, stack
from hanse.core.exchange import Fork, Payload, Stored, pack, unpack
from hanse.network.client.ticket_process import (
    ComputationFailed,
    Loaded,
    TicketProcess,
    TimeLimitExceeded,
)
from hanse.network.protocol.wire import Plan


@contextmanager
def process(bind: Callable[[Plan], Any]) -> Iterator[TicketProcess]:
    backend = TicketProcess(lambda: Loaded(bind, PLAN, population().client(0)))
    try:
        yield backend
    finally:
        backend.close()


def test_a_child_process_gives_the_bits_of_this_one_and_is_kept() -> None:
    with process(learning.learner) as backend:
        first = computed(backend, 60.0)
        pid = backend.pid
        assert computed(backend) == first
        assert backend.pid == pid
        backend.close()
        assert backend.pid is None
        assert computed(backend) == first
        assert backend.pid != pid
    assert computed(InThread(lambda: Loaded(learning.learner, PLAN, population().client(0)))) == first


def test_a_payload_on_the_disk_is_mapped_by_the_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, payload = ticket()
    (tmp_path / "payload").write_bytes(pack(payload))
    monkeypatch.setattr(layout, "MAPPED_BYTES", 0)
    mapped = unpack(Stored(tmp_path / "payload"), Payload)
    assert isinstance(mapped.shared["params"], layout.Mapped)
    with process(learning.learner) as backend:
        found = backend.compute(task, mapped, {}, Key.from_seed(3), None)
        assert found == backend.compute(task, payload, {}, Key.from_seed(3), None)


def ended(pid: int) -> bool:
    """Waits until a process is no more."""
    try:
        number = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    with os.fdopen(number):
        return bool(select.select([number], [], [], 30.0)[0])


@pytest.mark.parametrize("bind", [learning.spins, learning.loops])
def test_a_call_that_takes_too_long_is_stopped(bind: Any, capfd: pytest.CaptureFixture[str]) -> None:
    limit_s, said = 0.5, list[str]()
    with process(bind) as backend:
        while not said:  # on a busy machine it may be stopped before it says so
            with pytest.raises(TimeLimitExceeded, match=rf"stopped after {limit_s:g} s"):
                computed(backend, limit_s)
            assert backend.pid is None
            said = capfd.readouterr().out.split() or ["silent"] * (bind is learning.loops)
            limit_s *= 2
    assert all(ended(int(pid)) for pid in said[1:])
    assert bind is learning.loops or said[0] == "spinning"


@pytest.mark.parametrize(
    ("bind", "code", "why"),
    [
        (
            learning.is_killed,
            "resources",
            "was killed from outside, or because the machine ran out of memory",
        ),
        (learning.crashes, "internal", "was ended by SIGSEGV"),
        (learning.exits, "internal", "ended with status 3"),
        (learning.lacks_memory, "resources", "a table of 7 patients does not fit"),
        (learning.raises, "internal", "patient 7 is too tall"),
    ],
)
def test_what_goes_wrong_has_a_code_and_another_ticket_is_tried(bind: Any, code: str, why: str) -> None:
    tries = 1 if bind in (learning.crashes, learning.exits) else 2  # a killed one stands for all that ended
    with process(bind) as backend:
        for _ in range(tries):
            with pytest.raises(ComputationFailed, match=why) as caught:
                computed(backend, 60.0)
            assert caught.value.code == code
        if bind is learning.raises:
            assert "in local_sgd" in str(caught.value.__cause__)  # the traceback from there
            assert backend.pid is not None


def test_data_that_do_not_suit_the_plan_are_said_so() -> None:
    with (
        process(learning.refuses) as backend,
        pytest.raises(InvalidInput, match="64 features do not suit it"),
    ):
        computed(backend)


def test_a_learner_is_made_from_the_data_of_its_party() -> None:
    data, parties = population().client(0), [3, "test/3"]
    due = computed(InThread(lambda: Loaded(learning.learner, PLAN, data)))
    load = lambda: Loaded(learning.fits_own_data, PLAN, data, party=parties.pop(0))  # noqa: E731
    with closing(TicketProcess(load)) as backend:
        with pytest.raises(InvalidInput, match="3 holds 64 columns"):
            computed(backend)
        assert computed(backend) == due, "another process, for another party"


def test_the_child_is_sent_what_changed_in_memory_and_can_not_change_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[list[str]] = []
    between = Fork.between

    def noted(after: Any, before: Any, memory: Any) -> Fork:
        news = between(after, before, memory)
        sent.append(list(news.changed))
        return news

    monkeypatch.setattr(Fork, "between", noted)
    spec = Spec({"n": TensorSpec((), "float64"), "names": TensorSpec((20,), "uint8")})
    uplink = {"found": PartSpec(spec, into=stack())}
    table = {"w": np.arange(3.0), "empty": np.zeros(0)}
    first: Any = {"table": table, "steps": 0.0}
    with process(learning.nothing) as backend:

        def ask(memory: Any, writes: bool = False) -> Any:
            payload = Payload(learning.count_up(writes), {}, uplink, {"found": ()})
            message, fork = backend.compute(ticket()[0], payload, memory, Key.from_seed(3), 60.0)
            (part,) = unpack(message).parts.values()
            return float(part.values["n"]), bytes(part.values["names"]).decode().strip(), fork

        assert ask(first)[:2] == (0.0, "table steps")
        *_, fork = ask(first)
        assert ask(fork.on(first))[:2] == (1.0, "table steps")
        with pytest.raises(ComputationFailed, match="read-only"):
            ask(first, writes=True)
        assert ask({"steps": 5.0, "table": table})[:2] == (5.0, "steps table"), "the ticket was dropped"
        assert ask({"table": table})[:2] == (0.0, "table"), "one was removed"
        assert sent == [["table", "steps"], [], ["steps"], ["steps"], ["steps"], []]
        backend.close()
        assert ask(first)[:2] == (0.0, "table steps"), "another child knows nothing"
        assert sent[-1] == ["table", "steps"]


def test_a_function_that_can_not_be_sent_is_named() -> None:
    with (
        process(lambda plan: None) as backend,
        pytest.raises(HanseError, match="Write a function of a module"),
    ):
        computed(backend)


def test_the_child_has_one_thread_and_no_file_of_the_client(tmp_path: Path) -> None:
    with (
        (tmp_path / "key.pem").open("w"),
        process(learning.shows_itself) as backend,
        pytest.raises(ComputationFailed) as caught,
    ):
        computed(backend)
    said = json.loads(str(caught.value))
    assert sorted(name.split(":")[0] for name in said["files"]) == ["pipe", "socket"]  # both to its parent
    assert set(said["threads"]) == {1}


SCRIPT = """
import learning
from test_ticket_process import computed, process
with process(learning.spins) as backend:
    computed(backend)
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_child_ends_with_its_parent_in_whatever_call_it_is(end: signal.Signals) -> None:
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(here.parent), *filter(None, sys.path)])
    env = {**os.environ, "PYTHONPATH": paths}
    with python("-c", SCRIPT, stdout=PIPE, stderr=DEVNULL, env=env) as parent:
        assert parent.stdout is not None
        word, pid = parent.stdout.readline().split()
        assert word == "spinning"
        parent.send_signal(end)
    assert ended(int(pid))
