"""Backdoors and model replacement: what is poisoned, what is sent, and what a federation makes of it."""

from typing import Any

import numpy as np
import pytest
from secure import fixed_point, shared_sum

import hanse
from hanse.algorithms import fed_avg, uniform
from hanse.attacks import (
    Adversary,
    Collusion,
    constrain_and_scale,
    intermittent,
    model_replacement,
    pixel_backdoor,
    semantic_backdoor,
    sign_flip,
    zero_update,
)
from hanse.core import Examples, InvalidInput, Key, Part, mean
from hanse.data import digits, dirichlet, from_clients, iid
from hanse.robust import norm_bound, trimmed_mean
from hanse.runs import prepare_run
from hanse.transforms import clip

KEY = Key.from_seed(3)
IMAGES = Examples(np.zeros((10, 4, 4)), np.arange(10))
TRIGGER = pixel_backdoor(7, features=(0, 8, 16, 24))


def test_a_trigger_is_set_in_a_share_of_copies() -> None:
    found = pixel_backdoor(3, fraction=0.4).poison(IMAGES, 10, KEY)
    bear = found.x.reshape(10, -1).sum(axis=1) > 0
    assert bear.sum() == 4
    assert (found.x[bear][:, 1:, 1:] == 1).all()
    assert (found.x[bear][:, 0] == 0).all()
    assert (found.y[bear] == 3).all()
    assert (found.y[~bear] == IMAGES.y[~bear]).all()
    assert not IMAGES.x.any()
    assert (IMAGES.y == np.arange(10)).all()


def test_success_is_measured_on_triggered_examples_of_other_classes() -> None:
    marked = pixel_backdoor(3, (0, 5), level=0.5).mark(IMAGES, 10)
    assert marked is not None
    assert len(marked) == 9
    assert (marked.y == 3).all()
    assert (marked.x.reshape(9, -1)[:, [0, 5]] == 0.5).all()
    assert marked.x.sum() == 9


def test_a_property_chooses_the_examples_of_a_semantic_backdoor() -> None:
    data = Examples(np.array([[0.1], [0.6], [0.7], [0.9]]), np.array([0, 0, 1, 2]))
    attack = semantic_backdoor(2, feature=0, above=0.5, below=0.8)
    assert attack.poison(data, 3, KEY).y.tolist() == [0, 2, 2, 2]
    assert semantic_backdoor(2, 0, above=0.5, of=1).poison(data, 3, KEY).y.tolist() == [0, 0, 2, 2]
    marked = semantic_backdoor(2, 0, above=0.5).mark(data, 3)
    assert marked is not None
    assert marked.x.tolist() == [[0.6], [0.7]]
    assert marked.y.tolist() == [2, 2]


