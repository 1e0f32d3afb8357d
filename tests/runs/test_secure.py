"""`secure = true`: all that clients send enters secure sums, or the run is refused before it begins."""

from typing import Any

import numpy as np
import pytest
import sklearn.metrics as sk

import hanse
from hanse.algorithms import by_examples, fed_avg, scaffold, trained_by
from hanse.algorithms.works import local_sgd
from hanse.config import read
from hanse.core import CompositionError, InvalidInput, Key, PartSpec, Spec, Steps, gather, mean
from hanse.data import arrays, digits, iid, own_test
from hanse.evaluation import Evaluation
from hanse.learners import least_squares, softmax
from hanse.preprocessing import tabular
from hanse.preprocessing.moments import two_sums
from hanse.privacy.secure_sums import secure_mean, secure_sum
from hanse.robust import trimmed_mean
from hanse.runs import prepare_run
from hanse.runs.protection import find_views
from hanse.transforms import clip

CLIPPED = fed_avg(0.5, fraction=1.0, uplink=(clip(1.0),), weighting=by_examples())
HIDDEN: dict[str, Any] = {
    "secure": True,
    "preprocessing": tabular(statistics=two_sums(secure_sum(max_value=1e9))),
}
COMMON: dict[str, Any] = {"partition": iid(5), "model": softmax(), "rounds": 2}


def run(**changes: Any) -> Any:
    return hanse.run(**{**COMMON, "algorithm": CLIPPED, **changes})


def test_clients_send_nothing_that_is_not_hidden() -> None:
    """Without a test set, clients measure: their metrics are sums, too, and are those of a plain run."""
    x, y = digits().load().train.x[:300], digits().load().train.y[:300]
    data = arrays(x, y, test_fraction=0.0)
    plain, secure = run(data=data), run(data=data, secure=True)
    sent = [
        {flow.name for record in found.records for flow in record.usage.flows if flow.direction == "up"}
        for found in (plain, secure)
    ]
    assert sent == [{"update", "metrics"}, {"advert", "shares", "masked", "revealed"}]
    for name in ("weights", "bias"):
        np.testing.assert_allclose(secure.params[name], plain.params[name], atol=1e-6)
    assert secure.final.metrics == pytest.approx(plain.final.metrics, abs=1e-6)
    assert secure.final.usage.bytes_up > plain.final.usage.bytes_up


def test_metrics_of_large_labels_fit_into_secure_sums() -> None:
    """Squares of labels near 1e7 add up to 1e16 and more at one client."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3))
    y = 2e6 * (x @ [1.0, 2.0, 3.0] + rng.normal(size=60)) + 1e7
    common: dict[str, Any] = {
        "data": arrays(x, y, test_fraction=0.0),
        "client_test_fraction": 0.5,
        "model": least_squares(),
        "algorithm": fed_avg(0.1, fraction=1.0, uplink=(clip(1e8),)),
    }
    for named in ((), ("rmse", "r2", "concordance")):
        evaluation = Evaluation(metrics=named)
        secure, plain = (run(**common, evaluation=evaluation, secure=hides) for hides in (True, False))
        ready = prepare_run(hanse.Experiment(**{**COMMON, **common}))
        tests = [ready.population.role(own_test(number)) for number in range(5)]
        labels = np.concatenate([one.y for one in tests])
        found = np.concatenate([ready.learner.predict(secure.params, one.x) for one in tests]).astype(
            np.float64
        )
        metrics = secure.final.metrics
        assert metrics["squared_error"] == pytest.approx(sk.mean_squared_error(labels, found), rel=1e-6)
        assert list(metrics) == list(plain.final.metrics)
    assert metrics["r2"] == pytest.approx(sk.r2_score(labels, found), rel=1e-10)
    assert metrics["rmse"] == pytest.approx(sk.root_mean_squared_error(labels, found), rel=1e-12)


def test_views_tell_of_metrics_and_preprocessing_too() -> None:
    """A run whose updates are hidden may show each client's metrics and sums for the scaling of columns."""
    rng = np.random.default_rng(0)
    table = np.rec.fromarrays(rng.normal(size=(2, 300)), names="age,height")
    data = arrays(table, rng.integers(0, 2, 300), test_fraction=0.0)
    common: dict[str, Any] = {**COMMON, "algorithm": CLIPPED, "data": data}
    plain, hidden = (prepare_run(hanse.Experiment(**common, **more)).views for more in ({}, HIDDEN))
    own = "each client's own"
    assert {f"update: the server: {own} message", f"metrics: the server: {own} message"} < set(plain)
    assert any(view.startswith(f"preprocessing: the server: {own} sums of numbers") for view in plain)
    assert any(view.startswith("metrics: the server: the total of the clients") for view in hidden)
    assert any(view.startswith("preprocessing: the server: the totals of numbers") for view in hidden)
    assert not any(f"the server: {own} message" in view for view in hidden)
    sums = PartSpec(Spec.of({"x": np.zeros(2)}), into=secure_sum(max_value=1.0))
    own = {0: {"control": {"x": np.zeros(2)}}}
    runtime = prepare_run(hanse.Experiment(**common)).runtime()
    for tensors, is_said in ((own, True), ({}, False)):
        asked = gather(local_sgd(Steps(0.1)), (0, 1, 2), {}, Key.from_seed(1), own=tensors, update=sums)
        found = find_views([asked], runtime)
        assert any("can single a client out" in view for view in found) == is_said


def test_settings_say_it(tmp_path: Any) -> None:
    file = tmp_path / "e.toml"
    file.write_text(
        'rounds = 1\nsecure = true\npartition = { name = "iid", num_clients = 5 }\n'
        'algorithm = { name = "fed_avg", uplink = [{ name = "clip", max_norm = 1.0 }] }\n'
    )
    experiment = read(file)
    assert experiment.secure
    assert prepare_run(experiment).experiment.algorithm.into == secure_mean()
    assert experiment.settings()["secure"] is True
    assert "secure" not in read(file, ["secure=false"]).settings()
    with pytest.raises(InvalidInput, match="write true or false"):
        read(file, ["secure=1"])


def train(params: Any, data: Any, config: Any, key: Any, memory: Any) -> Any:
    return None, None, {"moved": 1.0}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"algorithm": scaffold(0.1)}, "scaffold does not say how messages are combined; write an algorithm"),
        ({"algorithm": fed_avg(0.1, into=trimmed_mean(1))}, "fed_avg combines messages by trimmed_mean"),
        ({"algorithm": fed_avg(0.1)}, r"put clip\(...\) into uplink, or write max_value"),
        (
            {"algorithm": fed_avg(client=trained_by(train, metrics=("moved",)), uplink=(clip(1.0),))},
            "sends 'training' into mean.* leave it out",
        ),
        ({"partition": iid(2)}, "a secure sum of 2 clients hides nothing"),
    ],
    ids=["no reducer", "a robust rule", "no bound", "training metrics", "too few"],
)
def test_what_would_be_seen_is_refused_before_the_run(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(CompositionError, match=match):
        run(secure=True, **changes)
    assert mean() != secure_mean()
