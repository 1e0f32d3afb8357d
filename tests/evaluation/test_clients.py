"""Metrics over clients, of which some can't measure a metric."""

import math

import numpy as np
import pytest

import hanse
from hanse.algorithms import fed_sgd
from hanse.core import Examples
from hanse.data import from_clients
from hanse.evaluation import on_site
from hanse.evaluation.clients import average, spread_of
from hanse.learners import cox


def test_clients_without_a_metric_do_not_count_for_it() -> None:
    each = [{"loss": 1.0, "concordance": 0.5}, {"loss": 4.0}, {"loss": 1.0, "concordance": 1.0}]
    spread = spread_of("tests", each)
    assert average(each) == {"loss": 2.0, "concordance": 0.75}
    assert spread["mean"] == {"loss": 2.0, "concordance": 0.75}
    assert spread["worst_tenth"] == {"loss": 4.0, "concordance": 0.5}  # a higher concordance is better
    assert spread["each"] == {"loss": [1.0, 4.0, 1.0], "concordance": [0.5, None, 1.0]}
    assert spread["num_clients"] == 3


def test_a_metric_that_only_later_clients_have() -> None:
    spread = spread_of("tests", [{"loss": 1.0}, {"loss": 2.0, "concordance": 0.5}])
    assert spread["mean"] == {"loss": 1.5, "concordance": 0.5}
    assert spread["each"]["concordance"] == [None, 0.5]


@pytest.mark.parametrize("wrong", [math.inf, math.nan])
def test_a_mean_of_what_is_not_finite_is_unknown(wrong: float) -> None:
    spread = spread_of("tests", [{"loss": 1.0}, {"loss": wrong}])
    assert spread["mean"] == {"loss": None}
    assert spread["each"] == {"loss": [1.0, None]}


def test_a_party_without_events_joins_a_survival_run() -> None:
    rng = np.random.default_rng(0)
    x, times = rng.normal(size=(40, 3)), rng.exponential(size=40)
    events = np.arange(40) >= 20  # the first party saw none
    y = np.column_stack([times, events])
    parties = [Examples(x[:20], y[:20]), Examples(x[20:], y[20:])]
    result = hanse.run(
        data=from_clients(parties), model=cox(), algorithm=fed_sgd(lr=0.1), rounds=2, baselines=[on_site()]
    )
    assert result.final is not None
    assert result.clients is not None
    assert set(result.final.metrics) == {"loss", "concordance"}
    assert result.clients["each"]["concordance"] == [None, result.final.metrics["concordance"]]
    assert result.clients["mean"]["concordance"] == result.final.metrics["concordance"]
    assert 0 < result.baselines[0]["final"]["concordance"] <= 1
    silent = hanse.run(data=from_clients(parties[:1]), model=cox(), algorithm=fed_sgd(lr=0.1), rounds=2)
    assert silent.final is not None
    assert set(silent.final.metrics) == {"loss"}
