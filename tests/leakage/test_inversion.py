"""Rows of any network are found again from gradients and from updates, whatever engine computed them."""

import numpy as np
import pytest

pytest.importorskip("torch")

from hanse.core import Key, LocalProblem, Steps
from hanse.data import digits
from hanse.leakage import Inversion, NotMeasured, invert, match_rows, read_label
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


def test_labels_are_searched_and_several_rows_told_apart():
    learner = softmax(dtype="float64").bind((64,), 10)
    params = {"weights": np.random.default_rng(0).normal(size=(64, 10)), "bias": np.zeros(10)}
    data = TRAIN.take(np.array([0, 1]))
    sent = learner.gradient(params, data)
    found = invert(sent, params, (64,), 2, key=Key.from_seed(1), labels=data.y, mean=MEAN)
    order = match_rows(found.x, data.x)
    assert np.mean((found.x[order] - data.x) ** 2) < 1e-3


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
