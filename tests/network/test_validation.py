"""Examples to choose by are the server's own: a served run stops by them, as the simulation does."""

from dataclasses import replace
from pathlib import Path

import pytest
from federation import federation

import hanse
from hanse.runs import Parties

SETTINGS = """
rounds = 6
data = { name = "digits", validation_fraction = 0.1 }
partition = { name = "iid", num_clients = 2 }
algorithm = { name = "fed_avg", lr = 0.3, fraction = 1.0 }
stop = { target = 0.85 }
"""


def test_a_served_run_stops_by_the_servers_validation_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("app.toml").write_text(SETTINGS)
    alone = hanse.perform(hanse.read("app.toml"))
    assert alone.reason == "validation_accuracy reached 0.85"
    assert 0 < alone.rounds < 6
    with federation(tmp_path / "f") as here:
        job = replace(Parties().job(Path("app.toml"), ()), name="real", tags=("two",))
        run, home = here.lead(job), here.server.home
        for number in range(2):
            here.enter_one(number, Parties().data("share", number), Parties().bind)
        result = here.end(run)
    assert result["params_sha256"] == alone.params_sha256
    assert result["reason"] == alone.reason
    assert alone.final is not None
    assert result["final"] == {"round": alone.final.round, **alone.final.metrics}
    assert result["findings"] == []
    loaded = hanse.load("real", store=home / "runs.db")
    assert (loaded.run, loaded.tags, loaded.params_sha256) == (run, ("two",), alone.params_sha256)
    assert [row["accuracy"] for row in loaded.rows()] == [row["accuracy"] for row in alone.rows()]
    with pytest.raises(hanse.InvalidInput, match=r"led with real parties.*remove the folder"):
        hanse.runs.remove_runs(["real"], home / "runs.db")
