"""A backup holds all that a run needs, and says after its restoration what it undid."""

import shutil
from pathlib import Path

from federation import CASES, Ended, Threaded, federation, job, simulate
from test_kill import free_port

from hanse.core.exchange import Record
from hanse.network.client.poller import Poller
from hanse.network.protocol.wire import News
from hanse.network.server.upkeep import back_up, note_restoration, restore_backup

DEAF = 4


class DeafPoller(Poller):
    """Ends its client when it is told an outcome, before the client can note it."""

    def _take(self, news: News) -> None:
        if news.decisions:
            self._connection.stopping.set()
        else:
            super()._take(news)


class Deaf(Threaded):
    """A client that is switched off in the moment in which it is told an outcome."""

    poller = DeafPoller


def test_an_outcome_that_a_client_has_not_heard_is_in_it(tmp_path: Path) -> None:
    """Else the run would go on, and this client would never count its own first round."""
    scaffold, port, server = CASES["scaffold"], free_port(), tmp_path / "server"
    due: Ended = simulate(scaffold, 2)

    def watch(record: Record) -> None:
        if record.round == 1:
            here_mailbox.stop()

    with federation(tmp_path, port=port) as here:
        run = here.server.lead(job(scaffold, 2, watch=watch))
        here_mailbox = here.server.run(run).mailbox
        here.enter(range(DEAF))
        here.enter([DEAF], kind=Deaf)
        here.end(run, status="interrupted")
        here.wait_until(lambda: set(here_mailbox.outcomes()) == {DEAF}, "the others do not hear")
        back_up(server, tmp_path / "kept")
    shutil.rmtree(server)
    restore_backup(tmp_path / "kept", server)
    with federation(tmp_path, port=port) as here:
        here.server.check_store([run], fresh=False)
        here.lead(job(scaffold, 2), run)
        assert DEAF in here.server.run(run).mailbox.outcomes()
        here.enter()
        assert here.ended(run) == due


def test_other_files_beside_messages_are_left_alone(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        run = here.server.home / "runs" / "abc"
        message = run / "spool" / f"3.{'ab' * 32}.message"
        for folder in ("spool/notes", "cases/.git"):
            (run / folder).mkdir(parents=True)
        message.write_bytes(b"an update")
        back_up(here.server.home, tmp_path / "kept")
    kept = {str(path.relative_to(tmp_path / "kept")) for path in (tmp_path / "kept" / "runs").rglob("*.*")}
    assert kept == {f"runs/abc/spool/{message.name}"}


def test_a_restored_server_says_whom_it_lets_in(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        for number in range(2):
            here.client_home(number)
        here.server.members.invite(number=2)
        back_up(here.server.home, tmp_path / "kept")
        here.server.part("c0", "revoked")
    shutil.rmtree(tmp_path / "server")
    restore_backup(tmp_path / "kept", tmp_path / "server")
    with federation(tmp_path) as here:
        lines: list[str] = []
        note_restoration(here.server.home, here.server.members, lines.append)
        said = "\n".join(lines)
        assert "c0 (client 0), c1 (client 1). Revoke again whom you have revoked since" in said
        assert "1 invitations are open, also those that were used since" in said
        assert "Revoke again whom you have revoked since" in here.events()
