"""Local privacy: noise at the client, of the calibrated size, and claims against everybody."""

import json
import re
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

import hanse
from hanse.algorithms import by_examples, fed_avg, fed_buff, scaffold, trained_by, uniform
from hanse.core import (
    ClientKeys,
    Close,
    CompositionError,
    InvalidInput,
    Keys,
    Part,
    Parts,
    Release,
    Spec,
    fixed_mean,
    mean,
)
from hanse.core.exchange import Dispatch, InMemory, ReleaseRecord, drive
from hanse.data import digits, iid
from hanse.privacy import (
    LOCAL,
    central,
    compose,
    compute_epsilon,
    gaussian,
    local,
    local_gaussian,
    make_claim,
    read_books,
    skellam,
)
from hanse.privacy.accounting import Tally
from hanse.robust import median
from hanse.runs import plan_messages, prepare_run
from hanse.runs.protection import Disclosure, check_budget, claim_of
from hanse.simulation import heavy_tailed, unstable
from hanse.transforms import clip, quantize, rotate, top_k

SHAPES = {"bias": (10,), "weights": (200, 150)}
NORM, Z = 1.5, 0.8
STD = 2 * Z * NORM
DIGITS = {"data": digits(), "partition": iid(60), "evaluate_every": 50}
BUDGET = local(epsilon=8.0, delta=1e-3)


def fill(value: float, dtype: str = "float64") -> dict[str, np.ndarray]:
    return {name: np.full(shape, value, dtype) for name, shape in SHAPES.items()}


def stage(dtype: str = "float64") -> Any:
    return local_gaussian(Z)(clip(NORM)(Spec.of(fill(0.0, dtype))).out)


def noise(values: dict[str, np.ndarray], seed: int = 3) -> dict[str, np.ndarray]:
    part, memory = stage(values["bias"].dtype.name).encode(None, Part(values), {}, Keys.from_seed(seed))
    assert memory == {}
    return dict(part.values)


def flat(values: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([values[name].ravel() for name in sorted(SHAPES)])


# -- the noise -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("z", "epsilon"), [(1.0, 4.3772), (2.0, 1.9931), (5.0, 0.7255)])
def test_one_message_costs_what_the_literature_says(z: float, epsilon: float) -> None:
    one = ReleaseRecord("update", Release(LOCAL, z), 0.1, 1)
    assert round(compute_epsilon(compose([one]), 1e-5, "pld"), 4) == epsilon, "whatever the sampling"


def test_noise_is_normal_and_covers_any_two_messages_of_a_client() -> None:
    """The messages of a client are at most twice the bound apart, so the noise is twice as large."""
    found = flat(noise(fill(0.0)))
    assert stats.kstest(found / STD, "norm").pvalue > 1e-3
    low, high = stats.chi2(found.size).ppf([1e-4, 1 - 1e-4])
    assert low < np.square(found / STD).sum() < high


def test_a_message_lies_on_a_grid_that_the_data_do_not_choose() -> None:
    step = 2.0 ** (np.floor(np.log2(STD)) - 32)
    for value in (0.0, 1 / 3, 1e-9):
        found = flat(noise(fill(value))) / step
        assert (found == np.rint(found)).all()


def test_the_same_message_has_the_same_noise_and_another_has_other_noise() -> None:
    """Else the difference of two messages for one ticket would tell how the data changed."""
    one = flat(noise(fill(0.0)))
    assert (one == flat(noise(fill(0.0)))).all()
    other = flat(noise(fill(0.25))) - 0.25
    assert abs(np.corrcoef(one, other)[0, 1]) < 4 / np.sqrt(one.size)
    assert not np.isin(one, flat(noise(fill(0.0), seed=4))).any()
    assert not np.isin(one[:10], one[10:]).any(), "each tensor has draws of its own"


def test_the_public_key_does_not_decide_the_noise() -> None:
    keys = Keys.from_seed(3)
    mixed = Keys(Keys.from_seed(4).public, keys.secret)
    part, _ = stage().encode(None, Part(fill(0.0)), {}, mixed)
    assert (part.values["bias"] == noise(fill(0.0))["bias"]).all()


def test_many_clients_at_once_get_the_bits_of_one_by_one() -> None:
    rows = {name: np.stack([v, v + 1, v]) for name, v in fill(0.5, "float32").items()}
    keys = ClientKeys(3, lambda number: Keys.from_seed(number))
    found = stage("float32").encode_many(None, Parts(rows, np.ones(3)), keys).values
    for i in range(3):
        alone = noise({name: v[i] for name, v in rows.items()}, seed=i)
        assert all((alone[name] == found[name][i]).all() for name in rows)
        assert found["bias"].dtype == np.float32
    assert (rows["bias"] == np.stack([np.full(10, x, "float32") for x in (0.5, 1.5, 0.5)])).all()


# -- checks when built ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uplink", "remedy"),
    [
        ((local_gaussian(Z),), r"put clip\(max_norm\) directly before it"),
        ((clip(1.0), quantize(2), local_gaussian(Z)), "put it directly after clip"),
        ((clip(1.0), top_k(0.1), local_gaussian(Z)), "put it directly after clip"),
        ((clip(1.0), local_gaussian(Z), local_gaussian(Z)), r"put clip\(max_norm\) directly before it"),
        ((clip(1.0), local_gaussian(Z), gaussian(Z)), r"put clip\(max_norm\) directly before it"),
    ],
)
def test_what_noise_can_not_follow_is_refused(uplink: Any, remedy: str) -> None:
    with pytest.raises(CompositionError, match=remedy):
        prepare_run(experiment(privacy=None, algorithm=by_hand(uplink=uplink)))


