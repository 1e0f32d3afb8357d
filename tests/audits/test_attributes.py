"""A sensitive column is inferred, and the attack proves that it could see what a model tells."""

import numpy as np
import pytest

import hanse.audits.attributes as attributes
from hanse.algorithms import fed_avg
from hanse.audits.attributes import audit_attributes
from hanse.audits.subject import Subject
from hanse.config import AuditPlan, Experiment
from hanse.core import Array, Examples
from hanse.data import from_clients
from hanse.leakage import NotMeasured


def prepare() -> Subject:
    """Clients whose column 0 is a coin, and whose labels say nothing of it."""
    rng = np.random.default_rng(0)

    def draw(n: int) -> Array:
        return np.column_stack([rng.integers(2, size=n), rng.normal(size=(n, 4))]).astype(float)

    clients = [Examples(draw(20), rng.integers(2, size=20)) for _ in range(5)]
    data = from_clients(clients, test=Examples(draw(200), rng.integers(2, size=200)), num_classes=2)
    experiment = Experiment(data=data, rounds=2, algorithm=fed_avg(lr=0.5, fraction=1.0))
    return Subject.prepare(experiment, AuditPlan(sensitive=0))


def test_the_control_tells_the_column_that_this_model_does_not() -> None:
    found = audit_attributes(prepare(), lambda done, total: None)
    named = {row[0]: row for row in found.rows}
    control = named["control: a model of the column itself, no protection"]
    assert float(control[3].split()[0]) > 90
    assert float(control[2].split()[0]) < 70
    assert found.found["attribute_gain"] < 0.2


def test_an_attack_that_fails_its_control_measures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = attributes.infer_attribute

    def guess(learner: object, params: object, candidates: list[Array], *more: object) -> object:
        return whole(learner, params, [candidates[0]] * len(candidates), *more)  # type: ignore[arg-type]

    monkeypatch.setattr(attributes, "infer_attribute", guess)
    with pytest.raises(NotMeasured, match="learns the column as its label"):
        audit_attributes(prepare(), lambda done, total: None)
