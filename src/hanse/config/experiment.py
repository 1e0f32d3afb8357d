"""An experiment as a value, with the same contents as a settings file."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from os import PathLike, fspath
from typing import Any

import hanse.privacy.secure_sums
import hanse.robust
import hanse.transforms  # noqa: F401  (registers what uplinks name)
from hanse.algorithms import fed_avg
from hanse.attacks import Adversary
from hanse.config.plain_data import NOTHING, format_plain, to_plain
from hanse.config.settings import UnknownSetting, WrongSetting, build
from hanse.core import Algorithm, InvalidInput, Plain, Stop
from hanse.core.exchange import OF_VALIDATION, find_class, find_renamed_settings
from hanse.data import Dataset, FederatedData, Partition, digits, dirichlet
from hanse.evaluation import Baseline, Evaluation, Metric
from hanse.imports import Import
from hanse.learners import Model, softmax
from hanse.preprocessing import Preprocessing
from hanse.privacy import Privacy
from hanse.simulation import Devices, Execution, auto, ideal

__all__ = ["IMPORTS", "IN_PYTHON", "Experiment", "find_metric", "summary"]

IN_PYTHON = "in_python"
"""The key that marks, in saved settings, data that only a program can supply again."""

KINDS: Mapping[str, type] = {
    "data": Dataset,
    "partition": Partition,
    "model": Model,
    "algorithm": Algorithm,
    "stop": Stop,
    "devices": Devices,
    "execution": Execution,
}
"""The settings that are tables, with the kind of value that each names."""

NUMBERS = ("rounds", "seed", "evaluate_every")

PRIVACY = "privacy"
"""The setting of differential privacy. It is left out of settings where there is none."""

ADVERSARY = "adversary"
"""The setting of liars in a simulation. It is left out of settings where there is none."""

SECURE = "secure"
"""The setting by which all that clients send enters secure sums. It is left out where it is false."""

EVALUATION = "evaluation"
"""The setting of what is measured beside the model's metrics. It is left out where nothing is named."""

OTHERS: Mapping[str, Any] = {
    "preprocessing": Preprocessing | None,
    "client_test_fraction": float,
    "initial": str | None,
    "baselines": tuple[Baseline, ...],
    PRIVACY: Privacy | None,
    SECURE: bool,
    ADVERSARY: Adversary | None,
    EVALUATION: Evaluation,
}
"""The remaining settings, with their types."""

BUILT = ("preprocessing", PRIVACY, ADVERSARY)
"""The remaining settings that are values or None."""

