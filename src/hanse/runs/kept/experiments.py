"""The experiments of runs that were begun before, from the settings that are kept of them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hanse.config import IN_PYTHON, Experiment, WrongSetting
from hanse.core import InvalidInput
from hanse.data import Dataset, FederatedData
from hanse.imports import Import

if TYPE_CHECKING:
    from hanse.store import RunInfo

__all__ = ["check_same_data", "experiment_of"]


def experiment_of(
    info: "RunInfo", data: Dataset | FederatedData | None, imports: Sequence[Import] = ()
) -> Experiment:
    """Makes the experiment of a run from its settings. `imports`: what was imported of those that they name.

    Raises: InvalidInput: if the settings can't be used, or the data must be given again.
    """
    settings: Mapping[str, Any] = info.settings["experiment"]
    if data is None and settings["data"].get(IN_PYTHON):
        raise InvalidInput(
            f"run {info.run} was begun in Python on data that are not kept ({settings['data']['name']}); "
            f"resume it in Python, and give the data again: hanse.resume({info.run!r}, data=...)"
        )
    try:
        return Experiment.from_settings(settings, data=data, imports=imports)
    except WrongSetting as wrong:
        raise InvalidInput(
            f"the settings of run {info.run} can't be used: {wrong}; if the class is your own, name its "
            f"module: --import FILE.py, or import it in Python and write hanse.resume({info.run!r})"
        ) from wrong


GO_ON = "resume it on the data that it began with, or begin a new run"


def check_same_data(info: "RunInfo", given: str, remedy: str = GO_ON) -> None:
    """Checks that data are those that a run began on, by their SHA-256.

    Raises: InvalidInput: if they are not, with the remedy.
    """
    due = info.settings["data_sha256"]
    if due != given:
        raise InvalidInput(
            f"run {info.run} began on other data (sha256 {due[:12]}..., these have {given[:12]}...); {remedy}"
        )
