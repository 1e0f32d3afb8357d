"""The status and findings of a run are true: abandoned rounds, clients that were not counted."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import hanse
from hanse.cli import app
from hanse.core.exchange import Record, Usage
from hanse.runs.judgement import find_problems, has_trained, judge_status

WELL = Usage(counted=3)


def rounds(*abandoned: str | None, loss: float = 0.5) -> list[Record]:
    """Make the record of the beginning, and one for each round, with the reason if it was abandoned."""
    losses = [1.0, *[loss] * len(abandoned)]
    return [
        Record(number, {"loss": losses[number]}, WELL if number and why is None else Usage(), 0.1, why)
        for number, why in enumerate([None, *abandoned])
    ]


@dataclass(frozen=True)
class One:
    who: str
    asked: int
    counted: int
    why: str


def codes(*given: Any) -> list[str]:
    return [finding.code for finding in find_problems(*given)]


def test_a_run_without_fault_is_completed() -> None:
    assert find_problems(rounds(None, None)) == ()
    assert judge_status("completed", ()) == "completed"


def test_abandoned_rounds_are_counted() -> None:
    found = find_problems(rounds(None, "too few", "none came"))
    assert [finding.code for finding in found] == ["rounds_abandoned"]
    assert found[0].text == ("2 of 3 rounds were abandoned; the last of them, round 3, because none came")
    assert judge_status("completed", found) == "incomplete"
    assert judge_status("diverged", found) == "diverged"


def test_a_run_of_abandoned_rounds_has_trained_nothing() -> None:
    assert codes(rounds("none came", "none came")) == ["untrained", "rounds_abandoned"]
    assert not has_trained(rounds("none came"))
    assert not has_trained(rounds())
    assert has_trained(rounds("none came", None))


def test_a_round_whose_evaluation_failed_has_trained() -> None:
    closed = Record(1, {}, WELL, 0.1, "evaluation: nobody measured")
    assert has_trained([closed])
    assert codes([*rounds(), closed]) == ["rounds_abandoned"]


def test_clients_that_were_not_counted_are_named_with_the_reason() -> None:
    never, seldom = One("client 1", 5, 0, "declined"), One("north", 5, 2, "silent")
    found = find_problems(rounds(None), [never, seldom])
    assert [finding.text for finding in found] == [
        "client 1 was counted in no round: declined",
        "north was counted in 2 of 5 rounds: silent",
    ]
    assert judge_status("completed", found) == "incomplete"


@pytest.mark.parametrize(("loss", "due"), [(1.5, True), (float("nan"), True), (1.0, False), (0.9, False)])
def test_a_model_that_is_worse_than_at_the_start(loss: float, due: bool) -> None:
    found = find_problems(rounds(None, loss=loss))
    assert [finding.code for finding in found] == ["worse_than_start"] * due
    assert judge_status("completed", found) == "completed"


def test_a_run_whose_devices_all_drop_out_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HANSE_STORE", str(tmp_path / "store.db"))
    settings = tmp_path / "app.toml"
    settings.write_text('rounds = 2\ndevices = { name = "unstable", fraction = 1.0 }\n')
    ran = CliRunner().invoke(app, ["run", str(settings), "--json"], prog_name="hanse")
    assert ran.exit_code == 1, ran.output
    result = json.loads(ran.stdout)
    assert (result["status"], result["rounds_abandoned"]) == ("incomplete", 2)
    assert [finding["code"] for finding in result["findings"]] == ["untrained", "rounds_abandoned"]
    assert all(finding.keys() == {"code", "text", "cure"} for finding in result["findings"])
    for words, due in (
        (["ls"], "incomplete"),
        (["show", result["run"]], "2 of 2 rounds were abandoned"),
        (["report", result["run"], "--to", str(tmp_path / "page"), "--no-images"], ""),
    ):
        given = CliRunner().invoke(app, words, prog_name="hanse")
        assert given.exit_code == 0, given.output
        assert due in given.stdout
    page = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert "no round closed, so the model is the one that the run began with" in page
    refused = CliRunner().invoke(
        app, ["release", result["run"], "--to", str(tmp_path / "m")], prog_name="hanse"
    )
    assert refused.exit_code == 2
    assert "has trained nothing" in refused.output
    assert not (tmp_path / "m").exists()
    again = CliRunner().invoke(app, ["resume", result["run"]], prog_name="hanse")
    assert again.exit_code == 1
    assert "is incomplete: it has come to its end already" in again.output


def test_the_card_of_a_released_model_tells_what_its_run_lacked(tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    result = hanse.run(rounds=2, store=store)
    from hanse.store import Runs

    runs = Runs(store)
    plain = {**result.to_json(), "findings": [{"code": "x", "text": "north was away", "cure": "ask north"}]}
    runs.finish(str(result.run), "incomplete", plain)
    given = CliRunner().invoke(
        app,
        ["release", str(result.run), "--to", str(tmp_path / "m"), "--store", str(store)],
        prog_name="hanse",
    )
    assert given.exit_code == 0, given.output
    card = (tmp_path / "m" / "README.md").read_text(encoding="utf-8")
    assert "the run is incomplete" in card
    assert "- **Note:** north was away; ask north." in card
