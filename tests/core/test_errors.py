import re

import pytest

from hanse.core import errors
from hanse.core.errors import HanseError, InvalidInput, nearest

CLASSES = [getattr(errors, name) for name in errors.__all__ if name != "nearest"]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_one_except_catches_them_all(cls):
    assert issubclass(cls, HanseError)
    assert cls.__doc__


def test_the_tree_on_top_of_the_file_names_every_error_and_no_other():
    drawn = re.findall(r"(?:\|--|`--) (\w+)", errors.__doc__)
    assert sorted([*drawn, "HanseError"]) == sorted(cls.__name__ for cls in CLASSES)


def test_what_only_inputs_can_cause_is_a_value_error_too():
    assert [cls for cls in CLASSES if issubclass(cls, ValueError)] == [InvalidInput]


@pytest.mark.parametrize(
    ("given", "known", "says"),
    [
        ("fed_agv", ["scaffold", "fed_avg", "giant"], "did you mean 'fed_avg'?"),
        ("zzz", ["b", "a"], "known: a, b"),
        ("zzz", [], "none is known"),
        ("", iter(("b", "a")), "known: a, b"),
    ],
)
def test_nearest_says_what_to_write_instead(given, known, says):
    assert nearest(given, known) == says
