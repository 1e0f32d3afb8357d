"""The result of a run."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from hanse.core import Algorithm, Diverged, Stalled, StoreError, Tensors
from hanse.core.exchange import (
    HIGHER_IS_BETTER,
    Flow,
    Progress,
    Record,
    ReleaseRecord,
    digest,
    is_higher_better,
)
from hanse.runs.judgement import CHOSEN_ON_TEST, Finding, find_problems, judge_status
from hanse.runs.ledger import as_json, flows_of
from hanse.runs.notebooks import draw_result, list_rows, make_pandas, make_polars
from hanse.runs.places import name_store
from hanse.runs.timeline import measure_parallelism

__all__ = ["Interrupted", "Result", "RunDiverged", "RunStalled", "record_as_json"]


@dataclass(frozen=True)
class Result:
    """The result of a run, or its state when it ended early.

    Args:
      run: its id; None: it was not kept.
      status: "completed", also by target or patience; "incomplete", if it lacks rounds or clients that it
        should have had; "stopped", by its operator; "interrupted", "diverged" or "failed".
      params: the model after the last round that closed.
      rounds: the number of rounds done.
      records: metrics, bytes and seconds of each round; the first is round 0, the beginning.
      final: the last round that was measured.
      best: the round with the best watched metric, on the validation examples where there are some.
      target_round: the first round that reached the target.
      reason: why it ended before its last round.
      clients: the metrics of the final model on each client's examples, once a run has completed.
      baselines: the baselines that were trained on the same budget.
      data: the description of which client has which examples.
      findings: facts that a reader has to know before trusting the result.
      higher_is_better: the names of its metrics that are better when higher.
      privacy: what the run promises to each of its clients; None: it released nothing noised.
      adversary: who lied, and whom the rule has left out; None: nobody lied.
      assessment: the metrics of the final model beside a constant predictor's, with intervals by party.
      headline: sentences to read first: whom federation helped and whom it did not, and what not to rely on.
      parties: each party's row, a record for each: its examples, and metrics on its own test examples.
      settings: of its experiment; None: they can't be written down.
      store: the file that keeps it; None: it was not kept.
      name, tags: what its user calls it.
    """

    run: str | None
    status: str
    params: Tensors = field(repr=False)
    rounds: int
    records: tuple[Record, ...] = field(repr=False)
    final: Record | None
    best: Record | None
    target_round: int | None = None
    reason: str | None = None
    clients: Mapping[str, Any] | None = field(default=None, repr=False)
    baselines: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    data: Mapping[str, Any] | None = field(default=None, repr=False)
    findings: tuple[Finding, ...] = ()
    higher_is_better: tuple[str, ...] = ()
    privacy: Mapping[str, Any] | None = None
    adversary: Mapping[str, Any] | None = None
    assessment: Mapping[str, Any] | None = None
    headline: tuple[str, ...] = ()
    parties: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    settings: Mapping[str, Any] | None = field(default=None, repr=False)
    store: str | Path | None = field(default=None, repr=False)
    name: str | None = None
    tags: tuple[str, ...] = ()

    def __repr__(self) -> str:
        said = {"run": self.run, "name": self.name, "status": self.status, "rounds": self.rounds}
        words = [f"{key}={value!r}" for key, value in said.items() if value is not None]
        metrics = {} if self.final is None else self.final.metrics
        words += [f"{key}={metric:.4g}" for key, metric in metrics.items()]
        words += [f"findings={len(self.findings)}"] if self.findings else []
        return f"Result({', '.join(words)})"

    def _repr_html_(self) -> str:
        called = [] if self.name is None else [self.name]
        return draw_result(self.to_json(), self.settings, [*called, *(f"#{tag}" for tag in self.tags)])

    @classmethod
    def of(
        cls,
        run: str | None,
        status: str,
        progress: Progress[Any],
        records: Iterable[Record],
        reason: str | None = None,
        uncounted: Sequence[Any] = (),
        *,
        higher: Collection[str] = HIGHER_IS_BETTER,
        remedy: str = Algorithm.remedy,
        on_test: bool = False,
        led: tuple[Finding, ...] = (),
    ) -> "Result":
        """Makes the result of a run at its present progress.

        For `uncounted` and `remedy` see `find_problems`; `higher` names metrics that are better when higher.
        `on_test`: whether what stops the run is watched on test examples.
        `led`: says that the algorithm computes with test or validation examples.
        """
        records = tuple(records)
        found = find_problems(records, uncounted, remedy)
        if on_test and progress.stopped is not None:
            found = (*found, CHOSEN_ON_TEST)
        found = (*found, *led)
        names = sorted({name for record in records for name in record.metrics})
        measured = {record.round: record for record in records if record.is_measured}
        return cls(
            run,
            judge_status(status, found),
            progress.state.params,
            progress.round,
            records,
            final=measured[max(measured)] if measured else None,
            best=measured.get(progress.best[1]) if progress.best else None,
            target_round=progress.target_round,
            reason=reason or progress.stopped,
            findings=found,
            higher_is_better=tuple(name for name in names if is_higher_better(name, higher)),
        )

    @property
    def bytes_up(self) -> int:
        """The bytes of encoded messages from clients to the server."""
        return sum(record.usage.bytes_up for record in self.records)

    @property
    def bytes_down(self) -> int:
        """The bytes of encoded messages from the server to clients."""
        return sum(record.usage.bytes_down for record in self.records)

    @property
    def flows(self) -> tuple[Flow, ...]:
        """The bytes of the tensors in all messages, by name: raw, and after each stage."""
        return flows_of(record.usage for record in self.records)

    @property
    def seconds(self) -> float:
        """The seconds of wall-clock time that the rounds took."""
        return math.fsum(record.seconds for record in self.records)

    @property
    def parallelism(self) -> dict[str, float] | None:
        """The gain of parallel devices on the simulated clock; None: they have no links."""
        return measure_parallelism(self.records)

    @property
    def virtual_s(self) -> float:
        """Seconds on the simulated clock."""
        return math.fsum(record.usage.virtual_s for record in self.records)

    @property
    def params_sha256(self) -> str:
        """The hash of the model; it is equal if all bits are."""
        return digest(self.params)

    @property
    def spent(self) -> dict[str, float]:
        """The seconds of the rounds by activity, largest first; the rest is called "framework"."""
        sums: dict[str, float] = {}
        for record in self.records:
            for what, seconds in record.spent.items():
                sums[what] = sums.get(what, 0.0) + seconds
        if sums:
            sums["framework"] = max(0.0, self.seconds - math.fsum(sums.values()))
        return dict(sorted(sums.items(), key=lambda item: -item[1]))

    @property
    def executions(self) -> tuple[str, ...]:
        """The executions by which clients were computed, each once, in order."""
        return tuple({record.execution: None for record in self.records if record.execution})

    def rows(self) -> list[dict[str, Any]]:
        """Lists the rounds as plain dictionaries with the same keys: metrics, bytes, clients, seconds."""
        return list_rows(self.records)

    def to_pandas(self) -> Any:
        """Makes a `pandas.DataFrame` of the rounds. Raises: InvalidInput: if pandas is not installed."""
        return make_pandas(self.rows())

    def to_polars(self) -> Any:
        """Makes a `polars.DataFrame` of the rounds. Raises: InvalidInput: if Polars is not installed."""
        return make_polars(self.rows())

    def plot(self, metric: str | None = None, against: str = "round") -> Any:
        """Draws a metric as the report does, beside its baselines, as a chart of Altair.

        Args:
          metric: its name; None: the one that the run watches.
          against: "round", "epochs", "bytes up" or "bytes down".

        Raises: InvalidInput: if the extra `report` is not installed, or nothing of that name was measured.
        """
        return _above("report").draw_metric(self, metric, against)

    def report(self, to: str | Path | None = None, *, images: bool = True) -> Path:
        """Writes the page of this run, as `hanse report` does, and returns its path.

        Args:
          to: the folder to write to; None: one that is named after the run.
          images: whether the charts are also written as images.
        """
        page: Path = _above("report").write_report(self, to, images=images)
        return page

    def release(self, to: str | Path) -> Path:
        """Writes the model with its card to a folder, as `hanse release` does, and returns its path.

        Raises: StoreError: if the run was not kept, or has no model yet.
        """
        if self.run is None or self.store is None:
            raise StoreError(
                'a run that is not kept can\'t be released; give it a store: run(..., store="runs.db")'
            )
        written: Path = _above("release").release_run(self.run, to, store=self.store)
        return written

    def to_json(self) -> dict[str, Any]:
        """Returns the result as plain data, without the model and the single rounds."""
        return {
            "run": self.run,
            "status": self.status,
            "reason": self.reason,
            "findings": [finding.to_json() for finding in self.findings],
            "rounds": self.rounds,
            "rounds_to_target": self.target_round,
            "rounds_abandoned": len([r for r in {r.round: r for r in self.records}.values() if r.abandoned]),
            "final": _metrics_of(self.final),
            "best": _metrics_of(self.best),
            "higher_is_better": list(self.higher_is_better),
            "bytes_up": self.bytes_up,
            "bytes_down": self.bytes_down,
            "flows": as_json(self.flows),
            "seconds": round(self.seconds, 6),
            "spent": {what: round(seconds, 6) for what, seconds in self.spent.items()},
            "executions": list(self.executions),
            "virtual_s": self.virtual_s,
            "params_sha256": self.params_sha256,
            "clients": self.clients,
            "baselines": list(self.baselines),
            "data": self.data,
            "headline": list(self.headline),
            "parties": list(self.parties),
            "privacy": self.privacy,
            **({} if self.parallelism is None else {"parallelism": self.parallelism}),
            **({} if self.adversary is None else {"adversary": self.adversary}),
            **({} if self.assessment is None else {"assessment": self.assessment}),
        }


def _above(room: str) -> Any:
    """Loads a room that shows results. It is named here only, because rooms import downwards."""
    return import_module(f"hanse.{room}")


def record_as_json(record: Record) -> dict[str, Any]:
    """Returns one round as plain data."""
    names = ("bytes_up", "bytes_down", "counted", "dropped", "virtual_s")
    usage = {name: getattr(record.usage, name) for name in names}
    rest = {"seconds": record.seconds, "abandoned": record.abandoned, "flows": as_json(record.usage.flows)}
    performed: dict[str, Any] = {"execution": record.execution, "spent": dict(record.spent)}
    if record.reported:
        performed["reported"] = list(record.reported)
    if record.usage.releases:
        performed["releases"] = [_release_as_json(release) for release in record.usage.releases]
    if record.usage.times:
        performed["times"] = [vars(times) for times in record.usage.times]
    if record.usage.left_out:
        performed["left_out"] = list(record.usage.left_out)
    return {"round": record.round, **_finite(record.metrics), **usage, **rest, **performed}


def _release_as_json(one: ReleaseRecord) -> dict[str, Any]:
    """Returns what accounting has to know of a noised total as plain data."""
    release = {name: held for name, held in vars(one.release).items() if name != "parameters"}
    booked = {"part": one.part, "sampling": one.sampling, "sample": one.sample}
    return {**booked, **release, "parameters": dict(one.release.parameters)}


def _metrics_of(record: Record | None) -> dict[str, Any] | None:
    return None if record is None else {"round": record.round, **_finite(record.metrics)}


def _finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Replaces metrics that are not finite by None, since JSON has no word for NaN."""
    return {name: metric if math.isfinite(metric) else None for name, metric in metrics.items()}


class RunDiverged(Diverged):
    """Training has left the finite numbers. `result` holds the run up to then."""

    def __init__(self, why: str, result: Result) -> None:
        super().__init__(why)
        self.result = result


class RunStalled(Stalled):
    """A run can't go on for now. `result` holds the run up to then; a store keeps it."""

    def __init__(self, why: str, result: Result) -> None:
        super().__init__(why)
        self.result = result


class Interrupted(KeyboardInterrupt):
    """Ctrl-C has stopped a run. `result` holds the run up to then; a store keeps it."""

    def __init__(self, result: Result) -> None:
        go_on = f"hanse resume {result.run}{name_store(result.store)}"
        hint = f"; go on with: {go_on}" if result.run else ""
        super().__init__(f"interrupted after round {result.rounds}{hint}")
        self.result = result
