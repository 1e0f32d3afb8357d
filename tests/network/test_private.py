"""Files that hold secrets are for their owner alone, whatever the umask of the process allows."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from federation import FED_AVG, federation, job

from hanse.network.client import home as client_home
from hanse.network.client.enrolment import rotate_key
from hanse.network.client.home import ClientHome
from hanse.network.protocol.certificates import fingerprint, make
from hanse.network.protocol.signing import Identity
from hanse.network.server.https import _appoint
from hanse.network.server.server import Server

pytestmark = pytest.mark.skipif(os.name != "posix", reason="modes of files are those of POSIX systems")
SECRETS = {
    "key.pem",
    "key.next.pem",
    "secret",
    "identity.pem",
    "certificate.key",
    "client.log",
    "client.log.1",
}


@pytest.fixture(autouse=True)
def generous() -> Iterator[None]:
    """A umask that takes no permission away."""
    before = os.umask(0)
    yield
    os.umask(before)


def open_to_others(folder: Path) -> list[str]:
    """Returns the secret files below a folder that others than their owner may use."""
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.name in SECRETS and path.stat().st_mode & 0o077
    ]


def secrets_in(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.name in SECRETS}


def is_private(folder: Path) -> bool:
    return folder.stat().st_mode & 0o777 == 0o700


def test_a_clients_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_home, "LOG_BYTES", 10)
    folder = tmp_path / "deep" / "client"
    home = ClientHome(folder)
    assert home.secret == ClientHome(folder).secret
    Identity.at(folder / client_home.NEXT_KEY)
    with home.log() as log:
        for _ in range(3):
            log.error("a line that may quote a cell")
    assert secrets_in(folder) == {"key.pem", "key.next.pem", "secret", "client.log", "client.log.1"}
    assert open_to_others(folder) == []
    assert is_private(folder)


@pytest.mark.parametrize("mode", [None, 0o777], ids=["new", "made before"])
def test_a_servers_home(mode: int | None, tmp_path: Path) -> None:
    folder = tmp_path / "server"
    if mode is not None:
        folder.mkdir(mode)
    certificate, _ = make(folder, ("127.0.0.1",))
    server = Server(folder, fingerprint(certificate.read_text()))
    _appoint(server, "https://127.0.0.1:1", certificate.read_text())
    server.rotation.announce("")
    assert secrets_in(folder) == {"key.pem", "secret", "identity.pem", "certificate.key"}
    assert len(list(folder.rglob("certificate.key"))) == 2
    assert open_to_others(folder) == []
    assert is_private(folder)
    assert is_private(folder / "operator")
    server.rotation.switch()
    assert secrets_in(folder) == {"key.pem", "secret", "identity.pem", "certificate.key"}
    assert open_to_others(folder) == []
    server.members.close()


def test_all_homes_after_a_run(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        run = here.lead(job(FED_AVG, 1))
        here.client_home(0)
        rotate_key(here.client_home(0))
        here.enter()
        here.end(run)
    assert open_to_others(tmp_path) == []
    homes = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert len(homes) == 6
    assert all(map(is_private, homes))
