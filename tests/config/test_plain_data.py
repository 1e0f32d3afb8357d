"""Values as plain data, and back."""

from typing import Any

import pytest

from hanse.algorithms import fed_avg, uniform
from hanse.config.experiment import KINDS
from hanse.config.plain_data import format_plain, is_required, leaves, merge, to_plain
from hanse.config.settings import build
from hanse.core import Algorithm, Close, InvalidInput, fields
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
    assert merge(base, {"table": "x"}) == base
    assert merge(base, {"table": {"name": "y", "r": 1}}) == {"a": 1, "table": {"name": "y", "r": 1}}
    assert merge({"table": "y"}, {"table": {"r": 1}}) == {"table": {"name": "y", "r": 1}}
    assert merge(base, {"table": 3}) == {"a": 1, "table": 3}


def test_leaves_are_dotted_paths() -> None:
    assert list(leaves({"a": 1, "t": {"p": [1], "u": {"q": None}}})) == ["a", "t.p", "t.u.q"]
