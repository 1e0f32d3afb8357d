"""The reference of settings files, written by `python -m hanse.config.reference docs/reference.md`."""

import dataclasses
import inspect
import re
import sys
import typing
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from hanse.config.audit_plan import AuditPlan
from hanse.config.experiment import Experiment
from hanse.config.plain_data import is_required, to_plain
from hanse.config.writing import inline
from hanse.core import Algorithm, Close, InvalidInput, Plain, Reducer, Stop, Transform, fields
from hanse.core.exchange import find_classes
from hanse.evaluation import Baseline, Evaluation

__all__ = ["reference"]

MODULES = (
    "algorithms",
    "data",
    "learners",
    "learners.networks",
    "preprocessing",
    "privacy.secure_sums",
    "transforms",
)
"""Modules that register the values that a file may name."""

HEAD = """# Settings, all of them

*Written from the code by `python -m hanse.config.reference docs/reference.md`; do not edit.*

A settings file is TOML. A setting that it leaves out has its default, and `--set key=value` overrides it:
`--set algorithm.lr=0.3`, or, to name another value, `--set algorithm=fed_sgd`. A value is a table with a
`name`; the name alone is enough where all fields have their defaults: `model = "softmax"`. `"none"` means
no value. A value that is written with its name replaces the default wholly: `partition = {name = "dirichlet",
alpha = 0.1}` needs its `num_clients`, too. `--set partition.alpha=0.1` changes one field of what is there.
"""


def reference() -> str:
    """Returns the whole page."""
    for module in MODULES:
        import_module(f"hanse.{module}")
    return "\n".join([HEAD, *_top(), *_kinds()]).rstrip() + "\n"


def _top() -> Iterator[str]:
    about = _arguments(Experiment)
    yield from ("## The top level", "", "| setting | default | what |", "|---|---|---|")
    settings = Experiment().settings()
    for f in dataclasses.fields(Experiment):
        said = settings.get(f.name, None if f.default is None else [])
        default = said["name"] if isinstance(said, dict) else inline(said)
        yield f"| `{f.name}` | `{default}` | {_cell(about.get(f.name, ''))} |"
    yield ""


def _kinds() -> Iterator[str]:
    from hanse.algorithms import ClientTraining
    from hanse.attacks import Adversary
    from hanse.data import Dataset, Partition
    from hanse.learners import Model
    from hanse.preprocessing import Preprocessing
    from hanse.privacy import Privacy
    from hanse.simulation import Devices, Execution

    kinds: dict[str, tuple[type[Any], str]] = {
        "data": (Dataset, "The data that the model is trained on."),
        "partition": (Partition, "How a data set is divided among clients."),
        "preprocessing": (Preprocessing, "How features are encoded before training."),
        "model": (Model, "The model that is trained."),
        "algorithm": (Algorithm, "The algorithm that trains it."),
        "algorithm.client": (
            ClientTraining,
            "How clients train, in place of the algorithm's `lr`, `epochs` and `batch_size`.",
        ),
        "algorithm.uplink": (
            Transform,
            "Transforms of each message before it is sent: a list, first to last.",
        ),
        "algorithm.into": (Reducer, "How the server combines messages into one."),
        "algorithm.close": (Close, "When a round closes."),
        "stop": (Stop, "When a run ends before its last round."),
        "devices": (Devices, "How long clients take on the simulated clock, and who drops out."),
        "execution": (
            Execution,
            "How clients are computed on this machine. It changes the time that a run takes, not its result.",
        ),
        "baselines": (Baseline, "What the run is compared with, trained on the same budget: a list."),
        "evaluation": (Evaluation, "What is measured beside the model's own metrics."),
        "adversary": (Adversary, "Clients that lie, in a simulation."),
        "privacy": (Privacy, "The differential privacy of the run. It needs the extra `privacy`."),
    }
    for setting, (kind, about) in kinds.items():
        yield from (f"## {setting}", "", about, "")
        for name, cls in _values(kind).items():
            yield from _class(name, cls)
    yield from _inner({kind for kind, _ in kinds.values()})
    yield from ("## audit", "", _summary(AuditPlan), "", "| field | default | what |", "|---|---|---|")
    told = _arguments(AuditPlan)
    for f in dataclasses.fields(AuditPlan):
        yield f"| `{f.name}` | {_default(f)} | {_cell(told.get(f.name, ''))} |"
    yield ""


