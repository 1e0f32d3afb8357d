"""The rounds of a run as files that TensorBoard shows."""

import math
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hanse.core.exchange import Record
from hanse.runs.notebooks.frames import import_library

__all__ = ["TensorBoard"]

COSTS = ("bytes_up", "bytes_down", "counted", "dropped", "virtual_s")


class TensorBoard:
    """A watch that writes each round for TensorBoard: metrics, and under "costs" bytes, clients, seconds.

    `with TensorBoard("logs/first") as board: hanse.run(watch=board)`; then `tensorboard --logdir logs`.
    A metric that is not finite is left out. A run that is resumed goes on in the same folder.

    Args:
      folder: the folder to write to; one for each run.

    Raises: InvalidInput: if tensorboardX is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        library = import_library("tensorboardX", "TensorBoard(...)", "hanse[tensorboard]")
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._writer: Any = library.SummaryWriter(str(self.folder))

    def __call__(self, record: Record) -> None:
        costs = {name: getattr(record.usage, name) for name in COSTS}
        rows = {**record.metrics, **{f"costs/{name}": number for name, number in costs.items()}}
        for name, number in {**rows, "costs/seconds": record.seconds}.items():
            if math.isfinite(number):
                self._writer.add_scalar(name, number, record.round)

    def close(self) -> None:
        """Writes what is not written yet."""
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