IMPORTS = "imports"
"""The setting that names modules. It is left out of settings where there are none."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """An experiment: data, model, algorithm and everything else that decides the bits of a run.

    A value may be given as a settings file names it: `algorithm="fed_avg(lr=0.1)"`, `partition="iid(10)"`.

    >>> Experiment(rounds=20).settings()["partition"]
    {'name': 'dirichlet', 'num_clients': 100, 'alpha': 0.5, 'min_examples': 1}

    Args:
      data: a data set to divide among clients, or data that are divided already.
      partition: how a data set is divided; None: among 100 clients with unlike labels and sizes,
        `dirichlet(100, 0.5)`.
      model: the model to train.
      algorithm: the algorithm that trains it.
      rounds: the largest number of rounds.
      seed: decides every draw, also those of the partition.
      evaluate_every: rounds between measurements; 0: the model is never measured.
      stop: when the run ends before its last round.
      devices: how long clients take on the simulated clock, and who drops out.
      execution: how clients are computed on this machine: `auto()`, `sequential()` or `batched()`, and
        in how many processes.
      preprocessing: how features are encoded before training, learned from all clients' sums; None:
        `tabular()` for tables of named columns, and nothing for arrays.
      client_test_fraction: the share of its examples that each client holds out as its own test examples.
      initial: a safetensors file to start from, such as a released model; None: the model's own
        initial parameters.
      baselines: what the run is compared with, trained on the same budget: `centralised()`, `on_site()`.
      privacy: the differential privacy that the run keeps to: `central(epsilon=...)` or
        `examples(epsilon=...)`; None: none.
      adversary: clients that lie, in a simulation only: `Adversary(attack, fraction=0.2)`; None: nobody lies.
      secure: whether all that clients send enters secure sums, so that the server sees totals; what can't
        is refused.
      evaluation: the metrics that are measured beside the model's own: `Evaluation(metrics=("auroc",))`.
      imports: modules and files of your own, whose values the other settings may then name; paths are
        relative to the settings file. In Python, import them yourself.
    Raises: InvalidInput: if one of them is of another kind, or out of range.
    """

    data: Dataset | FederatedData = digits()
    partition: Partition | None = None
    model: Model = softmax()
    algorithm: Algorithm[Any] = fed_avg()
    rounds: int = 100
    seed: int = 0
    evaluate_every: int = 1
    stop: Stop = Stop()
    devices: Devices = ideal()
    execution: Execution = auto()
    preprocessing: Preprocessing | None = None
    client_test_fraction: float = 0.0
    initial: str | None = None
    baselines: tuple[Baseline, ...] = ()
    privacy: Privacy | None = None
    adversary: Adversary | None = None
    secure: bool = False
    evaluation: Evaluation = Evaluation()
    imports: tuple[Import, ...] = ()

    def __post_init__(self) -> None:
        self._build_named()
        shared_out = isinstance(self.data, FederatedData)
        if shared_out and self.partition is not None:
            raise InvalidInput(
                f"{self.data} is divided among clients already; leave out partition={self.partition}"
            )
        if not shared_out and self.partition is None:
            object.__setattr__(self, "partition", dirichlet(100, 0.5))
        for name, kind in KINDS.items():
            if not (shared_out and name in ("data", "partition")):
                _check_kind(name, getattr(self, name), kind)
        for name in NUMBERS:
            _check_whole(name, getattr(self, name), least=None if name == "seed" else int(name == "rounds"))
        watches = self.stop.target is not None or self.stop.patience is not None
        if watches and not self.evaluate_every:
            raise InvalidInput(
                f"the model is never measured with evaluate_every = 0, but {self.stop} needs measurements"
            )
        self._check_others()
        self._build_metrics()

    def _build_named(self) -> None:
        """Builds what is given as a settings file would name it, such as algorithm="fed_avg(lr=0.1)"."""
        named: dict[str, Any] = {**KINDS, **{name: OTHERS[name] for name in BUILT}}
        for name, annotation in named.items():
            given = getattr(self, name)
            if isinstance(given, str | Mapping):
                object.__setattr__(self, name, _build(annotation, given, name))
        listed: Any = self.baselines
        if isinstance(listed, Baseline | str | Mapping) or not isinstance(listed, Iterable):
            listed = [listed]
        made = tuple(
            _build(Baseline, one, f"baselines[{i}]") if isinstance(one, str | Mapping) else one
            for i, one in enumerate(listed)
        )
        object.__setattr__(self, "baselines", made)

    def _build_metrics(self) -> None:
        """Builds the metrics that are text, and names the one that stops the run as records do."""
        made = tuple(
            _build(Metric, one, f"evaluation.metrics[{i}]") if isinstance(one, str) else one
            for i, one in enumerate(self.evaluation.metrics)
        )
        object.__setattr__(self, "evaluation", dataclasses.replace(self.evaluation, metrics=made))
        if (watched := find_metric(self.stop.metric)) is not None:
            prefix = OF_VALIDATION if self.stop.metric.startswith(OF_VALIDATION) else ""
            object.__setattr__(self, "stop", dataclasses.replace(self.stop, metric=prefix + watched.key))

    def _check_others(self) -> None:
        if self.preprocessing is not None and not isinstance(self.preprocessing, Preprocessing):
            raise InvalidInput(
                f"preprocessing is of type {type(self.preprocessing).__name__}; write a value, such as "
                "preprocessing=tabular()"
            )
        if not isinstance(self.secure, bool):
            raise InvalidInput(f"secure is {self.secure!r}; write true or false")
        if not isinstance(self.evaluation, Evaluation):
            raise InvalidInput(
                f"evaluation is of type {type(self.evaluation).__name__}; write a value, such as "
                'evaluation=Evaluation(metrics=("auroc", "f1"))'
            )
        if self.privacy is not None and not isinstance(self.privacy, Privacy):
            raise InvalidInput(
                f"privacy is of type {type(self.privacy).__name__}; write a value, such as "
                "privacy=central(epsilon=3.0)"
            )
        if self.adversary is not None and not isinstance(self.adversary, Adversary):
            raise InvalidInput(
                f"adversary is of type {type(self.adversary).__name__}; write a value, such as "
                "adversary=Adversary(scaled_mean(-3.0), fraction=0.2)"
            )
        if not 0 <= self.client_test_fraction < 1:
            raise InvalidInput(
                f"client_test_fraction is {self.client_test_fraction}; write a number of at least 0 and "
                "below 1, such as 0.2"
            )
        if isinstance(self.initial, PathLike):
            object.__setattr__(self, "initial", fspath(self.initial))
        if not isinstance(self.initial, str | None):
            raise InvalidInput(
                f"initial is of type {type(self.initial).__name__}; write the path of a safetensors file"
            )
        for baseline in self.baselines:
            if not isinstance(baseline, Baseline):
                raise InvalidInput(
                    f"baselines holds {baseline!r}; write values, such as "
                    "baselines=(centralised(), on_site())"
                )
        if not all(isinstance(found, Import) for found in self.imports):
            raise InvalidInput(
                f"imports is {self.imports!r}; in Python, import your modules yourself and leave it out"
            )

    # -- to and from plain data ----------------------------------------------------------------

    def settings(self) -> dict[str, Plain]:
        """Returns the settings as plain data, with every field spelled out.

        Data that a file can't describe (arrays, own clients) are only named.

        Raises: InvalidInput: if something else can't be written down.
        """
        said = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        data, imports = said.pop("data"), said.pop(IMPORTS)
        try:
            described = to_plain(data)
        except InvalidInput:
            described = {"name": type(data).__name__, IN_PYTHON: True}
        named = {IMPORTS: [found.name for found in imports]} if imports else {}
        for name, absent in (
            (PRIVACY, None),
            (ADVERSARY, None),
            (SECURE, False),
            (EVALUATION, Evaluation()),
        ):
            if said[name] == absent:
                said.pop(name)
        return {"data": described, **{name: to_plain(value) for name, value in said.items()}, **named}

    @classmethod
    def from_settings(
        cls,
        settings: Mapping[str, Plain],
        *,
        data: Dataset | FederatedData | None = None,
        imports: Sequence[Import] = (),
    ) -> "Experiment":
        """Makes an experiment of plain data. It imports nothing: settings may come from anywhere.

        Args:
          settings: as `settings()` returns them; a setting that is left out has its default.
          data: replaces the data in the settings.
          imports: what the caller has imported of the modules that the settings name.

        Raises: WrongSetting: at the first that can't be used.
        """
        said: dict[str, Any] = {IMPORTS: tuple(imports)}
        for key, given in settings.items():
            if key == "data" and data is not None:
                said[key] = data
            elif key == IMPORTS or (given is None and key == "partition"):
                continue
            elif key in KINDS:
                said[key] = build(KINDS[key], given, key)
            elif key in NUMBERS:
                said[key] = build(int, given, key)
            elif key == ADVERSARY and isinstance(given, Mapping) and given.get("attack") == NOTHING:
                continue  # nobody lies
            elif key in OTHERS:
                said[key] = build(OTHERS[key], given, key)
            else:
                known = [*NUMBERS, *KINDS, *OTHERS, IMPORTS]
                raise UnknownSetting(key, known, "the top level", find_renamed_settings())
        try:
            return cls(**said)
        except InvalidInput as error:
            raise WrongSetting("", f": {error}") from error

    def __str__(self) -> str:
        return summary(self.settings())

    def __repr__(self) -> str:
        try:
            return f"<Experiment: {self}>"
        except InvalidInput:  # it holds a value that only a program can give
            return f"<Experiment: {self.algorithm!r} · {self.model!r} · {self.data!r}>"

    def _repr_html_(self) -> str:
        rows = [(name, format_plain(said)) for name, said in self.settings().items() if said is not None]
        head = '<th style="text-align:left">'
        cells = "".join(f"<tr>{head}{escape(name)}</th><td>{escape(said)}</td></tr>" for name, said in rows)
        return f"<table>{cells}</table>"


def find_metric(watched: str) -> Metric | None:
    """Builds the metric that stops a run, if its name is that of a metric; it may be on validation examples.

    >>> find_metric("sensitivity(positive=1, threshold=0.3)"), find_metric("loss")
    (sensitivity(threshold=0.3, positive=1), None)

    Raises: InvalidInput: if its arguments can't be used.
    """
    text = watched.removeprefix(OF_VALIDATION).strip()
    if find_class(text.partition("(")[0].strip(), Metric) is None:
        return None
    found: Metric = _build(Metric, text, "stop.metric")
    return found


def summary(settings: Mapping[str, Plain]) -> str:
    """Formats an experiment's settings in one line, without those that have their default."""
    data, partition = settings["data"], settings.get("partition")
    where = data["name"] if data.get(IN_PYTHON) else format_plain(data)
    about = [format_plain(settings["algorithm"]), format_plain(settings["model"])]
    about.append(f"{where} over {format_plain(partition)}" if partition else where)
    about.append(f"seed {settings['seed']}")
    more = ("stop", "devices", "execution", "preprocessing", PRIVACY, ADVERSARY)
    about += [
        format_plain(settings[name]) for name in more if settings.get(name) not in (None, [], _default(name))
    ]
    about += ["secure"] if settings.get(SECURE) else []
    about += [f"from {settings['initial']}"] if settings.get("initial") else []
    if settings.get("baselines"):
        about.append("beside " + " and ".join(map(format_plain, settings["baselines"])))
    return " · ".join(about)


