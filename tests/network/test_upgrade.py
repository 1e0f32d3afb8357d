"""A new version goes on with the homes of an old one, and versions that can't talk say so on both sides."""

import json
import tarfile
import threading
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from federation import Threaded, federation
from test_kill import free_port

import hanse
from hanse.network.client.gate import check_versions
from hanse.network.client.home import ClientHome
from hanse.network.client.joining import Entrant, Owner, join_in_order
from hanse.network.protocol.errors import Refused
from hanse.network.protocol.wire import WIRE
from hanse.network.server import public_routes
from hanse.network.server.https import lead
from hanse.network.server.upkeep import find_server_at_rest
from hanse.runs import Parties
from hanse.store import Runs

OLD = Path(__file__).parent / "v0_2_0" / "homes.tar.xz"
RUN = "36faff699353"


@pytest.fixture
def homes(tmp_path: Path) -> Path:
    """Unpacks homes of version 0.2.0 whose processes were all killed in round 3 of 4."""
    with tarfile.open(OLD) as packed:
        packed.extractall(tmp_path, filter="data")
    return tmp_path


def test_the_folder_of_an_old_server_can_be_read_and_is_left_alone(homes: Path) -> None:
    before = {path: path.read_bytes() for path in homes.rglob("*") if path.is_file()}
    found = find_server_at_rest(homes / "server" / "operator")
    assert found is not None
    (run,) = found.status()["runs"]
    assert (run["run"], run["status"], run["round"], run["num_rounds"]) == (RUN, "interrupted", 2, 4)
    assert [(one["id"], one["party"]) for one in found.clients()] == [
        ("operator", None),
        ("c0", 0),
        ("c1", 1),
    ]
    assert [event["what"][:6] for event in found.events(10)] == ["joined", "joined"]
    assert {path: path.read_bytes() for path in homes.rglob("*") if path.is_file()} == before


def test_server_and_clients_go_on_with_the_homes_of_an_old_version(homes: Path) -> None:
    """One message of the open round had arrived, and both clients remember their control variates."""
    port, parties, threads, said = free_port(), Parties(), list[threading.Thread](), list[str]()

    def work(number: int) -> None:
        home = homes / f"client-{number}"
        member = json.loads((home / "membership.json").read_text())
        member["url"] = f"https://127.0.0.1:{port}"  # the old port may be taken on this machine
        (home / "membership.json").write_text(json.dumps(member))
        data = parties.data("share", number)
        Threaded(ClientHome(home), data, parties.bind, lambda what: None).run()

    def say(line: str) -> None:
        said.append(line)
        if "is served at" in line:
            threads.extend(threading.Thread(target=work, args=(n,), daemon=True) for n in (0, 1))
            for thread in threads:
                thread.start()

    home, address = homes / "server", ("127.0.0.1", port)
    job = parties.job_of(home / "runs.db", RUN)
    assert lead([job], home, address, address, resume=RUN, say=say) == "completed", said
    for thread in threads:
        thread.join(30.0)
    records = Runs(home / "runs.db").records(RUN)
    assert [record.round for record in records] == [0, 1, 2, 3, 4]
    assert all(record.usage.counted == 2 for record in records[1:])
    assert not any("join" in line for line in said)  # nobody has to join again
    saved = Runs(home / "runs.db").checkpoint(RUN)
    assert saved is not None
    undisturbed = hanse.perform(hanse.read(homes / "app.toml"))
    assert undisturbed.params is not None
    ended = saved.state.state.params
    for name, held in undisturbed.params.items():  # the old part was computed on another machine
        np.testing.assert_allclose(ended[name], held, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("spoken", [WIRE - 1, WIRE + 1])
def test_a_member_hears_at_its_start_that_its_server_speaks_another_wire(
    spoken: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would not understand the server's signatures, and would try again for ever."""
    opened: list[Any] = []
    owner = Owner(lambda plans, number: opened.append(number), Parties().bind, lambda what: None, None)
    with federation(tmp_path, stay=True) as here:
        client_home = here.client_home(0)
        monkeypatch.setattr(public_routes, "WIRE", spoken)
        with pytest.raises(
            Refused, match=f"speaks the wire {spoken}, this client .* speaks {WIRE}; upgrade the older"
        ):
            join_in_order(client_home, Entrant(), owner)
    assert not opened
    check_versions(client_home)  # nobody answers any more: that is for others to say


def test_everybody_may_ask_a_server_which_versions_it_speaks(tmp_path: Path) -> None:
    """A client of any version can read this answer: it is not signed, and its names never change."""
    with federation(tmp_path, stay=True) as here:
        found = httpx.get(f"{here.url}/v1/about", verify=False).json()
    assert found.keys() >= {"wire", "hanse"}
    assert found["wire"] == [WIRE]
