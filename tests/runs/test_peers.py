"""Peers through the front door: settings, plans, sweeps, reports, a killed run, and what is refused."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import hanse
from hanse.algorithms import decentralised_sgd, ring
from hanse.data import iid
from hanse.report.pages import report_page
from hanse.report.run_data import load_run
from hanse.runs import Parties
from hanse.store import Runs

SETTINGS = """
rounds = 5
evaluate_every = 5
partition = {name = "shards", num_clients = 8}
[algorithm]
name = "decentralised_sgd"
graph = {name = "random_graph", p = 0.4, seed = 3}
lr = 0.3
batch_size = 16
link_failure = 0.2
[devices]
name = "unstable"
fraction = 0.1
"""

KILLED = """
import os, signal
import hanse

def kill(record):
    if record.round == 3:
        os.kill(os.getpid(), signal.SIGKILL)

hanse.perform(hanse.read("peers.toml"), store="store.db", watch=kill)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a signal that kills at once")
def test_a_killed_run_of_peers_ends_in_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(hanse.__file__).parents[1]))
    Path("peers.toml").write_text(SETTINGS)
    whole = hanse.perform(hanse.read("peers.toml"))
    killed = subprocess.run([sys.executable, "-c", KILLED], env=os.environ, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    (info,) = Runs("store.db").infos()
    resumed = hanse.resume(info.run, store="store.db")
    assert resumed.params_sha256 == whole.params_sha256
    assert [r.metrics for r in resumed.records] == [r.metrics for r in whole.records]
    page, _ = report_page(load_run(Runs("store.db"), info.run))
    second = whole.records[-1].metrics["second_eigenvalue"]
    assert f"spectral gap {1 - second:.4f}" in page
    assert "Measured decay of a mixing" in page


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ('{name = "torus", rows = 3}', "a torus of 3 rows has no room for 8 peers"),
        ('{name = "random_graph", p = 0.01}', "is not connected"),
        ('{name = "graph_file", path = "links.txt"}', r"line 2 of .*links\.txt names peer 8"),
        ('"rings"', '"rings", which names no graph; did you mean .ring'),
    ],
)
def test_wrong_graphs_are_refused_before_the_run(
    graph: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("links.txt").write_text("0 1\n1 8\n")
    Path("peers.toml").write_text(SETTINGS)
    with pytest.raises(hanse.InvalidInput, match=message):
        hanse.perform(hanse.read("peers.toml", sets=[f"algorithm.graph={graph}"]), store="store.db")
    assert not Path("store.db").exists()


def test_a_server_refuses_peers(tmp_path: Path) -> None:
    path = tmp_path / "peers.toml"
    path.write_text(SETTINGS)
    with pytest.raises(
        hanse.InvalidInput, match=r"decentralised_sgd trains peers .* are not built yet; simul"
    ):
        Parties().job(path, ["devices=ideal"])


def test_peers_on_the_digits_learn(tmp_path: Path) -> None:
    result = hanse.run(
        partition=iid(8),
        algorithm=decentralised_sgd(ring(), 0.5, batch_size=32),
        rounds=30,
        evaluate_every=30,
        store=tmp_path / "store.db",
    )
    assert result.final is not None
    assert result.final.metrics["accuracy"] > 0.88
