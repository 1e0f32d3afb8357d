"""Correlated noise: its sensitivity by brute force, its sums, its books, and clients that rest for it."""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hanse
from hanse.algorithms import fed_adam, fed_avg, scaffold, uniform
from hanse.core import (
    Close,
    CompositionError,
    InvalidInput,
    Key,
    PartSpec,
    Program,
    Spec,
    Total,
    fixed_mean,
    value,
)
from hanse.data import digits, iid
from hanse.privacy import (
    CorrelatedNoise,
    adaptive_clip,
    banded,
    central,
    compose,
    compute_epsilon,
    make_claim,
    read_books,
    tree,
)
from hanse.runs import RunStalled, prepare_run
from hanse.transforms import clip

SHAPES = {"bias": (3,), "weights": (50, 40)}
SPEC = Spec.of({name: np.zeros(shape) for name, shape in SHAPES.items()})
SIZE = 2003
SETTINGS: dict[str, Any] = {"data": digits(), "partition": iid(60), "evaluate_every": 50, "seed": 3}


def draw_increments(noise: CorrelatedNoise, rounds: int) -> np.ndarray:
    """The noise of each round, from a stage that sees totals of zeros."""
    chain = PartSpec(SPEC, (clip(1.0), noise), fixed_mean(1.0), max_weight=1.0).chain()
    states, found = chain.init(), []
    for number in range(rounds):
        zeros = Total({name: np.zeros(shape) for name, shape in SHAPES.items()}, 1.0, 1)
        total, states = chain.decode(states, (None, None), zeros, Key.from_seed(number))
        found.append(np.concatenate([total.values[name].ravel() for name in sorted(SHAPES)]))
    return np.array(found)


def read_matrix(noise: CorrelatedNoise, rounds: int) -> np.ndarray:
    """C⁻¹, read from what the stage does with the independent draws of its rounds."""
    fresh = draw_increments(banded(1.0, num_bands=1, separation=rounds), rounds)
    return np.linalg.lstsq(fresh.T, draw_increments(noise, rounds).T, rcond=None)[0].T


