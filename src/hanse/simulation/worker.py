"""A worker process: computes and folds blocks of clients until its pipe is closed."""

import mmap
import os
import pickle
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from hanse.core import HanseError, Key, Memory, PartyId, Tensors
from hanse.core.exchange import Payload, Task
from hanse.processes import receive, send
from hanse.simulation.backend import Job, Make

if sys.platform != "win32":  # workers inherit a pipe, so Windows can't start them
    import fcntl

__all__ = ["Laid", "Request", "WorkersFailed", "remove_stale_files", "serve"]


class WorkersFailed(HanseError):
    """Workers can't be started, can't be sent something, or one of them died."""


class Laid(NamedTuple):
    """An object stored for several processes: its arrays in a file, and the rest.

    Args:
      path: the file.
      head: the rest, pickled.
      places: the offset and the size of each array, in bytes.
    """

    path: Path
    head: bytes
    places: Sequence[tuple[int, int]]

    @classmethod
    def down(cls, obj: Any) -> "Laid":
        """Writes the arrays to a file, which the caller has to remove."""
        buffers: list[pickle.PickleBuffer] = []
        head = pickle.dumps(obj, 5, buffer_callback=buffers.append)
        views = [buffer.raw() for buffer in buffers]
        places, end = list[tuple[int, int]](), 0
        for view in views:
            places.append((end, view.nbytes))
            end += -(-view.nbytes // ALIGNED) * ALIGNED
        path = _new_file(end)
        with path.open("wb") as file:
            for (start, _), view in zip(places, views, strict=True):
                file.seek(start)
                file.write(view)
            file.truncate(max(1, end))
        return cls(path, head, places)

    def load(self) -> Any:
        """Loads the object. All processes share one copy of each array until they write to it."""
        with self.path.open("rb") as file:
            block = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
        return pickle.loads(self.head, buffers=[block[start : start + size] for start, size in self.places])

    def remove(self) -> None:
        """Removes the file. Processes that have mapped it keep it for as long as they need it."""
        self.path.unlink(missing_ok=True)
        number = _LOCKED.pop(self.path, None)
        if number is not None:
            os.close(number)


MEMORY = Path("/dev/shm")
PREFIX = "hanse-shared-"

_LOCKED: dict[Path, int] = {}
"""The files of this process, each locked for as long as it lives."""

YOUNG_S = 60.0
"""The age up to which a file may not be locked yet."""


def _new_file(size: int) -> Path:
    """Makes an empty file, in memory if there is room for it."""
    roomy = MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 2 * size
    number, name = tempfile.mkstemp(prefix=PREFIX, dir=MEMORY if roomy else None)
    if sys.platform != "win32":
        fcntl.flock(number, fcntl.LOCK_EX)
    _LOCKED[Path(name)] = number
    return Path(name)


def remove_stale_files() -> None:
    """Removes the files of processes that were killed: nobody locks them any more."""
    if sys.platform == "win32":
        return
    for folder in (MEMORY, Path(tempfile.gettempdir())):
        for path in folder.glob(f"{PREFIX}*"):
            with suppress(OSError):  # another user's, or gone
                if time.time() - path.stat().st_mtime < YOUNG_S or not path.is_file():
                    continue
                with path.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()


class Request(NamedTuple):
    """A job as it is sent to a worker.

    Args:
      payload: the fields of a `Payload`.
      places: as plain values, which are quick to send: position, ticket, party, key, after, own.
      memories: the memories that they continue.
      folded: see `Job`.
    """

    payload: Laid
    places: Sequence[tuple[int, int, PartyId, bytes, int | None, Mapping[str, Tensors]]]
    memories: Sequence[Memory]
    folded: bool

    @classmethod
    def of(cls, payload: Laid, job: Job, memories: Sequence[Memory]) -> "Request":
        """Makes a request from a job."""
        rows = [
            (at, task.ticket, task.party, task.key.digest, task.after, task.own) for at, task in job.places
        ]
        return cls(payload, rows, memories, job.folded)

    def job(self, payload: Payload) -> Job:
        """Makes the job again."""
        places = [
            (at, Task(ticket, party, Key(key), after, own))
            for at, ticket, party, key, after, own in self.places
        ]
        return Job(places, payload, self.folded)


NUM_PAYLOADS = 4
"""The number of payloads that a worker keeps unpacked."""

ALIGNED = 64
"""Arrays begin at multiples of this many bytes."""


def serve(pipe: Connection) -> None:
    """Answers requests from a pipe until it is closed.

    The first message says whether blocks matter to the backend, and when it was built.
    """
    from threadpoolctl import threadpool_limits

    with suppress(EOFError, OSError):
        try:
            make: Make = receive(pipe).load()
            threadpool_limits(1)
            backend = make()
            send(pipe, (backend.blocks_matter, time.monotonic()))
        except Exception as error:
            send(pipe, _sendable(error))
            return
        payloads: dict[Path, Payload] = {}
        while True:
            request: Request = receive(pipe)
            try:
                if request.payload.path not in payloads:
                    if len(payloads) >= NUM_PAYLOADS:
                        del payloads[next(iter(payloads))]
                    payloads[request.payload.path] = _payload(request.payload)
                job = request.job(payloads[request.payload.path])
                tickets = [task.ticket for _, task in job.places]
                memories = dict(zip(tickets, request.memories, strict=True))
                (found,) = backend.compute([job], partial(_find_memory, memories))
                answer: Any = found.result, found.forks
            except Exception as error:
                answer = _sendable(error)
            send(pipe, answer)


def _find_memory(memories: Mapping[int, Memory], task: Task) -> Memory:
    return memories[task.ticket]


def _payload(laid: Laid) -> Payload:
    try:
        return Payload(*laid.load())
    except Exception as error:
        raise WorkersFailed(f"a worker can't receive what clients are sent: {error}") from None


def _sendable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        plain = RuntimeError(f"{type(error).__name__}: {error}")
        for note in getattr(error, "__notes__", ()):
            plain.add_note(note)
        return plain
    return error
