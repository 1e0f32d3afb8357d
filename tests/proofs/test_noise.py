"""What noise needs of the core: secret cohorts, empty rounds, a bound for one client, and books that hold."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from noise import EVEN_EMPTY, normal_noise, private_avg
from scipy import stats
from secure import fixed_point, masked_sum
from support import KEYS, Crash, Few, Fragile, Quadratic, converse, program, simulate, simulation

from hanse.algorithms import uniform
from hanse.algorithms.works import local_sgd
from hanse.core import (
    Close,
    CompositionError,
    Contribution,
    Discount,
    Key,
    Keys,
    Memory,
    ModelState,
    Part,
    PartSpec,
    Program,
    Release,
    RoundAbandoned,
    Shared,
    Spec,
    Stage,
    Steps,
    Transform,
    Work,
    collect,
    dispatch,
    fixed_mean,
    gather,
    mean,
    reduce,
    sample,
    stack,
    value,
)
from hanse.core import sum as sum_
from hanse.core.exchange import (
    Coordinator,
    Dispatch,
    PartyMemory,
    ReleaseRecord,
    Sample,
    digest,
    drive,
)
from hanse.core.program import commit
from hanse.simulation import Devices, InProcess, Simulation, ideal, unstable
from hanse.transforms import clip, quantize, rotate

PARAMS = Quadratic().init(KEYS.public)
SPEC = Spec.of(PARAMS)
Z, BOUND, MAX_WEIGHT, DENOMINATOR = 0.8, 1.5, 2.0, 6.0
STD = Z * BOUND * MAX_WEIGHT / DENOMINATOR
NOISY = PartSpec(SPEC, (clip(BOUND), normal_noise(Z)), fixed_mean(DENOMINATOR), MAX_WEIGHT)
GAUSSIAN = Release("gaussian", Z)
WORK = local_sgd(Steps(0.02), uniform())
KEY = KEYS.public


def flat(values: Any) -> np.ndarray:
    return np.append(values["w"], values["b"])


class Absent(Devices):
    """Nobody answers."""

    def duration_s(self, party: Any, key: Any) -> float | None:
        return None


class Slow(Devices):
    """Everybody answers after 9 seconds."""

    def duration_s(self, party: Any, key: Any) -> float | None:
        return 9.0


@value
class anew(Transform):
    """Changes nothing, and forgets what it was given about the spec, except a bound of its own."""

    def __call__(self, spec: Spec) -> Stage:
        return Stage(Spec(spec.tensors, l2_bound=spec.l2_bound, moves=0.001))


@value
class send_two(Work[Any, Any]):
    """Two parts at once."""

    def run(
        self, learner: Any, shared: Shared, data: Any, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        return {"update": Part(PARAMS), "moments": Part(PARAMS)}, memory


def ask(cohort: Any, key: Any = KEY, close: Close = EVEN_EMPTY, **uplink: PartSpec) -> Any:
    return gather(WORK, cohort, {"params": PARAMS}, key, close=close, **uplink or {"update": NOISY})


def noises(rate: float, rounds: int, devices: Devices) -> np.ndarray:
    """The totals of so many rounds, less what they are without noise."""

    def asks() -> Any:
        drawn = []
        for number in range(rounds):
            cohort = (yield from sample(KEY.fold_in(number), rate=rate)).cohort
            noisy = yield from ask(cohort)
            exact = yield from ask(cohort, update=replace(NOISY, uplink=(clip(BOUND),)))
            drawn.append(flat(noisy["update"].values) - flat(exact["update"].values))
            yield from commit(number, None, {})
        return np.array(drawn)

    return np.array(drive(asks(), simulation(devices=devices)))


# -- empty rounds --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "devices"),
    [(1e-9, ideal()), (1.0, Absent()), (0.3, ideal())],
    ids=["nobody is drawn", "nobody answers", "some are drawn"],
)
def test_every_round_releases_noise_of_the_calibrated_size(rate: float, devices: Devices) -> None:
    drawn = noises(rate, 150, devices)
    num = drawn.size
    low, high = stats.chi2(num).ppf([1e-4, 1 - 1e-4])
    assert low < np.square(drawn / STD).sum() < high, "the variance, within what so many draws allow"
    assert stats.kstest(drawn.reshape(-1) / STD, "norm").pvalue > 1e-4
    neighbours = np.corrcoef(drawn[1:].reshape(-1), drawn[:-1].reshape(-1))[0, 1]
    assert abs(neighbours) < 4 / np.sqrt(num), "independent from round to round"
    assert len(np.unique(drawn)) == num


def test_a_deadline_that_nobody_meets_releases_noise() -> None:
    close = Close(deadline_s=1.0, minimum_fraction=0.0)
    got = drive(ask((0, 1, 2), close=close), simulation(devices=Slow()))
    assert (got.counted, got.parties, len(got.dropped)) == ((), (), 3)
    assert np.abs(flat(got["update"].values)).min() > 0


@pytest.mark.parametrize("into", [mean(), stack()])
def test_reducers_without_a_zero_abandon_an_empty_round(into: Any) -> None:
    with pytest.raises(RoundAbandoned, match="0 of 0 contributions were counted, 1 are needed"):
        drive(ask((), update=PartSpec(SPEC, into=sum_()), other=PartSpec(SPEC, into=into)), simulation())


def test_a_minimum_abandons_an_empty_round() -> None:
    runtime = simulation()
    with pytest.raises(RoundAbandoned):
        drive(ask((), close=Close(minimum_fraction=0.01)), runtime)
    assert runtime.coordinator.usage.releases == ()


@pytest.mark.parametrize("into", [sum_(), fixed_mean(4.0)])
def test_the_zero_is_the_total_of_no_weight(into: Any) -> None:
    def asks() -> Any:
        empty = yield from ask((), update=PartSpec(SPEC, into=into))
        full = yield from ask((1,), update=PartSpec(SPEC, into=into))
        return empty["update"], full["update"]

    zero, full = drive(asks(), simulation())
    assert (zero.weight, zero.count) == (0.0, 0)
    assert {n: (v.shape, v.dtype) for n, v in zero.values.items()} == {
        n: (v.shape, v.dtype) for n, v in full.values.items()
    }
    assert not flat(zero.values).any()


def test_a_dispatch_whose_answers_may_still_come_has_no_zero() -> None:
    """Its secret is that of the total of the others: both together would show what the noise hides."""

    def asks() -> Any:
        sent = yield from dispatch(WORK, (0, 1), {"params": PARAMS}, KEY, update=NOISY)
        none = yield from collect((), close=EVEN_EMPTY, dispatch=sent.dispatch)
        both = yield from collect(sent.tickets, close=EVEN_EMPTY, dispatch=sent.dispatch)
        again = yield from collect((), close=EVEN_EMPTY, dispatch=sent.dispatch)
        return none, both, again

    none, both, again = drive(asks(), simulation())
    assert none.abandoned
    assert again.abandoned
    assert both.abandoned is None
    assert none.totals == again.totals == {}


# -- how far one client moves a total ------------------------------------------------------------


@pytest.mark.parametrize(
    ("into", "max_weight", "moves"),
    [
        (sum_(), 1.0, 1.0),
        (sum_(), 5.0, 5.0),
        (fixed_mean(4.0), 1.0, 0.25),
        (fixed_mean(4.0), 5.0, 1.25),
        (mean(), 1.0, None),
        (stack(), 1.0, None),
        (masked_sum(), 1.0, None),
    ],
)
def test_a_reducer_says_how_far_one_client_moves_its_total(
    into: Any, max_weight: float, moves: float | None
) -> None:
    assert into.moves(max_weight) == moves
    ring = (fixed_point(),) if into == masked_sum() else ()
    chain = PartSpec(SPEC, ring, into, max_weight).chain()
    assert (chain.source.moves, chain.out.moves) == (moves, moves)


@pytest.mark.parametrize("into", [sum_(), fixed_mean(4.0)])
def test_no_client_moves_a_total_further(into: Any) -> None:
    """The largest move is reached: by a contribution of the largest norm and weight."""
    rng = np.random.default_rng(3)
    others = [Part({"w": rng.normal(size=3)}, rng.uniform(0, MAX_WEIGHT)) for _ in range(5)]
    for norm, weight in ((BOUND, MAX_WEIGHT), (BOUND, 0.5), (0.2, MAX_WEIGHT)):
        x = rng.normal(size=3)
        one = Part({"w": x * norm / np.linalg.norm(x)}, weight)
        moved = reduce(into, [*others, one]).values["w"] - reduce(into, others).values["w"]
        far, limit = np.linalg.norm(moved), BOUND * into.moves(MAX_WEIGHT)
        assert far <= limit * (1 + 1e-12)
        assert (far > limit * (1 - 1e-12)) == ((norm, weight) == (BOUND, MAX_WEIGHT))


def test_the_bound_passes_through_stages_that_make_new_specs() -> None:
    chain = PartSpec(SPEC, (clip(1.0), rotate(), anew(), normal_noise(Z)), sum_(), 3.0).chain()
    assert [stage.out.moves for stage in chain.stages] == [3.0] * 4
    assert chain.stages[-1].out.sealed
    assert PartSpec(SPEC.like(moves=0.001), (), sum_(), 3.0).chain().out.moves == 3.0, "no sender sets it"


@pytest.mark.parametrize(
    ("uplink", "into"),
    [
        ((clip(1.0), normal_noise(Z)), mean()),
        ((clip(1.0), normal_noise(Z)), stack()),
        ((clip(1.0), normal_noise(Z)), masked_sum()),
        ((normal_noise(Z),), fixed_mean(4.0)),
        ((normal_noise(Z), clip(1.0)), fixed_mean(4.0)),
        ((clip(1.0), quantize(2), normal_noise(Z)), fixed_mean(4.0)),
    ],
)
def test_noise_refuses_what_has_no_bound(uplink: Any, into: Any) -> None:
    with pytest.raises(CompositionError):
        PartSpec(SPEC, uplink, into, 1.0).chain()


def test_nothing_follows_calibrated_noise() -> None:
    with pytest.raises(CompositionError, match="move it before the noise"):
        PartSpec(SPEC, (clip(1.0), normal_noise(Z), quantize(2)), fixed_mean(4.0)).chain()


@pytest.mark.parametrize(("close", "discount"), [(Close(goal=2), None), (Close(), Discount())])
def test_answers_that_keep_others_out_are_refused(close: Close, discount: Any) -> None:
    def asks(part_spec: PartSpec) -> Any:
        sent = yield from dispatch(WORK, (0, 1, 2), {"params": PARAMS}, KEY, update=part_spec)
        yield from collect(sent.tickets, close=close, discount=discount, dispatch=sent.dispatch)

    with pytest.raises(CompositionError, match="adds noise for what one client can move"):
        drive(asks(NOISY), simulation())
    drive(asks(replace(NOISY, uplink=(clip(BOUND),))), simulation())


# -- Poisson samples -----------------------------------------------------------------------------


def draw(coordinator: Coordinator, rate: float, key: Any = KEY) -> tuple[Any, ...]:
    return coordinator.sample(Sample(key, rate=rate)).cohort


def test_cohorts_have_binomial_sizes_and_never_repeat() -> None:
    coordinator, draws = Coordinator(40, KEYS.secret), 3000
    cohorts = [draw(coordinator, 0.2) for _ in range(draws)]
    sizes = np.bincount([len(cohort) for cohort in cohorts], minlength=41)
    due = stats.binom.pmf(np.arange(41), 40, 0.2) * draws
    common = due > 5
    observed, due = np.append(sizes[common], sizes[~common].sum()), np.append(due[common], due[~common].sum())
    assert stats.chisquare(observed, due).pvalue > 1e-3
    assert len(set(cohorts)) > draws - 20, "the same command is drawn anew each time"


def test_a_cohort_is_secret_and_belongs_to_its_command() -> None:
    def first(secret: Any, key: Any) -> tuple[Any, ...]:
        return draw(Coordinator(1000, secret), 0.5, key)

    assert first(KEYS.secret, KEY) == first(KEYS.secret, KEY)
    others = [first(KEYS.secret.fold_in(n), KEY) for n in range(20)]
    others += [first(KEYS.secret, KEY.fold_in(n)) for n in range(20)]
    here = set(first(KEYS.secret, KEY))
    for other in others:  # independent ones share a quarter of all
        assert stats.binomtest(len(here & set(other)), 1000, 0.25).pvalue > 1e-5
    public = Coordinator(1000, KEYS.secret.fold_in(1)).sample(Sample(KEY, count=500)).cohort
    assert public == Coordinator(1000, KEYS.secret).sample(Sample(KEY, count=500)).cohort


def test_a_million_clients_that_are_not_drawn_cost_nothing() -> None:
    cohort = draw(Coordinator(10**9, KEYS.secret), 1e-8)
    assert 0 < len(cohort) < 40
    assert list(cohort) == sorted(set(cohort))


def test_busy_and_absent_clients_are_left_out_and_not_replaced() -> None:
    def cohort(busy: tuple[int, ...] = (), away: frozenset[int] = frozenset()) -> tuple[Any, ...]:
        coordinator = Coordinator(50, KEYS.secret)
        coordinator.dispatch(Dispatch(WORK, busy, {}, {}, KEY))  # takes one number, for one or for none
        return coordinator.sample(Sample(KEY, rate=0.4), away).cohort

    drawn = cohort()
    assert cohort(drawn[2:3]) == drawn[:2] + drawn[3:]
    assert cohort(away=frozenset({drawn[5]})) == drawn[:5] + drawn[6:]


def test_an_empty_sample_is_no_reason_to_abandon() -> None:
    sampled = drive(sample(KEY, rate=1e-9), simulation())
    assert (sampled.cohort, sampled.num_clients) == ((), Few().num_clients)


# -- runs ----------------------------------------------------------------------------------------


def keep(algorithm: Any, rounds: int, store: Any = None, devices: Any = None) -> tuple[str, list[Any]]:
    records: list[Any] = []
    given = {} if devices is None else {"devices": devices}
    state = simulate(algorithm, rounds, store=store, watch=records.append, **given)
    return digest(state), records


def test_a_run_books_each_round_once_and_some_are_empty() -> None:
    _, records = keep(private_avg(), 30)
    assert 0 < sum(record.usage.counted == 0 for record in records) < 15
    assert all(record.abandoned is None for record in records)
    booked = [release for record in records for release in record.usage.releases]
    assert booked == [ReleaseRecord("update", Release("gaussian", 0.5), 0.3, at.sample) for at in booked]
    assert len({at.sample for at in booked}) == len(records) == len(booked)


def test_a_run_resumed_at_a_boundary_draws_and_books_the_same() -> None:
    whole, records = keep(private_avg(), 6)
    store = Fragile()
    _, first = keep(private_avg(), 3, store)
    ended, rest = keep(private_avg(), 6, Fragile.load(store.dump()))
    assert ended == whole
    assert [r.usage for r in first + rest] == [r.usage for r in records]


def test_a_cut_round_books_once() -> None:
    _, records = keep(private_avg(), 2)
    writes = Fragile()
    keep(private_avg(), 2, writes)
    for at in range(1, writes.num_writes + 1):
        store = Fragile(at)
        with pytest.raises(Crash):
            keep(private_avg(), 2, store)
        found = Fragile.load(store.dump())
        known = found.checkpoint()
        _, rest = keep(private_avg(), 2, found)
        begun = 0 if known is None else known.round
        assert [r.usage for r in rest] == [r.usage for r in records[begun:]], f"cut at write {at}"


def booked(asks: Callable[[], Any]) -> tuple[ReleaseRecord, ...]:
    """What a program's exchanges release, though it never commits."""
    runtime = simulation()
    drive(asks(), runtime)
    releases: tuple[ReleaseRecord, ...] = runtime.coordinator.usage.releases
    return releases


