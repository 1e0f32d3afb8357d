"""A run as a server is asked to lead it."""

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from hanse.core import Key, PartyId, Program
from hanse.core.exchange import Progress, Record, Watch, digest
from hanse.network.protocol.wire import Plan
from hanse.network.server.records import check_party
from hanse.network.server.runtime import Patience

__all__ = ["SERVED", "Conclude", "RunJob", "Uncounted"]

SERVED = "served"
"""The key, in the settings that are kept of a run, of the options of `hanse serve` that change its bits."""


@dataclass(frozen=True)
class Uncounted:
    """A client that was not counted as it should have been: see `Members.find_uncounted`.

    Args:
      party: its number, or the name of the party that it plays.
      who: its name.
      asked, counted: in how many rounds.
      why: the reason, the last time.
    """

    party: PartyId
    who: str
    asked: int
    counted: int
    why: str


Conclude: TypeAlias = Callable[
    [str, str, Progress[Any], tuple[Record, ...], str | None, tuple[Uncounted, ...]], Mapping[str, Any]
]


@dataclass(frozen=True)
class RunJob:
    """A run as the server leads it.

    Args:
      plan: is sent to clients; its `run` is filled in.
      begin: makes the state of the program before its first round.
      program: leads on from a progress.
      learner: the model, or `OwnLearners`, for the roles that the server plays.
      role: gives the data of such a role, "server" above all. Raises: InvalidInput: if it holds none.
      num_clients: the run begins once so many have joined, and `num_present` of them are present.
      parties: the names of the parties that members play, each with data of its own. The run begins once all
        of them are present. The server plays all other roles.
      houses: what the settings call the clients, by number; empty: nothing.
      patience: the times that the run waits.
      secret: the server's, which transforms must not tell anybody. None: its own, drawn when it was new.
      settings, environment: kept with the run. None: the plan's settings.
      conclude: makes the result that is kept, from run, status, progress, records, reason and the clients
        that were not counted as they should have been; its "status" is the run's last one.
      watch: called after each round.
      recall: called with the rounds that are done, before `program`.
      record: a folder that keeps each valid answer as it came, for an audit; None: none is kept.
      name, tags: what the run is called in the store, if it is a new one.
      notes: facts that the program finds beside its state, as plain data, by name. They are kept in a file of
        the run's folder before each round is saved, and are here again when the run goes on.
    """

    plan: Plan
    begin: Callable[[], Progress[Any]]
    program: Callable[[Progress[Any]], Program[Progress[Any]]]
    learner: Any
    role: Callable[[str], Any]
    num_clients: int
    num_present: int = 1
    patience: Patience = Patience()
    houses: Sequence[str] = ()
    secret: Key | None = None
    settings: Mapping[str, Any] | None = None
    environment: Mapping[str, str] | None = None
    conclude: Conclude = lambda run, status, progress, records, reason, uncounted: {
        "status": "incomplete" if status == "completed" and uncounted else status,
        "rounds": progress.round,
        "reason": reason,
        "params_sha256": digest(progress.state.params),
    }
    watch: Watch = lambda record: None
    recall: Callable[[Sequence[Record]], None] = lambda records: None
    parties: tuple[str, ...] = ()
    record: Path | None = None
    name: str | None = None
    tags: tuple[str, ...] = ()
    notes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.parties:
            check_party(name)

    @property
    def num_rounds(self) -> int | None:
        """The rounds that the settings ask for; None: they do not say."""
        rounds = self.said.get("experiment", self.said).get("rounds")
        return rounds if isinstance(rounds, int) else None

    @property
    def metric(self) -> str:
        """The name of the metric that the run watches; empty: the settings do not say."""
        stop = self.said.get("experiment", self.said).get("stop")
        return str(stop.get("metric", "")) if isinstance(stop, Mapping) else ""

    @property
    def said(self) -> Mapping[str, Any]:
        """The settings that are kept."""
        plain: Mapping[str, Any] = json.loads(self.plan.settings)
        return plain if self.settings is None else self.settings

    @property
    def served(self) -> dict[str, int | float | str | None]:
        """The options of `hanse serve` that change the bits. They are kept beside the settings."""
        patience, ratio = self.patience, self.patience.max_weight_ratio
        return {
            "clients": self.num_clients,
            "over_select": patience.over_select,
            "min_clients": patience.min_clients,
            "max_weight_ratio": "inf" if math.isinf(ratio) else ratio,
        }

    def take_options(self, kept: Mapping[str, Any], given: Collection[str] = ()) -> "RunJob":
        """Returns this job with the options that are kept of a run, except the given ones.

        Args:
          kept: the settings that are kept of it.
          given: the names of options that stay as they are here.
        """
        served: Mapping[str, Any] = kept.get(SERVED, {})
        options = {name: option for name, option in served.items() if name not in given}
        num_clients = options.pop("clients", self.num_clients)
        if "max_weight_ratio" in options:
            options["max_weight_ratio"] = float(options["max_weight_ratio"])
        return replace(self, num_clients=num_clients, patience=replace(self.patience, **options))
