"""A run as a loop: each pass of a `for` statement performs one round."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TypedDict, Unpack

from hanse.config import Experiment
from hanse.core import Algorithm, Stop, Tensors
from hanse.core.exchange import Record
from hanse.data import Dataset, FederatedData, Partition
from hanse.evaluation import Baseline, Evaluation
from hanse.learners import Model
from hanse.preprocessing import Preprocessing
from hanse.privacy import Privacy
from hanse.runs.interrupts import Interrupts
from hanse.runs.result import Result
from hanse.runs.session import Session, start_session
from hanse.simulation import Devices, Execution

__all__ = ["Round", "Rounds", "rounds"]


class Settings(TypedDict, total=False):
    """The settings of an experiment, as keyword arguments. See `Experiment`."""

    data: Dataset | FederatedData
    partition: Partition | None
    model: Model
    algorithm: Algorithm[Any]
    rounds: int
    seed: int
    evaluate_every: int
    stop: Stop
    devices: Devices
    execution: Execution
    preprocessing: Preprocessing | None
    client_test_fraction: float
    initial: str | Path | None
    baselines: tuple[Baseline, ...]
    privacy: Privacy | None
    evaluation: Evaluation


def rounds(
    *,
    store: str | Path | None = None,
    name: str | None = None,
    tags: Sequence[str] = (),
    **settings: Unpack[Settings],
) -> "Rounds":
    """Begins a run whose rounds are performed one by one, in a loop.

    >>> for round in rounds(rounds=20):
    ...     if round.metrics["accuracy"] > 0.5:
    ...         break
    >>> round.record.round, sorted(round.params)
    (2, ['bias', 'weights'])

    What was done stays done: whoever leaves the loop early has a run with the status "stopped", which a store
    keeps and `resume` goes on with. Worker processes and the store are closed when nothing refers to the
    rounds any more; `with rounds(...) as begun:` closes them at a place of your choice.

    Args:
      store, name, tags: the file that keeps the run, and what it is called there, as in `run`.
      settings: data, partition, model, algorithm, rounds, ...: see `run`.

    Returns: the rounds; the first is round 0, the beginning, if the model is measured. After the loop, their
      `result` is what `run` would have returned.
    Raises: InvalidInput, CompositionError: if an argument can't be used; in the loop, the errors of `run`.
    """
    opened = ExitStack()
    experiment = Experiment(**settings)  # type: ignore[arg-type]
    session = opened.enter_context(start_session(experiment, store=store, name=name, tags=tags))
    return Rounds(session, opened)


@dataclass(frozen=True)
class Round:
    """A round of a run, as soon as it is done.

    Args:
      record: its metrics, bytes and seconds.
      params: the model after it, which can't be written to.
    """

    record: Record
    params: Tensors = field(repr=False)

    def __repr__(self) -> str:
        said = "".join(f", {name}={metric:.4g}" for name, metric in self.metrics.items())
        return f"Round({self.record.round}{said})"

    @property
    def metrics(self) -> Mapping[str, float]:
        """The metrics of the round; empty, if nothing was measured after it."""
        return self.record.metrics


class Rounds(Iterator[Round]):
    """The rounds of a run, each performed when it is asked for. Made by `rounds`.

    Args:
      session: the run.
      opened: closes what it uses.
    """

    def __init__(self, session: Session, opened: ExitStack) -> None:
        self._session, self._opened = session, opened
        self._interrupts = Interrupts()
        self._leading = opened.enter_context(closing(session.lead(self._interrupts)))
        self._result: Result | None = None

    def __next__(self) -> Round:
        if self._result is not None:
            raise StopIteration
        try:
            with self._interrupts, self._session.conclude():
                record = next(self._leading, None)
                if record is None:
                    self._result = self._session.complete(self._interrupts)
        except BaseException as error:
            self._result = getattr(error, "result", None) or self._session.outcome("failed", str(error))
            self._opened.close()
            raise
        if record is None:
            self._opened.close()
            raise StopIteration
        return Round(record, self._session.params)

    @property
    def result(self) -> Result:
        """The result of the run, which ends here if it has not ended yet."""
        self.close()
        assert self._result is not None
        return self._result

    def close(self) -> None:
        """Ends the run, if it has not ended yet, and closes what it uses."""
        self._stop("stopped", "its loop was left")

    def _stop(self, status: str, reason: str) -> None:
        with self._opened:
            if self._result is None:
                self._leading.close()
                self._result = self._session.end(status, reason)

    def __enter__(self) -> "Rounds":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, KeyboardInterrupt):
            self._stop("interrupted", "Ctrl-C")
        elif error is not None:
            self._stop("stopped", f"its loop was left by an error: {error}")
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_result"):
            with suppress(Exception):
                self.close()
