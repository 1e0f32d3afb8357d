"""FLTrust, Zeno and FoolsGold: vectors, settings, who is left out, what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rules import parts

import hanse
from hanse.algorithms import fed_avg, fl_trust, fools_gold, zeno
from hanse.algorithms.fools_gold import weigh
from hanse.attacks import Adversary, random_update, scaled_mean, sign_flip
from hanse.config import read
from hanse.core import CompositionError, InvalidInput, PartSpec, Spec, Stop, TensorSpec, reduce
from hanse.data import digits, iid
from hanse.privacy import gaussian
from hanse.robust import cosine_trust
from hanse.runs import prepare_run
from hanse.transforms import clip

HELD = digits(validation_fraction=0.1)
TRAINING: dict[str, Any] = {"lr": 0.3, "fraction": 1.0, "epochs": 2, "batch_size": 50}


def run(algorithm: Any, adversary: Any = None, data: Any = HELD, rounds: int = 3) -> Any:
    return hanse.run(data=data, partition=iid(8), algorithm=algorithm, rounds=rounds, adversary=adversary)


# -- vectors -----------------------------------------------------------------------------------


def test_trust_follows_the_angle_to_the_trusted_row() -> None:
    rows = [(3, 4), (3, 4), (-3, -4), (4, 3), (0, 10)]
    total = reduce(cosine_trust(), parts(rows))
    found = np.append(total.values["a"], total.values["b"])
    assert found == pytest.approx([2.47827, 3.94203], abs=1e-5)
    assert total.left_out == (2,)


@pytest.mark.parametrize("rows", [[(0, 0), (3, 4), (1, 1)], [(3, 4), (-3, -4), (0, 0)]])
def test_where_nobody_is_trusted_nothing_moves(rows: Any) -> None:
    total = reduce(cosine_trust(), parts(rows))
    assert not total.values["a"].any()
    assert not total.values["b"].any()
    assert total.left_out == (1, 2)


def test_sybils_count_nothing_and_others_fully() -> None:
    cosines = np.array([[1, 0.99, 0.1], [0.99, 1, 0.2], [0.1, 0.2, 1]])
    assert weigh(cosines, 1.0).tolist() == [0, 0, 1]
    assert weigh(np.eye(1), 1.0).tolist() == [1]
    assert weigh(np.ones((2, 2)), 1.0).tolist() == [0, 0]


# -- runs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [fl_trust(**TRAINING), zeno(**TRAINING)], ids=["fl_trust", "zeno"])
def test_a_majority_of_liars_is_left_out_by_name(algorithm: Any) -> None:
    """Five of eight clients send the opposite, which no rule without examples withstands."""
    liars = (0, 2, 3, 5, 6)
    result = run(algorithm, Adversary(sign_flip(), clients=liars), rounds=8)
    assert [set(record.usage.left_out) for record in result.records[1:3]] == [set(liars)] * 2
    assert result.final.metrics["accuracy"] > 0.8


def test_sybils_of_one_liar_are_left_out_once_they_repeat_themselves() -> None:
    result = run(fools_gold(**TRAINING), Adversary(scaled_mean(-3.0), clients=(1, 4, 6)))
    assert all({1, 4, 6} <= set(record.usage.left_out) for record in result.records[1:])


def test_zeno_bears_an_update_of_any_size() -> None:
    result = run(zeno(**TRAINING, num_byzantine=1), Adversary(random_update(1e30), clients=(2,)))
    assert all(record.usage.left_out == (2,) for record in result.records[1:])
    assert result.final.metrics["accuracy"] > 0.8


def test_features_keep_the_history_of_some_parameters_alone() -> None:
    ready = prepare_run(
        hanse.Experiment(data=HELD, partition=iid(8), algorithm=fools_gold(features=("bias",)))
    )
    assert ready.begin().state.history == {}
    with pytest.raises(InvalidInput, match="no parameter 'bais': did you mean 'bias'"):
        run(fools_gold(features=("bais",)))


# -- what is refused, and what is said ---------------------------------------------------------


@pytest.mark.parametrize("algorithm", [fl_trust(**TRAINING), zeno(**TRAINING)], ids=["fl_trust", "zeno"])
def test_without_examples_at_the_server_a_run_is_refused(algorithm: Any) -> None:
    with pytest.raises(InvalidInput, match="'validation' holds none: hold some out"):
        run(algorithm, data=digits())


def test_a_test_set_that_leads_the_run_is_said() -> None:
    (found,) = run(fl_trust(**TRAINING, trusted="server"), data=digits(), rounds=1).findings
    assert found.code == "led_by_test"
    with pytest.raises(InvalidInput, match=r"algorithm\.trusted is 'sever'"):
        run(fl_trust(trusted="sever"))


def test_validation_examples_that_lead_the_run_neither_stop_nor_rank_it(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "data": HELD,
        "partition": iid(8),
        "algorithm": fl_trust(**TRAINING),
        "rounds": 2,
    }
    result = hanse.run(**settings, stop=Stop("accuracy", target=0.2))
    assert [found.code for found in result.findings] == ["chosen_on_test", "led_by_validation"]
    assert result.target_round is not None
    over = {"algorithm": [fl_trust(**TRAINING), fed_avg(**TRAINING)]}
    sweep = hanse.sweep(
        hanse.Experiment(**settings), over=over, seeds=[0], store=tmp_path / "s.db", num_workers=1
    )
    assert sweep.metric == "accuracy"


def test_a_cohort_that_is_left_out_whole_is_refused_beforehand() -> None:
    with pytest.raises(CompositionError, match="zeno needs at least 9 contributions, and there are 8"):
        run(zeno(**TRAINING, num_byzantine=8))


def test_single_updates_are_seen_so_nothing_may_hide_them() -> None:
    spec = Spec({"w": TensorSpec((3,), "float32")})
    with pytest.raises(CompositionError):
        PartSpec(spec, (clip(1.0), gaussian(1.0)), cosine_trust()).chain()
    with pytest.raises(TypeError, match="into"):
        fl_trust(into=cosine_trust())  # type: ignore[call-arg]
    with pytest.raises(InvalidInput, match="write"):
        zeno(num_byzantine=-1)


def test_settings_name_them(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text(
        'rounds = 1\ndata = {name = "digits", validation_fraction = 0.1}\npartition = {name = "iid", '
        'num_clients = 8}\n[algorithm]\nname = "zeno"\nnum_byzantine = 1\nrho = 0.01\nepochs = 1\n'
    )
    read_algorithm = read(file, []).algorithm
    assert read_algorithm == zeno(epochs=1, num_byzantine=1, rho=0.01)
    again = read(file, ['algorithm={name="fools_gold", confidence=0.5}']).algorithm
    assert again == fools_gold(confidence=0.5)
