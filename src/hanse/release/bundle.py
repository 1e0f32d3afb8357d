"""Released models: safetensors, the files that are needed to use them, and a model card.

model.safetensors     the parameters alone, for other tools, and for `initial` in a settings file
encoder.safetensors   the encoder that turns a table's columns into numbers, if the data were a table
model.json            the model's settings, features and classes
README.md             the card
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save

from hanse.config import IN_PYTHON, WrongSetting, build, to_plain
from hanse.core import Array, InvalidInput, Key, Learner, Prediction, StoreError, Tensors, nearest
from hanse.core.exchange import digest, unpack
from hanse.data import Dataset, Tabular, party_files
from hanse.evaluation import as_number, measure_metrics
from hanse.imports import Import, describe_changes, inspect_import, load_imports, module_of
from hanse.learners import Model
from hanse.preprocessing import Encoder
from hanse.release.audited import read_audit_result
from hanse.release.card import name_imports, write_card
from hanse.release.folder import ABOUT, ENCODER, MODEL, write_release
from hanse.runs import (
    Prepared,
    Wanted,
    check_same_data,
    describe_claim,
    experiment_of,
    find_needed,
    find_problems,
    has_trained,
    import_code,
    initial,
    prepare_run,
    read_rows,
    read_tensors,
)
from hanse.version import __version__

if TYPE_CHECKING:
    from hanse.store import Runs

__all__ = ["Predictions", "Released", "open_release", "predictions", "release"]

CHANGED = (
    "its files have changed since it began, and with them maybe the encoding of columns or the names of "
    "classes; put them back as they were, or train again and release that run"
)
"""The remedy where a release would have other classes than its parameters."""


def release(
    runs: "Runs",
    run: str,
    folder: Path,
    *,
    imports: Sequence[str] = (),
    accept_changed_imports: bool = False,
    audit: Path | None = None,
) -> Path:
    """Writes the model of a run, and everything that others need to use it, but no code of users.

    Args:
      imports, accept_changed_imports: see `hanse.runs.import_code`. The run records accepted changes.
      audit: what `hanse audit --json` printed of the run's settings, for the card; None: the card names none.

    Raises:
      StoreError: if there is no such run, or it has no model yet.
      InvalidInput: if the run's data, which describe the features, can't be read again, or the audit is of
        other settings.
    """
    info = runs.info(run)
    audited = None if audit is None else read_audit_result(audit, info.settings["experiment"])
    code = import_code(info, imports, accept_changes=accept_changed_imports)
    checkpoint = runs.checkpoint(info.run)
    if checkpoint is None:
        raise StoreError(f"run {info.run} has no model yet; go on with: hanse resume {info.run}{runs.option}")
    records = runs.records(info.run)
    if not has_trained(records):
        raise StoreError(
            f"run {info.run} ({info.status}) has trained nothing: none of its rounds closed, so its model is "
            f"the one that it began with; see why with: hanse show {info.run}{runs.option}"
        )
    params: Tensors = checkpoint.state.state.params
    ready = prepare_run(experiment_of(info, None, code.named_by(info)))
    check_same_data(info, ready.population.fingerprint, CHANGED)
    code.record(runs, info, "release")
    info = runs.info(info.run)
    needed = find_needed(code.imports, ready.experiment.model, ready.experiment.data, ready.encoder)
    about = _describe_model(info, ready, params, needed)
    tensors = save({name: np.asarray(array, order="C") for name, array in params.items()}, {"format": "np"})
    sha256 = hashlib.sha256(tensors).hexdigest()
    found = [finding.to_json() for finding in find_problems(records, (), ready.experiment.algorithm.remedy)]
    found = (info.result or {}).get("findings", found)
    claim = describe_claim(runs, info, records)
    card = write_card(info, params, about, sha256, found, claim, audited)
    write_release(folder, tensors, ready.encoder, about, card)
    return folder


def _describe_model(info: Any, ready: Prepared, params: Tensors, needed: Sequence[Import]) -> dict[str, Any]:
    """Describes a model as whoever uses it needs: its settings, features and classes."""
    people = ready.population
    return {
        "hanse": __version__,
        "run": info.run,
        "model": to_plain(ready.experiment.model),
        "data": info.settings["experiment"]["data"],
        "feature_shape": list(people.feature_shape),
        "num_classes": people.num_classes,
        "classes": list(people.classes),
        "params_sha256": digest(params),
        "imports": [_describe_import(found) for found in needed],
    }


def _describe_import(found: Import) -> dict[str, Any]:
    """Describes an import to others, without the folders of this machine."""
    name = f"{found.module}.py" if found.kind == "file" else found.module
    return {**found.to_json(), "name": name, "folder": ""}


# -- use ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Released:
    """A released model, bound to the form of its examples.

    Args:
      learner, params: the model.
      encoder: turns the columns of a table into numbers.
      data: the reader of the training data, which also reads files to predict on.
      classes: the names of the classes.
      num_classes: the number of classes; None: it predicts numbers.
    """

    learner: Learner
    params: Tensors
    encoder: Encoder | None
    data: Dataset | None
    classes: tuple[str, ...]
    num_classes: int | None


def open_release(
    where: Path, *, imports: Sequence[str] = (), accept_changed_imports: bool = False
) -> Released:
    """Opens a folder that `release` wrote, or its model file.

    Code is executed only where the caller names it, because the folder may come from anybody.

    Args:
      imports: modules and files to import, among them all that the model needs.
      accept_changed_imports: whether these may differ from what the model was made with.

    Raises: InvalidInput: if it is neither, or needs other imports.
    """
    if where.is_file() and not (where.parent / ABOUT).exists():
        raise InvalidInput(f"{where} is a file; name the folder that hanse release wrote")
    folder = where if where.is_dir() or not where.suffix else where.parent
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        if not folder.exists():
            raise InvalidInput(f"no folder {str(folder)!r}; name one that hanse release wrote") from None
        raise InvalidInput(
            f"{folder} is not a released model: it has no {ABOUT}; write one with: "
            f"hanse release RUN --to {folder}"
        ) from None
    except ValueError as error:
        raise InvalidInput(f"{folder / ABOUT} can't be read: {error}; release the run again") from None
    _import_needed(folder, about.get("imports", ()), imports, accept_changed_imports)
    try:
        model: Model = build(Model, about["model"], "model")
        data = None if about["data"].get("in_python") else build(Dataset, about["data"], "data")
    except WrongSetting as wrong:
        raise InvalidInput(
            f"{folder / ABOUT}: {wrong}; if the class is your own, name its module: --import FILE.py"
        ) from wrong
    learner = model.bind(tuple(about["feature_shape"]), about["num_classes"])
    path = folder / MODEL
    read_tensors(str(path))
    params = initial(str(path), learner.init(Key.from_seed(0)))
    encoder = unpack((folder / ENCODER).read_bytes(), Encoder) if (folder / ENCODER).exists() else None
    return Released(learner, params, encoder, data, tuple(about["classes"]), about["num_classes"])


def _import_needed(
    folder: Path, needs: Sequence[Mapping[str, Any]], given: Sequence[str], accept_changes: bool
) -> None:
    """Imports what a caller names, if that is what a model needs."""
    found = {module_of(name): name for name in given}
    missing = [need for need in needs if module_of(need["name"]) not in found]
    if missing:
        said = " and ".join(f"{need['name']} ({need['digest']})" for need in missing)
        raise InvalidInput(
            f"the model in {folder} needs {said}, which a release does not contain. Using the model executes "
            f"that code: if you have it and trust it, write{name_imports(missing)}"
        )
    for need in map(Import.from_json, needs):
        now = inspect_import(found[need.module], Path.cwd())
        if not now.is_same_code(need) and not accept_changes:
            raise InvalidInput(
                f"the model in {folder} was made with other code than {found[need.module]}: "
                f"{describe_changes(need, now)}. Name the code that it was made with ({need.digest}), or "
                "write --accept-changed-imports"
            )
    load_imports(given, Path.cwd())


@dataclass(frozen=True)
class Predictions:
    """The predictions of a model for rows.

    Args:
      found: the numbers that the learner predicts, see `hanse.core.Learner.predict`.
      kind: what they mean.
      is_classes: whether the last axis has a number for each class.
      names: of the classes, or of the columns of numbers; may be empty.
      metrics: the metrics on these rows, if they have labels.
      notes: what the owner of the rows should know, such as how many have no label.
      ids: the names of the rows; None: they are numbered from 1.
      id_name: the head of these names.
    """

    found: Array
    kind: Prediction
    is_classes: bool
    names: tuple[str, ...]
    metrics: Mapping[str, float] | None
    notes: tuple[str, ...] = ()
    ids: tuple[str, ...] | None = None
    id_name: str = "row"

    @property
    def values(self) -> Array:
        """The predicted classes, (n,) or one for each place of a text; or the numbers."""
        return np.asarray(self.found.argmax(axis=-1)) if self.is_classes else self.found

    def arrays(self) -> dict[str, Array]:
        """Returns the columns by their heads, which say what the numbers are; the rows' names come first."""
        flat = self.values.reshape(len(self.found), -1)
        ids = np.arange(1, len(flat) + 1) if self.ids is None else np.asarray(self.ids, str)
        named: dict[str, Array] = {self.id_name: ids}
        found = self._number_columns(flat)
        if self.id_name in found:
            raise InvalidInput(
                f"--id {self.id_name} is called like a column of predictions; rename it in the file"
            )
        return named | found

    def _number_columns(self, flat: Array) -> dict[str, Array]:
        if not self.is_classes:
            names = (
                self.names if len(self.names) == flat.shape[1] > 1 else tuple(map(str, range(flat.shape[1])))
            )
            head = "risk" if self.kind == "risks" else "prediction"
            heads = [f"{head}_{name}" for name in names] if flat.shape[1] > 1 else [head]
            return {head: flat[:, i].astype(np.float64) for i, head in enumerate(heads)}
        names = self.names or tuple(map(str, range(self.found.shape[-1])))
        classes = np.array(names, str)[flat]
        if self.found.ndim > 2:
            return {f"prediction_{i}": column for i, column in enumerate(classes.T)}
        head = "probability" if self.kind == "probabilities" else "score"
        each = {f"{head}_{name}": self.found[:, i].astype(np.float64) for i, name in enumerate(names)}
        return {"prediction": classes[:, 0], head: self.found.max(axis=1).astype(np.float64), **each}

    def columns(self) -> dict[str, list[str]]:
        """Returns the cells of a table by their heads, see `arrays`."""
        written = {}
        for head, column in self.arrays().items():
            form = ".4f" if head == "probability" else ".6g"
            is_number = column.dtype.kind == "f"
            written[head] = [format(cell, form) if is_number else str(cell) for cell in column.tolist()]
        return written

    def rows(self) -> Iterator[list[str]]:
        """Yields rows of cells: a head, then one row for each prediction."""
        columns = self.columns()
        yield list(columns)
        yield from map(list, zip(*columns.values(), strict=True))

    def as_csv(self) -> str:
        """Returns the predictions as a CSV file."""
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(self.rows())
        return out.getvalue()

    def __str__(self) -> str:
        said = {name: as_number(metric) for name, metric in (self.metrics or {}).items()}
        return "  ".join(f"{name} {number}" for name, number in said.items())