def list_patterns(rounds: int, separation: int, *, of_trees: bool = False) -> Iterator[tuple[int, ...]]:
    """All sets of rounds in which a client may take part: apart, or once in each tree."""
    for size in range(1, rounds + 1):
        for pattern in combinations(range(rounds), size):
            if of_trees:
                allowed = len({at // separation for at in pattern}) == size
            else:
                allowed = all(b - a >= separation for a, b in pairwise(pattern))
            if allowed:
                yield pattern


@pytest.mark.parametrize(
    ("noise", "rounds"),
    [
        (tree(1.0, 11), 11),
        (tree(1.0, 8), 8),
        (tree(1.0, 4), 11),
        (tree(1.0, 3), 7),
        (banded(1.0, 3, 3), 11),
        (banded(1.0, 5, 2), 11),
        (banded(1.0, 2, 4), 10),
        (banded(1.0, 8, 11), 11),
        (banded(1.0, 1, 1), 6),
    ],
    ids=str,
)
def test_the_sensitivity_is_the_largest_of_all_participations(noise: CorrelatedNoise, rounds: int) -> None:
    """From the matrix that the noise really has, over every allowed pattern, in the worst directions."""
    strategy = np.linalg.inv(read_matrix(noise, rounds))
    assert strategy == pytest.approx(np.tril(strategy), abs=1e-6)
    gram = np.abs(strategy.T @ strategy)  # opposite directions can't add up to more
    of_trees = isinstance(noise, tree)
    worst = max(
        gram[np.ix_(pattern, pattern)].sum()
        for pattern in list_patterns(rounds, noise.separation or rounds, of_trees=of_trees)
    )
    assert noise.measure_sensitivity(rounds) == pytest.approx(math.sqrt(worst), rel=1e-5)
    for fewer in range(1, rounds):
        assert noise.measure_sensitivity(fewer) <= noise.measure_sensitivity(rounds)


def test_the_sum_of_t_totals_carries_as_many_nodes_as_t_has_ones() -> None:
    sums = draw_increments(tree(2.0, 16), 16).cumsum(axis=0)
    for t in range(1, 17):
        std = 2.0 * math.sqrt(t.bit_count())
        assert np.std(sums[t - 1]) == pytest.approx(std, rel=5 / math.sqrt(2 * SIZE)), t


def test_a_new_tree_leaves_the_last_sum_of_the_old_one() -> None:
    sums = draw_increments(tree(1.0, 5), 10).cumsum(axis=0)
    variances = [1, 1, 2, 1, 2, 3, 3, 4, 3, 4]
    assert np.var(sums, axis=1) == pytest.approx(variances, rel=5 * math.sqrt(2 / SIZE))


def measure_error(noise: CorrelatedNoise, rounds: int) -> float:
    """The root of the mean variance of the sums, at one noise multiplier of the whole sequence."""
    sums = np.tril(np.ones((rounds, rounds))) @ read_matrix(noise, rounds)
    return noise.measure_sensitivity(rounds) * math.sqrt(np.square(sums).sum() / rounds)


def test_banded_noise_disturbs_the_sums_less_than_a_tree() -> None:
    for separation in (16, 64):
        of_tree = measure_error(tree(1.0, separation), 64)
        assert measure_error(banded(1.0, 8, separation), 64) < 0.8 * of_tree


@pytest.mark.parametrize(
    ("rounds", "z", "epsilon"), [(1600, 7, 2.0404), (1000, 6, 2.2961), (2048, 4, 4.0113)]
)
def test_epsilons_of_trees(rounds: int, z: float, epsilon: float) -> None:
    spent = {(1.0, z / tree(z, rounds).measure_sensitivity(rounds)): 1}
    assert round(compute_epsilon(spent, 1e-5), 4) == epsilon


# -- runs ----------------------------------------------------------------------------------------


def experiment(
    mechanism: CorrelatedNoise, rounds: int = 6, epsilon: float = 8.0, **given: Any
) -> hanse.Experiment:
    privacy = central(epsilon=epsilon, delta=1e-3, mechanism=mechanism)
    return hanse.Experiment(
        **{**SETTINGS, "algorithm": fed_avg(0.5, 0.1), "rounds": rounds, "privacy": privacy, **given}
    )


@pytest.mark.parametrize(
    "mechanism", [tree(), tree(restart_every=3), banded(num_bands=3, separation=4)], ids=str
)
def test_a_budget_chooses_the_smallest_noise_and_the_books_come_to_it(mechanism: CorrelatedNoise) -> None:
    planned = experiment(mechanism)
    made: Any = prepare_run(planned).experiment.algorithm
    noise = made.uplink[1]
    assert (made.separation, made.fraction, made.into) == (noise.separation, 0.1, fixed_mean(6.0))
    sensitivity = noise.measure_sensitivity(6)
    z = noise.noise_multiplier
    assert compute_epsilon({(1.0, z / sensitivity): 1}, 1e-3) <= 8.0
    assert compute_epsilon({(1.0, (z - 1e-4) / sensitivity): 1}, 1e-3) > 8.0
    result = hanse.perform(planned)
    said = result.privacy
    assert said is not None
    assert said["epsilon"] == compute_epsilon({(1.0, z / sensitivity): 1}, 1e-3, "pld")
    assert (said["totals"], said["rates"], said["separation"]) == (6, [], noise.separation)
    assert f"at most once in any {noise.separation} rounds in a row" in said["claim"]
    assert "not amplified by sampling" in said["claim"]


@value
class watched_avg(fed_avg):
    """Keeps who took part."""

    def round(self, state: Any, key: Key) -> Program[Any]:
        after = yield from super().round(state, key)
        self.seen.append({p for p, last in after.last_rounds.items() if last == state.num_rounds})
        return after

    seen = list[set[int]]()  # noqa: RUF012


def test_clients_rest_between_their_rounds_also_in_a_run_that_is_resumed(tmp_path: Path) -> None:
    watched_avg.seen.clear()
    settings = {
        f: getattr(experiment(tree(restart_every=5), 10), f) for f in ("data", "partition", "privacy")
    }
    settings |= {"algorithm": watched_avg(0.5, 0.2), "rounds": 10, "evaluate_every": 50}
    whole = hanse.run(**settings)
    undisturbed = list(watched_avg.seen)
    assert [len(here) for here in undisturbed] == [12] * 10
    for number, here in enumerate(undisturbed):
        assert all(not here & earlier for earlier in undisturbed[max(0, number - 4) : number])
    watched_avg.seen.clear()
    store = tmp_path / "runs.db"
    begun = hanse.rounds(**settings, store=store)
    for done in begun:
        if done.record.round == 6:
            break
    ended = hanse.resume(begun.result.run, store=store)
    assert watched_avg.seen == undisturbed
    assert (ended.params_sha256, ended.privacy) == (whole.params_sha256, whole.privacy)


@value
class impatient(fed_avg):
    """Performs its second round again, from the state before it: with clients that should rest."""

    def round(self, state: Any, key: Key) -> Program[Any]:
        after = yield from super().round(state, key)
        if state.num_rounds == 1:
            yield from super().round(state, key)
        return after


def test_a_program_that_asks_clients_too_early_is_stopped() -> None:
    with pytest.raises(CompositionError, match=r"client .* took part 1 rounds ago.* rest for 6"):
        hanse.perform(experiment(tree(), algorithm=impatient(0.5, 0.1)))


def by_hand(noise: CorrelatedNoise, **changes: Any) -> fed_avg:
    given: dict[str, Any] = {
        "weighting": uniform(),
        "close": Close(minimum_fraction=0.0),
        "uplink": (clip(1.0), noise),
        "into": fixed_mean(6.0),
        **changes,
    }
    return fed_avg(0.5, 0.1, **given)


@pytest.mark.parametrize(
    ("algorithm", "remedy"),
    [
        (by_hand(tree(1.0, 4)), r"take part once in 4 rounds.*write separation = 4"),
        (by_hand(tree(1.0, 4), separation=3), "write separation = 4"),
        (by_hand(tree(), separation=4), "leaves settings open"),
        (by_hand(tree(1.0, 4), separation=4, into=fed_avg().into), "write into=fixed_mean"),
        (by_hand(tree(1.0, 4), separation=4, uplink=(tree(1.0, 4),)), "put clip"),
    ],
)
def test_noise_whose_clients_nobody_lets_rest_is_refused(algorithm: Any, remedy: str) -> None:
    """Without any budget, too."""
    with pytest.raises(CompositionError, match=remedy):
        prepare_run(hanse.Experiment(**SETTINGS, algorithm=algorithm, rounds=2))


@pytest.mark.parametrize(
    ("mechanism", "algorithm", "remedy"),
    [
        (tree(), fed_avg(0.5, 0.2), r"asks 12 of 60 clients.*write fraction = 0\.1667 or less"),
        (tree(restart_every=61), fed_avg(0.5, 0.01), "they do not suffice; write a mechanism"),
        (tree(), fed_avg(0.5, sampling_rate=0.1), "write fraction"),
        (tree(), scaffold(0.5), "write fed_avg, fed_prox"),
    ],
)
def test_what_a_mechanism_can_not_keep_is_refused(mechanism: Any, algorithm: Any, remedy: str) -> None:
    with pytest.raises(CompositionError, match=remedy):
        prepare_run(experiment(mechanism, algorithm=algorithm))


def test_settings_that_contradict_are_refused() -> None:
    with pytest.raises(InvalidInput, match="leave noise_multiplier out"):
        central(epsilon=1.0, mechanism=tree(3.0))
    with pytest.raises(InvalidInput, match=r"separation is 3 and sampling_rate is 0\.1; write one"):
        fed_avg(sampling_rate=0.1, separation=3)


def test_a_longer_run_stops_at_its_budget() -> None:
    planned = experiment(tree(restart_every=3), 3)
    algorithm = prepare_run(planned).experiment.algorithm
    with pytest.raises(InvalidInput, match="6 rounds would spend epsilon"):
        prepare_run(replace(planned, algorithm=algorithm, rounds=6))
    ready = prepare_run(planned)
    with pytest.raises(RunStalled, match="the budget of privacy is spent"):
        hanse.perform(replace(planned, algorithm=twice(**vars(ready.experiment.algorithm))))


@value
class twice(fed_avg):
    """Performs two rounds in each after the first."""

    def round(self, state: Any, key: Key) -> Program[Any]:
        state = yield from super().round(state, key)
        if state.num_rounds > 1:
            state = yield from super().round(state, key.fold_in("more"))
        return state


def test_totals_of_abandoned_rounds_are_no_known_epsilon() -> None:
    records = hanse.perform(experiment(tree(), 2)).records
    seen = [replace(record, abandoned="for the test") for record in records]
    claim = make_claim(read_books(seen))
    assert claim is not None
    assert claim.epsilon is None
    assert "'tree of an abandoned round'" in str(claim)
    assert len(compose(read_books(records))) == 1


def test_a_settings_file_names_a_mechanism_and_other_algorithms_take_it(tmp_path: Path) -> None:
    settings = tmp_path / "private.toml"
    settings.write_text(
        """rounds = 4
        partition = { name = "iid", num_clients = 40 }
        algorithm = { name = "fed_adam", lr = 0.5, fraction = 0.1 }
        [privacy]
        name = "central"
        epsilon = 8.0
        delta = 1e-3
        max_norm = { name = "adaptive_clip", initial = 0.5 }
        mechanism = { name = "banded", num_bands = 2, separation = 3 }
        """
    )
    made = prepare_run(hanse.read(settings)).experiment.algorithm
    assert isinstance(made, fed_adam)
    assert made.uplink[0] == adaptive_clip(0.5)
    assert made.uplink[1] == replace(banded(None, 2, 3), noise_multiplier=made.uplink[1].noise_multiplier)
    result = hanse.perform(hanse.read(settings))
    assert result.privacy is not None
    assert result.privacy["epsilon"] < 8.0
