"""The recording of a run: each valid answer as it came, for an audit of what the server sees."""

from collections.abc import Callable
from pathlib import Path

from hanse.core.exchange import Message, Task, pack
from hanse.network.protocol import Plan

__all__ = ["Recording"]


class Recording:
    """Answers by round, ticket and party, in a folder: ROUND-TICKET-PARTY.answer, and payloads by SHA-256.

    The run's plan, with its model, lies beside them in run.plan.

    The folder holds what clients sent, without the noise that the server adds: it needs the same protection
    as their data. `hanse.leakage.read_recording` reads it.
    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._write("run.plan", lambda: pack(plan))

    def keep(self, round: int, task: Task, payload: Path, message: Message) -> None:
        """Keeps an answer, and the payload of its cohort, a file named by its SHA-256, if it is new."""
        self._write(f"{payload.name}.payload", payload.read_bytes)
        answer = f"{round}-{task.ticket}-{task.party}.answer"
        self._write(answer, lambda: pack((task, payload.name, message)))

    def _write(self, name: str, make: Callable[[], bytes]) -> None:
        path, new = self._folder / name, self._folder / f"{name}.new"
        if not path.exists():
            new.touch(mode=0o600)
            new.write_bytes(make())
            new.replace(path)
