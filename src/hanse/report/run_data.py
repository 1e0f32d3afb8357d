"""The data of pages and charts about runs: rows of plain numbers, read from the store."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hanse.algorithms import OBJECTIVE
from hanse.config import format_plain, leaves, split_path
from hanse.core.exchange import Record
from hanse.evaluation import passes

if TYPE_CHECKING:
    from hanse.store import Runs

__all__ = ["CENTRALISED", "FEDERATED", "ON_SITE", "RunData", "load_run", "load_runs"]

FEDERATED, CENTRALISED, ON_SITE = "federated", "centralised", "on-site"
TRAINERS = {"centralised": CENTRALISED, "on_site": ON_SITE}

MAX_POINTS = 400
"""The most points of one line; of more, some are left out evenly."""


@dataclass(frozen=True)
class RunData:
    """The data of a run for pages and charts.

    Args:
      label: its name among other runs.
      run, status, created: see `RunInfo`.
      settings: the settings of the experiment.
      result: the result; None: the run has not ended yet.
      environment: the machine that performed it.
      records: its rounds.
    """

    label: str
    run: str
    status: str
    created: str
    settings: Mapping[str, Any]
    result: Mapping[str, Any] | None
    environment: Mapping[str, Any]
    records: tuple[Record, ...]

    @property
    def num_clients(self) -> int | None:
        """The number of clients in the data, if that is known."""
        data = (self.result or {}).get("data")
        if data:
            return int(data["num_clients"])
        found = (self.settings.get("partition") or {}).get("num_clients")
        return None if found is None else int(found)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that were measured, the watched one first."""
        names = dict.fromkeys(name for record in self.records for name in record.metrics)
        watched = self.settings["stop"]["metric"]
        return tuple(sorted(names, key=lambda name: (name != watched, name != "accuracy")))

    @property
    def baselines(self) -> Mapping[str, Mapping[str, Any]]:
        """The baselines by name."""
        return {str(row["name"]): row for row in (self.result or {}).get("baselines") or ()}

    @property
    def num_examples(self) -> int | None:
        """The number of all clients' examples, if the run said it."""
        sizes = ((self.result or {}).get("data") or {}).get("sizes")
        return sum(sizes) if sizes else None

    def points(self) -> Iterator[dict[str, Any]]:
        """Yields a row for each measured round: rounds, epochs and bytes until then, and metrics."""
        clients, epochs, up, down = self.num_clients, 0.0, 0, 0
        num_examples = self.num_examples
        measured = [record.round for record in self.records if record.is_measured]
        kept = set(measured[:: 1 + len(measured) // MAX_POINTS]) | set(measured[-1:])
        asks_clients = (not ((self.result or {}).get("data") or {"test": 1})["test"]) + (
            self.settings["stop"]["metric"] == OBJECTIVE
        )
        for record in self.records:
            up, down = up + record.usage.bytes_up, down + record.usage.bytes_down
            if clients:
                evaluated = clients * asks_clients if record.is_measured else 0
                trained = max(0, record.usage.counted - evaluated) if record.is_closed else 0
                epochs += passes(self.settings["algorithm"], trained, clients, num_examples)
            if record.round in kept and record.is_measured:
                spent = {"round": record.round, "epochs": epochs if clients else None}
                sent = {"bytes": up + down, "bytes up": up, "bytes down": down}
                yield {"run": self.label, **spent, **sent, **record.metrics}


def load_run(runs: "Runs", run: str, label: str = "") -> RunData:
    """Loads the data of one run. Raises: StoreError: if there is no such run."""
    info = runs.info(run)
    return RunData(
        label or info.run,
        info.run,
        info.status,
        info.created.astimezone().strftime("%Y-%m-%d %H:%M"),
        info.settings["experiment"],
        info.result,
        info.environment,
        runs.records(info.run),
    )


def load_runs(runs: "Runs", names: Sequence[str]) -> tuple[RunData, ...]:
    """Loads several runs, with labels that name their differences."""
    plain = [load_run(runs, name) for name in dict.fromkeys(names)]
    labels = _labels([run_data.settings for run_data in plain])
    twice = Counter(labels)
    named = [
        label if label and twice[label] == 1 else f"{label or 'run'} ({run_data.run[:6]})"
        for label, run_data in zip(labels, plain, strict=True)
    ]
    return tuple(load_run(runs, s.run, label) for s, label in zip(plain, named, strict=True))


def _labels(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Labels runs by their algorithm, if its kind differs, and by all other settings that differ."""
    names = [experiment["algorithm"]["name"] for experiment in settings]
    kinds, labels = set(names), []
    for experiment, name in zip(settings, names, strict=True):
        said = (
            [name if names.count(name) == 1 else format_plain(experiment["algorithm"])]
            if len(kinds) > 1
            else []
        )
        for path in dict.fromkeys(path for other in settings for path in leaves(other)):
            if len(kinds) > 1 and path.startswith(("algorithm.", "rounds")):
                continue
            own = _at(experiment, path)
            if any(_at(other, path) != own for other in settings) and own is not None:
                said.append(f"{path}={format_plain(own)}")
        labels.append(", ".join(said))
    return labels


def _at(tree: Any, path: str) -> Any:
    for step in split_path(path):
        if not isinstance(tree, Mapping) or step not in tree:
            return None
        tree = tree[step]
    return None if isinstance(tree, Mapping) else tree
