"""`secure = true`: all that clients send enters secure sums, or the run is refused before it begins."""

from typing import Any

import numpy as np
import pytest

import hanse
from hanse.algorithms import by_examples, fed_avg, scaffold, trained_by
from hanse.config import read
from hanse.core import CompositionError, InvalidInput, mean
from hanse.data import arrays, digits, iid
from hanse.learners import softmax
from hanse.privacy.secure_sums import secure_mean
from hanse.robust import trimmed_mean
from hanse.runs import prepare_run
from hanse.transforms import clip

CLIPPED = fed_avg(0.5, fraction=1.0, uplink=(clip(1.0),), weighting=by_examples())
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
