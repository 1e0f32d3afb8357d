"""Skellam noise in shares: the bound of the paper beside sums over the distribution itself."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from support import KEYS

from hanse.core import (
    CompositionError,
    InvalidInput,
    Key,
    Keys,
    Part,
    PartSpec,
    Release,
    Spec,
    Total,
    fixed_mean,
)
from hanse.core.exchange import ReleaseRecord
from hanse.privacy import compose, compute_epsilon, encrypted_sum, gaussian, make_claim, skellam
from hanse.privacy.secure_sums import secure_sum
from hanse.privacy.skellam_noise import (
    _draw_poisson,
    _log_poisson,
    bound_divergence,
    bound_norms,
    draw_skellam,
    round_within,
)
from hanse.transforms import clip, rotate

SPEC = Spec.of({"w": np.zeros((5, 4), np.float32), "b": np.zeros(3)})
CHAIN = (clip(1.0), rotate(), skellam(2.0, honest=3, denominator=4.0))


def measure_divergence(order: int, variance: float, shift: int, mixed: float = 0.0) -> float:
    """Sums the Rényi divergence of Skellam noise, moved by `shift` (or by one less, with chance `mixed`)."""
    width = int(14 * math.sqrt(variance)) + order * shift + 60
    k = np.arange(-width, width + 1)
    half = variance / 2
    moved = stats.skellam.logpmf(k - shift, half, half)
    if mixed:
        less = stats.skellam.logpmf(k - shift + 1, half, half)
        moved = np.logaddexp(moved + math.log1p(-mixed), less + math.log(mixed))
    still = stats.skellam.logpmf(k, half, half)
    known = np.isfinite(moved) & np.isfinite(still)
    terms = order * moved[known] + (1 - order) * still[known]
    return float(np.logaddexp.reduce(terms)) / (order - 1)


@pytest.mark.parametrize("variance", [4.0, 25.0, 400.0, 10_000.0])
@pytest.mark.parametrize("shift", [1, 3])
def test_the_bound_of_the_paper_holds_and_is_close(variance: float, shift: int) -> None:
    for order in (2, 3, 8, 20):
        measured = measure_divergence(order, variance, shift)
        bound = bound_divergence(order, variance, shift, shift)
        assert measured <= bound
        if variance >= 400:
            assert bound <= 1.02 * measured  # a bound of twice the size would not be noticed otherwise
            assert measured == pytest.approx(order * shift**2 / (2 * variance), rel=0.01)


def test_rounding_at_random_reveals_no_more_than_the_longest_rounding() -> None:
    """The mixture of two roundings is within the bound of the longer one, as the paper argues."""
    for chance in (0.1, 0.5, 0.9):
        for order in (2, 8):
            assert measure_divergence(order, 50.0, 4, chance) <= bound_divergence(order, 50.0, 4, 4)
            assert measure_divergence(order, 50.0, 4, chance) > bound_divergence(order, 50.0, 3, 3)


def test_epsilon_is_close_to_that_of_the_exact_distribution_and_never_below() -> None:
    """An independent accountant: the exact loss distribution of one coordinate, convolved."""
    variance, shift, times, delta = 900.0, 10, 20, 1e-5
    z = math.sqrt(variance) / shift
    record = ReleaseRecord("w", Release("skellam", z, {"norm": 10.0, "norm_1": 10.0, "honest": 3.0}), 0.1, 1)
    spent = compose([replace(record, sample=i) for i in range(times)])
    assert dict(spent) == {(1.0, z, 10.0, 10.0): times}
    found = compute_epsilon(spent, delta)
    assert compute_epsilon(spent, delta, "pld") == found  # there is no other
    k = np.arange(-700, 701)
    moved = stats.skellam.logpmf(k - shift, variance / 2, variance / 2)
    still = stats.skellam.logpmf(k, variance / 2, variance / 2)
    step = 1e-3
    loss = np.ceil((moved - still) / step).astype(int)  # rounded up: no epsilon below the true one
    table = np.bincount(loss - loss.min(), np.exp(moved))
    length = times * len(table)
    whole = np.fft.irfft(np.fft.rfft(table, length) ** times, length)
    losses = (times * int(loss.min()) + np.arange(length)) * step

    def exceed(epsilon: float) -> float:
        above = losses > epsilon
        return float(whole[above] @ -np.expm1(epsilon - losses[above]))

    assert exceed(found) <= delta
    assert exceed(0.85 * found) > delta  # Rényi divergences lose about a tenth
    gauss = compute_epsilon({(1.0, z): times}, delta, "rdp")
    assert gauss <= found <= 1.02 * gauss
    both = compute_epsilon({**spent, (1.0, 3.0): 2, (0.1, 3.0): 5}, delta)
    assert found < both < found + compute_epsilon({(1.0, 3.0): 7}, delta)


def test_samples_with_noise_of_clients_amplify_nothing() -> None:
    of_clients = Release("skellam", 2.0, {"norm": 10.0, "norm_1": 10.0, "honest": 3.0})
    records = [ReleaseRecord("a", of_clients, 0.1, 1), ReleaseRecord("b", of_clients, 0.1, 1)]
    assert dict(compose(records)) == {(1.0, 2.0, 10.0, 10.0): 2}
    claim = make_claim(records, beside=["metrics"])
    assert claim is not None
    assert claim.accountant == "rdp"
    assert claim.rates == ()
    for words in (
        "one client, against the same client with an update of zeros",
        "the server among them",
        "if fewer than 3 of the clients in a total",
        "without a roster one that is not honest but curious",
        "works with the key holder or with a client",
        "not amplified by sampling, because the server knows who took part",
        "beside it un-noised: metrics",
    ):
        assert words in str(claim)


@pytest.mark.parametrize("mean", [0.4, 5.0, 16.0, 200.0, 1e6])
def test_draws_have_the_probabilities_of_the_distribution(mean: float) -> None:
    drawn = _draw_poisson(mean, 100_000, Key.from_seed(3))
    edges = np.unique(stats.poisson.ppf(np.linspace(0.02, 0.98, 40), mean))
    expected = np.diff(np.r_[0, stats.poisson.cdf(edges, mean), 1])
    counts = np.histogram(drawn, np.r_[-1, edges + 0.5, np.inf])[0]
    assert stats.chisquare(counts, expected * len(drawn)).pvalue > 0.001
    k = np.unique(stats.poisson.ppf(np.linspace(1e-9, 1 - 1e-9, 200), mean))
    np.testing.assert_allclose(_log_poisson(k, mean), stats.poisson.logpmf(k, mean), atol=1e-8)


def test_noise_is_symmetric_of_its_variance_and_secret() -> None:
    drawn = draw_skellam(50.0, 100_000, Key.from_seed(1))
    assert abs(drawn.mean()) < 0.1
    assert drawn.var() == pytest.approx(50.0, rel=0.02)
    assert stats.skew(drawn) == pytest.approx(0.0, abs=0.03)
    assert not np.array_equal(drawn, draw_skellam(50.0, 100_000, Key.from_seed(2)))
    np.testing.assert_array_equal(drawn, draw_skellam(50.0, 100_000, Key.from_seed(1)))


def test_rounding_is_unbiased_and_never_longer_than_its_bound() -> None:
    values = np.linspace(-3.0, 3.0, 41)
    norm = bound_norms(float(np.linalg.norm(values)), values.size)[0]
    rounded = [round_within(values, norm, Key.from_seed(i)) for i in range(3000)]
    assert max(float(np.linalg.norm(one)) for one in rounded) <= norm
    assert np.abs(np.mean(rounded, 0) - values).max() < 0.06
    exact = np.array([3.0, -4.0])
    assert round_within(exact, 5.0, Key.from_seed(0)).tolist() == [3, -4]
    tight = [round_within(np.full(100, 0.5), 7.0, Key.from_seed(i)).sum() for i in range(20)]
    assert max(tight) == 49  # without conditions half of them are 50 or more
    with pytest.raises(InvalidInput, match=r"of norm 50 can't be rounded to one of at most 5"):
        round_within(np.full(100, 5.0), 5.0, Key.from_seed(0))


def test_norms_are_those_of_the_papers_formula() -> None:
    steps, size = 100, 10_000
    squared = 100**2 + 2500 + 1.0 * (100 + 50)  # sqrt(2 log(1 / exp(-1/2))) is 1
    assert bound_norms(steps, size) == (math.sqrt(squared), 100 * math.sqrt(squared))
    assert bound_norms(3, 1) == (math.sqrt(12), math.sqrt(12))  # 3**2 + 1/4 + 3.5, rounded down
    assert bound_norms(1, 4)[1] == 4.0  # not more than the squared norm: 1 + 1 + 1 * (1 + 1)


def test_a_sum_has_the_noise_of_all_and_is_the_mean_without_it() -> None:
    part_spec = PartSpec(SPEC, CHAIN, encrypted_sum(3))
    chain = part_spec.chain()
    plans = chain.plan(chain.init(), KEYS.public)
    draws = np.random.default_rng(0)
    parts = [
        Part({"w": draws.normal(size=(5, 4)).astype(np.float32) * 0.05, "b": draws.normal(size=3) * 0.05})
        for _ in range(4)
    ]
    off = []
    for trial in range(60):
        sent = [
            chain.encode(plans, part, {}, Keys.from_seed(100 * trial + i))[0] for i, part in enumerate(parts)
        ]
        assert {v.dtype.name for one in sent for v in one.values.values()} == {"uint32"}
        values = {name: np.sum([one.values[name] for one in sent], 0, np.uint32) for name in ("w", "b")}
        total, _ = chain.decode(chain.init(), plans, Total(values, 4.0, 4), Key.from_seed(0))
        assert total.values["w"].dtype == np.float32
        off += [(total.values[n] - np.mean([p.values[n] for p in parts], 0)).reshape(-1) for n in ("w", "b")]
    noise = np.concatenate(off)
    # three honest clients have 2 times the norm together, and four have sqrt(4/3) times as much
    assert noise.std() == pytest.approx(2.0 / 4.0 * math.sqrt(4 / 3), rel=0.05)
    assert abs(noise.mean()) < 0.05
    (release,) = chain.releases
    norm, norm_1 = bound_norms(1024, 23)
    assert release == Release("skellam", 2.0, {"norm": norm, "norm_1": norm_1, "honest": 3.0})


@pytest.mark.parametrize(
    ("uplink", "into", "why"),
    [
        ((skellam(1.0, 3),), encrypted_sum(3), "must know a bound on each message"),
        ((clip(1.0), skellam(1.0, 4)), encrypted_sum(3), "noise of 4 clients in each total.*of 3 only"),
        ((clip(1.0), skellam(1.0, 3)), fixed_mean(3.0), "noise of 3 clients in each total.*of 0 only"),
        ((clip(1.0), skellam(1.0, 3), clip(2.0)), encrypted_sum(3), "clip.*calibrated before it|needs real"),
        ((clip(1.0), skellam(1.0, 3, steps=1 << 25)), encrypted_sum(3), "write bits=64, fewer steps"),
        (
            (clip(1.0), skellam(1.0, 3, steps=1 << 21, max_clients=256)),
            secure_sum(bits=32, min_clients=3),
            "room for totals of 256 clients, and the reducer allows 1024: write max_clients=1024",
        ),
        (
            (clip(1.0), skellam(1.0, 3, max_clients=5)),
            encrypted_sum(3, max_cohort=6),
            "room for totals of 5 clients, and the reducer allows 6",
        ),
        ((clip(1.0), skellam(1.0, 3, bits=64)), encrypted_sum(3), "2.64.*bits=64"),
        ((clip(1.0), skellam(1.0, 3), gaussian(1.0)), encrypted_sum(3), "needs real numbers"),
    ],
    ids=[
        "no bound",
        "too few",
        "open sum",
        "changed afterwards",
        "no room",
        "too many",
        "one too many",
        "other ring",
        "two noises",
    ],
)
def test_chains_that_do_not_protect_are_refused_when_built(uplink: tuple, into: object, why: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(CompositionError, match=why):
        PartSpec(SPEC, uplink, into).chain()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        {"noise_multiplier": 0.0},
        {"honest": 0},
        {"denominator": 0.0},
        {"bits": 16},
        {"steps": 0},
        {"honest": 1025},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInput):
        skellam(**{"noise_multiplier": 1.0, "honest": 3, **wrong})  # type: ignore[arg-type]


def test_the_longest_sum_that_is_allowed_does_not_wrap() -> None:
    spec, into = Spec.of({"w": np.zeros(1)}), encrypted_sum(3, max_cohort=250)
    chain = PartSpec(spec, (clip(1.0), skellam(1e-3, 3, steps=1 << 22, max_clients=250)), into).chain()
    plans, longest = chain.plan(chain.init(), KEYS.public), Part({"w": np.ones(1)})
    sent = [chain.encode(plans, longest, {}, Keys.from_seed(i))[0].values["w"] for i in range(250)]
    total = Total({"w": np.sum(sent, 0, np.uint32)}, 250.0, 250)
    found = chain.decode(chain.init(), plans, total, Key.from_seed(0))[0].values["w"]
    assert found == pytest.approx(250.0, rel=1e-3)


def test_a_secure_sum_of_at_least_so_many_takes_it() -> None:
    assert PartSpec(SPEC, CHAIN, secure_sum(bits=32, min_clients=3)).chain().out.kind == "ring"
    with pytest.raises(CompositionError, match="of 0 only"):
        PartSpec(SPEC, CHAIN, secure_sum(bits=32)).chain()
    into = secure_sum(bits=32, min_clients=5, colluders=0.2)  # one of five may tell its noise to the server
    assert PartSpec(SPEC, (clip(1.0), skellam(1.0, 4)), into).chain().stages[-1].fewest == 4
    with pytest.raises(CompositionError, match=r"noise of 5 clients in each total.*of 4 only"):
        PartSpec(SPEC, (clip(1.0), skellam(1.0, 5)), into).chain()
