"""Rows of any network are found again from gradients and from updates, whatever engine computed them."""

import numpy as np
import pytest

pytest.importorskip("torch")

from hanse.core import Examples, Key, LocalProblem, Steps
from hanse.data import digits
from hanse.leakage import Inversion, NotMeasured, invert, match_rows, read_label, recognise_model
from hanse.learners import jax_engine, mlp, softmax, torch_engine

TRAIN = digits().load().train
MEAN = digits().load().test.x.mean(0)


@pytest.mark.parametrize("engine", [torch_engine(), jax_engine()])
def test_one_row_of_a_perceptron_is_found(engine):
    learner = mlp((16,), engine=engine, dtype="float64").bind((64,), 10)
    params = learner.init(Key.from_seed(0))
    data = TRAIN.take(np.array([5]))
    sent = learner.gradient(params, data)
    label = read_label(sent["output.bias"])
    assert label == data.y[0]
    found = invert(sent, params, (64,), 1, key=Key.from_seed(1), labels=np.array([label]), mean=MEAN)
    assert np.mean((found.x - data.x) ** 2) < 1e-6


def test_several_rows_of_known_labels_are_told_apart():
    learner = softmax(dtype="float64").bind((64,), 10)
    params = {"weights": np.random.default_rng(0).normal(size=(64, 10)), "bias": np.zeros(10)}
    data = TRAIN.take(np.array([0, 1]))
    sent = learner.gradient(params, data)
    found = invert(sent, params, (64,), 2, key=Key.from_seed(1), labels=data.y, mean=MEAN)
    order = match_rows(found.x, data.x)
    assert np.mean((found.x[order] - data.x) ** 2) < 1e-3


def test_labels_that_are_not_known_are_searched_and_found():
    learner = softmax(dtype="float64").bind((64,), 10)
    params = {"weights": np.random.default_rng(0).normal(size=(64, 10)), "bias": np.zeros(10)}
    data = TRAIN.take(np.array([0, 1]))
    sent, told = learner.gradient(params, data), []
    found = invert(
        sent,
        params,
        (64,),
        2,
        key=Key.from_seed(1),
        num_classes=10,
        mean=MEAN,
        settings=Inversion(num_restarts=3, num_iterations=120),
        seen=lambda done, total: told.append((done, total)),
    )
    assert sorted(found.y) == sorted(data.y)
    assert np.mean((found.x[match_rows(found.x, data.x)] - data.x) ** 2) < 1e-3
    assert told == [(i + 1, 3) for i in range(len(told))]
    assert 1 <= len(told) <= 3


def test_the_cosine_finds_a_row_in_a_message_that_was_shortened():
    """Squares take the shortened message for that of another row; the cosine does not see the length."""
    learner = softmax(dtype="float64").bind((64,), 10)
    params = {"weights": np.random.default_rng(0).normal(size=(64, 10)), "bias": np.zeros(10)}
    data = TRAIN.take(np.array([5]))
    sent = {name: 0.1 * tensor for name, tensor in learner.gradient(params, data).items()}
    error = {}
    for distance in ("squares", "cosine"):
        settings = Inversion(distance=distance, num_restarts=1)
        found = invert(
            sent, params, (64,), 1, key=Key.from_seed(1), labels=data.y, mean=MEAN, settings=settings
        )
        error[distance] = np.mean((found.x - data.x) ** 2)
    assert error["cosine"] < 1e-6
    assert error["squares"] > 1e-3


def test_total_variation_smooths_a_picture_out_of_a_noisy_message():
    learner = softmax(dtype="float64").bind((8, 8), 10)
    params = {"weights": np.random.default_rng(0).normal(size=(64, 10)), "bias": np.zeros(10)}
    down, right = np.mgrid[0:8, 0:8]
    data = Examples(((down + right) / 14.0)[None], np.array([3]))  # one smooth slope
    sent, draws = learner.gradient(params, data), np.random.default_rng(1)
    sent = {name: tensor + 0.3 * draws.normal(size=tensor.shape) for name, tensor in sent.items()}
    error = [
        np.mean(
            (
                invert(
                    sent,
                    params,
                    (8, 8),
                    1,
                    key=Key.from_seed(1),
                    labels=data.y,
                    settings=Inversion(total_variation=weight, num_restarts=1),
                ).x
                - data.x
            )
            ** 2
        )
        for weight in (0.0, 0.3)
    ]
    assert error[1] < 0.5 * error[0]


def test_an_inversion_takes_no_more_steps_than_its_settings_allow():
    learner = softmax(dtype="float64").bind((64,), 10)
    params = {"weights": np.random.default_rng(0).normal(size=(64, 10)), "bias": np.zeros(10)}
    data, count = TRAIN.take(np.array([0, 1, 2])), []
    scores = recognise_model(params)

    def counted(p, x):
        count.append(1)
        return scores(p, x)

    settings = Inversion(num_restarts=2, num_iterations=8, good=0.0)
    invert(
        learner.gradient(params, data),
        params,
        (64,),
        3,
        key=Key.from_seed(1),
        labels=data.y,
        scores=counted,
        settings=settings,
    )
    assert len(count) <= 2 * (8 * 5 // 4 + 26)  # the last line search may take 25 steps


def test_an_update_of_five_steps_gives_its_row_away():
    learner = softmax(dtype="float64").bind((64,), 10)
    params = learner.init(Key.from_seed(0))
    data = TRAIN.take(np.array([3]))
    update = learner.local_sgd(params, LocalProblem(data, Steps(lr=0.1, num_steps=5), Key.from_seed(0)))
    settings = Inversion(lr=0.1, num_steps=5)
    found = invert(
        update, params, (64,), 1, key=Key.from_seed(1), labels=data.y, mean=MEAN, settings=settings
    )
    assert np.mean((found.x - data.x) ** 2) < 1e-6


def test_an_attack_that_does_not_apply_says_why():
    params = {"own": np.zeros(2)}
    with pytest.raises(NotMeasured, match="give scores="):
        invert({"own": np.ones(2)}, params, (2,), 1, key=Key.from_seed(0), labels=np.array([0]))
    with pytest.raises(NotMeasured, match="is 0"):
        invert(
            {"own": np.zeros(2)}, params, (2,), 1, key=Key.from_seed(0), num_classes=2, scores=lambda p, x: x
        )
    with pytest.raises(NotMeasured, match="neither"):
        invert({"own": np.ones(2)}, params, (2,), 1, key=Key.from_seed(0))