def predictions(
    model: Released, path: str, *, ids: str | None = None, like: str | None = None
) -> Predictions:
    """Predicts the rows of a file, in their order, and measures the model on those that have a label.

    Args:
      path: of the file; or of a .toml file whose table `data` names it, and says how it is read.
      ids: the column, or array, that names the rows; None: they are numbered from 1.
      like: the party whose file this one is written like, if the model was trained on a file of each.

    Raises: InvalidInput: if the file does not suit the model, or a label is no class of the model.
    """
    said = {IN_PYTHON: True} if model.data is None else to_plain(model.data)
    wanted = Wanted.of(said, (), model.num_classes, model.classes, model.encoder, whose="the model")
    rows = read_rows(path, wanted, _choose_reader(model, path, like), ids=ids)
    learner, params = model.learner, model.params
    metrics = None if rows.labelled is None else measure_metrics(learner, params, rows.labelled)
    found, kind = learner.predict(params, rows.x), learner.prediction
    is_classes = kind == "probabilities" or (found.ndim > 1 and found.shape[-1] == model.num_classes)
    names = model.classes
    if not is_classes and isinstance(model.data, Tabular):
        names = model.data.targets
    named = None if rows.ids is None else tuple(rows.ids.tolist())
    return Predictions(found, kind, is_classes, names, metrics, rows.notes, named, ids or "row")


def _choose_reader(model: Released, path: str, like: str | None) -> Dataset | None:
    """Chooses how a file is read. Raises: InvalidInput: if parties write their files in different ways."""
    data = model.data
    if like is not None and path.endswith(".toml"):
        raise InvalidInput(f"--like {like} and {path} both say how rows are read; leave one of them out")
    if not isinstance(data, party_files):
        if like is not None:
            raise InvalidInput(
                f"--like {like} names a party, but the model was not trained on a file of each; leave it out"
            )
        return data
    if like is not None and like not in data.parties:
        raise InvalidInput(f"--like {like} is no party of the model; {nearest(like, data.parties)}")
    readers = {name: replace(reader, path=path) for name, reader in data.parties.items()}
    chosen = [readers[like]] if like is not None else [*readers.values()]
    if any(reader != chosen[0] for reader in chosen) and not path.endswith(".toml"):
        raise InvalidInput(
            f"the files that the model was trained on are written in different ways; say which one {path} is "
            f"written like: --like {' or '.join(readers)}"
        )
    return chosen[0]
