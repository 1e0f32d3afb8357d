"""Child processes of one arithmetic thread, each at the end of a pipe.

They are started directly, not by `multiprocessing`, which would import the user's script once more. A child
ends with its parent, however the parent ends.
"""

import os
import pickle
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

if sys.platform != "win32":  # children inherit a pipe, so Windows can't start them
    import fcntl

__all__ = ["ONE_THREAD", "ChildEnded", "ChildProcess", "begin", "num_processors", "receive", "send"]

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)


def num_processors() -> int:
    """Counts the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class ChildEnded(Exception):
    """A child process ended though it was needed.

    Args:
      status: its exit status; a negative number is that of the signal which killed it.
    """

    def __init__(self, status: int) -> None:
        super().__init__(f"exit status {status}")
        self.status = status


def send(pipe: Connection, obj: Any) -> None:
    """Sends an object without copying its arrays."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(obj, 5, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    pipe.send_bytes(pickle.dumps(([view.nbytes for view in views], head)))
    for view in views:
        sent = 0
        while sent < view.nbytes:
            sent += os.write(pipe.fileno(), view[sent:])


def receive(pipe: Connection) -> Any:
    """Receives an object; its arrays can be written to. Raises: EOFError: if the pipe was closed."""
    sizes, head = pickle.loads(pipe.recv_bytes())
    buffers = [np.empty(size, np.uint8).data for size in sizes]
    for buffer in buffers:
        done = 0
        while done < len(buffer):
            read = os.readv(pipe.fileno(), [buffer[done:]])
            if not read:
                raise EOFError
            done += read
    return pickle.loads(head, buffers=buffers)


class ChildProcess:
    """A child process, and the pipe to it.

    Args:
      module: a module whose function `serve` is called with the pipe's other end.
      wrap: makes the command that runs another one in isolation; None: it is run as it is.
      environment: its variables; None: those of this process. If it is isolated, its output goes nowhere.
    """

    def __init__(
        self,
        module: str,
        wrap: Callable[[list[str]], list[str]] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.pipe, theirs = Pipe()
        lifeline, self._lifeline = os.pipe()
        code = (
            f"from hanse.processes import begin; pipe = begin({theirs.fileno()}, {lifeline}); "
            f"from {module} import serve; serve(pipe)"
        )
        command = [sys.executable, "-P", "-c", code]  # no folder comes before those of this process
        variables = os.environ if environment is None else environment
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        try:
            self._process = subprocess.Popen(
                command if wrap is None else wrap(command),
                env={
                    **variables,
                    **ONE_THREAD,
                    "PYTHONPATH": paths,
                },
                pass_fds=[theirs.fileno(), lifeline],
                stdin=subprocess.DEVNULL,
                stdout=None if wrap is None else subprocess.DEVNULL,  # a terminal obeys what it is sent
                stderr=None if wrap is None else subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the parent
            )
        except BaseException:
            os.close(self._lifeline)
            self.pipe.close()
            raise
        finally:
            theirs.close()
            os.close(lifeline)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def send(self, obj: Any) -> None:
        """Sends an object. Raises: ChildEnded."""
        try:
            send(self.pipe, obj)
        except OSError:
            raise self.ended() from None

    def receive(self) -> Any:
        """Waits for an object. Raises: ChildEnded."""
        try:
            return receive(self.pipe)
        except (EOFError, OSError):
            raise self.ended() from None

    def receive_bytes(self) -> bytes:
        """Waits for bytes, which nobody unpickles. Raises: ChildEnded."""
        try:
            return self.pipe.recv_bytes()
        except (EOFError, OSError):
            raise self.ended() from None

    def wait(self, limit_s: float | None) -> bool:
        """Waits for an answer, and returns whether one came in time. Raises: ChildEnded."""
        try:
            return self.pipe.poll(limit_s)
        except OSError:  # another thread closed it
            raise self.ended() from None

    def ended(self) -> ChildEnded:
        """Waits for the end of a process whose pipe is closed, and returns the error that says so."""
        return ChildEnded(self._process.wait())

    def kill(self) -> None:
        """Ends the process at once, in whatever call it is."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Ends the process at once, and closes the pipe."""
        if self._process.poll() is None:
            self.kill()
        if not self.pipe.closed:
            self.pipe.close()
            os.close(self._lifeline)


def begin(number: int, lifeline: int) -> Connection:
    """Begins a child process, and returns its end of the pipe.

    Nothing is ever written to the lifeline. When the parent ends, even by a kill, it is closed, and the
    kernel sends SIGIO, which ends this process even in a call into a library.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "win32":
        signal.signal(signal.SIGIO, signal.SIG_DFL)
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    poll = select.poll()  # select() takes no descriptor above 1023
    poll.register(lifeline, select.POLLIN)
    if poll.poll(0):
        os._exit(1)  # it was closed before
    return Connection(number)
