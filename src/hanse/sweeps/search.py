"""The search of a sweep: values for some settings, all combinations of them or some at random."""

import itertools
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from hanse.config import IMPORTS, Whole, WrongSetting, build, join_path, split_path
from hanse.core import InvalidInput, Key, Plain, check_count, value

__all__ = ["OVER", "Axis", "Search", "Trial", "axes", "between", "grid", "random", "settings_of"]

OVER = "sweep.over"
"""The path of the table that names the axes."""

NUM_DIGITS = 4
"""The digits of a number drawn from a range: few enough to read, and to write again with `--set`."""


@value
class between:
    """A range to draw from. If both ends are whole numbers, so are the draws, with both ends included.

    >>> between(0.01, 1.0, log=True).at(0.5)
    0.1
    >>> between(1, 4).at(0.99)
    4

    Args:
      low, high: the ends.
      log: whether draws are uniform in the logarithm, as suits step sizes.
    """

    low: int | float
    high: int | float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise InvalidInput(f"low is {self.low} and high is {self.high}; write low below high")
        if self.log and self.low <= 0:
            raise InvalidInput(
                f"low is {self.low}, which has no logarithm; write a low above 0, or log = false"
            )

    def at(self, part: float) -> int | float:
        """Returns the number that has this part of the range below it, 0 <= part < 1."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return min(self.high, max(self.low, math.floor(self._at(self.low, self.high + 1, part))))
        rounded = float(f"{self._at(self.low, self.high, part):.{NUM_DIGITS}g}")
        return min(float(self.high), max(float(self.low), rounded))

    def _at(self, low: float, high: float, part: float) -> float:
        if self.log:
            return math.exp(math.log(low) + part * (math.log(high) - math.log(low)))
        return low + part * (high - low)


Axis: TypeAlias = tuple[Plain, ...] | between
"""The values that one setting takes in turn, or the range that they are drawn from."""

Trial: TypeAlias = Mapping[str, Plain]
"""The settings that are tried together, by their dotted paths."""


class Search(ABC):
    """A choice of the combinations that are tried."""

    @abstractmethod
    def trials(self, over: Mapping[str, Axis]) -> Iterator[Trial]:
        """Yields combinations, which may repeat. Raises: WrongSetting: if an axis does not suit."""


@value
class grid(Search):
    """All combinations.

    >>> [trial["b"] for trial in grid().trials({"a": (1, 2), "b": ("x", "y")})]
    ['x', 'y', 'x', 'y']
    """

    def trials(self, over: Mapping[str, Axis]) -> Iterator[Trial]:
        lists: list[tuple[Plain, ...]] = []
        for path, axis in over.items():
            if isinstance(axis, between):
                raise WrongSetting(
                    f"{OVER}.{path}",
                    " is a range, and a grid can't try all its values; write a list of values, or "
                    'search = {name = "random", num_trials = 20}',
                )
            lists.append(axis)
        for values in itertools.product(*lists):
            yield dict(zip(over, values, strict=True))


@value
class random(Search):
    """Independent draws. A longer search begins with the draws of a shorter one.

    Each draw depends on the seed, its number and the path alone.

    >>> axes = {"lr": between(0.01, 1.0, log=True)}
    >>> list(random(3).trials(axes)) == list(random(5).trials(axes))[:3]
    True

    Args:
      num_trials: the number of draws, at least 1.
      seed: the seed of the draws, which is not that of the runs.
    """

    num_trials: int
    seed: int = 0

    def __post_init__(self) -> None:
        check_count("num_trials", self.num_trials)

    def trials(self, over: Mapping[str, Axis]) -> Iterator[Trial]:
        key = Key.from_seed(self.seed).fold_in("sweep")
        for number in range(self.num_trials):
            parts = {path: key.fold_in(number, path).rng().random() for path in over}
            yield {path: _draw(axis, parts[path]) for path, axis in over.items()}


def _draw(axis: Axis, part: float) -> Plain:
    return axis.at(part) if isinstance(axis, between) else axis[int(part * len(axis))]


# -- as plain data -----------------------------------------------------------------------------


def axes(given: Plain, path: str = "") -> dict[str, Axis]:
    """Reads the axes that a table names by dotted paths, or by tables in tables.

    >>> axes({"algorithm": {"lr": [0.1, 0.3]}, "model.l2": {"low": 0.1, "high": 1.0}})
    {'algorithm.lr': (0.1, 0.3), 'model.l2': between(low=0.1, high=1.0, log=False)}

    Raises: WrongSetting: at the first that is neither a list nor a range.
    """
    where = f"{OVER}.{path}" if path else OVER
    if isinstance(given, Mapping) and not (path and given.keys() & {"low", "high", "log"}):
        found: dict[str, Axis] = {}
        for key, node in given.items():
            found.update(axes(node, f"{path}.{key}" if path else key))  # a key may itself be a dotted path
        return found
    if path == IMPORTS:
        raise WrongSetting(where, ": all runs have the same code; write imports at the top level")
    if path in ("", "seed"):
        raise WrongSetting(
            where,
            ": seeds have a list of their own; write sweep.seeds = [0, 1, 2]"
            if path
            else ': write a table, such as "algorithm.lr" = [0.1, 0.3]',
        )
    if isinstance(given, Mapping):
        axis = build(between, given, where)
        assert isinstance(axis, between)
        return {path: axis}
    return {path: _check_list(given, where)}


def _check_list(given: Plain, where: str) -> tuple[Plain, ...]:
    if not isinstance(given, list | tuple):
        example = f"[{json.dumps(given)}]" if isinstance(given, bool | int | float | str) else "[0.1, 0.3]"
        raise WrongSetting(where, f": write a list of values, such as {example}, or a range {{low, high}}")
    if not given:
        raise WrongSetting(where, " is an empty list; write the values to try, or leave it out")
    for i, item in enumerate(given):
        if any(_same(item, other) for other in given[:i]):
            raise WrongSetting(join_path(where, i), " is listed twice; write each value once")
    return tuple(given)


def _same(a: Plain, b: Plain) -> bool:
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


def settings_of(trial: Trial) -> list[Plain]:
    """Converts a trial to trees, to be merged in this order: a choice of algorithm comes before its lr."""
    trees = []
    for path in sorted(trial, key=lambda path: len(split_path(path))):
        said = trial[path]
        tree: Plain = Whole(said) if isinstance(said, Mapping) else said
        for step in reversed(split_path(path)):
            tree = {step: tree}
        trees.append(tree)
    return trees
