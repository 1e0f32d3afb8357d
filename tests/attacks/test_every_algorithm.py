"""Each attack reaches the model of each algorithm."""

from typing import Any

import numpy as np
import pytest

import hanse
from hanse.algorithms import (
    cocoa,
    dane,
    fed_avg,
    fed_buff,
    fed_dyn,
    fed_nova,
    fed_sgd,
    fl_trust,
    fools_gold,
    giant,
    local_steps,
    nesterov,
    one_shot,
    scaffold,
    zeno,
)
from hanse.attacks import (
    Adversary,
    Attack,
    adaptive,
    alie,
    constrain_and_scale,
    free_rider,
    inner_product,
    intermittent,
    label_flip,
    mimic,
    min_max,
    model_replacement,
    pixel_backdoor,
    random_labels,
    random_update,
    scaled_mean,
    semantic_backdoor,
    sign_flip,
    zero_update,
)
from hanse.core import Examples
from hanse.core.exchange import digest
from hanse.data import FederatedData, from_clients
from hanse.learners import dual, logistic, softmax
from hanse.privacy.secure_sums import secure_mean
from hanse.robust import multi_krum, trimmed_mean
from hanse.transforms import clip

T: dict[str, Any] = {"lr": 0.3, "fraction": 1.0, "epochs": 1}
ALGORITHMS = {
    "cocoa": cocoa(),
    "dane": dane(solver=local_steps(0.1, batch_size=None)),
    "fed_avg": fed_avg(**T),
    "fed_buff": fed_buff(lr=0.3, concurrency=6, buffer_size=6),
    "fed_dyn": fed_dyn(**T),
    "fed_nova": fed_nova(**T),
    "fed_sgd": fed_sgd(lr=0.3),
    "fl_trust": fl_trust(**T),
    "fools_gold": fools_gold(**T),
    "giant": giant(),
    "multi_krum": fed_avg(**T, into=multi_krum(1, 5)),
    "nesterov": nesterov(),
    "one_shot": one_shot(solver=local_steps(0.1, batch_size=None)),
    "scaffold": scaffold(**T),
    "secure_mean": fed_avg(**T, uplink=(clip(1.0),), into=secure_mean()),
    "trimmed_mean": fed_avg(**T, into=trimmed_mean(2)),
    "zeno": zeno(**T),
}
ATTACKS: dict[str, Attack] = {
    "adaptive": adaptive(),
    "alie": alie(1.5),
    "alie_optimised": alie("optimised"),
    "constrain_and_scale": constrain_and_scale(),
    "free_rider": free_rider(),
    "inner_product": inner_product(0.5),
    "inner_product_optimised": inner_product(),
    "intermittent": intermittent(sign_flip(), first=2),
    "label_flip": label_flip(),
    "mimic": mimic(),
    "min_max": min_max(),
    "model_replacement": model_replacement(),
    "pixel_backdoor": pixel_backdoor(0, features=(1, 2)),
    "random_labels": random_labels(),
    "random_update": random_update(0.1),
    "scaled_mean": scaled_mean(-3.0),
    "semantic_backdoor": semantic_backdoor(0, feature=0, above=0.3),
    "sign_flip": sign_flip(),
    "zero_update": zero_update(),
}


def _people(is_binary: bool) -> FederatedData:
    rng = np.random.default_rng(3)

    def draw(num: int) -> Examples:
        x = rng.normal(size=(num, 4))
        return Examples(x, (x[:, 0] > 0).astype(int) + (0 if is_binary else x[:, 1] > 0))

    return from_clients([draw(10 + i) for i in range(6)], test=draw(20), validation=draw(20))


def train(name: str, attack: Attack | None) -> str:
    """Trains by an algorithm beside two liars in six clients, and returns what identifies the model."""
    is_dual = name == "cocoa"
    result = hanse.run(
        data=_people(is_dual),
        algorithm=ALGORITHMS[name],
        model=dual(logistic(l2=0.1, intercept=False)) if is_dual else softmax(l2=0.1),
        adversary=None if attack is None else Adversary(attack, clients=(1, 4), knows="all"),
        rounds=2,
        evaluate_every=0,
    )
    assert result.status == "completed"
    return digest(dict(result.params))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_each_attack_changes_the_model(name: str) -> None:
    honest = train(name, None)
    assert honest == train(name, intermittent(sign_flip(), first=3))
    assert [attack for attack in ATTACKS if train(name, ATTACKS[attack]) == honest] == []