def test_noise_of_no_size_is_refused() -> None:
    with pytest.raises(InvalidInput, match="noise_multiplier"):
        local_gaussian(0.0)


# -- what a budget makes of an algorithm ---------------------------------------------------------


def by_hand(z: float = 5.0, **changes: Any) -> fed_avg:
    given: dict[str, Any] = {"weighting": uniform(), "uplink": (clip(1.0), local_gaussian(z)), **changes}
    return fed_avg(0.5, 0.2, **given)


def experiment(**given: Any) -> hanse.Experiment:
    return hanse.Experiment(**{**DIGITS, "rounds": 10, "privacy": BUDGET, **given})


def test_clients_clip_and_noise_before_anything_else_is_done() -> None:
    made: Any = prepare_run(experiment(algorithm=fed_avg(0.5, 0.2, uplink=(rotate(), quantize(8)))))
    bound, added, *after = made.experiment.algorithm.uplink
    assert (bound, after) == (clip(1.0), [rotate(), quantize(8)])
    assert made.experiment.algorithm.weighting == uniform()
    z = added.noise_multiplier
    assert compute_epsilon({(1.0, z): 10}, 1e-3) <= 8.0, "for a client that is in each round"
    assert compute_epsilon({(1.0, z - 1e-4): 10}, 1e-3) > 8.0
    assert prepare_run(made.experiment).experiment.algorithm == made.experiment.algorithm


@pytest.mark.parametrize("into", [mean(), fixed_mean(12.0), median()])
def test_the_server_may_do_with_noised_messages_what_it_likes(into: Any) -> None:
    uplink = (clip(1.0), local_gaussian(5.0), quantize(8))
    result = hanse.perform(experiment(algorithm=by_hand(uplink=uplink, into=into), rounds=2))
    assert result.privacy is not None
    assert result.privacy["totals"] == 2


SHARED = (clip(1.0), skellam(2.0, honest=3))


def tell(params: Any, data: Any) -> Any:
    return params, None, {"size": float(len(data))}


def weigh(params: Any, data: Any) -> Any:
    return params, 1.0


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"algorithm": scaffold(0.5)}, "write fed_avg, fed_prox"),
        ({"algorithm": by_hand(weighting=by_examples())}, r"without noise.*write weighting = uniform\(\)"),
        ({"algorithm": by_hand(client=trained_by(tell, metrics=("size",)))}, r'open = \["training"\]'),
        (
            {"algorithm": by_hand(), "privacy": central(8.0, delta=1e-3)},
            "leave it out, or write privacy = local",
        ),
        (
            {"algorithm": fed_avg(0.5, uplink=(clip(1.0), gaussian(1.0)))},
            "leave it out, or write privacy = c",
        ),
        ({"algorithm": by_hand(uplink=SHARED)}, r"clients add shares: leave it out, or leave privacy out"),
        (
            {"algorithm": by_hand(uplink=SHARED), "privacy": central(8.0, delta=1e-3)},
            r"noise that the server adds, and uplink has skellam.*leave it out, or leave privacy out",
        ),
    ],
)
def test_what_epsilon_would_not_cover_is_refused_with_a_remedy(changes: dict[str, Any], remedy: str) -> None:
    with pytest.raises(CompositionError, match=remedy):
        prepare_run(experiment(**changes))


