"""The tickets of one role are computed in a child process, which can be killed in whatever call it is."""

import pickle
import signal
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol, cast

import numpy as np

from hanse.core import Array, HanseError, InvalidInput, Key, Memory, PartyId
from hanse.core.exchange import Fork, Payload, Task, unpack
from hanse.imports import Import
from hanse.network.client.isolation import Isolation
from hanse.network.protocol.wire import Code, Plan
from hanse.processes import ChildEnded, ChildProcess

__all__ = ["ComputationFailed", "Loaded", "TicketBackend", "TicketProcess", "TimeLimitExceeded"]


class TimeLimitExceeded(Exception):
    """A computation took longer than it may, and was stopped."""


class ComputationFailed(HanseError):
    """A ticket failed in the child process. The text is for the client's own log.

    Args:
      text: of the error there.
      code: is all that the server hears of it.
    """

    def __init__(self, text: str, code: Code) -> None:
        super().__init__(text)
        self.code: Code = code


class _There(Exception):
    """The traceback of an error in the child process."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class Loaded(NamedTuple):
    """The contents of a child process.

    Args:
      bind: makes the learner of a plan, or `OwnLearners`; a function of a module, since it is pickled.
      plan: the plan of the run.
      data: the role's own.
      imports: the owner's own modules, which are imported before anything else is read.
      party: the client or role, for whose data a learner of its own may be made.
    """

    bind: Callable[[Plan], Any]
    plan: Plan
    data: Any
    imports: tuple[Import, ...] = ()
    party: PartyId = 0


class TicketBackend(Protocol):
    """Computes the tickets of one role, and keeps no memory of them."""

    def compute(
        self, task: Task, payload: Payload, memory: Memory, secret: Key, limit_s: float | None
    ) -> tuple[bytes, Fork]:
        """Computes a ticket; returns the packed message, and the fork of memory that it leads to.

        Args:
          memory: the memory that the ticket continues.
          secret: the secret key of this ticket.
          limit_s: the seconds that it may take; None: any.

        Raises: TimeLimitExceeded, InvalidInput: if the data don't suit the plan, ComputationFailed.
        """

    def close(self) -> None:
        """Ends what was started; another ticket starts it again. Any thread may call this."""


class TicketProcess:
    """Computes in a child process of one thread, which is started for the first ticket.

    Of the memory, the child is sent what has changed since its last ticket.

    If it takes too long it is killed, and a new one is started for the next ticket. The limit of a ticket
    does not count the start, in which modules of the owner's are imported and the learner is made.

    Args:
      load: gives what the child holds.
      isolation: isolates it; None: it may do what this process may.
    """

    def __init__(self, load: Callable[[], Loaded], isolation: Isolation | None = None) -> None:
        self._load, self._isolation = load, isolation
        self._child: ChildProcess | None = None
        self._there: Memory = {}

    @property
    def pid(self) -> int | None:
        """The id of the child process; None: none runs."""
        return None if self._child is None else self._child.pid

    def compute(
        self, task: Task, payload: Payload, memory: Memory, secret: Key, limit_s: float | None
    ) -> tuple[bytes, Fork]:
        try:
            child = self._child or self._begin()
            named = (payload.shared, payload.uplink, payload.plans, payload.broadcasts)
            news = Fork.between(None, self._there, memory).changed
            changed = {name: _pickle(kept) for name, kept in news.items()}
            child.send((task, (payload.work, *map(dict, named)), tuple(memory), changed, secret))
            self._there = memory
            if not child.wait(limit_s):
                self.close()
                raise TimeLimitExceeded(f"stopped after {limit_s:g} s")
            fork = _read(child.receive_bytes())["fork"]
            return child.receive_bytes(), fork
        except ChildEnded as ended:
            self.close()
            raise _explain(_find_signal(ended.status, self._isolation)) from None

    def _begin(self) -> ChildProcess:
        loaded, self._there = self._load(), {}
        child = self._child = self._start(loaded)
        try:
            child.send(loaded.imports)
            _read(child.receive_bytes())
            child.send((loaded.bind, loaded.plan, loaded.data, loaded.party))
            _read(child.receive_bytes())
        except ChildEnded:
            raise
        except ComputationFailed as failed:
            self.close()
            if failed.code == "data":
                raise InvalidInput(str(failed)) from failed.__cause__
            raise
        except Exception as error:
            self.close()
            raise HanseError(
                f"the learner is made in a process of its own, and {loaded.bind} or the data can't be sent "
                f"there: {error}. Write a function of a module, no lambda"
            ) from error
        return child

    def _start(self, loaded: Loaded) -> ChildProcess:
        module, isolation = "hanse.network.client.child", self._isolation
        if isolation is None:
            return ChildProcess(module)
        wrap = partial(isolation.wrap, run=loaded.plan.run, imports=loaded.imports)
        return ChildProcess(module, wrap, isolation.environment())

    def close(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.close()


def _pickle(kept: Any) -> tuple[bytes, list[Array]]:
    """Pickles a value of memory, apart from its arrays' bytes."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(kept, 5, buffer_callback=buffers.append)
    return head, [np.asarray(buffer.raw()) for buffer in buffers]


def _read(answer: bytes) -> dict[str, Any]:
    """Reads an answer. Raises: ComputationFailed: if it is an error's description."""
    said = cast(dict[str, Any], unpack(answer))
    if "code" in said:
        raise ComputationFailed(said["text"], said["code"]) from _There(said["trace"])
    return said


def _find_signal(status: int, isolation: Isolation | None) -> int:
    """Returns the status of an isolated process as `_explain` expects it: the number of a signal below 0."""
    return status if isolation is None or status <= 128 else 128 - status


def _explain(status: int) -> ComputationFailed:
    if status == -signal.SIGKILL:
        why = "was killed from outside, or because the machine ran out of memory"
        return ComputationFailed(f"the process that computed {why}", "resources")
    how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    return ComputationFailed(f"the process that computed {how}", "internal")