def test_releases_from_one_sample_name_it() -> None:
    def asks() -> Any:
        for _ in range(2):
            cohort = (yield from sample(KEY, rate=0.5)).cohort
            yield from gather(send_two(), cohort, {}, KEY, close=EVEN_EMPTY, update=NOISY, moments=NOISY)
            yield from ask(cohort)

    first, *others = booked(asks)
    assert first == ReleaseRecord("update", GAUSSIAN, 0.5, first.sample)
    assert others[:2] == [replace(first, part="moments"), first]
    later = others[2].sample
    assert later != first.sample
    assert others[2:] == [replace(at, sample=later) for at in (first, *others[:2])]


@pytest.mark.parametrize("given", [{"fraction": 0.5}, {"count": 6}])
def test_other_samples_amplify_nothing(given: Any) -> None:
    def asks() -> Any:
        yield from ask((yield from sample(KEY, **given)).cohort)

    (only,) = booked(asks)
    assert only.sampling == 1.0


def test_a_cohort_that_the_program_chose_amplifies_nothing() -> None:
    def asks() -> Any:
        cohort: Any = ()
        while len(cohort) < 4:  # as a program would do that can't bear small cohorts
            cohort = (yield from sample(KEY, rate=0.5)).cohort
        yield from ask(cohort)
        yield from ask(cohort[:-1])
        yield from ask(tuple(range(6)))
        yield from ask((yield from sample(KEY, rate=0.5)).cohort)

    assert [at.sampling for at in booked(asks)] == [1.0, 1.0, 1.0, 0.5]


