"""Rules in whole runs: what is refused and when, settings files, records, and who was left out."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rules import RULES, parts
from secure import shared_sum

import hanse
from hanse.algorithms import fed_avg, fed_buff, uniform
from hanse.config import read
from hanse.core import (
    Close,
    CompositionError,
    Examples,
    InvalidInput,
    Keys,
    Part,
    PartSpec,
    Reducer,
    Spec,
    TensorSpec,
    each,
    reduce,
)
from hanse.core.exchange import Usage
from hanse.core.exchange.traffic import TrafficLedger, merge_usage
from hanse.data import digits, dirichlet, from_clients
from hanse.robust import (
    bucketing,
    bulyan,
    centred_clipping,
    krum,
    median,
    minimum_diameter,
    multi_krum,
    nearest_neighbour_mixing,
    norm_bound,
    recentre,
    trimmed_mean,
    worker_momentum,
)
from hanse.runs import prepare_run
from hanse.simulation import Devices, batched, sequential
from hanse.store import Runs
from hanse.transforms import deflate, quantize

REAL = Spec({"w": TensorSpec((3,), "float32")})


def experiment(into: Reducer[Any], **more: Any) -> Any:
    return {
        "data": digits(),
        "partition": dirichlet(8, alpha=1.0),
        "algorithm": fed_avg(lr=0.3, fraction=1.0, epochs=1, into=into, **more),
        "rounds": 2,
    }


# -- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
@pytest.mark.parametrize(
    ("spec", "why"),
    [
        (REAL.like(kind="ring"), "these are ring"),
        (REAL.like(kind="table"), "these are table"),
        (REAL.like(summable=False), "different at each client"),
        (Spec({"n": TensorSpec((), "int64")}), "'n' is int64"),
        (Spec({"on": TensorSpec((2,), "bool")}), "'on' is bool"),
        (Spec({"w": TensorSpec(("k",), "float32")}), "of no fixed shape"),
    ],
)
def test_what_can_not_be_compared_is_refused(rule: Any, spec: Spec, why: str) -> None:
    rule.accepts(REAL)
    with pytest.raises(CompositionError, match=why):
        rule.accepts(spec)


def test_a_reducer_that_hides_or_makes_no_total_can_not_follow() -> None:
    for rule in (bucketing(2, shared_sum()), norm_bound(1.0, nearest_neighbour_mixing(1, shared_sum()))):
        with pytest.raises(CompositionError, match=r"must see single contributions, and shared_sum.* hides"):
            PartSpec(REAL, into=rule).chain()
    with pytest.raises(CompositionError, match=r"each\(\) makes no total; write a rule, such as median"):
        PartSpec(REAL, into=norm_bound(1.0, each())).chain()


def test_rules_follow_compression_that_the_server_opens() -> None:
    assert PartSpec(REAL, (quantize(8), deflate()), krum(1)).chain().opens == quantize(8)


@pytest.mark.parametrize(
    ("rule", "needed"),
    [
        (median(), 1),
        (trimmed_mean(3), 7),
        (krum(2), 7),
        (multi_krum(2, 3), 7),
        (multi_krum(2, 9), 11),
        (minimum_diameter(3), 7),
        (bulyan(2), 11),
        (nearest_neighbour_mixing(4, median()), 9),
        (nearest_neighbour_mixing(1, krum(2)), 7),
        (bucketing(3, krum(1)), 13),
        (norm_bound(1.0, trimmed_mean(2)), 5),
        (centred_clipping(1.0), 1),
    ],
    ids=str,
)
def test_each_rule_says_how_many_it_needs(rule: Any, needed: int) -> None:
    rule.check_number(needed)
    reduce(rule, parts(np.eye(needed, 3)))
    for few in range(1, needed):
        with pytest.raises(CompositionError, match=r"needs at least \d+ contributions, and there are"):
            rule.check_number(few)
        with pytest.raises(CompositionError, match=r"ask more clients .*, or write a smaller"):
            reduce(rule, parts(np.eye(few, 3)))


def test_settings_that_can_not_be_are_refused() -> None:
    wrong: Any = [
        (krum, (-1,)),
        (trimmed_mean, (-1,)),
        (multi_krum, (1, 0)),
        (centred_clipping, (0.0,)),
        (centred_clipping, (1.0, 0)),
        (bucketing, (0, median())),
        (norm_bound, (-1.0,)),
        (worker_momentum, (1.0,)),
    ]
    for rule, given in wrong:
        with pytest.raises(InvalidInput, match="write"):
            rule(*given)
    minimum_diameter(19)
    with pytest.raises(CompositionError, match="1048576 sets of clients, and at most 1000000"):
        minimum_diameter(20)


def test_a_cohort_that_is_too_small_is_refused_before_anything_is_computed() -> None:
    with pytest.raises(CompositionError, match=r"krum\(num_byzantine=3\) needs at least 9 contributions"):
        prepare_run(read(None, ["partition.num_clients=8"]).__class__(**experiment(krum(3))))
    buffered = fed_buff(concurrency=6, buffer_size=4, into=trimmed_mean(2))
    with pytest.raises(CompositionError, match="needs at least 5 contributions, and there are 4"):
        hanse.run(**{**experiment(median()), "algorithm": buffered})


def test_a_round_that_too_few_answer_is_abandoned_with_the_reason() -> None:
    from hanse.simulation import unstable

    given = experiment(krum(2), close=Close(minimum_fraction=0.1))
    result = hanse.run(**{**given, "rounds": 6, "devices": unstable(0.2)})
    reasons = [record.abandoned for record in result.records[1:]]
    assert None in reasons
    short = [why for why in reasons if why]
    assert short
    assert all("krum(num_byzantine=2) needs at least 7 contributions, and there are" in why for why in short)
    assert "; the first that was not: " in short[0]


# -- settings, records and execution -----------------------------------------------------------


def test_a_settings_file_names_rules_within_rules(tmp_path: Path) -> None:
    file = tmp_path / "robust.toml"
    file.write_text(
        """
        [algorithm]
        name = "fed_avg"
        uplink = ["worker_momentum", "recentre"]

        [algorithm.into]
        name = "norm_bound"
        max_norm = 2.0
        then = {name = "nearest_neighbour_mixing", num_byzantine = 1, then = "median"}
        """
    )
    algorithm: Any = read(file).algorithm
    assert algorithm.into == norm_bound(2.0, nearest_neighbour_mixing(1, median()))
    assert algorithm.uplink == (worker_momentum(0.9), recentre())
    assert read(None, ["algorithm.into=median"]).algorithm.into == median()  # type: ignore[attr-defined]


def test_records_name_those_left_out(tmp_path: Path) -> None:
    result = hanse.run(**experiment(multi_krum(2, 5)), store=tmp_path / "runs.db")
    left_out = [record.usage.left_out for record in result.records]
    assert left_out[0] == ()
    assert [len(names) for names in left_out[1:]] == [3, 3]
    assert all(set(names) < set(range(8)) for names in left_out)
    assert [
        record.usage.left_out for record in Runs(tmp_path / "runs.db").records(str(result.run))
    ] == left_out


@pytest.mark.parametrize("into", [trimmed_mean(2), bucketing(2, krum(0)), norm_bound(0.5)], ids=str)
def test_every_execution_ends_in_the_same_bits(into: Any) -> None:
    given = experiment(into, weighting=uniform())
    hashes = {
        hanse.run(**given, execution=execution).params_sha256 for execution in (sequential(), batched())
    }
    assert len(hashes) == 1


# -- memory of clients and server --------------------------------------------------------------


def test_worker_momentum_is_a_moving_mean_that_the_client_keeps() -> None:
    stage, memory = worker_momentum(0.75)(REAL), {}
    sent = []
    for x in (8.0, 0.0, 4.0):
        part, memory = stage.encode(
            None, Part({"w": np.full(3, x, np.float32)}, 5.0), memory, Keys.from_seed(0)
        )
        sent.append(float(part.values["w"][0]))
        assert part.weight == 5.0
    assert sent == [8.0, 6.0, 5.5]


def test_recentre_makes_the_last_total_the_centre_of_clipping() -> None:
    stage = recentre()(REAL)
    state, centre = stage.init, np.zeros(3)
    rng = np.random.default_rng(0)
    for _ in range(4):
        rows = 5 + rng.normal(size=(4, 3))
        plan = stage.plan(state, Keys.from_seed(0).public)
        sent = [
            stage.encode(plan, Part({"w": row.astype(np.float32)}), {}, Keys.from_seed(0))[0] for row in rows
        ]
        total, state = stage.decode(
            state, plan, reduce(centred_clipping(1.0), sent), Keys.from_seed(0).public
        )
        away = rows - centre
        centre = centre + np.mean(away * np.minimum(1, 1 / np.linalg.norm(away, axis=1))[:, None], axis=0)
        np.testing.assert_allclose(total.values["w"], centre, rtol=1e-5)
    assert centre.min() > 1.5  # without it, it never leaves the ball around 0


def test_transforms_with_history_refuse_whole_numbers() -> None:
    for transform in (worker_momentum(), recentre()):
        with pytest.raises(CompositionError, match="'w' is int64: put it first"):
            transform(Spec({"w": TensorSpec((), "int64")}))
        with pytest.raises(CompositionError, match="these are ring: put it first"):
            transform(REAL.like(kind="ring"))
    assert recentre()(REAL.like(l2_bound=1.0)).out.l2_bound is None


def test_a_run_with_history_ends_elsewhere_and_still_learns() -> None:
    given = experiment(centred_clipping(0.2, 3), uplink=(worker_momentum(0.5), recentre()))
    whole = hanse.run(**{**given, "rounds": 8})
    plain = hanse.run(**{**given, "rounds": 8, "algorithm": replace(given["algorithm"], uplink=())})
    assert plain.params_sha256 != whole.params_sha256
    reached = [result.records[-1].metrics["accuracy"] for result in (whole, plain)]
    assert reached[0] > reached[1] > 0.3


class WithoutTheFirst(Devices):
    """Devices of which the first always drops out."""

    def duration_s(self, party: Any, key: Any) -> float | None:
        return None if party == 0 else 1.0


def test_who_is_left_out_is_named_beside_one_who_is_missing() -> None:
    rng = np.random.default_rng(0)
    people = []
    for number in range(6):
        x = rng.normal(size=(30, 4)).astype(np.float32)
        people.append(Examples(x * (100 if number == 4 else 1), (x[:, 0] > 0).astype(np.int64)))
    result = hanse.run(
        data=from_clients(people),
        algorithm=fed_avg(lr=0.1, fraction=1.0, into=multi_krum(1, 4)),
        rounds=2,
        devices=WithoutTheFirst(),
        evaluate_every=0,
    )
    assert [(r.usage.left_out, r.usage.dropped) for r in result.records[-2:]] == [((4,), 1)] * 2


def test_a_ledger_keeps_who_was_left_out_until_the_round_ends() -> None:
    ledger = TrafficLedger("server", Usage(left_out=(2,)))
    ledger.add_left_out([5, 2])
    kept = merge_usage(Usage(), ledger.take_changes())
    assert kept.left_out == ledger.usage.left_out == (2, 5)
    ledger.begin_round()
    assert ledger.usage.left_out == ()
