from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from cases import CASES, Case
from support import simulate

from hanse.algorithms import Schedule, constant, exponential_decay, inverse_time, step_decay
from hanse.algorithms.schedules import rate
from hanse.core import InvalidInput, fields
from hanse.core.exchange import digest, pack, unpack

SCHEDULES = [constant(0.3), step_decay(0.3, every=4), exponential_decay(0.3), inverse_time(0.3, half_life=5)]
RATES = {
    f"{name}, {f.name}": (case, f.name)
    for name, case in CASES.items()
    for f in fields(type(case.algorithm))
    if f.name in ("lr", "server_lr") and name not in ("secure_avg", "private_avg", "shared_avg")
    if not getattr(case.algorithm, "client", None)  # it has the step size
}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_begin_at_lr_and_never_rise(schedule: Schedule) -> None:
    rates = [schedule.at(t) for t in range(100)]
    assert rates[0] == 0.3
    assert all(0 < later <= earlier for earlier, later in pairwise(rates))
    assert unpack(pack(schedule)) == schedule


def test_an_inverse_time_step_sums_to_infinity_and_its_square_does_not() -> None:
    schedule = inverse_time(1.0, half_life=3)
    sums = [sum(schedule.at(t) for t in range(n)) for n in (1000, 2000, 4000)]
    assert sums[2] - sums[1] == pytest.approx(sums[1] - sums[0], rel=0.01)
    assert sum(schedule.at(t) ** 2 for t in range(10_000)) < 9 * 3.15 / 6 + 9


@pytest.mark.parametrize(("case", "name"), RATES.values(), ids=RATES.keys())
def test_a_schedule_stands_wherever_a_number_does(case: Case, name: str) -> None:
    given = rate(getattr(case.algorithm, name), 0)
    ended = [
        digest(simulate(replace(case.algorithm, **{name: lr}), case.rounds, case.devices).params)
        for lr in (given, constant(given), exponential_decay(given, 0.5))
    ]
    assert ended[0] == ended[1]
    assert ended[0] != ended[2]


def test_abandoned_rounds_are_not_counted() -> None:
    case = CASES["fed_avg"]
    algorithm = replace(case.impatient, lr=exponential_decay(0.02, 0.5))
    records: list[Any] = []
    state = simulate(algorithm, 6, case.unreliable, watch=records.append)
    assert 0 < state.num_rounds == sum(record.abandoned is None for record in records) < 6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: constant(0.0), r"lr is 0\.0; write a step size above 0"),
        (lambda: step_decay(-1.0, every=3), r"lr is -1\.0"),
        (lambda: step_decay(0.1, every=0), "every is 0; write at least 1"),
        (
            lambda: step_decay(0.1, every=3, factor=1.5),
            r"factor is 1\.5; write a number above 0 and at most 1",
        ),
        (lambda: exponential_decay(0.1, 0.0), r"factor is 0\.0"),
        (lambda: exponential_decay(float("nan")), "lr is nan"),
        (lambda: inverse_time(0.1, half_life=0.0), r"half_life is 0\.0; write a number above 0"),
        (lambda: inverse_time(float("inf")), "lr is inf"),
    ],
)
def test_wrong_settings(make: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        make()
