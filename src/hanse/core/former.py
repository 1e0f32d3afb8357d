"""Names of earlier versions, so that what these packed and kept can still be read."""

from collections.abc import Mapping

__all__ = ["CLASSES", "FIELDS", "RESULTS", "SETTINGS"]

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
    "Record": {"way": "execution"},
    "Regularised": {"slopes": "gradients"},
    "Schema": {"texts": "categories"},
    "Snapshot": {"desk": "coordinator"},
    "Vocabulary": {"words": "categories"},
    "category_counts": {"max_words": "max_categories"},
}
"""Today's names of their fields, by today's name of the class and the field's former one."""

SETTINGS: Mapping[str, str] = {"way": "execution"}
"""Today's names of an experiment's settings, by their former ones."""

RESULTS: Mapping[str, str] = {"ways": "executions"}
"""Today's names of what a result says, by their former ones."""
