"""Rows are read off messages of every algorithm and by every party, each attack beside its own control."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hanse.audits.judging as judging
import hanse.audits.reconstruction as reconstruction
from hanse.algorithms import fed_avg, fed_sgd, scaffold, uniform
from hanse.audits import Section
from hanse.audits.reconstruction import audit_reconstruction
from hanse.audits.subject import Subject
from hanse.audits.views import audit_views, describe_exposed
from hanse.config import AuditPlan, Experiment, read_audit
from hanse.core import Examples
from hanse.data import from_clients, iid
from hanse.leakage import NotMeasured
from hanse.learners import char_lstm
from hanse.privacy import encrypted_mean, local_gaussian
from hanse.privacy.secure_sums import secure_mean
from hanse.transforms import clip


def audit(num_clients: int = 2, **settings: Any) -> Section:
    """Audits clients of four rows each, of 12 features and six classes."""
    rng = np.random.default_rng(0)
    clients = [Examples(rng.normal(size=(4, 12)), np.arange(4)) for _ in range(num_clients)]
    test = Examples(rng.normal(size=(30, 12)), rng.integers(6, size=30))
    experiment = Experiment(data=from_clients(clients, test=test, num_classes=6), rounds=1, **settings)
    return audit_reconstruction(
        Subject.prepare(experiment, AuditPlan(num_iterations=40)), lambda done, total: None
    )


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
    monkeypatch.setattr(reconstruction.Messages, "see_as_fellow", guess)
    assert audit().found == {}  # no attack by a fellow client remains, so a claim does not hold
    monkeypatch.setattr(judging, "LEAST_CONTROL_DB", 500.0)
    with pytest.raises(NotMeasured, match="without any protection"):
        audit()


@pytest.mark.parametrize(
    ("module", "model"),
    [
        ("numpy", '{name = "softmax"}'),
        ("jax", '{name = "mlp", hidden = [8], engine = {name = "jax_engine"}}'),
        ("torch", '{name = "mlp", hidden = [8], engine = {name = "torch_engine"}}'),
    ],
)
def test_models_of_each_engine_are_audited_from_a_settings_file(
    module: str, model: str, tmp_path: Path
) -> None:
    pytest.importorskip(module)
    path = tmp_path / "mine.toml"
    path.write_text(
        f"""
rounds = 1
model = {model}
algorithm = {{name = "fed_avg", lr = 0.1}}
partition = {{name = "iid", num_clients = 400}}
[audit]
num_iterations = 1
"""
    )
    experiment, plan = read_audit(path)
    found = audit_reconstruction(Subject.prepare(experiment, plan), lambda done, total: None)
    assert gain(found, "server: a client's message, one row") > 40
    assert found.details["server: a client's message, one row"]["labels"] == 1


def test_a_key_holder_reads_the_sum_that_it_decrypts() -> None:
    algorithm = fed_avg(
        lr=0.1, fraction=1.0, weighting=uniform(), into=encrypted_mean(3), uplink=(clip(1.0),)
    )
    found = audit(8, algorithm=algorithm)
    name = "key holder: a sum of 3 clients, one row each, which it decrypts"
    (row,) = (row for row in found.rows if row[0] == name)
    assert row[1].endswith("dB")
    assert gain(found, "key holder") < 10
    assert gain(found, "key holder") == gain(found, "server: a sum of")  # no smaller sum is decrypted
    holder = replace(algorithm, into=encrypted_mean(2))
    assert gain(audit(8, algorithm=holder), "key holder") != gain(found, "key holder")


def test_texts_are_told_what_is_not_measured() -> None:
    pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    clients = [Examples(rng.integers(6, size=(4, 5)), rng.integers(6, size=4)) for _ in range(3)]
    experiment = Experiment(
        data=from_clients(clients, test=clients[0], num_classes=6),
        model=char_lstm(6, embedding=3, hidden=4),
        rounds=1,
    )
    with pytest.raises(NotMeasured, match="tokens of texts"):
        audit_reconstruction(Subject.prepare(experiment, AuditPlan()), lambda done, total: None)


def test_clients_of_two_rows_and_of_one_class_are_named() -> None:
    rng = np.random.default_rng(0)
    two = Examples(rng.normal(size=(2, 12)), np.array([0, 1]))
    alike = Examples(rng.normal(size=(6, 12)), np.full(6, 4))
    mixed = Examples(rng.normal(size=(6, 12)), np.arange(6))
    said = describe_exposed([two, alike, mixed], has_classes=True)
    assert said.startswith("1 of 3 clients hold at most 2 rows")
    assert "1 of 3 clients hold rows of one class" in said
    assert describe_exposed([mixed], has_classes=True) == ""
    assert "class" not in describe_exposed([alike], has_classes=False)
    experiment = Experiment(data=from_clients([two, alike], test=mixed, num_classes=6), rounds=1)
    subject = Subject.prepare(experiment, AuditPlan(num_iterations=40))
    assert said[:2] in audit_views(subject, lambda done, total: None).about
    found = audit_reconstruction(subject, lambda done, total: None)
    assert gain(found, "server: a client's message, 2 rows") > 10  # both rows of the smallest client


def test_without_any_protection_nothing_of_the_chain_and_the_rule_is_left() -> None:
    into = secure_mean(max_clients=8)
    experiment = Experiment(
        partition=iid(8),
        algorithm=fed_avg(lr=0.3, fraction=1.0, uplink=(clip(1.0),), into=into),
        secure=True,
        evaluate_every=0,
        rounds=1,
    )
    bare = Subject.prepare(experiment, AuditPlan()).bare()
    assert bare.algorithm == fed_avg(lr=0.3, fraction=1.0)
    assert not bare.secure
    assert bare.privacy is None
