"""Central privacy of runs: noise for a budget, runs that stop at it, and claims that leave nothing out."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import hanse
from hanse.algorithms import (
    Weighting,
    by_examples,
    fed_adam,
    fed_avg,
    fed_buff,
    fed_prox,
    fed_sgd,
    scaffold,
    trained_by,
    uniform,
)
from hanse.cli.commands import app
from hanse.core import (
    Close,
    CompositionError,
    InvalidInput,
    Program,
    Release,
    Stop,
    fields,
    fixed_mean,
    stack,
    value,
)
from hanse.core.exchange import ReleaseRecord
from hanse.data import arrays, digits, iid
from hanse.privacy import Spending, central, compose, compute_epsilon, gaussian, make_claim
from hanse.runs import RunStalled, describe_claim, existing, plan_messages, prepare_run
from hanse.transforms import clip, quantize, rotate

DIGITS = {"data": digits(), "partition": iid(60), "evaluate_every": 50}
BUDGET = central(epsilon=8.0, delta=1e-3)
SMALL = central(epsilon=2.0, delta=1e-3)
CLIENTS, RATE = 60, 0.2


def by_hand(z: float = 1.0, **changes: Any) -> fed_avg:
    given: dict[str, Any] = {
        "sampling_rate": RATE,
        "weighting": uniform(),
        "close": Close(minimum_fraction=0.0),
        "uplink": (clip(1.0), gaussian(z)),
        "into": fixed_mean(RATE * CLIENTS),
        **changes,
    }
    return fed_avg(0.5, **given)


def experiment(**given: Any) -> hanse.Experiment:
    return hanse.Experiment(**{**DIGITS, "rounds": 10, "privacy": BUDGET, **given})


def protected(**given: Any) -> Any:
    return prepare_run(experiment(**given)).experiment.algorithm


# -- what a budget makes of an algorithm ---------------------------------------------------------


@pytest.mark.parametrize("algorithm", [fed_avg(0.5, 0.2), fed_prox(0.5, 0.2, mu=0.1), fed_adam(0.5, 0.2)])
def test_an_algorithm_gets_what_the_accountant_assumes(algorithm: Any) -> None:
    made = protected(algorithm=algorithm, privacy=SMALL)
    assert (made.fraction, made.sampling_rate) == (None, RATE)
    assert (made.weighting, made.into) == (uniform(), fixed_mean(RATE * CLIENTS))
    assert made.close == Close(minimum_fraction=0.0)
    bound, noise = made.uplink
    assert bound == clip(1.0)
    z = noise.noise_multiplier
    assert compute_epsilon({(RATE, z): 10}, 1e-3) <= 2.0
    assert compute_epsilon({(RATE, z - 1e-4): 10}, 1e-3) > 2.0
    assert type(made) is type(algorithm)


def test_what_is_protected_already_stays_as_it_is() -> None:
    made = protected(algorithm=fed_avg(0.5, 0.2), privacy=SMALL)
    assert protected(algorithm=made, privacy=SMALL) == made
    assert protected(algorithm=by_hand(3.0)) == by_hand(3.0)


def test_transforms_before_the_clip_stay() -> None:
    made = protected(algorithm=fed_avg(0.5, 0.2, uplink=(rotate(),)), privacy=SMALL)
    assert made.uplink[:2] == (rotate(), clip(1.0))


@value
class by_luck(Weighting):
    """Weights of one's own."""

    def of(self, num_examples: int) -> float:
        return 7.0


def keep_own_weight(params: Any, data: Any) -> Any:
    return params, 1.0


