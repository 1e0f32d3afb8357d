"""A client that ends the worker process which computes it, at a moment that a test chooses."""

import os
from typing import Any

from hanse.core import Part, Work, value


@value(name="ends_its_process")
class ends_its_process(Work[Any, Any]):
    """Emits the mean of a client's features.

    The client that has `victim` examples ends its process if this is not `parent`, once somebody has opened
    the pipe `fifo` for writing.
    """

    parent: int
    fifo: str
    victim: int

    def run(self, learner: Any, shared: Any, data: Any, memory: Any, keys: Any) -> Any:
        if len(data) == self.victim and os.getpid() != self.parent:
            with open(self.fifo) as pipe:
                pipe.read()
            os._exit(1)
        return {"u": Part({"w": data.x.mean(axis=0)}, float(len(data)))}, memory
