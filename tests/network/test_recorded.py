"""A real run over TLS with three clients is audited afterwards, from what its server has kept."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from federation import federation, job
from learning import learner
from typer.testing import CliRunner

from hanse.algorithms import fed_sgd, uniform
from hanse.audits import audit_recording, draw_audit
from hanse.cli import app
from hanse.config import AuditPlan
from hanse.core import Examples, InvalidInput
from hanse.data import digits
from hanse.leakage import match_rows, measure_psnr, observe, read_recorded_plan, read_recording, read_row
from hanse.privacy.secure_sums import secure_mean
from hanse.transforms import clip, quantize, rotate

TRAIN = digits().load().train
ROWS = [TRAIN.take(np.array(at)) for at in ([0], [2, 4], [3])]


def record(folder: Path, algorithm: object, rows: list[Examples] = ROWS) -> Path:
    """Serves three clients over TLS, two rounds, and returns the recording."""
    given = job(algorithm, 2, num_clients=3, record=folder / "record")  # type: ignore[arg-type]
    settings = json.dumps({"data": {"in_python": True, "name": "arrays"}, "client_test_fraction": 0.0})
    with federation(folder) as here:
        run = here.lead(replace(given, plan=replace(given.plan, settings=settings)))
        for number, row in enumerate(rows):
            (here.client_home(number).folder / "policy.toml").write_text("min_examples = 1\n")
            here.enter_one(number, lambda plan, row=row: row, learner)
        here.end(run)
    return folder / "record"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    uplink = (rotate(), quantize(8))
    return record(
        tmp_path_factory.mktemp("run"), fed_sgd(lr=0.5, fraction=1.0, weighting=uniform(), uplink=uplink)
    )


def save(folder: Path, rows: Examples) -> str:
    np.savez(folder / "own.npz", x=rows.x, y=rows.y)
    return str(folder / "own.npz")


def test_the_server_reads_single_rows_off_its_recording(recorded: Path) -> None:
    answers = read_recording(recorded)
    assert sorted((a.round, a.task.party) for a in answers if "gradient" in a.payload.uplink) == [
        (round, party) for round in (1, 2) for party in (0, 1, 2)
    ]
    for answer in answers[:3]:
        sight = observe(answer)
        found = read_row(sight.parts["gradient"].values)
        if answer.task.party != 1:  # it has two rows
            assert np.abs(found - ROWS[answer.task.party].x[0]).max() < 0.02
        outside = observe(answer, "outsider")
        assert outside.parts == outside.shared == {}
        assert outside.num_bytes > 650
        assert not observe(answer, "fellow client").parts
    assert oct(recorded.stat().st_mode)[-3:] == "700"
    assert read_recorded_plan(recorded).feature_shape == (64,)


def test_a_recording_alone_tells_rows_and_labels_and_shows_them_only_when_asked(recorded: Path) -> None:
    found = audit_recording(recorded, AuditPlan(max_gain_db=300.0))
    section = found.sections["structure"]
    assert section.details == {"messages": 6, "one_direction": 4}
    told = {row[0]: row[3:] for row in section.rows}
    assert told["round 1, party 0"] == ("one row, or one label", str(ROWS[0].y[0]))
    assert told["round 2, party 2"] == ("one row, or one label", str(ROWS[2].y[0]))
    assert told["round 1, party 1"] == ("several rows", "-")
    assert "no originals" in str(found.sections["reconstruction"].missing)
    assert not found.holds  # the claim was not measured
    (pictures,) = section.pictures.values()
    assert measure_psnr(pictures[0], ROWS[0].x[0].reshape(8, 8)) > 30
    assert "base64" not in draw_audit(found)
    assert draw_audit(found, show_rows=True).count("base64") == 6
    seen = {(row[0], row[1]): row[2] for row in found.sections["views"].rows}
    assert seen["gradient", "server"] == "gradient: its own message"
    assert seen["gradient", "fellow client"] == "models alone"


def test_with_the_file_of_one_party_gains_are_measured(recorded: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    own = save(tmp_path, ROWS[1])
    to, claims = tmp_path / "audit.html", tmp_path / "claims.toml"
    claims.write_text("[audit]\nmax_gain_db = 3\n")
    options = ["--recorded", str(recorded), "--data", own, "--party", "1", "--to", str(to), "--json"]
    done = CliRunner().invoke(app, ["audit", str(claims), *options])
    assert done.exit_code == 1, done.output
    said = json.loads(done.stdout)
    readings = said["sections"]["reconstruction"]["details"]
    assert readings["server: the first message by descent, 2 rows"]["gain_db"] > 10
    assert readings["control: one row of the party, no protection"]["gain_db"] > 60
    assert readings["fellow client: two models, less its own message"]["gain_db"] < 10  # it reads a mixture
    (claim,) = said["claims"]
    assert claim["measured"] == max(d["gain_db"] for n, d in readings.items() if not n.startswith("control"))
    assert "base64" not in to.read_text()
    other = audit_recording(recorded, data=own, party=0)
    best = other.sections["reconstruction"].details["server: the party's messages"]
    assert best["gain_db"] < 3  # it is the message of another


def test_of_two_clients_a_fellow_reads_the_other_in_a_recording(tmp_path: Path) -> None:
    rows = [TRAIN.take(np.array([i])) for i in (0, 1)]
    both = Examples(np.concatenate([one.x for one in rows]), np.concatenate([one.y for one in rows]))
    given = job(fed_sgd(lr=0.5, fraction=1.0), 2, num_clients=2, record=tmp_path / "record")
    settings = json.dumps({"data": {"in_python": True, "name": "arrays"}, "client_test_fraction": 0.0})
    with federation(tmp_path) as here:
        run = here.lead(replace(given, plan=replace(given.plan, settings=settings)))
        for number, row in enumerate(rows):
            (here.client_home(number).folder / "policy.toml").write_text("min_examples = 1\n")
            here.enter_one(number, lambda plan, row=row: row, learner)
        here.end(run)
    found = audit_recording(tmp_path / "record", data=save(tmp_path, both), party=1)
    readings = found.sections["reconstruction"].details
    assert readings["fellow client: two models, less its own message"]["gain_db"] > 40
    assert readings["server: the party's messages"]["gain_db"] > 60
    assert found.sections["reconstruction"].found["gain_db"] > 60
    (original, *_) = found.sections["reconstruction"].pictures.values()
    assert match_rows(np.array([one.ravel() for one in original]), rows[1].x)[0] == 0


def test_of_a_secure_sum_nothing_single_was_recorded(tmp_path: Path) -> None:
    into = secure_mean(max_clients=3)
    folder = record(
        tmp_path, fed_sgd(lr=0.5, fraction=1.0, weighting=uniform(), uplink=(clip(1.0),), into=into)
    )
    found = audit_recording(folder, AuditPlan(max_gain_db=3.0), data=save(tmp_path, ROWS[1]), party=1)
    assert "entered sums" in str(found.sections["structure"].missing)
    readings = found.sections["reconstruction"]
    assert not readings.found
    assert not found.holds
    assert "no message of a fellow" in str(readings.rows)


def test_a_recording_that_is_damaged_or_missing_is_named(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidInput, match="serve with --record"):
        read_recording(tmp_path)
    with pytest.raises(InvalidInput, match="belong together"):
        audit_recording(recorded, party=1)
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in recorded.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    next(copy.glob("*.answer")).write_bytes(b"damaged")
    with pytest.raises(InvalidInput, match="can't be read"):
        audit_recording(copy)
    (copy / "run.plan").write_bytes(b"damaged")
    with pytest.raises(InvalidInput, match=r"run\.plan can't be read"):
        read_recorded_plan(copy)
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, ["audit", "--party", "1"]).exit_code == 2