def tell(params: Any, data: Any) -> Any:
    return params, None, {"size": float(len(data))}


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"algorithm": scaffold(0.5)}, "write fed_avg, fed_prox"),
        ({"algorithm": fed_buff(0.5)}, "write fed_avg, fed_prox"),
        ({"algorithm": fed_sgd(0.5)}, "write fed_avg, fed_prox"),
        ({"algorithm": fed_avg(0.5, into=stack())}, "leave into out"),
        ({"algorithm": fed_avg(0.5, weighting=by_luck())}, r"write weighting = uniform\(\)"),
        ({"algorithm": fed_avg(0.5, close=Close(goal=3))}, "write deadline_s alone"),
        ({"algorithm": fed_avg(0.5, close=Close(wait_s=3.0))}, "write deadline_s alone"),
        ({"algorithm": fed_avg(0.5, 0.2, uplink=(quantize(4),)), "privacy": SMALL}, "needs real numbers"),
        ({"algorithm": by_hand(into=fed_avg().into)}, r"write into=fixed_mean\(denominator\)"),
        ({"algorithm": by_hand(weighting=by_examples())}, r"write weighting = uniform\(\)"),
        ({"algorithm": by_hand(uplink=(gaussian(1.0),))}, "put clip"),
        ({"algorithm": by_hand(uplink=(clip(1.0), gaussian(1.0), quantize(4)))}, "before the noise"),
        ({"algorithm": by_hand(client=trained_by(tell, metrics=("size",)))}, r'open = \["training"\]'),
        ({"algorithm": by_hand(), "stop": Stop("objective")}, r'open = \["objective"\]'),
    ],
)
def test_what_epsilon_would_not_cover_is_refused_with_a_remedy(changes: dict[str, Any], remedy: str) -> None:
    with pytest.raises(CompositionError, match=remedy):
        prepare_run(experiment(**changes))


def test_weights_after_clipping_are_refused_without_a_budget_too() -> None:
    with pytest.raises(CompositionError, match="weights updates after they are clipped"):
        prepare_run(experiment(privacy=None, algorithm=by_hand(weighting=by_examples())))


@pytest.mark.parametrize("privacy", [BUDGET, None])
def test_a_round_without_noise_may_not_tell_that_nobody_was_drawn(privacy: central | None) -> None:
    """Of 3 clients and rate 0.2, "did this round release?" alone would tell more than the claim allows."""
    few = {"partition": iid(3), "privacy": privacy, "rounds": 2}
    changes = {"uplink": (clip(1.0), gaussian(4.0)), "into": fixed_mean(0.6)}
    for close in (Close(), Close(minimum_fraction=0.01, deadline_s=9.0)):
        with pytest.raises(CompositionError, match=r"tells that nobody was drawn.*minimum_fraction=0\.0"):
            prepare_run(experiment(**few, algorithm=by_hand(close=close, **changes)))
    result = hanse.perform(experiment(**{**few, "rounds": 30}, algorithm=by_hand(**changes)))
    assert any(not record.usage.counted for record in result.records[1:]), "else nothing is tested here"
    assert all(record.is_closed and record.usage.releases for record in result.records[1:])
    fixed = by_hand(sampling_rate=None, fraction=0.4, close=Close(), **changes)
    prepare_run(experiment(**{**few, "privacy": None}, algorithm=fixed))


def test_a_training_function_may_not_weigh_itself() -> None:
    with pytest.raises(InvalidInput, match="returned the weight 1, and the algorithm weighs"):
        hanse.perform(experiment(algorithm=by_hand(3.0, client=trained_by(keep_own_weight))))


def test_a_cohort_of_a_fixed_size_gains_nothing() -> None:
    fixed = by_hand(4.0, sampling_rate=None, fraction=0.2)
    assert compute_epsilon({(RATE, 4.0): 10}, 1e-3) < 1.0
    with pytest.raises(InvalidInput, match=r"would spend epsilon = 2\.66.*no Poisson sample.*sampling_rate"):
        prepare_run(experiment(algorithm=fixed, privacy=central(epsilon=1.0, delta=1e-3)))


def test_a_budget_that_is_too_small_is_refused_before_the_first_round() -> None:
    prepare_run(experiment(algorithm=by_hand(1.0), rounds=10))
    with pytest.raises(InvalidInput, match=r"1000 rounds would spend epsilon = .* and the budget is 8"):
        prepare_run(experiment(algorithm=by_hand(1.0), rounds=1000))


def test_a_delta_that_allows_to_publish_a_client_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"delta is 0\.02 with 60 clients.*less than 1/60"):
        prepare_run(experiment(privacy=central(epsilon=8.0, delta=0.02)))


@pytest.mark.parametrize(
    "given", [{"epsilon": 0.0}, {"epsilon": 1.0, "delta": 1.0}, {"epsilon": 1.0, "max_norm": 0.0}]
)
def test_settings_out_of_range_are_refused(given: dict[str, float]) -> None:
    with pytest.raises(InvalidInput, match="write"):
        central(**given)


def test_two_ways_to_choose_clients_are_one_too_many() -> None:
    with pytest.raises(InvalidInput, match=r"fraction is 0\.5 and sampling_rate is 0\.1; write one"):
        fed_avg(0.5, 0.5, sampling_rate=0.1)


