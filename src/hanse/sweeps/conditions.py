"""Conditions of a sweep, such as attacks: nobody chooses them, so choices are compared under each of them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from hanse.config import format_plain
from hanse.core import Plain

__all__ = ["Choice", "bare", "compare_choices", "name_condition"]

ADVERSARY = "adversary"
NOTHING = (None, "none")


def bare(said: Plain) -> str:
    """Formats a plain value, a string without quotes, and a table without braces.

    >>> bare("fed_sgd"), bare(0.1), bare({"name": "fed_sgd"}), bare({"a": 1, "b": "c"})
    ('fed_sgd', '0.1', 'fed_sgd', 'a=1, b=c')
    """
    if isinstance(said, Mapping) and "name" not in said:
        return ", ".join(f"{name}={bare(item)}" for name, item in said.items())
    return said if isinstance(said, str) else format_plain(said)


def is_condition(path: str) -> bool:
    """Returns whether a setting is a condition, which nobody who trains can choose."""
    return path == ADVERSARY or path.startswith(f"{ADVERSARY}.")


def name_condition(over: Mapping[str, Plain]) -> str:
    """Names the liars of a setting.

    >>> name_condition({"adversary.attack": ["label_flip", {"name": "scaled_mean", "factor": -6}]})
    'label_flip + scaled_mean(factor=-6)'
    >>> (
    ...     name_condition({"adversary": {"attack": "alie", "fraction": 0.2}}),
    ...     name_condition({"adversary": "none"}),
    ... )
    ('alie, fraction=0.2', 'nobody lies')
    """
    words = list[str]()
    for path, said in over.items():
        if said in NOTHING:
            return "nobody lies"
        table = said if path == ADVERSARY and isinstance(said, Mapping) else {path.rpartition(".")[2]: said}
        for name, item in sorted(table.items(), key=lambda one: one[0] != "attack"):
            if name == "attack":
                words.append(" + ".join(map(bare, item if isinstance(item, list | tuple) else [item])))
            elif name != "name" and item not in (None, [], "colluders"):
                words.append(f"{name}={bare(item)}")
    return ", ".join(words)


class _Tried(Protocol):
    """A setting of a sweep, as far as it is compared here."""

    @property
    def over(self) -> Mapping[str, Plain]:
        """The settings that were tried, by dotted path."""


S = TypeVar("S", bound=_Tried)


@dataclass(frozen=True)
class Choice(Generic[S]):
    """The choices of a sweep, such as rules, under each condition.

    Args:
      over: the settings that were tried, without the conditions.
      under: the settings of the sweep, by the name of the condition.
      worst: the name of the condition under which it is the worst.
    """

    over: Mapping[str, Plain]
    under: Mapping[str, S] = field(repr=False)
    worst: str

    def __str__(self) -> str:
        return ", ".join(f"{path.rpartition('.')[2]}={bare(said)}" for path, said in self.over.items())


def compare_choices(settings: Sequence[S], rank: Callable[[S], tuple[float, ...]]) -> tuple[Choice[S], ...]:
    """Compares choices by their worst case over the conditions, best first; none: there are no conditions.

    Args:
      rank: is smaller for a better setting.
    """
    if not any(is_condition(path) for setting in settings for path in setting.over):
        return ()
    grouped = dict[str, dict[str, Any]]()
    for setting in settings:
        condition, over = (
            {path: said for path, said in setting.over.items() if is_condition(path) == wanted}
            for wanted in (True, False)
        )
        group = grouped.setdefault(repr(over), {"over": over, "under": {}})
        group["under"].setdefault(name_condition(condition), setting)
    names = list(dict.fromkeys(name for group in grouped.values() for name in group["under"]))
    choices = list[Choice[S]]()
    for group in grouped.values():
        under = {name: group["under"][name] for name in names if name in group["under"]}
        choices.append(Choice(group["over"], under, max(under, key=lambda name: rank(under[name]))))

    def judge(choice: Choice[S]) -> tuple[float, ...]:
        return (len(names) - len(choice.under), *rank(choice.under[choice.worst]))

    return tuple(sorted(choices, key=judge))


def find_worth(mean: float | None, higher: bool) -> float:
    """Returns a number that is smaller for a better metric, and without end where there is none."""
    if mean is None or math.isnan(mean):
        return math.inf
    return -mean if higher else mean
