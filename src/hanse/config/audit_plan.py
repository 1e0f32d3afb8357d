"""The table [audit] of a settings file: what an audit tries, and the claims that it checks."""

import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from hanse.config.plain_data import merge
from hanse.config.settings import UnknownSetting, WrongSetting, build
from hanse.core import InvalidInput, Plain

__all__ = ["AUDIT", "AuditPlan", "take_audit"]

AUDIT = "audit"
"""The name of the table. Only `hanse audit` uses what it says."""


@dataclass(frozen=True, kw_only=True)
class AuditPlan:
    """The attacks that `hanse audit` tries, and the claims that it checks.

    A claim is a number that an attack must not pass. A claim about something that could not be measured does
    not hold. What no claim names is measured and shown all the same.

    Args:
      max_gain_db: of the best reconstruction of a row by the server, a fellow client, a key holder or an
        outsider, over the guess of the mean row, in decibels.
      max_membership_auc: of the guesses which rows the model was trained on; 0.5 is a coin.
      max_membership_tpr: the share of members that are found where 1% of the others are taken for members.
      max_attribute_gain: of the accuracy with which the model lets others infer the `sensitive` column of its
        rows, over inferring it without the model.
      max_epsilon_lower_bound: that canaries prove.
      max_accuracy_lost: by liars, under the rule in place.
      num_shadows: the number of shadow models that membership is inferred with: even, at least 8.
      num_canaries: the most canaries; as many as the model has parameters, at most.
      num_rows: the most rows whose membership is guessed.
      num_restarts, num_iterations: the most searches of rows by descent for a message, and the most steps of
        each; they bound how long an audit takes.
      rounds: the most rounds of each run with liars.
      liars_fraction: the share of clients that lies.
      sensitive: the column to infer: its name in a table, its number in an array; none: no column is.
    """

    max_gain_db: float | None = None
    max_membership_auc: float | None = None
    max_membership_tpr: float | None = None
    max_attribute_gain: float | None = None
    max_epsilon_lower_bound: float | None = None
    max_accuracy_lost: float | None = None
    num_shadows: int = 16
    num_canaries: int = 1000
    num_rows: int = 5000
    num_restarts: int = 1
    num_iterations: int = 100
    rounds: int = 20
    liars_fraction: float = 0.2
    sensitive: str | int | None = None

    def __post_init__(self) -> None:
        if self.num_shadows < 8 or self.num_shadows % 2:
            raise InvalidInput(f"num_shadows is {self.num_shadows}; write an even number of at least 8")
        for name in ("num_canaries", "num_rows", "num_restarts", "num_iterations", "rounds"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} is {getattr(self, name)}; write at least 1")
        if not 0 < self.liars_fraction < 0.5:
            raise InvalidInput(
                f"liars_fraction is {self.liars_fraction}; write a share of the clients above 0 and below 0.5"
            )
        for name, limit in self.claims.items():
            if not limit >= 0:
                raise InvalidInput(f"{name} is {limit}; write a number of at least 0")

    @property
    def claims(self) -> Mapping[str, float]:
        """The claims that are made, by name."""
        said = {f.name: getattr(self, f.name) for f in fields(self) if f.name.startswith("max_")}
        return {name: limit for name, limit in said.items() if limit is not None}


def take_audit(file: str | Path | None, from_file: dict[str, Any], from_sets: dict[str, Any]) -> AuditPlan:
    """Takes the table `audit` out of both trees, and builds what it says.

    Raises: InvalidInput: naming the setting, where it was written, and what to write instead.
    """
    trees = {f"{file}: ": from_file.pop(AUDIT, {}), "--set ": from_sets.pop(AUDIT, {})}
    said: dict[str, Plain] = {}
    where = ""
    for where, tree in trees.items():
        try:
            said = merge(said, _build_fields(tree))
        except WrongSetting as wrong:
            raise InvalidInput(where + wrong.among(f"{AUDIT}.{f.name}" for f in fields(AuditPlan))) from wrong
    try:
        return AuditPlan(**said)
    except InvalidInput as error:
        raise InvalidInput(f"[{AUDIT}]: {error}") from error


def _build_fields(tree: Plain) -> dict[str, Any]:
    if not isinstance(tree, dict):
        raise WrongSetting(AUDIT, f" is {tree!r}; write a table: [{AUDIT}]")
    hints = typing.get_type_hints(AuditPlan)
    names: Sequence[str] = [f.name for f in fields(AuditPlan)]
    for key in tree:
        if key not in names:
            raise UnknownSetting(f"{AUDIT}.{key}", names, AUDIT)
    return {key: build(hints[key], given, f"{AUDIT}.{key}") for key, given in tree.items()}
