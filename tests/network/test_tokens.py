"""Tokens come in files, from the environment or by a prompt, and unused ones survive a restart."""

import os
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from federation import federation
from typer.testing import CliRunner

from hanse.cli import app
from hanse.cli.tokens import HANSE_TOKEN, read_token
from hanse.core import InvalidInput, PartyId
from hanse.network.client.enrolment import join
from hanse.network.client.home import ClientHome
from hanse.network.protocol.tokens import Token
from hanse.network.protocol.wire import WIRE, News, Poll
from hanse.network.server import https
from hanse.network.server.members import Members
from hanse.network.server.server import Server

TOKEN = Token("ab" * 32, b"0123456789abcdef", "cd" * 32)


def shown(folder: Path, to: Path | None = None, num_clients: int = 3) -> list[str]:
    """The lines that a server prints when it starts."""
    server = Server(folder, "ab" * 32)
    said: list[str] = []
    with closing(server.members):
        server.invitations.copies = to
        https._invite(server, "https://a", num_clients, said.append)
        https._invite_parties(server, "https://a", ("bank",), said.append)
    return [line for line in said if "hanse join" in line]


def test_each_line_says_whose_it_is_where_clients_have_names(tmp_path: Path) -> None:
    server = Server(tmp_path, "ab" * 32)
    said: list[str] = []
    with closing(server.members):
        https._invite(server, "https://a", 3, said.append, houses=("north", "south"))
    assert "is for the party named above it" in said[0]
    assert [line.split("hanse join")[0].strip() for line in said[1:]] == ["north:", "south:", ""]
    homes = [line.split("--home ")[1].split()[0] for line in said[1:]]
    assert homes == [f"hanse-client-{number}" for number in range(3)]


def tokens(lines: list[str]) -> list[str]:
    return [line.split("--token ")[1].split()[0] for line in lines]


def test_unused_tokens_survive_a_restart_and_used_ones_are_removed(tmp_path: Path) -> None:
    first = tokens(shown(tmp_path))
    assert len(set(first)) == 4
    assert tokens(shown(tmp_path)) == first
    kept = sorted((tmp_path / "invitations").iterdir())
    assert [path.name for path in kept] == [f"hanse-client-{party}.token" for party in (0, 1, 2, "bank")]
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in kept)
    server = Server(tmp_path, "ab" * 32)
    server.members.join(Token.parse(first[1]).invitation.public, "11" * 32)
    server.members.close()
    kept[2].write_text("junk\n")
    again = tokens(shown(tmp_path))
    assert (len(again), again[0], again[2]) == (3, first[0], first[3])
    assert again[1] not in first
    assert kept[1].exists()  # its client may have been killed while it joined
    Server(tmp_path, "ab" * 32).invitations.hear(1)
    assert not kept[1].exists()
    assert kept[0].exists()


