"""The child process in which a client computes: it holds the learner and the data of one role.

It has neither the client's key nor a link to the server. Its answers are packed values, which run no code
when they are read.
"""

import pickle
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from threadpoolctl import threadpool_limits

from hanse.core import Declined, InvalidInput, MessageError, bind_learner
from hanse.core.exchange import NotReady, Payload, compute, pack
from hanse.imports import load_same
from hanse.processes import receive

__all__ = ["serve"]


def serve(pipe: Connection) -> None:
    """Makes the learner, then computes tickets from a pipe until it is closed."""
    with suppress(EOFError, OSError):
        try:
            load_same(receive(pipe))
        except Exception as error:
            pipe.send_bytes(_describe(error, "imports"))
            return
        pipe.send_bytes(pack({"fork": None}))
        try:
            bind, plan, data, party = receive(pipe)
            learner = bind_learner(bind(plan), party, data)
            threadpool_limits(1)
        except Exception as error:
            suits = not isinstance(error, InvalidInput)
            pipe.send_bytes(_describe(error, _code(error) if suits else "data"))
            return
        pipe.send_bytes(pack({"fork": None}))
        kept: dict[str, Any] = {}
        while True:
            request = receive(pipe)
            try:
                answers = _compute(request, learner, data, kept)
            except Exception as error:
                answers = [_describe(error, _code(error))]
            del request
            for answer in answers:
                pipe.send_bytes(answer)


def _compute(request: Any, learner: Any, data: Any, kept: dict[str, Any]) -> list[bytes]:
    """Computes a ticket, after it brought `kept`, the pickled values of memory, up to date.

    They are unpickled anew for each ticket, with arrays that can't be written to, so that no ticket changes
    what the next one finds.
    """
    task, fields, names, changed, secret = request
    for name, (head, buffers) in changed.items():
        kept[name] = head, [buffer.data.toreadonly() for buffer in buffers]
    for name in kept.keys() - set(names):
        del kept[name]
    memory = {name: pickle.loads(kept[name][0], buffers=kept[name][1]) for name in names}
    message, fork = compute(task, Payload(*fields), learner, data, memory, secret)
    return [pack({"fork": fork}), pack(message)]


def _describe(error: Exception, code: str) -> bytes:
    """Describes an error by a code and by texts, which are for the client's own log."""
    text = str(error) or type(error).__name__
    trace = "".join(traceback.format_exception(error))
    return pack({"code": code, "text": text, "trace": trace})


def _code(error: Exception) -> str:
    if isinstance(error, MessageError | Declined):
        return "message" if isinstance(error, MessageError) else "promise"
    if isinstance(error, NotReady):
        return "not-ready"
    return "resources" if isinstance(error, MemoryError | OSError) else "internal"