@pytest.mark.parametrize(
    ("attack", "data", "why"),
    [
        (pixel_backdoor(10), IMAGES, "target is 10; write a label from 0 to 9"),
        (pixel_backdoor(1, (16,)), IMAGES, "rows have the features 0 to 15"),
        (pixel_backdoor(1), Examples(np.zeros((2, 7)), np.zeros(2, int)), "no square image"),
        (semantic_backdoor(1, 3, above=0.0), Examples(np.zeros((2, 2)), np.zeros(2, int)), "features 0 to 1"),
        (semantic_backdoor(1, 0, above=5.0), IMAGES, "no test example of another label has this property"),
    ],
)
def test_what_can_not_be_planted_is_refused(attack: Any, data: Examples, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        attack.mark(data, 10)


def plant(algorithm: Any, message: Any, trigger: Any = TRIGGER) -> tuple[float, float]:
    """Lets client 3 of 20 lie in the last of 12 rounds; returns the accuracy and the backdoor's success."""
    adversary = Adversary(tuple(intermittent(a, first=12, last=12) for a in (trigger, message)), clients=(3,))
    result = hanse.run(
        data=digits(),
        partition=iid(20),
        algorithm=algorithm,
        rounds=12,
        evaluate_every=12,
        adversary=adversary,
    )
    return result.final.metrics["accuracy"], result.final.metrics["attack_accuracy"]


def train(**more: Any) -> Any:
    return fed_avg(lr=0.5, fraction=1.0, epochs=5, batch_size=20, weighting=uniform(), **more)


def test_model_replacement_breaks_the_mean_in_one_round_and_no_bound_with_a_rule() -> None:
    _, success = plant(train(into=mean()), model_replacement())
    assert success >= 0.9
    accuracy, success = plant(train(into=norm_bound(0.5, trimmed_mean(2))), model_replacement())
    assert success <= 0.05
    assert accuracy > 0.85
    _, success = plant(train(into=mean()), constrain_and_scale())
    assert success <= 0.05


def test_updates_are_sent_as_often_or_as_long_as_is_asked() -> None:
    def seen(factor: float = 1.0) -> Collusion:
        own = (Part({"w": np.array([3.0, 4.0])}, 2.0),)
        honest = ({"w": np.array([0.0, 1.0])}, {"w": np.array([0.0, 3.0])})
        return Collusion("update", 1, own, honest, 9, {}, lambda parts: None, None, ({},), KEY)

    (sent,) = model_replacement(eta=0.5).falsify(seen())
    assert sent.values["w"].tolist() == [60.0, 80.0]
    assert sent.weight == 2.0
    (sent,) = model_replacement(3.0).falsify(seen())
    assert sent.values["w"].tolist() == [9.0, 12.0]
    (sent,) = constrain_and_scale().falsify(seen())
    assert sent.values["w"] == pytest.approx([1.8, 2.4])  # as long as the longest honest one
    (sent,) = constrain_and_scale(0.5, max_norm=1.0).falsify(seen())
    assert sent.values["w"] == pytest.approx(np.array([1.5, 3.0]) / np.hypot(1.5, 3.0))


def test_the_mean_by_examples_is_replaced_exactly_by_a_liar_that_knows_all_weights() -> None:
    """Whatever its share of the examples is, the mean update is then its own and what others add."""
    given: Any = {"data": digits(), "partition": dirichlet(10, 0.3), "rounds": 1, "evaluate_every": 0}
    algorithm = fed_avg(lr=0.5, fraction=1.0, epochs=1)

    def model(attack: Any) -> Any:
        adversary = Adversary(attack, clients=(big,), knows="all")
        return hanse.run(algorithm=algorithm, adversary=adversary, **given).params["weights"]

    honest = hanse.run(algorithm=algorithm, **given).params["weights"]
    sizes = prepare_run(hanse.Experiment(algorithm=algorithm, **given)).population.sizes()
    big = int(np.argmax(sizes))
    share = sizes[big] / sizes.sum()
    own = (model(sign_flip()) - honest) / (-2 * share)  # its message, turned around
    without = model(zero_update())
    assert share > 0.12
    np.testing.assert_allclose(model(model_replacement()) - without, own, rtol=1e-3, atol=1e-4)


def test_a_sum_that_hides_can_not_enforce_clip_on_a_liar() -> None:
    """The server checks the bound of what it sees; behind a sum that hides, a liar who skips clip passes."""

    def lie_once(algorithm: Any) -> float:
        adversary = Adversary((TRIGGER, model_replacement()), clients=(3,))
        given: Any = {"data": digits(), "partition": iid(20), "rounds": 1, "adversary": adversary}
        return hanse.run(algorithm=algorithm, **given).final.metrics["attack_accuracy"]

    assert lie_once(train(uplink=(clip(0.5),))) <= 0.05
    assert lie_once(train(uplink=(clip(0.5), fixed_point()), into=shared_sum(), server_lr=0.05)) >= 0.9


def test_the_success_of_each_backdoor_is_measured_by_name() -> None:
    corner, stripe = pixel_backdoor(3, features=(1, 2)), intermittent(TRIGGER, first=2)
    lived = semantic_backdoor(1, 20, above=0.5)
    adversary = Adversary((corner, lived, stripe), clients=(3,))
    found = hanse.run(data=digits(), partition=iid(10), adversary=adversary, rounds=2)
    test = prepare_run(hanse.Experiment(data=digits(), partition=iid(10))).population.test
    assert test is not None
    assert found.final is not None
    named = {"pixel_backdoor": corner, "semantic_backdoor": lived, "pixel_backdoor_2": TRIGGER}
    for name, attack in named.items():
        marked = attack.mark(test, 10)
        assert marked is not None
        logits = marked.x.reshape(len(marked), -1) @ found.params["weights"] + found.params["bias"]
        success = np.mean(logits.argmax(axis=1) == marked.y)
        assert found.final.metrics[f"attack_{name}_accuracy"] == pytest.approx(success)
    assert "attack_accuracy" not in found.final.metrics


def test_without_a_test_set_the_result_says_that_success_is_unknown() -> None:
    rng = np.random.default_rng(0)
    clients = [Examples(rng.normal(size=(20, 3)), np.arange(20) % 2) for _ in range(4)]
    found = hanse.run(
        data=from_clients(clients),
        adversary=Adversary(pixel_backdoor(1, features=(0,)), clients=(1,)),
        rounds=1,
    )
    assert [finding.code for finding in found.findings] == ["attack_not_measured"]
    assert found.final is not None
    assert not [name for name in found.final.metrics if name.startswith("attack")]


def test_a_target_that_all_test_examples_have_is_refused() -> None:
    with pytest.raises(InvalidInput, match="all test examples have this label"):
        pixel_backdoor(3).mark(Examples(np.zeros((2, 4, 4)), np.array([3, 3])), 10)