# -- what is open beside it ----------------------------------------------------------------------


def clients_only() -> arrays:
    rng = np.random.default_rng(5)
    return arrays(rng.normal(size=(240, 4)), np.arange(240) % 3, num_classes=3, test_fraction=0.0)


def test_measurements_at_clients_are_refused_or_named() -> None:
    given = {"data": clients_only(), "algorithm": by_hand(2.0), "rounds": 2}
    with pytest.raises(CompositionError, match=r'would send \'metrics\'.*privacy.open = \["metrics"\]'):
        prepare_run(experiment(**given))
    prepare_run(experiment(**{**given, "evaluate_every": 0}))
    allowed = replace(BUDGET, open=("metrics",))
    said = hanse.perform(experiment(**given, privacy=allowed)).privacy
    assert said is not None
    assert "the part 'metrics' of messages" in said["beside"]
    assert "beside it un-noised: the part 'metrics' of messages, the number of clients" in said["claim"]


def test_preprocessing_is_refused_or_named(tmp_path: Path) -> None:
    rows = "".join(f"{i},{i % 7},{'ab'[i % 2]}\n" for i in range(120))
    (tmp_path / "table.csv").write_text(f"x,y,label\n{rows}")
    settings = tmp_path / "private.toml"
    settings.write_text(
        f"""rounds = 2
        data = {{ name = "csv", path = "{tmp_path / "table.csv"}", label = "label" }}
        partition = {{ name = "iid", num_clients = 20 }}
        privacy = {{ name = "central", epsilon = 2.0, delta = 1e-3 }}
        """
    )
    with pytest.raises(CompositionError, match=r'open = \["preprocessing"\]'):
        prepare_run(hanse.read(settings))
    ready = prepare_run(hanse.read(settings, ['privacy.open=["preprocessing"]']))
    plan = plan_messages(ready)
    assert plan.claim is not None
    assert "the sums for preprocessing" in str(plan.claim)


# -- claims --------------------------------------------------------------------------------------


def test_the_claim_names_unit_adversary_amplification_and_what_is_open() -> None:
    result = hanse.perform(experiment(algorithm=by_hand(2.0), rounds=3))
    said = result.privacy
    assert said is not None
    assert said["epsilon"] == compute_epsilon({(RATE, 2.0): 3}, 1e-3, "pld")
    for words in (
        ", 0.001)-differential privacy of one client, added or removed",
        "against whoever sees the released models; not against the server, which sees single clipped updates",
        "amplified by Poisson sampling at rate 0.2, which the server's secret decides",
        "beside it un-noised: the number of clients in each round",
        "simulated: noise and samples follow from the seed",
    ):
        assert words in said["claim"]
    assert json.loads(json.dumps(result.to_json()))["privacy"] == said
    assert (result.clients, result.data) == (None, None), "which tell of single clients"


def test_an_epsilon_is_never_rounded_down() -> None:

    one = ReleaseRecord("update", Release("gaussian", 2.0), 1.0, 1)
    claim = make_claim([one], delta=1e-5)
    assert claim is not None
    assert claim.epsilon == pytest.approx(1.9931, abs=1e-4)
    assert str(claim).startswith("(2.00, 1e-05)-differential privacy")
    assert "not amplified by sampling" in str(claim)
    assert "simulated" not in str(claim)
    assert make_claim([]) is None


def test_a_plan_says_what_the_run_will_come_to() -> None:
    ready = prepare_run(experiment(algorithm=by_hand(2.0), rounds=3))
    planned = plan_messages(ready).claim
    result = hanse.perform(experiment(algorithm=by_hand(2.0), rounds=3)).privacy
    assert planned is not None
    assert result is not None
    assert (planned.epsilon, planned.totals) == (result["epsilon"], 3)
    assert planned.to_json()["is_simulated"] is None
    assert str(planned) == result["claim"].replace("simulated: noise", "if it is simulated, noise")


