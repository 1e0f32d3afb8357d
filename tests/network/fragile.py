"""Parties that die at exactly one call, once, and what a restarted party finds on its disk."""

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from hanse.network.client.home import ClientHome
from hanse.network.client.memory_parts import MEMORY, PARTS, read_parts
from hanse.network.client.transport import ServerLink
from hanse.network.protocol.house import CLAIM
from hanse.network.protocol.wire import News

T = TypeVar("T")


class Crash(BaseException):
    """Stands for `kill -9`: no handler of errors may catch it."""


class Fate:
    """Kills a party just before or just after the n-th call of a kind. A dead party does nothing any more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.revive()

    def revive(self) -> None:
        """Starts the party again; nothing is to kill it."""
        self.dead = threading.Event()
        self._counts = Counter[str]()
        self._at = ("", 0, "")
        self.history: list[str] = []
        """The kinds of all calls that were made, in order."""

    def die(self, kind: str, number: int, when: str) -> None:
        """Lets the party die "before" or "after" it does something of this kind for the n-th time."""
        self._at = (kind, number, when)
        self._counts.clear()

    def meet(self, kind: str, act: Callable[[], T]) -> T:
        """Does something, unless the party dies of it or is dead."""
        with self._lock:
            self._counts[kind] += 1
            self.history.append(kind)
            hit = (kind, self._counts[kind]) == self._at[:2]
        if self.dead.is_set() or (hit and self._at[2] == "before"):
            self.dead.set()
            raise Crash(kind)
        done = act()
        if hit:
            self.dead.set()
            raise Crash(kind)
        return done


class FragileHome(ClientHome):
    """A client home whose owner may die, at each effect that outlives it: on its disk or at the server."""

    def __init__(self, folder: Path, fate: Fate) -> None:
        super().__init__(folder)
        self._fate = fate
        write = self.audit.write
        self.audit.write = lambda what, **about: fate.meet(what, lambda: write(what, **about))  # type: ignore[method-assign]

    def link(self) -> ServerLink:
        link, fate, settled = super().link(), self._fate, False
        ask, upload = link.ask, link.upload

        def ask_or_die(method: str, path: str, kind: Any, *given: Any, **more: Any) -> Any:
            nonlocal settled
            if settled:  # it has settled these tickets, and the server does not know
                fate.meet("acknowledge", lambda: None)
            answer = fate.meet("ask", lambda: ask(method, path, kind, *given, **more))
            settled = isinstance(answer, News) and bool(answer.decisions)
            return fate.meet("verdict", lambda: answer) if settled else answer

        link.ask = ask_or_die  # type: ignore[method-assign]
        link.upload = lambda *given: fate.meet("upload", lambda: upload(*given))  # type: ignore[method-assign]
        return link


def watch_files(
    patch: pytest.MonkeyPatch, folder: Path, fate: Fate, name: Callable[[Path, Path], str]
) -> None:
    """Lets the owner of a folder die when it renames or removes a file there, except its claims.

    The operating system lifts the claims of a process that is really killed.

    Args:
      name: the kind of a rename, given the file and its new path; and of a removal, given the file twice.
    """
    for what in ("replace", "rename", "unlink"):
        act = getattr(Path, what)

        def meet(self: Path, *given: Any, act: Any = act, **more: Any) -> Any:
            if not self.is_relative_to(folder) or self.name == CLAIM or self.suffix == ".lock":
                return act(self, *given, **more)
            return fate.meet(
                name(self, Path(*given[:1]) if given else self), lambda: act(self, *given, **more)
            )

        patch.setattr(Path, what, meet)


def name_client_file(path: Path, target: Path) -> str:
    """Names what a client does to a file of a run."""
    if target.name == MEMORY:
        _, forks = read_parts(path)
        return "keep" if forks else "commit"
    if target.parent.name == PARTS:
        return "sweep" if path == target else "part"
    if target.suffix == ".message":
        return "forget" if path == target else "write"
    return "else"
