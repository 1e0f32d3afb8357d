"""What an operator sees of a served run: a live table on a terminal, else a line for each round."""

import io
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from federation import Threaded
from rich.console import Console
from test_kill import free_port
from test_presence import Failing

from hanse.cli.serving import LineScreen, Screen, TableScreen
from hanse.cli.serving import screens as module
from hanse.network.client.enrolment import join
from hanse.network.client.home import ClientHome
from hanse.network.protocol.tokens import Token
from hanse.network.server import RoundReport, RunEnd, RunStanding
from hanse.network.server.https import lead
from hanse.runs import Parties

SETTINGS = """
rounds = 3
algorithm = { name = "fed_avg", lr = 0.5, fraction = 1.0 }
partition = { name = "iid", num_clients = 2 }
"""


def serve(folder: Path, screen: Screen, second: Callable[..., Any] = Threaded) -> str:
    """Leads a run of two clients to its end; returns its status."""
    (folder / "app.toml").write_text(SETTINGS)
    parties, threads = Parties(), list[threading.Thread]()

    def say(line: str) -> None:
        screen.say(line)
        found = re.search(r"hanse join (\S+) --token (\S+) --home hanse-client-(\d)", line)
        if found:
            threads.append(threading.Thread(target=work, args=found.groups(), daemon=True))
            threads[-1].start()

    def work(url: str, token: str, number: str) -> None:
        client_home = ClientHome(folder / f"client-{number}")
        join(client_home, url, Token.parse(token))
        kind = Threaded if number == "0" else second
        kind(client_home, parties.data("share", int(number)), parties.bind).run()

    address = ("127.0.0.1", free_port())
    ended = lead(
        [parties.job(folder / "app.toml", ())],
        folder / "server",
        address,
        address,
        say=say,
        report=screen.report,
        watch=screen.watch,
        conclude=screen.conclude,
    )
    screen.close()
    for thread in threads:
        thread.join(30.0)
    return ended


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    written = io.StringIO()
    monkeypatch.setattr(
        module, "make_stdout", lambda: Console(file=written, force_terminal=True, width=80, highlight=False)
    )
    monkeypatch.setattr("hanse.cli.views.make_stdout", module.make_stdout)
    return written


def strip(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).replace("\r", "\n")


def test_a_terminal_shows_a_live_table_and_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = on_a_terminal(monkeypatch)
    assert serve(tmp_path, TableScreen(tmp_path / "server")) == "completed"
    raw = written.getvalue()
    shown = strip(raw)
    assert "\x1b[1A\x1b[2K" in raw  # it is drawn anew in its place
    heads = "round  accuracy  counted  missing  late  refused"
    assert heads in shown
    assert re.search(r"run \w+: running, \d of 3 rounds, loss \d\.\d+, accuracy \d\.\d+", shown)
    assert re.search(r"2 of 2 present: client 0, client 1", shown)
    lines = [line for line in shown.splitlines() if "hanse " not in line]
    assert max(map(len, lines)) <= 80
    after = shown[shown.rindex(heads) :]
    store = tmp_path / "server" / "runs.db"
    assert re.search(rf"^next        hanse show \w+ --store {store}$", after, re.MULTILINE)
    assert re.search(rf"^next        hanse release \w+ --to model --store {store}$", after, re.MULTILINE)
    assert "rounds      3 of 3" in after
    assert "counted     client 0 in 3 of 3 rounds, client 1 in 3 of 3 rounds" in after
    assert re.search(r"sha256      [0-9a-f]{64}", after)
    assert after.count("sha256") == 1
    assert "params_sha256" not in shown  # the table says it, and nothing says it twice


def test_elsewhere_each_round_is_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It names who was not counted, and why; the last lines are for programs and people."""
    assert serve(tmp_path, LineScreen(tmp_path / "server"), Failing) == "incomplete"
    said = capsys.readouterr().out
    why = "client 1: failed once downloaded: an error, which its own log describes \\(internal\\)"
    for number in (1, 2, 3):
        line = (
            rf"^run \w+: round {number} counted 1 of 2 clients; {why}; loss \S+, accuracy \S+; "
            r"\S+ kB up, \S+ kB down; \S+ m?s$"
        )
        assert len(re.findall(line, said, re.MULTILINE)) == 1, said
    assert re.search(r'^run \w+: incomplete \{.*"params_sha256"', said, re.MULTILINE)
    assert said.count("params_sha256") == 1
    assert "counted client 0 in 3 of 3 rounds, client 1 in 0 of 3 rounds" in said
    assert re.search(r"^next: hanse show \w+ --store \S+runs.db; hanse release", said, re.MULTILINE)


def test_late_refused_and_missing_clients_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = on_a_terminal(monkeypatch)
    missed = {1: "it was too late", 2: "refused: not finite", 3: "nothing was heard of it for 60 s"}
    report = RoundReport("abc", 7, {"loss": 0.5}, 5000, 9000, 2.5, None, 4, missed, frozenset({1, 5}))
    assert (report.refused, set(report.missing)) == ([2], {3})
    assert report.describe_counts() == (
        "counted 4 of 7 clients; client 1: it was too late; client 2: refused: not finite; "
        "client 3: nothing was heard of it for 60 s; late: client 5"
    )
    doing = "waiting for clients: 3 of 4 are present; not heard: client 3"
    standing = RunStanding(
        "abc", "running", 7, 9, doing, {"loss": 0.5}, 3.0, 1, 2, 4, (0, 1, 2), (3,), "none"
    )
    screen = TableScreen(tmp_path)
    screen.report(report)
    screen.watch(lambda: [standing])
    screen.say(f"run abc: {doing}")  # the table says it
    screen.watch(lambda: [standing])
    screen.conclude(RunEnd("abc", "interrupted", "too few clients came", {}, {}, {}, False))
    shown = strip(written.getvalue())
    assert re.search(
        r"^ +7  0\.5000   4 of 7        1     2        1  5 kB  9 kB  2\.5 s *$", shown, re.MULTILINE
    ), shown
    assert "3 of 4 present: client 0, client 1, client 2; awaited: client 3" in shown
    assert f"run abc: {doing}" not in shown
    assert shown.rstrip().endswith("run abc: interrupted too few clients came")


def test_runs_do_not_wait_for_a_screen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """LineScreen of other threads are written by the thread that opened the screen, and in order."""
    screen = LineScreen(tmp_path)
    other = threading.Thread(target=lambda: [screen.say(f"line {n}") for n in range(3)])
    other.start()
    other.join()
    assert capsys.readouterr().out == ""
    screen.watch(list)
    assert capsys.readouterr().out == "line 0\nline 1\nline 2\n"
