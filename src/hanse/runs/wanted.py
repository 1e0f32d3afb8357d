"""The form of the examples that a run or a model takes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hanse.config import IN_PYTHON
from hanse.core import InvalidInput
from hanse.core.exchange import find_class
from hanse.data import Tabular
from hanse.preprocessing import Encoder

__all__ = ["Wanted"]


@dataclass(frozen=True)
class Wanted:
    """The form of a run's examples, in names and shapes only: the owner of a file says how it is read.

    Args:
      kind: the name of the run's own data; None: they were given in Python.
      is_table: whether the data are a table of columns.
      label, target: the columns to predict.
      unused: columns that are left out where there is no encoder.
      arrays: the names of features and labels in an .npz file.
      whose: who wants the examples, for messages.
      group: the column or array of what each example belongs to; None: nobody asks.
      allowed: the columns that its owner lets a run use; None: all of the file.
      feature_shape, num_classes: the form of the examples that the model takes.
      classes: the names of the classes, if they have names.
      encoder: turns a table's columns into numbers; None: they are numbers.
    """

    kind: str | None
    is_table: bool
    feature_shape: tuple[int, ...]
    num_classes: int | None
    classes: tuple[str, ...] = ()
    encoder: Encoder | None = None
    label: str | None = None
    target: str | tuple[str, ...] | None = None
    unused: frozenset[str] = frozenset()
    arrays: tuple[str, str] = ("x", "y")
    whose: str = "the run"
    group: str | None = None
    allowed: frozenset[str] | None = None

    @classmethod
    def of(
        cls,
        said: Mapping[str, Any],
        feature_shape: tuple[int, ...],
        num_classes: int | None,
        classes: tuple[str, ...],
        encoder: Encoder | None,
        *,
        whose: str = "the run",
    ) -> "Wanted":
        """Takes the names of columns from the settings of a run's data, and nothing else.

        Raises: InvalidInput: if a name is not a string.
        """
        kind = None if said.get(IN_PYTHON) else str(said.get("name"))
        target = said.get("target")
        target = tuple(target) if isinstance(target, list) else target
        targets = target if isinstance(target, tuple) else (target,)
        unused = (said.get("key"), said.get("group"), *(said.get("drop") or ()))
        arrays = (said.get("x", "x"), said.get("y", "y")) if kind == "npz" else ("x", "y")
        names = (said.get("label"), *targets, *unused, *arrays)
        if not all(name is None or isinstance(name, str) for name in names):
            raise InvalidInput("the run names columns by something other than strings")
        return cls(
            kind,
            kind is not None and find_class(kind, Tabular) is not None,
            tuple(feature_shape),
            num_classes,
            tuple(classes),
            encoder,
            label=said.get("label"),
            target=target,
            unused=frozenset(name for name in unused if name is not None),
            arrays=arrays,
            whose=whose,
        )

    @property
    def predicted(self) -> tuple[str, ...]:
        """The columns to predict."""
        targets = (self.target,) if isinstance(self.target, str) else self.target or ()
        return (*(() if self.label is None else (self.label,)), *targets)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes, or their numbers if they have no names."""
        return self.classes or tuple(map(str, range(self.num_classes or 0)))

    @property
    def columns(self) -> tuple[str, ...] | None:
        """The columns that the encoder takes; None: there is no encoder of columns."""
        if self.encoder is None or not self.is_table:
            return None
        return (*self.encoder.schema.numbers, *self.encoder.schema.categories)
