"""The bounds of settings: each check takes its own bounds, and refuses what lies beyond."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from hanse.core import (
    InvalidInput,
    check_below_one,
    check_count,
    check_fraction,
    check_not_negative,
    check_positive,
)

Check = Callable[[Any], None]
TINY, UNDER_ONE, OVER_ONE = 5e-324, math.nextafter(1, 0), math.nextafter(1, 2)
CHECKS: list[tuple[Check, list[float], list[float], str]] = [
    (check_fraction, [TINY, 1.0, 1], [0.0, -0.1, OVER_ONE], "fraction is"),
    (partial(check_count, "epochs"), [1, 2], [0, -1], "epochs is"),
    (partial(check_positive, "tau"), [TINY, 1e300], [0.0, -TINY, math.inf], "tau is"),
    (partial(check_not_negative, "mu"), [0.0, 0, TINY, 1e300], [-TINY, math.inf], "mu is"),
    (partial(check_below_one, "beta"), [0.0, UNDER_ONE], [-TINY, 1.0, math.inf], "beta is"),
]


@pytest.mark.parametrize(("check", "taken", "refused", "says"), CHECKS, ids=[row[3] for row in CHECKS])
def test_bounds(check: Check, taken: list[float], refused: list[float], says: str) -> None:
    for number in taken:
        check(number)
    for number in (*refused, math.nan):
        with pytest.raises(InvalidInput, match=f"^{says} {number}; write a"):
            check(number)
