"""A client at work. It sends requests and receives none, and follows its own policy.

One thread polls, so that the server knows that the client lives; another computes and uploads.
"""

import contextlib
import threading
from collections.abc import Callable
from typing import Any, ClassVar

from hanse.core import HanseError, InvalidInput
from hanse.network.client.connection import Connection
from hanse.network.client.home import ClientHome
from hanse.network.client.isolation import Isolation, find_isolation
from hanse.network.client.poller import Poller
from hanse.network.client.roles import Roles
from hanse.network.client.ticket_process import Loaded, TicketBackend, TicketProcess
from hanse.network.client.tickets import Tickets
from hanse.network.client.worker import Worker
from hanse.network.protocol.errors import is_disk_full
from hanse.network.protocol.wire import Plan
from hanse.version import __version__

__all__ = ["Client"]


class Client:
    """A member at work.

    Args:
      client_home: its folder.
      data: gives its own data, as a plan wants them, or raises InvalidInput; `len` of them counts them.
      bind: makes the learner of a plan, or `OwnLearners`, which make it from the data; it raises InvalidInput
        if the data don't suit it. A function of a module, since it is called in a child process.
      say: called with a line about what the client is doing.
      test: gives its own test examples, as `data` does; None: it has none, and declines to measure on them.
      isolate: whether to compute tickets without network, keys and a writable disk; the policy may ask for
        it, too.

    Raises: InvalidInput: if tickets can't be isolated here.
    """

    poller: ClassVar[type[Poller]] = Poller
    worker: ClassVar[type[Worker]] = Worker
    backend: ClassVar[Callable[..., TicketBackend]] = TicketProcess
    """Makes what computes the tickets of a role; another one may be wrapped around it."""

    def __init__(
        self,
        client_home: ClientHome,
        data: Callable[[Plan], Any],
        bind: Callable[[Plan], Any],
        say: Callable[[str], None] = lambda s: None,
        test: Callable[[Plan], Any] | None = None,
        *,
        isolate: bool = False,
    ) -> None:
        self._home = client_home
        self._isolate = isolate
        self._find_isolation()
        self._connection = Connection(client_home, say)
        self._tickets = Tickets()
        self._roles = Roles(self._connection, data, bind, test, self._make_backend)

    def _find_isolation(self) -> Isolation | None:
        """Finds how to isolate tickets, if they are to be, as the policy reads now. Raises: InvalidInput."""
        wants = self._isolate or self._home.policy.isolate
        return find_isolation(self._home.folder) if wants else None

    def _make_backend(self, load: Callable[[], Loaded]) -> TicketBackend:
        """Makes what computes the tickets of a role."""
        isolation = self._find_isolation()
        make = type(self).backend
        return make(load) if isolation is None else make(load, isolation=isolation)

    def stop(self) -> None:
        """Makes `run` return. Any thread may call this."""
        self._connection.stopping.set()

    def run(self) -> str:
        """Works until the server is done or this client left, was revoked or stopped; returns which.

        Raises: Unsuited: if its data don't suit a run that the server asks it to take part in. HanseError: if
          no space is left on its disk.
        """
        connection = self._connection
        with self._home.claim(), self._home.log() as log:
            poller = self.poller(connection, self._tickets, self._roles)
            worker = self.worker(connection, self._tickets, self._roles, log, poller.poll_now)
            thread = threading.Thread(target=worker.run, name="work", daemon=True)
            thread.start()
            ended = "error"
            try:
                self._home.note_settings("starts", hanse=__version__)
                ended = poller.run()
                connection.stopping.set()
                self._tickets.end()
                thread.join(30.0)
                if worker.error is not None:  # also if the server was done before it was noticed
                    raise worker.error
                if ended != "stopped":
                    self._roles.forget_all_tasks()
                return ended
            except KeyboardInterrupt:
                ended = "stopped"
                raise
            except Exception as error:
                if not is_disk_full(error):
                    raise
                raise HanseError(
                    f"no space is left at {self._home.folder}: free some, and join again with the same "
                    "--home and no token. Nothing that was acknowledged is lost"
                ) from error
            finally:
                connection.stopping.set()
                self._tickets.end()
                thread.join(30.0)
                self._roles.close()
                connection.gate.close()
                with contextlib.suppress(OSError, InvalidInput):  # the first error is the one to raise
                    self._home.audit.write("ends", how=ended if worker.error is None else "error")
