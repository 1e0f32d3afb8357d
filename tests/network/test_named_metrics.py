"""Clients of a served run send the sums of named metrics, which are those of the simulation."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation import Threaded, federation

import hanse
from hanse.data import own_test
from hanse.runs import Parties, load_population

SETTINGS = """
rounds = 2
client_test_fraction = 0.3
{secure}
model = "logistic"
data = { name = "npz", path = "rows.npz", test_fraction = 0.0 }
partition = { name = "iid", num_clients = 3 }
algorithm = { name = "fed_avg", lr = 0.3, fraction = 1.0, uplink = [{ name = "clip", max_norm = 5.0 }] }
stop = { metric = "brier" }
[evaluation]
metrics = ["accuracy", "auroc", "sensitivity(threshold=0.3)", "confusion_matrix"]
"""


@pytest.mark.parametrize("secure", [False, True])
def test_named_metrics_are_those_of_the_simulation(
    secure: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 4)).astype(np.float32)
    np.savez("rows.npz", x=x, y=(x[:, 0] + rng.normal(size=120) > 0.5).astype(int))
    Path("app.toml").write_text(SETTINGS.replace("{secure}", f"secure = {str(secure).lower()}"))
    alone: Any = hanse.perform(hanse.read("app.toml"))
    people = load_population(hanse.read("app.toml"))
    with federation(tmp_path / "f") as here:
        run = here.lead(Parties().job(Path("app.toml"), ()))
        for number in range(3):
            client = Threaded(
                here.client_home(number),
                lambda plan, n=number: people.client(n),
                Parties().bind,
                here.said.append,
                lambda plan, n=number: people.role(own_test(n)),
            )
            here.clients.append(client)
            here.threads.append(threading.Thread(target=client.run, daemon=True))
            here.threads[-1].start()
        result = here.end(run)
    final = alone.to_json()["final"]
    assert result["params_sha256"] == alone.params_sha256
    assert result["final"] == pytest.approx(final, abs=1e-6)
    assert {"auroc", "auroc_error", "sensitivity(threshold=0.3)", "brier"} < set(final)
    assert result["best"]["round"] == alone.best.round
    assert result["assessment"]["confusion_matrix"] == alone.assessment["confusion_matrix"]
    for name, told in alone.assessment["metrics"].items():
        measured = result["assessment"]["metrics"][name]
        for word in ("value", "constant", "error"):
            assert measured[word] == pytest.approx(told[word], abs=1e-6), (name, word)
