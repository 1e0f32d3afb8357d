"""A server whose clients a test plays, without a network between them."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from hanse.core import Key, Part, PartSpec, Spec, Work, value
from hanse.core.exchange import Dispatch, Message, PartyMemory, pack
from hanse.network.protocol.spool import Objects, hash_chunks
from hanse.network.protocol.uploads import Spool
from hanse.network.server.mailbox import Mailbox
from hanse.network.server.records import Outcomes
from hanse.network.server.runtime import NetworkRuntime, Patience

KEY = Key.from_seed(1)
W = {"w": np.zeros(3000)}
UPLINK = {"u": PartSpec(Spec.of(W))}


@value
class asked_at_length(Work[Any, Any]):
    def run(self, learner: Any, shared: Any, data: Any, memory: Any, keys: Any) -> Any:
        raise AssertionError("the test answers itself")


class PlayedServer:
    """A runtime on a disk, with three clients that the test plays."""

    def __init__(self, disk: Path) -> None:
        members = frozenset(range(3)), 3
        self.mailbox = Mailbox(
            lambda parties: None,
            lambda party: 0.0,
            lambda: members,
            lambda: members[0],
            Outcomes(disk / "outcomes.db"),
        )
        self.spool, self.objects = Spool(disk / "spool"), Objects(disk / "objects")
        self.disk, patience = disk, Patience(over_select=1.5)
        self.runtime = NetworkRuntime(
            self.mailbox,
            self.spool,
            self.objects,
            Objects(disk / "own"),
            KEY,
            self.play,
            PartyMemory(),
            patience,
        )

    def play(self, role: str) -> Any:
        raise AssertionError("the server plays no role here")

    def dispatch(self, *cohort: int, step: int = 0) -> tuple[int, ...]:
        return self.send(cohort, step)

    def send(self, cohort: tuple[int, ...], step: int) -> tuple[int, ...]:
        """Sends work to this very cohort, which may be the one that a Sample answered with."""
        shared = {"params": {"w": W["w"] + step}}
        event = self.runtime.perform(Dispatch(asked_at_length(), cohort, shared, UPLINK, KEY.fold_in(step)))
        return event.tickets  # type: ignore[attr-defined, no-any-return]

    def answer(self, ticket: int, part: Part | None = Part(W)) -> None:
        data = pack(Message(ticket, {"u": part}))
        name = hash_chunks([data])
        chunk = self.spool.writing(ticket, name, len(data), 0)
        chunk.write(data)
        chunk.keep(hashlib.sha256(data).digest())
        chunk.close()
        assert self.spool.finish(ticket, name, len(data))
        self.mailbox.arrive(ticket)

    def files(self) -> int:
        return sum(len(list((self.disk / folder).iterdir())) for folder in ("spool", "objects"))
