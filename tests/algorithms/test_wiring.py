"""What an algorithm is given for its exchanges reaches the runtime: transforms, reducer, when to close."""

from typing import Any

import pytest
from cases import ALGORITHMS
from reference import L2, Ridge, perform

from hanse.algorithms import cocoa, dga, fl_trust, gossip, zeno
from hanse.core import Close, fields
from hanse.core import sum as sum_
from hanse.learners import dual, least_squares
from hanse.simulation import ideal
from hanse.transforms import clip, rotate

GIVEN: dict[str, Any] = {
    "uplink": (clip(0.5),),
    "downlink": (rotate(),),
    "into": sum_(),
    "close": Close(goal=2),
}
PAIRS = sorted(
    (algorithm.__name__, name, algorithm)
    for algorithm in ALGORITHMS - {gossip, fl_trust, zeno}  # those two ask a role that no party plays here
    for name in {field.name for field in fields(algorithm)} & GIVEN.keys()
)


@pytest.mark.parametrize(("algorithm", "name"), [pytest.param(a, n, id=f"{i} {n}") for i, n, a in PAIRS])
def test_it_reaches_the_runtime(algorithm: Any, name: str) -> None:
    learner = dual(least_squares(L2, intercept=False)).bind((3,), None) if algorithm is cocoa else None
    now = {"delay": 0} if algorithm is dga else {}  # so that it collects in its first round
    (round,) = perform(algorithm(**{name: GIVEN[name]}, **now), 1, Ridge(), ideal(), learner)
    commands = [command for command, _ in round.sent]
    large = [
        part for command in commands for part in command.uplink.values() if "weights" in part.spec.tensors
    ]
    found: dict[str, list[Any]] = {
        "uplink": [part.uplink for part in large],
        "downlink": [command.downlink for command in commands],
        "into": [part.into for part in large],
        "close": round.closes[1:]
        if algorithm is cocoa
        else round.closes,  # first it asks all for their number
    }
    assert found[name]
    assert found[name] == [GIVEN[name]] * len(found[name])
