"""Examples to choose by: they decide when a run stops and which settings are best; test metrics do not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from heads import own_heads
from typer.testing import CliRunner

import hanse
from hanse.algorithms import fed_avg, fl_trust, zeno
from hanse.cli import app
from hanse.core import Examples, InvalidInput, Stop
from hanse.data import arrays, digits, from_clients, iid
from hanse.evaluation import centralised, name_stop_metric, on_site
from hanse.learners import logistic

RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 3))
Y = (X[:, 0] > 0).astype(int)
VALIDATION = (RNG.normal(size=(40, 3)), np.array([0, 1] * 20))  # labels that nobody can learn
SMALL: dict[str, Any] = {
    "partition": iid(4),
    "model": logistic(),
    "algorithm": fed_avg(lr=0.5, fraction=1.0),
}


def split(**more: Any) -> arrays:
    return arrays(X[:80], Y[:80], test_x=X[80:], test_y=Y[80:], **more)


HARD = split(validation_x=VALIDATION[0], validation_y=VALIDATION[1])


def test_metrics_of_both_stand_beside_each_other_and_are_those_of_the_examples() -> None:
    result = hanse.run(data=HARD, rounds=3, **SMALL)
    weights, bias = result.params["weights"], result.params["bias"]
    for prefix, x, y in (("", X[80:], Y[80:]), ("validation_", *VALIDATION)):
        accuracy = np.mean((x @ weights + bias > 0) == y)
        assert result.records[-1].metrics[prefix + "accuracy"] == accuracy
    assert result.higher_is_better == ("accuracy", "validation_accuracy")
    assert result.data is not None
    assert (result.data["test"], result.data["validation"]) == (40, 40)


@pytest.mark.parametrize("metric", ["accuracy", "validation_accuracy"])
def test_a_target_is_watched_on_the_validation_examples(metric: str) -> None:
    stop = Stop(metric, target=0.9)
    on_test = hanse.run(data=split(), rounds=12, stop=Stop(target=0.9), **SMALL)
    assert on_test.reason == "accuracy reached 0.9"
    result = hanse.run(data=HARD, rounds=12, stop=stop, **SMALL)
    assert result.reason is None, "the test set reached it, the validation examples never do"
    assert result.final is not None
    assert result.final.metrics["accuracy"] > 0.9
    swapped = arrays(
        X[:80], Y[:80], test_x=VALIDATION[0], test_y=VALIDATION[1], validation_x=X[80:], validation_y=Y[80:]
    )
    other = hanse.run(data=swapped, rounds=12, stop=stop, **SMALL)
    assert other.reason == "validation_accuracy reached 0.9"
    assert other.target_round == on_test.target_round


def test_the_best_round_and_patience_are_the_validation_examples_choice() -> None:
    result = hanse.run(data=HARD, rounds=12, stop=Stop("loss", patience=3), **SMALL)
    losses = [record.metrics["validation_loss"] for record in result.records]
    assert result.best is not None
    assert result.best.round == int(np.argmin(losses))
    assert result.reason == "no better validation_loss in 3 evaluations"
    assert losses[-1] > min(losses)
    assert result.records[-1].metrics["loss"] < result.best.metrics["loss"]


def test_a_run_says_if_it_chose_on_test_examples() -> None:
    chosen = hanse.run(data=split(), rounds=12, stop=Stop(target=0.9), **SMALL)
    assert [finding.code for finding in chosen.findings] == ["chosen_on_test"]
    assert chosen.status == "completed"
    silent: tuple[dict[str, Any], ...] = (
        {"data": split(), "stop": Stop(target=2.0)},  # never reached
        {"data": split(), "stop": Stop("objective", target=0.5)},
        {"data": split(validation_fraction=0.25), "stop": Stop(target=0.8)},
    )
    for given in silent:
        result = hanse.run(rounds=12, **given, **SMALL)
        assert result.findings == ()


def test_without_validation_examples_all_is_as_before() -> None:
    settings: dict[str, Any] = {"rounds": 3, **SMALL}
    plain, held = hanse.run(data=split(), **settings), hanse.run(data=HARD, **settings)
    assert plain.params_sha256 == held.params_sha256
    assert plain.final is not None
    assert sorted(plain.final.metrics) == ["accuracy", "loss"]
    assert plain.data is not None
    assert "validation" not in plain.data


def test_baselines_are_measured_on_both() -> None:
    result = hanse.run(
        data=HARD, rounds=12, stop=Stop(target=0.9), baselines=(centralised(), on_site()), **SMALL
    )
    for row in result.baselines:
        assert {"accuracy", "validation_accuracy"} <= row["final"].keys()
    assert result.baselines[0]["final"]["accuracy"] > 0.9
    assert result.baselines[0]["epochs_to_target"] is None


def test_clients_given_in_python_take_validation_examples() -> None:
    mine = [Examples(X[:40], Y[:40]), Examples(X[40:80], Y[40:80])]
    data = from_clients(mine, test=Examples(X[80:], Y[80:]), validation=Examples(*VALIDATION))
    given = {name: said for name, said in SMALL.items() if name != "partition"}
    result = hanse.run(data=data, rounds=1, **given)
    assert "validation_loss" in result.records[-1].metrics
    assert data.fingerprint != from_clients(mine, test=Examples(X[80:], Y[80:])).fingerprint
    with pytest.raises(InvalidInput, match=r"validation: features of shape \(2,\)"):
        from_clients(mine, validation=Examples(X[:, :2], Y))


def test_an_algorithm_that_measures_at_clients_refuses_them() -> None:
    with pytest.raises(InvalidInput, match="own_heads measures its models at the clients"):
        hanse.run(data=HARD, rounds=1, **{**SMALL, "algorithm": own_heads()})


def test_a_sweep_ranks_by_the_validation_examples(tmp_path: Path) -> None:
    flipped = split(validation_x=X[80:], validation_y=1 - Y[80:])
    over = {"algorithm.lr": [0.01, 1.0]}
    settings = {"rounds": 3, **SMALL}
    held = hanse.sweep(
        hanse.Experiment(data=flipped, **settings), over=over, store=tmp_path / "s.db", num_workers=1
    )
    assert held.metric == "validation_accuracy"
    assert held.notes == ()
    slow, fast = (setting.members[0].result for setting in held.settings)
    assert held.settings[0].over == {"algorithm.lr": 0.01}
    assert slow is not None
    assert fast is not None
    assert slow["final"]["accuracy"] < fast["final"]["accuracy"], "test metrics would rank the other first"


def test_the_page_names_the_metric_that_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sets = ["rounds=2", "stop.target=0.5", "data.validation_fraction=0.1"]
    done = CliRunner().invoke(app, ["run", *(word for said in sets for word in ("--set", said))])
    assert done.exit_code == 0, done.output
    assert "validation_accuracy 0.5, reached in round 2" in " ".join(done.output.split())
    assert "test examples" not in done.output
    done = CliRunner().invoke(
        app, ["run", *(word for said in sets[:2] for word in ("--set", said)), "--set", "rounds=20"]
    )
    assert "chosen on the test examples" in " ".join(done.output.split())


def test_the_digits_keep_their_test_set() -> None:
    plain, held = digits().load(), digits(validation_fraction=0.1).load()
    assert plain.test is not None
    assert held.test is not None
    assert held.validation is not None
    np.testing.assert_array_equal(plain.test.x, held.test.x)
    assert (len(held.train), len(held.validation)) == (1438 - 180, 180)
    rows = np.concatenate([held.train.x, held.validation.x])
    np.testing.assert_array_equal(np.unique(rows, axis=0), np.unique(plain.train.x, axis=0))
    with pytest.raises(InvalidInput, match=r"validation_fraction is 0\.9 and test_fraction 0.2"):
        digits(validation_fraction=0.9)


@pytest.mark.parametrize("rule", [fl_trust, zeno])
def test_a_run_may_stop_by_the_examples_that_its_server_trusts(rule: Any) -> None:
    """They measure too well, so they are watched only if they are named."""
    given = {
        **SMALL,
        "algorithm": rule(lr=0.5, fraction=1.0),
        "data": split(validation_x=X[80:], validation_y=Y[80:]),
    }
    named = hanse.run(rounds=12, stop=Stop("validation_accuracy", target=0.9), **given)
    assert named.reason == "validation_accuracy reached 0.9"
    assert [found.code for found in named.findings] == ["led_by_validation"]
    plain = hanse.run(rounds=12, stop=Stop(target=0.9), **given)
    assert plain.reason == "accuracy reached 0.9"
    assert name_stop_metric(hanse.Experiment(stop=Stop()).settings(), plain.to_json()) == "accuracy"


def test_metrics_that_can_not_stop_a_run_are_refused_with_the_reason() -> None:
    with pytest.raises(
        InvalidInput, match=r"no validation examples; hold some out, data\.validation_fraction"
    ):
        hanse.run(data=split(), rounds=1, stop=Stop("validation_accuracy"), **SMALL)
    with pytest.raises(InvalidInput, match="the success of an attack, which no server knows"):
        hanse.run(data=split(), rounds=1, stop=Stop("attack_accuracy"), **SMALL)
