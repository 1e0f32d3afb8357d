"""Names of earlier versions, so that what these packed and kept can still be read."""

from collections.abc import Mapping

__all__ = ["CLASSES", "FIELDS", "SETTINGS"]

CLASSES: Mapping[str, str] = {}
"""Today's names of classes that are marked with `@value`, by their former ones. None is used twice."""

FIELDS: Mapping[str, Mapping[str, str]] = {}
"""Today's names of their fields, by today's name of the class and the field's former one."""

SETTINGS: Mapping[str, str] = {}
"""Today's names of an experiment's settings, by their former ones."""