def _values(kind: type[Any]) -> dict[str, type[Any]]:
    """Collects the values of a kind that a file may name and that come with the package."""
    return {
        name: cls
        for name, cls in find_classes(kind).items()
        if cls.__module__.startswith("hanse.")
        and getattr(cls, "is_setting", True)
        and getattr(cls, "is_written", True)
        and not inspect.isabstract(cls)
    }


def _inner(kinds: set[type[Any]]) -> Iterator[str]:
    """Yields a section for each further kind of values, which stand in the fields of others."""
    shown = [cls for kind in kinds for cls in _values(kind).values()]
    names: dict[type[Any], set[str]] = {}
    for cls in shown:  # it grows
        hints = typing.get_type_hints(cls)
        for f in fields(cls):
            for kind in _kinds_in(hints[f.name]) - kinds:
                if values := _values(kind):
                    names.setdefault(kind, set()).add(f.name)
                    shown += [value for value in values.values() if value not in shown]
    told = {cls for kind in kinds for cls in _values(kind).values()}
    for kind, at in sorted(names.items(), key=lambda entry: (sorted(entry[1]), entry[0].__name__)):
        if told.issuperset(_values(kind).values()):
            continue
        where = " and ".join(f"`{name}`" for name in sorted(at))
        yield from (f"## {', '.join(sorted(at))}", "", f"Values of {where}. {_summary(kind)}", "")
        for name, cls in _values(kind).items():
            if cls in told:
                yield from (f"### {name}", "", "See above.", "")
            else:
                yield from _class(name, cls)
                told.add(cls)


def _kinds_in(annotation: Any) -> set[type[Any]]:
    """Collects the classes in an annotation that are not plain data."""
    inner = typing.get_args(annotation)
    if typing.get_origin(annotation) is Callable:
        return set()
    found = {kind for arg in inner for kind in _kinds_in(arg)}
    kind = typing.get_origin(annotation) or annotation
    plain = (bool, int, float, str, tuple, dict, object)
    return found | ({kind} if isinstance(kind, type) and kind not in plain else set())


def _class(name: str, cls: type[Any]) -> Iterator[str]:
    yield from (f"### {name}", "", _summary(cls), "")
    known = fields(cls)
    if not known:
        return
    about, hints = _arguments(cls), typing.get_type_hints(cls)
    yield from ("| field | default | what |", "|---|---|---|")
    for f in known:
        if hints[f.name] is dataclasses.KW_ONLY:
            continue
        yield f"| `{f.name}` | {_default(f)} | {_cell(about.get(f.name, ''))} |"
    yield ""


def _default(f: "dataclasses.Field[Any]") -> str:
    if is_required(f):
        return "*needed*"
    try:
        said = _plain_default(f)
    except InvalidInput:
        return "*in Python*"
    if isinstance(said, dict) and list(said) != ["name"]:
        return f"`{said['name']}`" if "name" in said else f"`{inline(said)}`"
    return f"`{inline(said['name'] if isinstance(said, dict) else said)}`"


def _plain_default(f: "dataclasses.Field[Any]") -> Plain:
    if f.default is not dataclasses.MISSING:
        return to_plain(f.default)
    assert f.default_factory is not dataclasses.MISSING
    return to_plain(f.default_factory())


def _summary(cls: type[Any]) -> str:
    first = inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0]
    return " ".join(first.split()).replace("<", "&lt;")


def _arguments(cls: type[Any]) -> dict[str, str]:
    """Collects the descriptions of each field from the docstrings of a class and its bases."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if base.__doc__ and base is not object:
            own = dict(_sections(inspect.cleandoc(base.__doc__)))
            found |= {name: words for name, words in own.items() if not words.startswith(("see ", "as "))}
            for name, words in own.items():
                elsewhere = re.match(r"as in `(\w+)`", words)  # such as the algorithm that it is made of
                if elsewhere and name not in found:
                    found[name] = _arguments(find_classes(object)[elsewhere[1]]).get(name, "")
    return found


def _sections(text: str) -> Iterator[tuple[str, str]]:
    part = re.search(r"^Args:\n((?:[ ]+.*\n?|\n)*)", text, re.MULTILINE)
    if part is None:
        return
    for entry in re.split(r"\n(?=  \S)", part[1].rstrip()):
        names, _, words = entry.strip().partition(":")
        for name in names.split(","):
            yield name.strip(), " ".join(words.split())


def _cell(words: str) -> str:
    return words.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference(), encoding="utf-8")