def test_all_clients_are_no_sample_even_if_all_were_drawn() -> None:
    def asks() -> Any:
        yield from ask((yield from sample(KEY, rate=1 - 1e-9)).cohort)
        yield from ask(tuple(range(6)))

    assert [at.sampling for at in booked(asks)] == [1 - 1e-9, 1.0]


class two_exchanges(private_avg):
    """The second exchange is abandoned if anybody is missing."""

    def round(self, state: ModelState, key: Key) -> Program[ModelState]:
        cohort = (yield from sample(key, rate=0.9)).cohort
        yield from ask(cohort, key)
        yield from ask(cohort, key, Close(minimum_fraction=1.0), update=PartSpec(SPEC))
        return state


def test_an_abandoned_round_books_what_it_released_before() -> None:
    _, records = keep(two_exchanges(), 20, devices=unstable(0.2))
    assert 2 < sum(record.abandoned is not None for record in records) < 20
    assert [len(record.usage.releases) for record in records] == [1] * 20
    assert len({record.usage.releases[0].sample for record in records}) == 20


@pytest.mark.parametrize("rate", [0.9, 1e-9], ids=["somebody", "nobody"])
def test_nobody_waits_for_clients_of_a_poisson_sample(rate: float) -> None:
    patient = private_avg(rate=rate, close=Close(minimum_fraction=0.0, wait_s=5.0))
    with pytest.raises(CompositionError, match=r"Poisson sample.*wait_s=5 waits.*sample by count"):
        keep(patient, 1)

    def by_count(key: Key) -> Program[Any]:
        cohort = (yield from sample(key, count=6)).cohort
        return (yield from ask(cohort, key, Close(wait_s=5.0), update=PartSpec(SPEC)))

    assert len(drive(by_count(KEY), simulation(devices=unstable(0.5))).counted) == 6