def test_show_and_the_model_card_say_the_claim(tmp_path: Path) -> None:
    store = tmp_path / "runs.db"
    result = hanse.perform(experiment(algorithm=by_hand(2.0), rounds=2), store=store)
    assert result.privacy is not None
    runs, run = existing(store), str(result.run)
    info, records = runs.info(run), runs.records(run)
    claim = describe_claim(runs, info, records)
    assert claim == result.privacy["claim"]
    card = (hanse.release.release(runs, run, tmp_path / "out") / "README.md").read_text()
    assert f"**Privacy:** {claim}." in card
    told = CliRunner().invoke(app, ["show", run, "--store", str(store)])
    shown = " ".join(told.stdout.split())
    assert "not against the server, which sees single clipped updates" in shown
    running = describe_claim(runs, replace(info, result=None), records)
    assert running is not None
    assert running.startswith("so far, (")
    assert running.endswith("so whoever knows it can remove them")


def test_a_run_without_noise_claims_nothing() -> None:
    assert hanse.run(**{**DIGITS, "rounds": 1}).privacy is None


# -- budgets while running -----------------------------------------------------------------------


@value
class greedy(fed_avg):
    """Releases twice as much from its third round on as its first rounds show."""

    def round(self, state: Any, key: Any) -> Program[Any]:
        state = yield from super().round(state, key)
        if state.num_rounds > 2:
            state = yield from super().round(state, key.fold_in("more"))
        return state


GREEDY = greedy(**{f.name: getattr(by_hand(1.0), f.name) for f in fields(fed_avg)})


def test_a_run_stops_before_the_round_that_would_pass_its_budget(tmp_path: Path) -> None:
    fits = central(epsilon=compute_epsilon({(RATE, 1.0): 6}, 1e-3) + 1e-6, delta=1e-3)
    store = tmp_path / "runs.db"
    with pytest.raises(RunStalled, match="the budget of privacy is spent: epsilon is") as stopped:
        hanse.perform(experiment(algorithm=GREEDY, rounds=6, privacy=fits), store=store)
    result = stopped.value.result
    assert result.status == "stopped"
    assert "would be" in (result.reason or "")
    spent = compose(one for record in result.records for one in record.usage.releases)
    assert spent == {(RATE, 1.0): 6}, "two rounds of one total, and two of two"
    assert result.rounds == 4
    info = existing(store).info(result.run)
    assert info.status == "stopped"
    with pytest.raises(RunStalled, match="the budget of privacy is spent") as again:
        hanse.resume(result.run, store=store)
    assert again.value.result.rounds == 4, "what was spent before is counted"


def test_what_was_spent_before_is_counted() -> None:
    fits = central(epsilon=compute_epsilon({(RATE, 1.0): 4}, 1e-3), delta=1e-3)
    records = hanse.perform(experiment(algorithm=by_hand(1.0), rounds=4, privacy=fits)).records
    spending = Spending(fits)
    spending.recall(records)
    assert spending.epsilon == fits.epsilon
    spending.recall(records)
    assert spending.epsilon == fits.epsilon, "once"


def test_a_resumed_run_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    settings = {**DIGITS, "rounds": 4, "privacy": BUDGET, "algorithm": by_hand(2.0)}
    whole = hanse.run(**settings)
    store = tmp_path / "runs.db"
    begun = hanse.rounds(**settings, store=store)
    for done in begun:
        if done.record.round == 2:
            break
    run = begun.result.run
    ended = hanse.resume(run, store=store)
    assert ended.params_sha256 == whole.params_sha256
    assert ended.privacy == whole.privacy


def test_empty_rounds_release_noise() -> None:
    rare = by_hand(1.0, sampling_rate=0.001, into=fixed_mean(1.0))
    result = hanse.perform(experiment(algorithm=rare, rounds=5, privacy=None))
    empty = [record for record in result.records if record.round and not record.usage.counted]
    assert len(empty) >= 4
    assert all(len(record.usage.releases) == 1 and record.abandoned is None for record in empty)
    assert np.std(result.params["weights"]) > 1.0


# -- settings ------------------------------------------------------------------------------------


def test_settings_say_privacy_only_where_there_is_some() -> None:
    assert "privacy" not in hanse.Experiment().settings()
    said = experiment().settings()
    given = {"name": "central", "epsilon": 8.0, "delta": 1e-3, "max_norm": 1.0, "open": [], "mechanism": None}
    assert said["privacy"] == given
    assert hanse.Experiment.from_settings(said).privacy == BUDGET
    assert "central(8.0, delta=0.001)" in str(experiment())


def test_another_kind_of_value_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"privacy is of type float; write.*central\(epsilon=3.0\)"):
        hanse.Experiment(privacy=3.0)  # type: ignore[arg-type]
