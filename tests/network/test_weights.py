"""A client's weight is bounded by those of the others, whatever it declares, and the client is named."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation import FED_AVG, NUM_CLIENTS, federation, job
from hypothesis import given
from hypothesis import strategies as st
from learning import count_up
from test_departed import LAST, await_message
from test_hostile import LIAR, Liar, LyingBackend, changed
from test_kill import free_port

from hanse.core import InvalidInput, Part, PartSpec, Spec, each
from hanse.core.exchange import Message, Payload
from hanse.network.server.runtime import Patience
from hanse.network.server.weights import WeightBounds, find_bound

BOUND = 2880.0
"""Ten times the median: each of the five clients has 287 or 288 examples."""


def declare(monkeypatch: pytest.MonkeyPatch, weight: float) -> None:
    lie: Callable[[bytes], bytes] = changed(lambda values, part: replace(part, weight=weight))
    monkeypatch.setattr(LyingBackend, "lies", repeat(lie))


def serve(folder: Path, patience: Patience = Patience(20.0)) -> tuple[dict[str, Any], list[str], str]:
    """Performs a round with a liar; returns the result, the server's lines and its events."""
    lines: list[str] = []
    with federation(folder) as here:
        here.server.say = lines.append
        run = here.lead(job(FED_AVG, 1, patience=patience))
        here.enter([n for n in range(NUM_CLIENTS) if n != LIAR])
        here.enter([LIAR], kind=Liar)
        return here.end(run), [line.partition(": ")[2] for line in lines], here.events()


def test_a_declared_weight_is_bounded_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch, 1e7)
    result, lines, events = serve(tmp_path / "liar")
    said = f"client {LIAR} declared a weight of 1e+07 for 'update': it was bounded to {BOUND:g}"
    assert [line for line in lines if "bounded" in line] == [f"round 1: {said}"]
    assert events.count("round 1: declared a weight of 1e+07 for 'update': it was bounded to 2880") == 1
    (finding,) = result["findings"]
    assert finding["code"] == "weight_bounded"
    assert finding["text"].startswith(said)
    assert "--max-weight-ratio" in finding["cure"]

    declare(monkeypatch, BOUND)  # as if it had declared no more
    as_bounded, lines, _ = serve(tmp_path / "modest")
    assert as_bounded["params_sha256"] == result["params_sha256"]
    assert not as_bounded.get("findings")
    assert not any("bounded" in line for line in lines)

    declare(monkeypatch, 1e7)
    without, lines, _ = serve(tmp_path / "unbounded", Patience(20.0, max_weight_ratio=math.inf))
    assert without["params_sha256"] != result["params_sha256"]
    assert not without.get("findings")


def test_a_server_that_is_served_again_finds_the_same_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(monkeypatch, 1e7)
    due, _, _ = serve(tmp_path / "undisturbed")
    port = free_port()
    with federation(tmp_path, port=port) as here:
        run = here.lead(job(FED_AVG, 1))
        here.client_home(LAST)
        here.show_up()
        here.enter(range(1, LIAR))
        here.enter([LIAR], kind=Liar)
        await_message(here, run)
    with federation(tmp_path, port=port) as here:
        here.lead(job(FED_AVG, 1), run)
        here.enter(range(LIAR))
        here.enter([LIAR], kind=Liar)
        assert here.end(run)["params_sha256"] == due["params_sha256"]
        assert [bounded.bound for _, bounded in here.server.members.list_bounds(run)] == [BOUND]


def test_attendance_of_a_bounded_weight_is_booked_once(tmp_path: Path) -> None:
    from hanse.network.server.members import Members
    from hanse.network.server.weights import BoundedWeight

    members = Members(tmp_path / "members.db")
    for declared in (5.0, 7.0):  # a round that is performed again
        members.bound("a", 2, BoundedWeight(3, "update", declared, 1.0))
    members.bound("a", 1, BoundedWeight("bank", "update", 2.0, 1.0))
    members.bound("b", 1, BoundedWeight(3, "update", 2.0, 1.0))
    assert [(round, one.party, one.declared) for round, one in members.list_bounds("a")] == [
        (1, "bank", 2.0),
        (2, 3, 7.0),
    ]
    members.close()


@given(
    st.lists(st.floats(0.0, 1e7), min_size=3, max_size=40),
    st.floats(1.0, 20.0),
)
def test_no_share_exceeds_the_bound(weights: list[float], ratio: float) -> None:
    weights = [weight for weight in weights if weight > 0]
    bound, n = find_bound(weights, ratio), len(weights)
    kept = [min(weight, bound) for weight in weights]
    median = sorted(weights)[(n - 1) // 2] if weights else 0.0
    for weight, counts in zip(weights, kept, strict=True):
        assert counts <= max(ratio * median, 2 / n * math.fsum(kept)) * (1 + 1e-9)
        if weight <= median * ratio or weight <= 2 / n * math.fsum(kept):
            assert counts == weight


@pytest.mark.parametrize(
    ("weights", "due"),
    [
        ([1.0, 1e7], math.inf),  # nobody can tell which of two is wrong
        ([1.0, 1.0, 1e7], 10.0),
        ([0.0, 0.0, 0.0, 5.0, 5.0], math.inf),  # who has nothing to say does not make the others small
        ([0.0, 0.0, 0.0, 1.0, 1.0, 1e7], 10.0),
        ([1.0] * 60 + [1e7, 1e7], 10.0),
    ],
)
def test_bounds(weights: list[float], due: float) -> None:
    bound = find_bound(weights, 10.0)
    assert bound == due
    assert find_bound(weights, math.inf) == math.inf


def test_answers_that_nobody_adds_up_keep_their_weights() -> None:
    spec = Spec.of({"w": np.zeros(1)})

    uplink = {"open": PartSpec(spec), "each": PartSpec(spec, into=each())}
    payload = Payload(count_up(), {}, uplink, {})
    bounds, sent = WeightBounds(10.0), {}
    for ticket, weight in enumerate((1.0, 1.0, 1e6)):
        part = Part({"w": np.zeros(1)}, weight)
        sent[ticket] = Message(ticket, {"open": part, "each": part, "hidden": None})
        bounds.hear(ticket, sent[ticket], payload)
    bounds.close([0, 1, 2])
    assert bounds.hidden == {"hidden"}
    assert bounds.apply(0, sent[0]) is sent[0]
    applied = bounds.apply(2, sent[2]).parts
    assert applied["open"].weight == 10.0  # type: ignore[union-attr]
    assert applied["each"].weight == 1e6  # type: ignore[union-attr]
    assert [(one.party, one.part) for one in bounds.list_bounds({2: 7})] == [(7, "open")]


def test_a_ratio_below_one_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"max_weight_ratio is 0\.5; write at least 1"):
        Patience(max_weight_ratio=0.5)
