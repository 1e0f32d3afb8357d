"""Every epsilon is that of the literature, and what happened is counted as it happened."""

import sys
from dataclasses import replace

import pytest

from hanse.core import InvalidInput, Release
from hanse.core.exchange import ReleaseRecord
from hanse.privacy import calibrate, compose, compute_epsilon

MNIST = 256 / 60000


@pytest.mark.parametrize(
    ("q", "z", "times", "delta", "rdp", "pld"),
    [
        (0.01, 1.0, 1000, 1e-5, 2.1014, None),
        (0.1, 1.0, 100, 1e-4, 6.8216, None),
        (MNIST, 1.3, 3510, 1e-5, 0.9538, 0.8638),
        (MNIST, 1.1, 14040, 1e-5, 2.5944, 2.3796),
        (MNIST, 0.7, 10530, 1e-5, 6.3149, None),
        (5000 / 763430, 1.0, 5000, 1e-9, 4.1833, None),
    ],
)
def test_sampled_gaussians(
    q: float, z: float, times: int, delta: float, rdp: float, pld: float | None
) -> None:
    """The others by PLD take long: benchmarks/privacy/oracles.py has them."""
    assert round(compute_epsilon({(q, z): times}, delta), 4) == rdp
    if pld is not None:
        assert round(compute_epsilon({(q, z): times}, delta, "pld"), 4) == pld


@pytest.mark.parametrize(("z", "epsilon"), [(1.0, 4.3772), (5.0, 0.7255)])
def test_one_gaussian_without_sampling(z: float, epsilon: float) -> None:
    assert round(compute_epsilon({(1.0, z): 1}, 1e-5, "pld"), 4) == epsilon


def test_nothing_released_spends_nothing() -> None:
    assert compute_epsilon(compose([]), 1e-5) == 0.0


# -- what happened -------------------------------------------------------------------------------


def release(sample: int, z: float = 2.0, sampling: float = 0.1, part: str = "update") -> ReleaseRecord:
    return ReleaseRecord(part, Release("gaussian", z), sampling, sample)


def test_totals_of_one_sample_compose_before_they_are_amplified() -> None:
    both = compose([release(1, 2.0), release(1, 2.0, part="moments"), release(2, 3.0)])
    assert sorted(both.values()) == [1, 1]
    assert sorted(z for _, z in both) == [pytest.approx(2.0**0.5), 3.0]
    assert {rate for rate, _ in both} == {0.1}


def test_a_sample_that_was_shown_amplifies_none_of_its_totals() -> None:
    ((rate, z),) = compose([release(1), release(1, sampling=1.0)])
    assert (rate, z) == (1.0, pytest.approx(2.0**0.5))


def test_other_noise_can_not_be_accounted_for() -> None:
    strange = replace(release(1), release=Release("laplace", 1.0))
    with pytest.raises(InvalidInput, match="'laplace' of 'update' can't be accounted for"):
        compose([strange])


# -- calibration ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("epsilon", "q", "times"), [(1.0, 0.01, 300), (8.0, 1.0, 40)])
def test_the_noise_that_is_found_is_the_smallest(epsilon: float, q: float, times: int) -> None:
    z = calibrate(epsilon, 1e-5, sampling=q, times=times)
    assert round(z, 4) == z
    assert compute_epsilon({(q, z): times}, 1e-5) <= epsilon
    assert compute_epsilon({(q, round(z - 1e-4, 4)): times}, 1e-5) > epsilon


def test_what_no_noise_can_keep_is_refused() -> None:
    with pytest.raises(
        InvalidInput, match=r"no noise keeps 100000 rounds within epsilon = 1e-06.*larger eps"
    ):
        calibrate(1e-6, 1e-9, sampling=1.0, times=100_000)


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dp_accounting.rdp", None)
    with pytest.raises(InvalidInput, match=r"pip install 'hanse\[privacy\]'"):
        compute_epsilon({(0.123, 4.5): 6}, 1e-5)
