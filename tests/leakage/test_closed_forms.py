"""Rows are read off gradients exactly, as far as the chain lets them through."""

from itertools import permutations

import numpy as np
import pytest

from hanse.algorithms import uniform
from hanse.algorithms.works import gradient
from hanse.core import Examples, InvalidInput, Key, Keys, fixed_mean
from hanse.data import digits
from hanse.leakage import (
    NotMeasured,
    Prior,
    ask_client,
    find_likeliest_row,
    match_rows,
    measure_psnr,
    measure_ssim,
    observe,
    read_label,
    read_row,
    read_row_of_class,
    subtract_own,
)
from hanse.learners import least_squares, softmax
from hanse.privacy import gaussian, local_gaussian
from hanse.privacy.secure_sums import secure_sum
from hanse.transforms import cast, clip, quantize, rotate

DATA = digits().load()
MEAN = DATA.test.x.mean(0)
LEARNER = softmax().bind((64,), 10)
PARAMS = LEARNER.init(Key.from_seed(0))
PRIOR = Prior.fit(DATA.test, 10)


def see(row, uplink=(), into=None, learner=LEARNER, params=PARAMS):
    data = DATA.train.take(np.array([row]))
    answer = ask_client(
        gradient(uniform()),
        learner,
        data,
        {"params": params},
        "gradient",
        uplink,
        into,
        keys=Keys.from_seed(row),
    )
    return observe(answer)


def average(uplink, into=None, rows=range(20)):
    plain, likely, right = [], [], []
    for row in rows:
        seen = see(row, uplink, into).parts["gradient"].values
        found = find_likeliest_row(seen, PARAMS, PRIOR)
        plain.append(measure_psnr(np.clip(read_row(seen), 0, 1), DATA.train.x[row]))
        likely.append(measure_psnr(np.clip(found.x[0], 0, 1), DATA.train.x[row]))
        right.append(found.y[0] == DATA.train.y[row])
    return np.mean(plain), np.mean(likely), np.mean(right)


def test_least_squares_gives_its_row_away_exactly():
    draws = np.random.default_rng(0)
    x, y = draws.normal(size=(1, 7)), draws.normal(size=1)
    learner = least_squares(dtype="float64").bind((7,), None)
    params = {"weights": draws.normal(size=7), "bias": np.array(0.3)}
    found = read_row(learner.gradient(params, Examples(x, y)))
    assert np.abs(found - x[0]).max() < 1e-10


@pytest.mark.parametrize(
    ("uplink", "into", "floor"),
    [
        ((), None, 100),
        ((clip(1.0),), None, 100),
        ((clip(1.0), gaussian(1.0)), fixed_mean(1.0), 100),  # its noise comes after the server has looked
        ((cast("bfloat16"),), None, 59),
        ((quantize(8),), None, 53),
        ((quantize(2),), None, 15.1),
    ],
)
def test_what_is_no_noise_protects_nothing(uplink, into, floor):
    plain, _, right = average(uplink, into)
    assert plain > floor
    assert right == 1


def test_two_bits_are_read_better_when_turned_back_and_with_public_rows():
    assert average((quantize(2),))[1] > 17.5
    assert average((rotate(), quantize(2)))[1] > 20


def test_a_little_local_noise_leaves_the_digit_and_much_hides_it():
    _, likely, right = average((clip(1.0), local_gaussian(0.05)))  # the standard deviation is .1 of the norm
    assert likely > 14
    assert right == 1
    guess = np.mean([measure_psnr(MEAN, DATA.train.x[row]) for row in range(20)])
    assert average((clip(1.0), local_gaussian(1.0)))[1] < guess + 1


def test_a_secure_sum_shows_no_single_update():
    sight = see(0, (clip(1.0),), secure_sum(max_clients=10))
    assert not sight.parts
    assert sight.sums.keys() == {"gradient"}
    assert "only a sum" in sight.describe()


def test_labels_of_single_examples_are_read_off_the_bias():
    learner = softmax(dtype="float64").bind((64,), 10)
    draws = np.random.default_rng(1)
    params = {"weights": draws.normal(size=(64, 10)), "bias": draws.normal(size=10)}
    for row in range(20):
        seen = see(row, learner=learner, params=params).parts["gradient"].values
        label = read_label(seen["bias"])
        assert label == DATA.train.y[row]
        found = read_row_of_class(seen, params, label, is_shortened=False)
        assert np.abs(read_row(seen) - DATA.train.x[row]).max() < 1e-9
        assert found.shape == (64,)


def test_a_message_that_says_nothing_is_not_measured():
    with pytest.raises(NotMeasured, match="no 'weights' with 'bias'"):
        read_row({"w": np.zeros(3)})
    with pytest.raises(NotMeasured, match="is 0"):
        read_row({"weights": np.zeros(3), "bias": np.array(0.0)})
    with pytest.raises(NotMeasured, match="at least 2"):
        Prior.fit(DATA.test.take(np.array([0])), 10)
    with pytest.raises(NotMeasured, match="softmax"):
        find_likeliest_row({"w": np.zeros(3)}, PARAMS, PRIOR)
    with pytest.raises(InvalidInput, match="at least one other"):
        subtract_own({}, {}, {}, 1)


def test_matching_is_the_best_of_all_permutations():
    draws = np.random.default_rng(2)
    for size in (1, 2, 5):
        a, b = draws.normal(size=(size, 3)), draws.normal(size=(size, 3))
        best = min(((b[list(p)] - a) ** 2).sum() for p in permutations(range(size)))
        assert ((b[match_rows(b, a)] - a) ** 2).sum() == pytest.approx(best)


def test_similarity_of_images():
    draws = np.random.default_rng(3)
    image = draws.uniform(size=(8, 8))
    assert measure_ssim(image, image) == pytest.approx(1)
    a, b = image[:7, :7], draws.uniform(size=(7, 7))
    cov = np.cov(a.ravel(), b.ravel())
    luminance = (2 * a.mean() * b.mean() + 1e-4) / (a.mean() ** 2 + b.mean() ** 2 + 1e-4)
    structure = (2 * cov[0, 1] + 9e-4) / (cov[0, 0] + cov[1, 1] + 9e-4)
    assert measure_ssim(a, b) == pytest.approx(luminance * structure)