def _build(annotation: Any, given: Any, name: str) -> Any:
    try:
        return build(annotation, given, name)
    except WrongSetting as wrong:
        raise InvalidInput(str(wrong)) from wrong


def _check_kind(name: str, given: Any, kind: type) -> None:
    if isinstance(given, kind):
        return
    if isinstance(given, type) and issubclass(given, kind):
        raise InvalidInput(f"{name} is the class {given.__name__}; write a value: {given.__name__}(...)")
    if name == "model" and callable(given):
        made = given.__name__ if isinstance(given, type) else type(given).__name__
        raise InvalidInput(
            f"model is {made}, which is no value; for a module of PyTorch, give what makes one: "
            "model=torch_module(lambda: ...), from hanse.learners"
        )
    example = format_plain(_default(name))
    example += "" if example.endswith(")") else "()"
    raise InvalidInput(f"{name} is of type {type(given).__name__}; write a value, such as {name}={example}")


def _check_whole(name: str, given: Any, *, least: int | None) -> None:
    if not isinstance(given, int) or isinstance(given, bool):
        raise InvalidInput(f"{name} is {given!r}; write a whole number, such as {_default(name)}")
    if least is not None and given < least:
        raise InvalidInput(f"{name} is {given}; write at least {least}")


def _default(name: str) -> Plain:
    return Experiment().settings().get(name)
