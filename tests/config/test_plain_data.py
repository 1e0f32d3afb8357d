"""Values as plain data, and back."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import field
from typing import Any

import pytest

from hanse.algorithms import fed_avg, uniform
from hanse.config.experiment import KINDS
from hanse.config.plain_data import Whole, format_plain, is_required, leaves, merge, split_path, to_plain
from hanse.config.settings import build
from hanse.config.writing import as_toml
from hanse.core import Algorithm, Close, InvalidInput, Key, PartyId, Transform, fields, value
from hanse.core import sum as sum_
from hanse.core.exchange import find_classes
from hanse.simulation import Devices, heavy_tailed, unstable
from hanse.transforms import clip, quantize

RICH = fed_avg(
    lr=0.25,
    batch_size=None,
    weighting=uniform(),
    uplink=(clip(1.0), quantize(2)),
    into=sum_(),
    close=Close(deadline_s=3.5),
)


def test_a_value_comes_back_from_plain_data() -> None:
    assert build(Algorithm[Any], to_plain(RICH), "algorithm") == RICH
    assert build(Devices, to_plain(unstable(0.1, heavy_tailed())), "devices") == unstable(0.1, heavy_tailed())


def test_words_leave_out_defaults() -> None:
    words = format_plain(to_plain(RICH))
    assert words.startswith("fed_avg(lr=0.25, ")
    for said in ("batch_size=None", "weighting=uniform", "into=sum", "close=Close(deadline_s=3.5)"):
        assert said in words
    assert "uplink=[clip(1.0), quantize(2)]" in words
    assert "epochs" not in words


def test_what_is_no_value_is_no_setting() -> None:
    with pytest.raises(InvalidInput, match="can't be written down"):
        to_plain(object())


@value
class holding(Devices):
    """A value with mappings of each kind."""

    rates: Mapping[str, float] = field(default_factory=dict)
    parts: Mapping[str, Transform] = field(default_factory=dict)
    others: Mapping[str, Any] | None = None

    def duration_s(self, party: PartyId, key: Key) -> float | None:
        return self.rates["a"]


FULL = holding(
    rates={"conv1.weight": 0.5, "b": 1.0, "": 2.0, 'quo"te': 3.0},
    parts={"up": clip(1.0)},
    others={"a": (1, 2.0, "x"), "b": {"c": True, "none": "none"}},
)


def test_mappings_come_back_from_plain_data_json_and_toml() -> None:
    said = to_plain(FULL)
    assert said["rates"] == FULL.rates
    assert build(Devices, said, "devices") == FULL
    assert build(Devices, json.loads(json.dumps(said)), "devices") == FULL
    assert build(Devices, tomllib.loads(as_toml({"devices": said}))["devices"], "devices") == FULL
    for path in leaves(said, "devices"):
        node: Any = {"devices": said}
        for step in split_path(path):
            node = node[step]
        assert not isinstance(node, Mapping)


def test_mappings_are_formatted_as_python_writes_them() -> None:
    assert format_plain(to_plain(holding(rates={"a.b": 0.5}))) == "holding(rates={'a.b': 0.5})"
    assert format_plain(to_plain(holding(parts={"up": clip(1.0)}))) == "holding(parts={'up': clip(1.0)})"


@pytest.mark.parametrize(
    ("held", "why"),
    [
        (holding(others={"a": clip(1.0)}), "holding.others is .*a mapping to Any holds bools, numbers"),
        (holding(others={"a": {"b": None}}), "a mapping to Any holds"),
        (holding(rates={"name": 1.0}), "a mapping with the key 'name' can't be written down"),
        (holding(others={"a": {"name": 1.0}}), "a mapping with the key 'name'"),
        (holding(rates={1: 1.0}), "a mapping with the key 1 can't be written down"),  # type: ignore[dict-item]
    ],
)
def test_mappings_that_would_come_back_as_others_are_refused(held: holding, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        to_plain(held)


def test_mappings_are_merged_by_their_keys() -> None:
    base = {"name": "holding", "rates": {"a": 1.0, "b": 2.0}}
    over = {"rates": {"b": 3.0, "c": 4.0}}
    assert merge(base, over) == {"name": "holding", "rates": {"a": 1.0, "b": 3.0, "c": 4.0}}


@pytest.mark.parametrize(
    ("path", "steps"),
    [
        ("a", ["a"]),
        ("a.b", ["a", "b"]),
        ('a."b.c".d', ["a", "b.c", "d"]),
        ("a.'b.c'", ["a", "b.c"]),
        (" a . b ", ["a", "b"]),
        ("a.", ["a", ""]),
        ("", [""]),
        (".a", ["", "a"]),
        (r'a."b\"c"', ["a", 'b"c']),
        ('a."b', ["a", '"b']),
    ],
)
def test_paths_are_split_at_dots_outside_quotes(path: str, steps: list[str]) -> None:
    assert split_path(path) == steps


def everything() -> list[type]:
    """Return all values that settings may name and that need no arguments."""
    named = [cls for kind in KINDS.values() for cls in find_classes(kind).values()]
    ours = [cls for cls in named if cls.__module__.startswith("hanse.")]
    return [cls for cls in ours if not any(is_required(f) for f in fields(cls))]


@pytest.mark.parametrize("cls", everything(), ids=lambda cls: cls.__name__)
def test_every_value_that_settings_name_comes_back(cls: type) -> None:
    said = to_plain(cls())
    assert build(cls, said, "x") == cls()
    assert format_plain(said) == cls.__name__


def test_merging_keeps_what_is_not_said() -> None:
    base = {"a": 1, "table": {"name": "x", "p": 1, "q": 2}}
    assert merge(base, {"table": {"p": 5}}) == {"a": 1, "table": {"name": "x", "p": 5, "q": 2}}
    assert merge(base, {"table": "x"}) == {"a": 1, "table": {"name": "x"}}
    assert merge(base, {"table": Whole(p=5)}) == {"a": 1, "table": {"p": 5}}
    assert merge(merge(base, {"table": Whole(p=5)}), {"table": {"q": 3}})["table"] == {"p": 5, "q": 3}
    assert merge({}, merge({"t": Whole(p=5)}, {"t": {"q": 3}})) == {"t": {"p": 5, "q": 3}}
    assert merge({"t": {"r": 1}}, merge({"t": Whole(p=5)}, {"t": {"q": 3}})) == {"t": {"p": 5, "q": 3}}
    assert merge(base, {"table": {"name": "y", "r": 1}}) == {"a": 1, "table": {"name": "y", "r": 1}}
    assert merge({"table": "y"}, {"table": {"r": 1}}) == {"table": {"name": "y", "r": 1}}
    assert merge(base, {"table": 3}) == {"a": 1, "table": 3}


def test_leaves_are_dotted_paths() -> None:
    assert list(leaves({"a": 1, "t": {"p": [1], "u": {"q": None}}})) == ["a", "t.p", "t.u.q"]