def test_an_abandoned_round_that_released_nothing_books_nothing() -> None:
    strict = private_avg(rate=1.0, close=Close(minimum_fraction=1.0))
    _, records = keep(strict, 12, devices=unstable(0.2))
    assert 0 < sum(record.abandoned is not None for record in records) < 12
    assert [len(r.usage.releases) for r in records] == [int(r.abandoned is None) for r in records]


class abandoned(private_avg):
    """The same clients are asked the same each time, so that only the noise can differ."""

    totals: list[np.ndarray] = []  # noqa: RUF012

    def round(self, state: ModelState, key: Key) -> Program[ModelState]:
        got = yield from ask((0, 1, 2))
        self.totals.append(flat(got["update"].values))
        raise RoundAbandoned("for the test")


def test_an_abandoned_round_does_not_lend_its_noise_to_the_next() -> None:
    abandoned.totals.clear()
    keep(abandoned(), 40)
    totals = np.array(abandoned.totals)
    assert len(np.unique(totals)) == totals.size == 160
    assert 0.7 * STD < (totals - totals.mean(axis=0)).std() < 1.3 * STD


def test_both_runtimes_draw_the_same_noise() -> None:
    assert digest(converse(private_avg(), 8)) == keep(private_avg(), 8)[0]


def test_blocks_release_the_same_noise() -> None:
    ended = []
    for in_blocks in (True, False):
        backend = InProcess(Quadratic(), Few(), KEYS)
        runtime = Simulation(backend, 6, KEYS, memory=PartyMemory(), in_blocks=in_blocks)
        ended.append(digest(drive(program(private_avg(), 8), runtime).state))
    assert ended[0] == ended[1]


def test_another_secret_gives_other_noise_and_cohorts() -> None:
    backend = InProcess(Quadratic(), Few(), KEYS)
    runtime = Simulation(backend, 6, Keys(KEYS.public, KEYS.secret.fold_in("other")))
    assert digest(drive(program(private_avg(), 2), runtime).state) != keep(private_avg(), 2)[0]
