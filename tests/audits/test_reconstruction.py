"""Rows are read off messages of every algorithm and by every party, each attack beside its own control."""

from typing import Any

import numpy as np
import pytest

import hanse.audits.reconstruction as reconstruction
from hanse.algorithms import fed_avg, fed_sgd, scaffold, uniform
from hanse.audits import Section
from hanse.audits.reconstruction import audit_reconstruction
from hanse.audits.subject import Subject
from hanse.config import AuditPlan, Experiment
from hanse.core import Examples
from hanse.data import from_clients
from hanse.leakage import NotMeasured
from hanse.learners import mlp, torch_engine
from hanse.privacy import local_gaussian
from hanse.privacy.secure_sums import secure_mean
from hanse.transforms import clip


def audit(num_clients: int = 2, **settings: Any) -> Section:
    """Audits clients of four rows each, of 12 features and six classes."""
    rng = np.random.default_rng(0)
    clients = [Examples(rng.normal(size=(4, 12)), np.arange(4)) for _ in range(num_clients)]
    test = Examples(rng.normal(size=(30, 12)), rng.integers(6, size=30))
    experiment = Experiment(data=from_clients(clients, test=test, num_classes=6), rounds=1, **settings)
    return audit_reconstruction(Subject.prepare(experiment, AuditPlan()), lambda done, total: None)


def gain(section: Section, name: str) -> float:
    """Returns the gain of the one attack whose name begins so."""
    (found,) = (float(d["gain_db"]) for n, d in section.details.items() if n.startswith(name))
    return found


@pytest.mark.parametrize("algorithm", [fed_sgd(), scaffold()])
def test_messages_of_algorithms_with_own_parts_are_read(algorithm: Any) -> None:
    found = audit(algorithm=algorithm)
    assert gain(found, "server: a client's message, one row") > 60
    assert found.details["server: a client's message, one row"]["labels"] == 1


def test_of_two_clients_each_reads_the_other_and_of_three_a_mixture() -> None:
    assert gain(audit(2), "fellow client") > 60
    assert gain(audit(3), "fellow client") < 10


def test_several_rows_are_found_by_descent() -> None:
    pytest.importorskip("torch")
    assert gain(audit(algorithm=fed_avg(lr=0.1, epochs=2)), "server: a client's message, 3 rows") > 30


def test_local_noise_hides_rows_while_the_controls_find_them() -> None:
    found = audit(algorithm=fed_avg(lr=0.1, weighting=uniform(), uplink=(clip(1.0), local_gaussian(2.0))))
    assert found.found["gain_db"] < 3
    assert gain(found, "control: no protection, one row, with a prior") > 60
    assert gain(found, "control: two models of 2 clients") > 60


def test_a_secure_sum_shows_a_mixture_to_the_server() -> None:
    found = audit(
        8, algorithm=fed_avg(lr=0.1, fraction=1.0, into=secure_mean(max_clients=8), uplink=(clip(1.0),))
    )
    assert gain(found, "server: a sum of") < 10
    assert not any(name.startswith("server: a client's message") for name in found.details)


def test_a_control_that_fails_leaves_its_attack_unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    def guess(*given: Any, **more: Any) -> None:
        raise NotMeasured("no such attack")

    monkeypatch.setattr(reconstruction, "find_likeliest_row", guess)
    found = audit()
    assert found.details["server: the same, with a prior"] == {"missing": "no such attack"}
    assert found.found["gain_db"] > 60  # the server is measured by another attack
    monkeypatch.setattr(reconstruction.FirstMessages, "see_as_fellow", guess)
    assert audit().found == {}  # no attack by a fellow client remains, so a claim does not hold
    monkeypatch.setattr(reconstruction, "LEAST_CONTROL_DB", 500.0)
    with pytest.raises(NotMeasured, match="without any protection"):
        audit()


@pytest.mark.parametrize("engine", [torch_engine()])
def test_networks_of_other_engines_are_read(engine: Any) -> None:
    pytest.importorskip(type(engine).__name__.removesuffix("_engine"))
    found = audit(model=mlp((8,), engine=engine), algorithm=fed_avg(lr=0.1, epochs=1))
    assert gain(found, "server: a client's message, one row") > 40
