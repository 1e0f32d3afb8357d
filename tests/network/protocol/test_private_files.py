"""Keys at rest: encrypted with a passphrase, or not, and never in between."""

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_commands import typed

from hanse.core import InvalidInput
from hanse.network.client import ClientHome
from hanse.network.protocol import private_files
from hanse.network.protocol.private_files import change_passphrase, encrypt_home, remove_passphrase
from hanse.network.server import Server


@pytest.fixture(autouse=True)
def new_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("HANSE_PASSPHRASE", raising=False)
    forget()
    yield
    forget()


def forget() -> None:
    """Forgets what this process knows, as another process does."""
    private_files._given.clear()
    private_files._opened.clear()


def is_plain(home: Path) -> bool:
    data = [path.read_bytes() for path in home.rglob("*") if path.name in private_files.PRIVATE]
    assert data
    encrypted = [one.startswith(private_files.SEALED) for one in data]
    assert len(set(encrypted)) == 1
    return not encrypted[0]


def test_an_existing_home_is_encrypted_and_opened_and_decrypted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = ClientHome(tmp_path)
    public, secret = home.identity.public, home.secret
    for passphrase, name in (("one", "HANSE_PASSPHRASE"), ("two", "HANSE_NEW_PASSPHRASE")):
        monkeypatch.setenv(name, passphrase)
        assert "are encrypted" in typed("passphrase", "--home", str(tmp_path))
        assert name not in os.environ  # no child process finds it there
        assert not is_plain(tmp_path)
    forget()
    with pytest.raises(InvalidInput, match=r"there is no passphrase: start this command in a terminal, or"):
        ClientHome(tmp_path)
    monkeypatch.setenv("HANSE_PASSPHRASE", "one")
    said = typed("leave", "--home", str(tmp_path), code=2)
    assert "this passphrase does not open the keys in" in said
    (tmp_path / "typed").write_text("two\n")
    monkeypatch.setenv("HANSE_PASSPHRASE_FILE", str(tmp_path / "typed"))
    again = ClientHome(tmp_path)
    assert (again.identity.public, again.secret) == (public, secret)
    typed("passphrase", "--remove", "--home", str(tmp_path))
    assert is_plain(tmp_path)
    monkeypatch.delenv("HANSE_PASSPHRASE_FILE")
    forget()
    assert ClientHome(tmp_path).identity.public == public
    with pytest.raises(InvalidInput, match="are not encrypted"):
        remove_passphrase(tmp_path)


def test_keys_of_a_new_home_are_never_plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANSE_PASSPHRASE", "one")
    words = ["join", "https://127.0.0.1:1", "--token", "x", "--data", "share", "--encrypt-keys"]
    assert "is not a join token" in typed(*words, "--home", str(tmp_path / "client"), code=2)
    assert not is_plain(tmp_path / "client")
    encrypt_home(tmp_path / "server")
    Server(tmp_path / "server", "ab" * 32).members.close()
    ClientHome(tmp_path / "server" / "operator")
    assert not is_plain(tmp_path / "server")
    assert {path.name for path in (tmp_path / "server").rglob("*")} >= {"identity.pem", "secret", "key.pem"}


@pytest.mark.parametrize("num_replaced", [0, 1, 2])
def test_an_encryption_that_was_cut_off_is_completed(
    num_replaced: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = ClientHome(tmp_path)
    public, secret = home.identity.public, home.secret
    monkeypatch.setenv("HANSE_PASSPHRASE", "one")
    with monkeypatch.context() as cut:
        replaced = [tmp_path / "key.pem", tmp_path / "secret"][:num_replaced]
        cut.setattr(private_files, "_list_private", lambda home: replaced)
        encrypt_home(tmp_path)
    again = ClientHome(tmp_path)
    assert (again.identity.public, again.secret) == (public, secret)
    encrypt_home(tmp_path)
    assert not is_plain(tmp_path)
    assert ClientHome(tmp_path).identity.public == public


def test_damage_and_a_lost_sealing_key_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANSE_PASSPHRASE", "one")
    change_passphrase(tmp_path)
    key = ClientHome(tmp_path).folder / "key.pem"
    whole = key.read_bytes()
    key.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(InvalidInput, match=r"key.pem is damaged"):
        ClientHome(tmp_path)
    key.write_bytes(whole)
    (tmp_path / "sealing-key").unlink()
    with pytest.raises(InvalidInput, match=r"sealing-key is missing; restore it"):
        ClientHome(tmp_path)


def test_the_passphrase_is_asked_for_on_a_terminal(tmp_path: Path) -> None:
    ClientHome(tmp_path)
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "hanse", "passphrase", "--home", str(tmp_path)]
    ends = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    with subprocess.Popen(words, **ends, start_new_session=True) as process:
        os.close(theirs)
        said = b""
        for asked in (b"New passphrase for the keys in", b"The same again: "):
            while asked not in said:
                said += os.read(ours, 1000)
            os.write(ours, b"typed\n")
        assert process.wait(60) == 0
    os.close(ours)
    assert b"typed" not in said
    assert not is_plain(tmp_path)
