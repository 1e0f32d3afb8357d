"""Results of runs that a store keeps."""

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hanse.core import Tensors
from hanse.core.exchange import Record
from hanse.runs.judgement import Finding
from hanse.runs.places import default_store, existing
from hanse.runs.result import Result

if TYPE_CHECKING:
    from hanse.store import RunInfo

__all__ = ["load"]

OTHERWISE = {"run", "status", "params", "rounds", "records", "final", "best", "target_round", "findings"}
"""The fields of a result that are kept in another form, or elsewhere. All others are kept as they are."""


def load(run: str = "last", *, store: str | Path | None = None) -> Result:
    """Loads a run that is kept, as `run` returned it: its model, its rounds, and what it was compared with.

    >>> import tempfile, hanse
    >>> folder = tempfile.TemporaryDirectory()
    >>> done = hanse.run(rounds=2, store=f"{folder.name}/runs.db", name="first")
    >>> load("first", store=f"{folder.name}/runs.db").params_sha256 == done.params_sha256
    True
    >>> folder.cleanup()

    Args:
      run: its name, its id or the beginning of that, or "last" for the newest one.
      store: the file that keeps it; None: where the command line keeps runs. It is only read.

    Raises: StoreError: if there is no such run.
    """
    place = default_store() if store is None else store
    runs = existing(place, to_read=True)
    info = runs.info(run)
    records, saved = runs.records(info.run), runs.checkpoint(info.run)
    params = {} if saved is None else saved.state.state.params
    if info.result is not None:
        result = _restore(info, info.result, records, params)
    elif saved is not None:  # it has not ended, or was killed
        result = Result.of(info.run, info.status, saved.state, records)
    else:
        result = Result(info.run, info.status, params, info.rounds, records, final=None, best=None)
    said = info.settings["experiment"]
    return replace(result, settings=said, store=place, name=info.name, tags=info.tags)


def _restore(
    info: "RunInfo", facts: Mapping[str, Any], records: tuple[Record, ...], params: Tensors
) -> Result:
    """Makes a result of the plain data in which it was kept."""
    names = {field.name for field in fields(Result)} - OTHERWISE
    alike: dict[str, Any] = {
        name: tuple(fact) if isinstance(fact, list) else fact
        for name, fact in facts.items()
        if name in names and fact is not None
    }
    return Result(
        info.run,
        info.status,
        params,
        int(facts["rounds"]),
        records,
        final=_find(records, facts.get("final")),
        best=_find(records, facts.get("best")),
        target_round=facts.get("rounds_to_target"),
        findings=tuple(Finding(**one) for one in facts.get("findings") or ()),
        **alike,
    )


def _find(records: tuple[Record, ...], measured: Mapping[str, Any] | None) -> Record | None:
    """Finds the record of the round that a result names."""
    if measured is None:
        return None
    return next(
        (one for one in reversed(records) if one.round == measured["round"] and one.is_measured), None
    )