@pytest.mark.parametrize("party", [1, "bank"])
def test_a_client_may_join_while_a_server_that_starts_again_invites(
    tmp_path: Path, party: PartyId, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown(tmp_path)
    given = Token.parse((tmp_path / "invitations" / f"hanse-client-{party}.token").read_text().strip())
    is_open = Members.is_open

    def join_before(members: Members, secret: bytes) -> bool:
        if secret == given.secret:
            members.join(given.invitation.public, "11" * 32)
        return is_open(members, secret)

    monkeypatch.setattr(Members, "is_open", join_before)
    lines = shown(tmp_path)
    assert len(lines) == 3
    assert not [line for line in lines if f"--home hanse-client-{party} " in line]


def test_no_line_holds_a_token_that_has_a_file(tmp_path: Path) -> None:
    lines = shown(tmp_path, tmp_path / "to hand out")
    for line, party in zip(lines, (0, 1, 2, "bank"), strict=True):
        path = tmp_path / "to hand out" / f"hanse-client-{party}.token"
        assert f"hanse join https://a --token-file '{path}' --home hanse-client-{party} --data FILE" in line
        assert path.read_text() not in "\n".join(lines)
        assert path.read_text() == (tmp_path / "invitations" / path.name).read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (
        len({Token.parse(path.read_text().strip()).secret for path in (tmp_path / "to hand out").iterdir()})
        == 4
    )


def test_a_token_is_removed_when_its_client_joins(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        about = here.server.fingerprint, here.server.identity.public
        token = here.server.invitations.find(*about, 0)
        path = here.server.invitations.path(0)
        assert path.exists()
        home = ClientHome(tmp_path / "client")
        entered = join(home, here.url, token)
        (home.folder / "membership.json").unlink()  # as if it had been killed before it wrote that
        token = Token.parse(path.read_text().strip())
        assert join(ClientHome(tmp_path / "client"), here.url, token).id == entered.id
        with closing(ClientHome(tmp_path / "client").link()) as link:
            link.ask("POST", "/v1/work", News, Poll(wire=WIRE, wait_s=0.0))
        assert not path.exists()
        operator = tmp_path / "operator"
        here.server.members.appoint("operator", "operator", ClientHome(operator).identity.public)
        pem = (tmp_path / "server" / "certificate.pem").read_text()
        kept = {
            "url": here.url,
            "certificate": pem,
            "server_key": here.server.identity.public,
            "id": "operator",
        }
        ClientHome(operator).enter(kept)
        words = ["invite", "--home", str(operator), "--to", str(tmp_path / "one.token")]
        said = CliRunner().invoke(app, words).output
        assert f"--token-file {tmp_path / 'one.token'} --home hanse-client-1" in said.replace("\n", " ")
        assert stat.S_IMODE((tmp_path / "one.token").stat().st_mode) == 0o600
        given = read_token(None, tmp_path / "one.token", ask=False)
        assert str(given) not in said
        assert join(ClientHome(tmp_path / "other"), here.url, given).id == "c1"


def test_where_a_token_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.token"
    path.write_text(f"{TOKEN}\n")
    assert read_token(None, path, ask=False) == read_token(str(TOKEN), None, ask=False) == TOKEN
    assert read_token(None, None, ask=False) is None
    with pytest.raises(InvalidInput, match="give --token or --token-file, not both"):
        read_token(str(TOKEN), path, ask=False)
    with pytest.raises(InvalidInput, match=r"none\.token can't be read"):
        read_token(None, tmp_path / "none.token", ask=False)
    assert read_token(None, tmp_path / "none.token", ask=False, is_member=True) is None
    assert read_token(None, path, ask=False, is_member=True) == TOKEN
    with pytest.raises(InvalidInput, match=r"64 characters\) is not a join token"):
        Token.parse(str(TOKEN)[:64])  # without the server's key, whose answers nobody could tell from others'
    with pytest.raises(InvalidInput, match="106 characters") as seen:
        read_token(str(TOKEN)[1:], None, ask=False)
    assert str(TOKEN)[10:20] not in str(seen.value)  # what is almost a token is not shown
    with pytest.raises(InvalidInput, match="the token is missing, and nobody is here"):
        read_token(None, None, ask=True)
    monkeypatch.setenv(HANSE_TOKEN, "")
    assert read_token(None, None, ask=False) is None
    monkeypatch.setenv(HANSE_TOKEN, str(TOKEN))
    assert read_token(None, None, ask=True) == TOKEN
    (empty := tmp_path / "empty.token").touch()
    with pytest.raises(InvalidInput, match="0 characters"):  # the variable does not stand in for a file
        read_token(None, empty, ask=True)


@pytest.mark.parametrize(("mode", "warns"), [(0o600, False), (0o640, True), (0o604, True)])
def test_a_token_that_others_can_read_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: int, warns: bool
) -> None:
    path = tmp_path / "a.token"
    path.write_text(f"{TOKEN}\n")
    path.chmod(mode)
    assert read_token(None, path, ask=False) == TOKEN
    said = capsys.readouterr().err
    assert (f"chmod 600 {path}" in said) == warns
    assert str(TOKEN) not in said


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_is_asked_and_does_not_show_the_answer(tmp_path: Path) -> None:
    import pty

    terminal, theirs = pty.openpty()
    begin = (  # passwords are asked for at the terminal that controls a process
        "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    words = [sys.executable, "-m", "hanse", "join", "https://127.0.0.1:1", "--data", "x"]
    child = subprocess.Popen(
        [sys.executable, "-c", begin, *words],
        cwd=tmp_path,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    said = b""
    while b"token that the operator sent: " not in said:  # what is typed before the last space is dropped
        said += os.read(terminal, 1000)
    os.write(terminal, b"not-a-token-at-all\n")
    try:
        while block := os.read(terminal, 1000):
            said += block
    except OSError:  # the other end is closed
        pass
    assert child.wait(60.0) == 2
    os.close(terminal)
    assert b"(18 characters) is not a join token" in b" ".join(said.split())
    assert b"not-a-token-at-all" not in said
