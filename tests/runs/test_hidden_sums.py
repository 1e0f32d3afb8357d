"""Encrypted sums and noise in shares from a settings file: simulated, planned, and described."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hanse import read, run
from hanse.cli import app
from hanse.runs import Parties, prepare_run

SETTINGS = """
rounds = 2
evaluate_every = 0
data = "digits"
partition = { name = "iid", num_clients = 4 }
model = "softmax"

[algorithm]
name = "fed_avg"
lr = 0.5
fraction = 1.0
batch_size = 50
weighting = "uniform"
uplink = [
  { name = "clip", max_norm = 1.0 }, "rotate",
  { name = "skellam", noise_multiplier = 2.0, honest = 3, denominator = 4.0 },
]
into = { name = "encrypted_sum", min_cohort = 4 }
"""


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "app.toml"
    path.write_text(SETTINGS)
    return path


def test_a_settings_file_leads_to_a_run_with_a_claim_that_names_the_server(settings: Path) -> None:
    said = read(settings)
    result = run(
        data=said.data, partition=said.partition, algorithm=said.algorithm, rounds=2, evaluate_every=0
    )
    assert result.status == "completed"
    assert result.privacy is not None
    assert "the server among them" in str(result.privacy)
    assert "fewer than 3 of the clients" in str(result.privacy)
    again = prepare_run(read(settings))
    assert again.parties == ("key_holder",)
    assert Parties().job(settings, ()).parties == ("key_holder",)


def test_the_plan_says_who_sees_what(settings: Path) -> None:
    found = CliRunner().invoke(app, ["plan", str(settings), "--json"])
    assert found.exit_code == 0, found.output
    views = json.loads(found.stdout)["views"]
    assert any(
        "update: the server: the total of at least 4 clients with the noise of 3" in view for view in views
    )
    assert any(view.startswith("update: key_holder: the same total, which it decrypts") for view in views)
    assert any("a liar can move it at will" in view for view in views)
    shown = CliRunner().invoke(app, ["plan", str(settings)])
    assert "who sees what" in shown.output


def test_more_clients_than_there_are_is_refused_before_the_run(settings: Path) -> None:
    settings.write_text(SETTINGS.replace("min_cohort = 4", "min_cohort = 5"))
    found = CliRunner().invoke(app, ["run", str(settings)])
    assert found.exit_code != 0
    assert "no sum of fewer than 5 clients" in " ".join(found.output.split())
