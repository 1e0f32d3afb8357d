"""The subject of an audit, and what each part of the audit found."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, TypeAlias

from hanse.config import AuditPlan, Experiment
from hanse.core import Array, Key, Stop
from hanse.data import FederatedData
from hanse.leakage import NotMeasured
from hanse.runs import Prepared, Result, prepare_run, start_session

__all__ = ["Section", "Subject", "Tell", "train"]

Tell: TypeAlias = Callable[[int, int], None]
"""Called with the number of runs that are done, and of all runs of this part."""


@dataclass(frozen=True)
class Section:
    """The findings of one part of an audit.

    Args:
      title: what was tried.
      about: how it was measured, and what the numbers mean.
      heads, rows: a table.
      found: the numbers that claims are about, by the name of the claim without "max_".
      missing: why nothing was measured; None: it was.
      curve: points (false positive rate, true positive rate) to draw; empty: none.
      pictures: pictures of numbers from 0 to 1, (height, width), by caption.
      records: rows of numbers with their names, which a page masks unless it is asked to show them.
      is_private: whether pictures are masked, too, as they are of real parties.
      details: further plain data for JSON.
    """

    title: str
    about: str = ""
    heads: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    found: Mapping[str, float] = field(default_factory=dict)
    missing: str | None = None
    curve: Sequence[tuple[float, float]] = ()
    pictures: Mapping[str, Sequence[Array]] = field(default_factory=dict)
    records: Sequence[tuple[str, Array]] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    is_private: bool = False

    def to_json(self) -> dict[str, Any]:
        """Returns the section as plain data, without curve, pictures and records."""
        return {
            "title": self.title,
            "found": dict(self.found),
            "missing": self.missing,
            "heads": list(self.heads),
            "rows": [list(row) for row in self.rows],
            **({"details": dict(self.details)} if self.details else {}),
        }


@dataclass(frozen=True)
class Subject:
    """A federation that is audited.

    Args:
      ready: its experiment, prepared.
      asked: the experiment as its settings say it, before anything was added to protect it.
      plan: what is tried.
    """

    ready: Prepared
    asked: Experiment
    plan: AuditPlan

    @classmethod
    def prepare(cls, experiment: Experiment, plan: AuditPlan) -> "Subject":
        """Prepares an experiment for its audit. Liars of its own and baselines are left out."""
        asked = replace(experiment, adversary=None, baselines=())
        return cls(prepare_run(asked), asked, plan)

    @property
    def key(self) -> Key:
        """The key of all draws of the audit."""
        return self.ready.keys.public.fold_in("audit")

    @cached_property
    def result(self) -> Result:
        """The result of a run as configured."""
        return train(self.asked)

    @cached_property
    def metric(self) -> str:
        """The name of the metric that the audit compares."""
        final = self.result.final
        if final is None:
            raise NotMeasured("the model is never measured; write evaluate_every = 1")
        names = [name for name in final.metrics if name != "loss"]
        return self.ready.stop.metric if self.ready.stop.metric in final.metrics else (names or ["loss"])[0]

    @property
    def is_higher_better(self) -> bool:
        """Returns whether the metric is better when higher."""
        return self.metric in self.result.higher_is_better

    def measure(self, result: Result) -> float:
        """Returns the metric of a run's last model."""
        if result.final is None:
            raise NotMeasured("the model was not measured")
        return result.final.metrics[self.metric]

    def on(self, data: FederatedData, **changes: Any) -> Experiment:
        """Returns the experiment on other data, which are encoded already, and never measured there."""
        return replace(
            self.asked,
            data=data,
            partition=None,
            preprocessing=None,
            client_test_fraction=0.0,
            evaluate_every=0,
            stop=Stop(),
            **changes,
        )

    def without_privacy(self, **changes: Any) -> Experiment:
        """Returns the experiment without its differential privacy and without `secure`."""
        return replace(self.asked, privacy=None, secure=False, **changes)

    def bare(self) -> Experiment:
        """Returns the experiment without any protection: its uplink and reducer are left out, too."""
        own: Any = self.asked.algorithm
        usual = {f.name: f.default for f in fields(own) if f.name in ("uplink", "into")}
        return self.without_privacy(algorithm=replace(own, **usual))


def train(experiment: Experiment) -> Result:
    """Performs an experiment in this process, beside others; nothing is kept."""
    with start_session(experiment, store=None) as session:
        return session.perform(alone=False)
