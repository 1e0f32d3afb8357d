"""A ticket refused as late may have been counted: its fork of memory waits for the verdict."""

import threading
from pathlib import Path
from typing import Any

import pytest
from federation import NUM_CLIENTS, Threaded, federation, job, learner, population, read_memory, simulate

from hanse.algorithms import scaffold
from hanse.core import Close, PartyId
from hanse.core.exchange import Record
from hanse.network.client.home import ClientHome
from hanse.network.client.transport import ServerLink
from hanse.network.protocol.errors import Unreachable
from hanse.network.protocol.wire import News
from hanse.simulation import Devices, ideal

LATE = 0
ALL = scaffold(lr=0.3, fraction=1.0, batch_size=50)
FOUR = scaffold(lr=0.3, fraction=1.0, batch_size=50, close=Close(goal=NUM_CLIENTS - 1))


class WithoutLate(Devices):
    """Simulated devices of which one drops out."""

    def duration_s(self, party: PartyId, key: Any) -> float | None:
        return None if party == LATE else 1.0


class Steering:
    """Decides in which order a client hears that its ticket is late and how the ticket ended.

    Args:
      is_counted: whether the server has the message before it closes the round, and only its answer is lost.
      verdict_first: whether the client hears the verdict before it is told that it is late.
    """

    def __init__(self, *, is_counted: bool, verdict_first: bool) -> None:
        self.is_counted, self.verdict_first = is_counted, verdict_first
        self.closed, self.settled, self.refused = threading.Event(), threading.Event(), threading.Event()
        self.tries_last, self.idle = False, threading.Event()
        self.forks_meanwhile: list[int] | None = None
        self._lock = threading.Lock()

    def watch(self, record: Record) -> None:
        if record.round == 1:
            self.closed.set()

    def say(self, line: str) -> None:
        if "(late)" in line:
            self.refused.set()
        if line == "waiting for work" and self.tries_last:
            self.idle.set()

    def look(self, home: Path, run: str) -> None:
        """Notes the forks on the client's disk once it was refused, and before it takes the first verdict."""
        with self._lock:
            if self.forks_meanwhile is None:
                self.forks_meanwhile = [*read_memory(home, run)[1]]

    def await_turn(self) -> None:
        """Waits until the upload, or the computation before it, may go on."""
        assert (self.settled if self.verdict_first else self.closed).wait(60.0)


class SteeredHome(ClientHome):
    """The client home of a client whose answers from the server come in a given order."""

    def __init__(self, folder: Path, steering: Steering) -> None:
        super().__init__(folder)
        self._steering = steering

    def link(self) -> ServerLink:
        link, steering, has_verdict = super().link(), self._steering, False
        ask, upload = link.ask, link.upload

        def steered_ask(method: str, path: str, kind: Any, *given: Any, **more: Any) -> Any:
            nonlocal has_verdict
            if has_verdict:
                steering.settled.set()
            answer = ask(method, path, kind, *given, **more)
            has_verdict = isinstance(answer, News) and bool(answer.decisions)
            if has_verdict and not steering.verdict_first:
                assert steering.refused.wait(60.0)
                steering.look(self.folder, answer.decisions[0].run)
            return answer

        def steered_upload(*given: Any) -> None:
            if steering.is_counted and not steering.closed.is_set():
                upload(*given)
                steering.await_turn()
                raise Unreachable("the answer was lost")
            if not steering.is_counted:
                steering.await_turn()
            steering.tries_last = True
            upload(*given)

        link.ask, link.upload = steered_ask, steered_upload  # type: ignore[method-assign]
        return link


class SteeredLearner:
    """A learner that computes once the client knows the verdict, where that comes first."""

    def __init__(self, steering: Steering) -> None:
        self._learner, self._steering = learner(), steering

    def __getattr__(self, name: str) -> Any:
        return getattr(self._learner, name)

    def local_sgd(self, *given: Any, **more: Any) -> Any:
        if self._steering.verdict_first and not self._steering.is_counted:
            self._steering.await_turn()
        return self._learner.local_sgd(*given, **more)


@pytest.mark.parametrize("verdict_first", [True, False], ids=["verdict first", "refusal first"])
@pytest.mark.parametrize("is_counted", [True, False], ids=["counted", "dropped"])
def test_memory_is_committed_or_dropped_as_the_verdict_says(
    is_counted: bool, verdict_first: bool, tmp_path: Path
) -> None:
    algorithm = ALL if is_counted else FOUR
    steering = Steering(is_counted=is_counted, verdict_first=verdict_first)
    with federation(tmp_path, stay=True) as here:
        run = here.server.lead(job(algorithm, 1, watch=steering.watch))
        here.client_home(LATE)
        mine = population().client(LATE)
        home = SteeredHome(tmp_path / f"client-{LATE}", steering)
        client = Threaded(home, lambda plan: mine, lambda plan: SteeredLearner(steering), steering.say)
        here.clients.append(client)
        here.threads.append(threading.Thread(target=client.run, daemon=True))
        here.threads[-1].start()
        here.enter([number for number in range(NUM_CLIENTS) if number != LATE])
        status = "completed" if is_counted else "incomplete"
        here.end(run, status=status)
        assert steering.idle.wait(60.0)
        assert here.ended(run, status) == simulate(algorithm, 1, ideal() if is_counted else WithoutLate())
    assert verdict_first or len(steering.forks_meanwhile or ()) == 1