@pytest.mark.parametrize("trust", ["central", "local"])
def test_noise_that_an_own_program_writes_must_belong_to_the_budget(trust: str) -> None:
    budget, mechanism = (BUDGET, "gaussian") if trust == "central" else (central(8.0), LOCAL)
    other = Disclosure((ReleaseRecord("update", Release(mechanism, 5.0), 1.0, 1),))
    with pytest.raises(CompositionError, match=rf"leave it out, or write privacy = {trust}\(\.\.\.\)"):
        check_budget(budget, other, 1)
    check_budget(central(8.0) if trust == "central" else BUDGET, other, 1)


def test_a_training_function_may_not_weigh_itself() -> None:
    with pytest.raises(InvalidInput, match="returned the weight 1, and the algorithm weighs"):
        hanse.perform(experiment(algorithm=by_hand(client=trained_by(weigh))))


def test_a_budget_that_is_too_small_is_refused_before_the_first_round() -> None:
    with pytest.raises(InvalidInput, match=r"10 rounds would spend epsilon = .*the budget is 1; write more"):
        prepare_run(experiment(algorithm=by_hand(1.0), privacy=local(epsilon=1.0)))


@pytest.mark.parametrize("algorithm", [by_hand(), fed_avg(0.5)], ids=["by hand", "chosen"])
def test_delta_must_be_below_one_in_the_number_of_clients(algorithm: fed_avg) -> None:
    """A mechanism that publishes all that one client in 60 holds has epsilon 0 for delta 1/60."""
    with pytest.raises(InvalidInput, match=r"delta is 0\.0167 with 60 clients.*write less than 1/60: 2e-03"):
        prepare_run(experiment(algorithm=algorithm, privacy=local(8.0, delta=0.0167)))
    prepare_run(experiment(algorithm=algorithm, privacy=local(8.0, delta=0.0166)))


@pytest.mark.parametrize(
    "given",
    [{"epsilon": 0.0}, {"epsilon": 1.0, "delta": 0.0}, {"epsilon": 1.0, "max_norm": 0.0}],
)
def test_settings_out_of_range_are_refused(given: dict[str, float]) -> None:
    with pytest.raises(InvalidInput, match="write"):
        local(**given)


# -- claims --------------------------------------------------------------------------------------


def test_the_claim_is_against_everybody_and_gains_nothing_by_sampling(tmp_path: Path) -> None:
    settings = tmp_path / "local.toml"
    settings.write_text(
        """rounds = 3
        evaluate_every = 50
        data = { name = "digits" }
        partition = { name = "iid", num_clients = 60 }
        algorithm = { name = "fed_avg", sampling_rate = 0.2, weighting = { name = "uniform" }, uplink = [
            { name = "clip", max_norm = 1.0 }, { name = "local_gaussian", noise_multiplier = 2.0 } ] }
        privacy = { name = "local", epsilon = 8.0, delta = 1e-3 }
        """
    )
    ready = prepare_run(hanse.read(settings))
    planned = plan_messages(ready).claim
    said = hanse.perform(hanse.read(settings)).privacy
    assert planned is not None
    assert said is not None
    assert said["epsilon"] == planned.epsilon == compute_epsilon({(1.0, 2.0): 3}, 1e-3, "pld")
    assert said["rates"] == []
    for words in (
        "privacy of the data of one client, replaced by any others, against the server, the other clients",
        "for a client that takes part each time (3 noised messages), less for others",
        "not amplified by sampling, because the server reads each message",
    ):
        assert words in said["claim"]
    assert json.loads(json.dumps(said)) == said


