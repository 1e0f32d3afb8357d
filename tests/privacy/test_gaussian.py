"""Noise is normal, of the calibrated size, on a grid, and refuses what it can't be calibrated to."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from hanse.core import (
    CompositionError,
    InvalidInput,
    Key,
    PartSpec,
    Spec,
    Total,
    fixed_mean,
    mean,
    stack,
)
from hanse.core import sum as sum_
from hanse.privacy import gaussian
from hanse.transforms import cast, clip, quantize, rotate, sign, top_k

SHAPES = {"bias": (10,), "weights": (400, 300)}
SIZE = 10 + 400 * 300
NORM, DENOMINATOR, Z = 1.5, 6.0, 0.8
STD = Z * NORM / DENOMINATOR


def spec(dtype: str = "float64") -> Spec:
    return Spec.of({name: np.zeros(shape, dtype) for name, shape in SHAPES.items()})


def part(*uplink: Any, into: Any = fixed_mean(DENOMINATOR), max_weight: float = 1.0) -> PartSpec:
    return PartSpec(spec(), uplink, into, max_weight)


NOISY = part(clip(NORM), gaussian(Z))


def release(values: dict[str, np.ndarray], noisy: PartSpec = NOISY, seed: int = 3) -> np.ndarray:
    chain = noisy.chain()
    total, _ = chain.decode(
        chain.init(), (None,) * len(chain.stages), Total(values, 1.0, 1), Key.from_seed(seed)
    )
    return np.concatenate([total.values[name].ravel() for name in sorted(SHAPES)])


def fill(value: float, dtype: str = "float64") -> dict[str, np.ndarray]:
    return {name: np.full(shape, value, dtype) for name, shape in SHAPES.items()}


def test_noise_is_normal_of_the_calibrated_size() -> None:
    noise = release(fill(0.0))
    assert noise.size == SIZE
    assert stats.kstest(noise / STD, "norm").pvalue > 1e-3
    low, high = stats.chi2(SIZE).ppf([1e-4, 1 - 1e-4])
    assert low < np.square(noise / STD).sum() < high
    assert abs(np.corrcoef(noise[1:], noise[:-1])[0, 1]) < 4 / math.sqrt(SIZE)


@pytest.mark.parametrize(
    ("noisy", "std"),
    [
        (part(clip(NORM), gaussian(Z), into=sum_()), Z * NORM),
        (part(clip(NORM), gaussian(Z), into=sum_(), max_weight=3.0), 3 * Z * NORM),
        (part(clip(NORM), gaussian(2 * Z)), 2 * STD),
        (part(clip(NORM), gaussian(Z), into=fixed_mean(0.5)), Z * NORM / 0.5),
    ],
)
def test_the_size_follows_bound_weight_and_denominator_exactly(noisy: PartSpec, std: float) -> None:
    """The draws of one key are the same, so that their sizes can be compared digit by digit."""
    assert np.linalg.norm(release(fill(0.0), noisy)) / std == pytest.approx(
        np.linalg.norm(release(fill(0.0))) / STD, rel=1e-6
    )


def test_what_is_released_lies_on_a_grid_that_the_data_do_not_choose() -> None:
    step = 2.0 ** (math.floor(math.log2(STD)) - 32)
    for value in (0.0, 1 / 3, 1e-9, -12345.678):
        found = release(fill(value)) / step
        assert (found == np.rint(found)).all()


def test_the_noise_does_not_depend_on_the_total() -> None:
    """Else what is released, less the total, would tell the total."""
    step = 2.0 ** (math.floor(math.log2(STD)) - 32)
    on_grid = 12345 * step
    assert (release(fill(on_grid)) - on_grid == release(fill(0.0))).all()


def test_each_tensor_has_draws_of_its_own() -> None:
    noise = release(fill(0.0))
    assert not np.isin(noise[:10], noise[10:]).any()
    assert not np.isin(release(fill(0.0), seed=4), noise).any()


def test_float32_stays_float32() -> None:
    chain = PartSpec(spec("float32"), (clip(NORM), gaussian(Z)), fixed_mean(DENOMINATOR), 1.0).chain()
    total, _ = chain.decode(chain.init(), (None, None), Total(fill(0.5, "float32"), 1.0, 1), Key.from_seed(3))
    assert {array.dtype.name for array in total.values.values()} == {"float32"}
    assert stats.kstest((total.values["weights"].ravel() - 0.5) / STD, "norm").pvalue > 1e-3


def test_what_reveals_a_total_is_booked() -> None:
    assert [(r.mechanism, r.noise_multiplier) for r in NOISY.chain().releases] == [("gaussian", Z)]


@pytest.mark.parametrize(
    ("uplink", "into", "remedy"),
    [
        ((gaussian(Z),), fixed_mean(4.0), r"put clip\(max_norm\) directly before it"),
        ((clip(1.0), gaussian(Z)), mean(), r"write into=fixed_mean\(denominator\)"),
        ((clip(1.0), gaussian(Z)), stack(), r"write into=fixed_mean\(denominator\)"),
        ((gaussian(Z), clip(1.0)), fixed_mean(4.0), "directly before it"),
        ((clip(1.0), quantize(2), gaussian(Z)), fixed_mean(4.0), "after clip"),
        ((clip(1.0), top_k(0.1), gaussian(Z)), fixed_mean(4.0), "these are sparse"),
        ((clip(1.0), gaussian(Z), quantize(2)), fixed_mean(4.0), "move it before the noise"),
        ((clip(1.0), gaussian(Z), cast("float16")), fixed_mean(4.0), "move it before the noise"),
        ((clip(1.0), gaussian(Z), sign()), fixed_mean(4.0), "move it before the noise"),
    ],
)
def test_what_noise_can_not_follow_or_precede_is_refused(uplink: Any, into: Any, remedy: str) -> None:
    with pytest.raises(CompositionError, match=remedy):
        part(*uplink, into=into).chain()


def test_rotation_keeps_the_bound() -> None:
    assert part(clip(NORM), rotate(), gaussian(Z)).chain().out.l2_bound == NORM


@pytest.mark.parametrize("z", [0.0, -1.0, float("nan")])
def test_noise_of_no_size_is_refused(z: float) -> None:
    with pytest.raises(InvalidInput, match="noise_multiplier"):
        gaussian(z)
