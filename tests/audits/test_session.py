"""Audits: attacks find what there is to find, claims are held to it, and findings repeat."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from hanse.algorithms import fed_avg
from hanse.audits import AuditResult, ClaimCheck, draw_audit, perform_audit
from hanse.audits.canaries import audit_canaries
from hanse.audits.costs import audit_costs
from hanse.audits.membership import audit_membership, draw_half
from hanse.audits.subject import Subject
from hanse.cli.commands import app
from hanse.config import AuditPlan, Experiment, read_audit
from hanse.core import Examples, InvalidInput, Key
from hanse.data import from_clients
from hanse.learners import softmax
from hanse.privacy import central

FEATURES, ROWS = 40, 6
QUICK = AuditPlan(num_shadows=8, num_canaries=120, rounds=1)


def ignore(done: int, total: int) -> None:
    """Watch nothing."""


def memorised(num_clients: int = 12, **settings: Any) -> Experiment:
    """Labels that are coins, and enough features to learn them by heart."""
    rng = np.random.default_rng(0)
    clients = [
        Examples(rng.normal(size=(ROWS, FEATURES)), rng.integers(2, size=ROWS)) for _ in range(num_clients)
    ]
    test = Examples(rng.normal(size=(100, FEATURES)), rng.integers(2, size=100))
    given: dict[str, Any] = {"algorithm": fed_avg(lr=0.5, fraction=1.0), "rounds": 30, **settings}
    return Experiment(
        data=from_clients(clients, test=test, num_classes=2), model=softmax(), evaluate_every=30, **given
    )


@pytest.fixture(scope="module")
def leaky() -> AuditResult:
    return perform_audit(memorised(), QUICK)


def test_rows_that_were_learned_by_heart_are_found(leaky: AuditResult) -> None:
    assert leaky.sections["reconstruction"].found["gain_db"] > 50
    page = draw_audit(leaky)
    assert "masked" in page
    assert "•••" not in draw_audit(leaky, show_rows=True)
    section = leaky.sections["membership"]
    assert section.missing is None
    assert section.found["membership_auc"] > 0.8
    assert section.details["likelihood_ratio"]["members"] == 9 * 12 * ROWS // 2
    assert leaky.sections["attributes"].missing is not None
    assert "sensitive" in leaky.sections["attributes"].missing
    assert draw_audit(leaky).count("<h2>") == len(leaky.sections) + 2


def test_noise_hides_rows_and_canaries_prove_no_more_than_the_accountant() -> None:
    pytest.importorskip("dp_accounting")
    private = memorised(50, privacy=central(epsilon=1.0, delta=1e-3), rounds=5)
    subject = Subject.prepare(private, QUICK)
    assert audit_membership(subject, ignore).found["membership_auc"] < 0.6
    proved = audit_canaries(subject, ignore).details
    assert proved["bound"] <= proved["accounted"] <= 1.0
    assert proved["control"] == proved["cap"] > 1.0
    assert [row[0] for row in audit_costs(subject, ignore).rows] == [
        "as configured",
        "without privacy = central",
    ]


def test_without_noise_canaries_prove_all_that_they_can(leaky: AuditResult) -> None:
    proved = leaky.sections["canaries"].details
    assert proved["bound"] == proved["cap"]
    assert proved["accounted"] is None


def test_half_of_each_clients_rows_is_left_out() -> None:
    owners = np.repeat([0, 1, 2], [1, 2, 5])
    halves = [draw_half(owners, Key.from_seed(seed)) for seed in range(20)]
    assert all(half[0] and half[1:3].sum() == 1 and half[3:].sum() in (2, 3) for half in halves)
    assert {tuple(half) for half in halves} > {tuple(halves[0])}


def test_a_claim_about_what_was_not_measured_does_not_hold() -> None:
    assert ClaimCheck("max_gain_db", 3.0, 3.0).holds
    assert not ClaimCheck("max_gain_db", 3.0, 3.1).holds
    unknown = ClaimCheck("max_gain_db", 3.0, None)
    assert not unknown.holds
    assert "not measured" in str(unknown)


def test_clients_of_one_row_each_are_told_so() -> None:
    rng = np.random.default_rng(1)
    rows = [Examples(rng.normal(size=(1, 3)), np.array([i % 2])) for i in range(4)]
    experiment = Experiment(data=from_clients(rows, num_classes=2), rounds=2)
    found = perform_audit(experiment, AuditPlan(num_shadows=8, num_canaries=50, max_membership_auc=0.9))
    assert found.sections["membership"].missing is not None
    assert "one row" in found.sections["membership"].missing
    assert not found.holds
    assert "Not measured: each client holds one row" in draw_audit(found)


SETTINGS = """
rounds = 2
partition = {name = "iid", num_clients = 4}
data = {name = "csv", path = "rows.csv", label = "income", test_fraction = 0.4}
[audit]
sensitive = "sex"
max_attribute_gain = 0.9
num_shadows = 8
num_canaries = 50
rounds = 1
max_membership_auc = 0.9
"""


def test_the_exit_status_says_whether_claims_hold_and_the_findings_repeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, page = tmp_path / "mine.toml", tmp_path / "page.html"
    path.write_text(SETTINGS, encoding="utf-8")
    rng = np.random.default_rng(4)
    rows = [f"{rng.normal():.2f},{'fm'[i % 2]},{['low', 'high'][i % 3 > 0]}" for i in range(120)]
    (tmp_path / "rows.csv").write_text("\n".join(["age,sex,income", *rows]), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    found = []
    for limit, code in ((1, 0), (0, 1)):
        claim = f"audit.max_accuracy_lost={limit}"
        done = CliRunner().invoke(app, ["audit", str(path), "--to", str(page), "--json", "--set", claim])
        assert done.exit_code == code, done.output
        said = json.loads(done.stdout)
        assert said["holds"] == (code == 0)
        for row in said["sections"]["costs"]["rows"]:
            row[3] = "seconds"
        found.append(said["sections"])
        text = page.read_text(encoding="utf-8")
        assert "http" not in text
        assert ("does not hold" in text) == (code == 1)
    assert found[0] == found[1]


def test_lines_of_the_terminal_are_short(leaky: AuditResult, capsys: pytest.CaptureFixture[str]) -> None:
    from hanse.cli.audit_views import audit_page

    audit_page(leaky)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("  likelihood ratio") for line in lines)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("max_membership_au = 0.6", "max_membership_auc"),
        ("num_shadows = 7", "even number of at least 8"),
        ("liars_fraction = 0.5", "below 0.5"),
        ('max_gain_db = "low"', "audit.max_gain_db"),
    ],
)
def test_wrong_claims_are_named_by_every_command(tmp_path: Path, table: str, says: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f"[audit]\n{table}\n", encoding="utf-8")
    with pytest.raises(InvalidInput, match=says):
        read_audit(path)
    done = CliRunner().invoke(app, ["plan", str(path)])
    assert done.exit_code == 2


def test_a_page_that_is_somebody_elses_is_not_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("mine")
    done = CliRunner().invoke(app, ["audit", "--to", str(page)])
    assert done.exit_code == 2
    assert "Hanse did not write it" in " ".join(done.stderr.split())
    assert page.read_text() == "mine"
