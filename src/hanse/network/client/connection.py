"""A client's connection to its server, as both of its threads use it."""

import threading
from collections.abc import Callable
from typing import TypeVar

from hanse.network.client.gate import Gate
from hanse.network.client.home import ClientHome
from hanse.network.client.transport import patiently
from hanse.network.protocol.wire import Doing

__all__ = ["Connection"]

T = TypeVar("T")


class Connection:
    """The gate to the server, what the client is doing, and whether it should stop.

    Args:
      home: the client home, which names the server.
      say: called with a line about what the client is doing, for its owner.
    """

    def __init__(self, home: ClientHome, say: Callable[[str], None]) -> None:
        self.home = home
        self.link = home.link()
        self.gate = Gate(self.link, home.audit, home.check_consent)
        self.stopping = threading.Event()
        self.doing: Doing = "waiting"
        """The client's progress as the server hears it, in a word of a closed list."""
        self.say_line = say
        self._last = ""

    def say(self, what: str, doing: Doing | None = None) -> None:
        """Says what the client is doing: to its owner in a line of text, to the server in one word."""
        if doing is not None:
            self.doing = doing
        if what != self._last:
            self._last = what
            self.say_line(what)

    def insist(self, act: Callable[[], T], *, quietly: bool = False) -> T:
        """Does something again and again until the server answers, or until this client should stop.

        Args:
          quietly: whether to say nothing of failed attempts.

        Raises: Refused: if a refusal is final; Unreachable: if this client should stop.
        """
        return patiently(act, self.stopping.wait, (lambda what: None) if quietly else self.say)