SHARES = {"norm": 10.0, "norm_1": 10.0, "honest": 3.0}
RELEASES = {
    "local": Release(LOCAL, 2.0),
    "server": Release("gaussian", 2.0),
    "tree": Release("tree", 2.0, {"separation": 4.0}),
    "shares": Release("skellam", 2.0, SHARES),
}


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("local", "server"), r"by the server, gaussian\(...\), and some by clients, local_gaussian\(...\):"),
        (("tree", "local"), r"by the server, gaussian\(...\), and some by clients, local_gaussian\(...\):"),
        (("server", "shares"), r"by the server, gaussian\(...\), and some by clients in shares, skellam"),
        (("local", "shares"), r"by clients, local_gaussian\(...\), and some by clients in shares, skellam"),
    ],
)
def test_noise_of_the_server_of_clients_and_in_shares_have_no_epsilon_together(
    names: Any, words: str
) -> None:
    both = [ReleaseRecord(name, RELEASES[name], 0.1, i) for i, name in enumerate(names)]
    claim = make_claim(both)
    assert claim is not None
    assert (claim.epsilon, claim.rates) == (None, ())
    assert re.search(words + ".*no epsilon covers them together; write one of them", str(claim))
    assert claim.adversary == "whoever sees the released models", "the weakest of all"
    tally = Tally()
    tally.add(both[:1])
    with pytest.raises(InvalidInput, match="no epsilon covers them together"):
        Tally(tally).add(both[1:])  # also in rounds one after the other
    tally.add(both[:1])


def test_messages_of_abandoned_rounds_have_been_read() -> None:
    """A round in which one client of ten is missing fails; the server has seen the other nine."""
    most = local(epsilon=100.0, delta=1e-3)
    strict = by_hand(close=Close(minimum_fraction=1.0))
    ready = prepare_run(experiment(algorithm=strict, devices=unstable(0.2), rounds=4, privacy=most))
    store = InMemory()
    drive(ready.program(ready.begin()), ready.runtime(), store)
    lost = [record for record in store.records if record.abandoned]
    assert lost
    assert not any(record.usage.releases for record in lost)
    assert len(list(read_books(store.records, ready.disclosure.releases))) == 4
    claim = claim_of(store.records, most, ready.disclosure, is_simulated=True)
    assert claim is not None
    assert claim.epsilon == compute_epsilon({(1.0, 5.0): 4}, 1e-3, "pld")
    assert ready.spending is not None
    assert ready.spending.epsilon == compute_epsilon({(1.0, 5.0): 4}, 1e-3)
    ready.spending.recall(lost)  # if all rounds so far were abandoned, what was planned says it
    assert ready.spending.epsilon == compute_epsilon({(1.0, 5.0): len(lost)}, 1e-3)
    ready.spending.recall(store.records)
    assert ready.spending.epsilon == compute_epsilon({(1.0, 5.0): 4}, 1e-3), "as it was counted live"


def test_a_claim_covers_what_an_asynchronous_run_has_in_flight_at_its_end() -> None:
    """Each round asks a client once at most, whatever arrives in it, is dropped or never arrives."""
    algorithm = fed_buff(0.5, concurrency=4, buffer_size=2, epochs=1, uplink=(clip(1.0), local_gaussian(5.0)))
    devices, most = unstable(0.2, heavy_tailed(1.0, 2.5)), local(epsilon=100.0, delta=1e-3)
    ready = prepare_run(
        experiment(algorithm=algorithm, partition=iid(5), devices=devices, rounds=6, privacy=most)
    )
    asked, store = Counter[Any](), InMemory()

    def count_asked(program: Any) -> Any:
        event = None
        with suppress(StopIteration):
            while True:
                command = program.send(event)
                if isinstance(command, Dispatch) and "update" in command.uplink:
                    asked.update(command.cohort)
                event = yield command

    drive(count_asked(ready.program(ready.begin())), ready.runtime(), store)
    claim = claim_of(store.records, most, ready.disclosure, is_simulated=True)
    assert claim is not None
    answered = sum(record.usage.counted + record.usage.dropped for record in store.records)
    assert answered < asked.total(), "some are in flight at the end"
    assert 1 < max(asked.values()) <= claim.totals
