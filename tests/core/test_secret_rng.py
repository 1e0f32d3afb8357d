"""Secret draws: the stream is that of the published primitive, and draws have the right distribution."""

import hashlib

import numpy as np
import pytest
from scipy import stats

from hanse.core.errors import InvalidInput
from hanse.core.keys import Key
from hanse.core.secret_rng import _BLOCK_BYTES, SecretRng

KEY = Key.from_seed(7).fold_in("secret draws")


def test_the_primitive_gives_its_published_values():
    """Examples of NIST for FIPS 202: SHAKE-256 of nothing, and of 1600 bits."""
    assert hashlib.shake_256(b"").hexdigest(64) == (
        "46b9dd2b0ba88d13233b3feb743eeb243fcd52ea62b81b82b50c27646ed5762f"
        "d75dc4ddd8c0f200cb05019d67b592f6fc821c49479ab48640292eacb3b7c4be"
    )
    assert hashlib.shake_256(b"\xa3" * 200).hexdigest(32) == (
        "cd8a920ed141aa0407a22d59288652e9d9f1a7ee0c1e7c1ca699424da84a904d"
    )


def test_the_stream_is_the_primitive_of_key_and_counter():
    """The same bytes come in any portions. A new Hanse must not change them: runs are resumed with them."""
    expected = b"".join(
        hashlib.shake_256(b"hanse secret stream" + KEY.digest + number.to_bytes(8, "little")).digest(size)
        for number, size in enumerate((1 << 10, 1 << 13, 1 << 16, 1 << 16))
    )
    assert KEY.secret_rng().bytes(len(expected)) == expected
    rng, portions = KEY.secret_rng(), (1, 0, 1022, 2, sum(_BLOCK_BYTES), 100_000)
    assert b"".join(map(rng.bytes, portions)) == expected[: sum(portions)]


def test_keys_draw_their_own_streams():
    assert KEY.secret_rng().bytes(64) == KEY.secret_rng().bytes(64)
    starts = {KEY.fold_in(n).secret_rng().bytes(16) for n in range(2000)}
    assert len(starts) == 2000
    assert KEY.secret_rng().bytes(32) not in (KEY.digest, KEY.rng().bytes(32))


def test_values_are_made_of_the_stream_as_described():
    words = np.frombuffer(KEY.secret_rng().bytes(8 * 1000), "<u8")
    np.testing.assert_array_equal(KEY.secret_rng().integers(2**64, 1000), words)
    np.testing.assert_array_equal(KEY.secret_rng().random(1000), (words >> 11) / 2**53)
    halves = np.frombuffer(KEY.secret_rng().bytes(4 * 1000), "<u4")
    np.testing.assert_array_equal(KEY.secret_rng().integers(2**32, 1000), halves)


# -- distributions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("high", [1, 2, 3, 7, 1000])
def test_integers_are_equally_likely(high):
    drawn = KEY.secret_rng().integers(high, 40_000)
    counts = np.bincount(drawn, minlength=high)
    assert len(counts) == high
    assert high == 1 or stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize(("bits", "dtype"), [(32, "uint32"), (64, "uint64")])
def test_no_remainder_favours_small_numbers(bits, dtype):
    """Below 3/4 of all words, a remainder would land in the lowest third half of the time."""
    high = 3 << (bits - 2)
    drawn = KEY.secret_rng().integers(high, 30_000)
    assert drawn.dtype == dtype
    thirds = np.bincount(np.asarray(drawn >> np.asarray(bits - 2, drawn.dtype), int), minlength=3)
    assert len(thirds) == 3
    assert stats.chisquare(thirds).pvalue > 1e-3


def test_shapes_and_dtypes_are_as_asked():
    rng = KEY.secret_rng()
    assert rng.integers(10, (2, 3), np.int64).dtype == np.int64
    assert rng.integers(10).shape == rng.random().shape == rng.standard_normal().shape == ()
    assert rng.standard_normal((2, 0)).shape == (2, 0)
    assert rng.random((4, 5)).shape == rng.standard_normal((4, 5)).shape == (4, 5)
    assert rng.random(3).dtype == rng.standard_normal(3).dtype == np.float64


def test_uniforms_are_uniform():
    drawn = KEY.secret_rng().random(200_000)
    assert 0 <= drawn.min() < 1e-4
    assert 1 - 1e-4 < drawn.max() < 1
    assert stats.kstest(drawn, "uniform").pvalue > 1e-3


