"""Names of earlier versions, so that what these packed and kept can still be read."""

from collections.abc import Mapping
from typing import Any

__all__ = [
    "ADDED",
    "ADDED_LAST",
    "CLASSES",
    "FIELDS",
    "RESULTS",
    "SETTINGS",
    "find_renamed_class",
    "find_renamed_fields",
    "find_renamed_settings",
    "renew_result",
    "renew_settings",
]

CLASSES: Mapping[str, str] = {
    "Channel": "PartSpec",
    "Chosen": "OverSelection",
    "Desk": "CoordinatorState",
    "Model": "ModelState",
    "Sent": "DispatchRecord",
    "Standing": "NetworkSnapshot",
    "Trained": "OptimiserState",
    "Verdict": "Outcome",
    "cohort": "batched",
    "forget": "none",
    "plain": "sequential",
    "remember": "error_feedback",
}
"""Today's names of classes that are marked with `@value`, by their former ones. None is used twice."""

FIELDS: Mapping[str, Mapping[str, str]] = {
    "Committed": {"way": "execution"},
    "CoordinatorState": {"sent": "dispatches"},
    "Flow": {"way": "direction"},
    "NetworkSnapshot": {"chosen": "over_selection", "desk": "coordinator", "verdicts": "outcomes"},
    "OverSelection": {"new": ""},
    "Record": {"way": "execution"},
    "Regularised": {"slopes": "gradients"},
    "Schema": {"texts": "categories"},
    "Snapshot": {"desk": "coordinator"},
    "Vocabulary": {"words": "categories"},
    "adam": {"tau": "eps"},
    "category_counts": {"max_words": "max_categories"},
}
"""Today's names of their fields, by today's name of the class and the field's former one; "": it is gone."""

ADDED: Mapping[str, tuple[str, ...]] = {
    "Close": ("wait_s",),
    "Collect": ("dispatch",),
    "Decode": ("dropped",),
    "Dispatch": ("own", "is_phase"),
    "Redrawn": ("moves",),
    "Sample": ("rate", "without"),
    "Spec": ("moves",),
    "Steps": ("num_steps", "rule", "lr_scales"),
    "Total": ("left_out",),
}
"""Fields that these classes did not have. Where they have their defaults, a former digest leaves them out.

A journal has the digests of Sample, Dispatch, Collect and Decode, so only classes inside of these are here.
"""

ADDED_LAST: Mapping[str, tuple[str, ...]] = {"Sample": ("without",)}
"""The added fields that the version before this one did not have either."""

SETTINGS: Mapping[str, str] = {"way": "execution"}
"""Today's names of an experiment's settings, by their former ones."""

RESULTS: Mapping[str, str] = {"ways": "executions"}
"""Today's names of what a result says, by their former ones."""


def find_renamed_class(name: str) -> str | None:
    """Returns today's name of a class by its former one, or None if it had no other name."""
    return CLASSES.get(name)


def find_renamed_fields(cls: str) -> Mapping[str, str]:
    """Returns today's names of the fields of a class by their former ones."""
    return FIELDS.get(cls, {})


def find_renamed_settings() -> Mapping[str, str]:
    """Returns today's names of an experiment's settings by their former ones."""
    return SETTINGS


def renew_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Puts the settings of an experiment that an earlier version kept under the names of today."""
    return _rename(settings, SETTINGS)


def renew_result(result: Mapping[str, Any]) -> dict[str, Any]:
    """Puts the result of a run that an earlier version kept under the names of today."""
    renewed = _rename(result, RESULTS)
    if "flows" in renewed:
        renewed["flows"] = [_rename(flow, FIELDS["Flow"]) for flow in renewed["flows"]]
    return renewed


def _rename(tree: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(key, key): said for key, said in tree.items()}