def test_normals_are_normal_and_independent():
    drawn = KEY.secret_rng().standard_normal(300_000)
    assert stats.kstest(drawn, "norm").pvalue > 1e-3
    for at in (1, 2, len(drawn) // 2, 1 << 15):  # pairs of neighbours, and of one point's coordinates
        assert abs(np.corrcoef(drawn[at:], drawn[:-at])[0, 1]) < 5 / np.sqrt(len(drawn) - at)
    assert stats.binomtest(int((abs(drawn) > 3.5).sum()), len(drawn), 2 * stats.norm.sf(3.5)).pvalue > 1e-3
    few = np.array([KEY.fold_in(n).secret_rng().standard_normal(3) for n in range(4000)])
    assert stats.kstest(few.reshape(-1), "norm").pvalue > 1e-3


@pytest.mark.parametrize(("num", "size"), [(10, 3), (10, 5), (10, 6), (10, 10), (1, 1), (5, 0)])
def test_a_choice_has_no_repetition_and_favours_nobody(num, size):
    drawn = np.array([KEY.fold_in(n).secret_rng().choice(num, size) for n in range(3000)]).reshape(3000, size)
    assert all(len(set(row)) == size for row in drawn.tolist())
    for place in range(size):  # each place holds each number equally often
        assert num == 1 or stats.chisquare(np.bincount(drawn[:, place], minlength=num)).pvalue > 1e-4


def test_few_of_very_many_are_chosen_at_once():
    assert len(set(KEY.secret_rng().choice(2**62, 1000).tolist())) == 1000


# -- Poisson samples -------------------------------------------------------------------------------


@pytest.mark.parametrize(("num", "rate"), [(12, 0.1), (40, 0.5), (9, 0.95), (5000, 0.001), (1, 0.3)])
def test_a_poisson_sample_has_a_binomial_size_and_favours_nobody(num, rate):
    draws = 4000
    samples = [KEY.fold_in(n).secret_rng().poisson_sample(num, rate) for n in range(draws)]
    assert all(sample == sorted(set(sample)) for sample in samples)
    sizes = np.bincount([len(sample) for sample in samples], minlength=num + 1)
    expected = stats.binom.pmf(np.arange(len(sizes)), num, rate) * draws
    common = expected > 5
    observed = np.append(sizes[common], sizes[~common].sum())
    due = np.append(expected[common], draws - expected[common].sum())
    if due[-1] < 1e-9:
        observed, due = observed[:-1], due[:-1]
    assert stats.chisquare(observed, due).pvalue > 1e-3
    members = np.bincount(np.concatenate([np.array(s, int) for s in samples]), minlength=num)
    z = (members - draws * rate) / np.sqrt(draws * rate * (1 - rate))
    assert stats.chi2(num).sf(np.square(z).sum()) > 1e-3
    if num <= 40:  # two clients are drawn independently
        has = np.array([[n in sample for n in range(num)] for sample in samples], float)
        pairs = np.corrcoef(has, rowvar=False)[np.triu_indices(num, 1)] if num > 1 else np.zeros(1)
        assert abs(pairs).max() < 5 / np.sqrt(draws)


def test_a_poisson_sample_of_all_and_of_none():
    assert KEY.secret_rng().poisson_sample(5, 1.0) == [0, 1, 2, 3, 4]
    assert KEY.secret_rng().poisson_sample(0, 0.5) == []
    assert KEY.secret_rng().poisson_sample(10**6, 1e-300) == []


def test_a_million_clients_cost_what_is_drawn(monkeypatch):
    asked = []
    fill = SecretRng._fill
    monkeypatch.setattr(SecretRng, "_fill", lambda self, out: asked.append(out.nbytes) or fill(self, out))
    drawn = KEY.secret_rng().poisson_sample(10**9, 1e-7)
    assert 50 < len(drawn) < 150
    assert sum(asked) < 16 * len(drawn) + 1024


@pytest.mark.parametrize(
    ("draw", "says"),
    [
        (lambda rng: rng.integers(0), "integers below 0"),
        (lambda rng: rng.integers(2**64 + 1), "write a bound from 1 to 2"),
        (lambda rng: rng.choice(3, 4), "choice of 4 numbers below 3"),
        (lambda rng: rng.poisson_sample(3, 0.0), "a rate of 0.0"),
        (lambda rng: rng.poisson_sample(3, 1.5), "a rate of 1.5"),
    ],
)
def test_what_can_not_be_drawn_is_refused(draw, says):
    with pytest.raises(InvalidInput, match=says):
        draw(KEY.secret_rng())
