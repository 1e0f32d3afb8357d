"""A server that finds an interrupted run of other settings asks, and never begins a second one silently."""

import math
import os
import re
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from federation import FED_AVG, Threaded, federation, job, learner, population
from forked import PIPE, STDOUT, python
from test_commands import typed
from test_kill import free_port

from hanse.core import InvalidInput
from hanse.network.client.enrolment import join
from hanse.network.client.home import ClientHome
from hanse.network.protocol.signing import Identity
from hanse.network.protocol.tokens import Token
from hanse.network.server.https import lead, listen
from hanse.network.server.job import SERVED, RunJob
from hanse.network.server.members import Members
from hanse.network.server.runtime import Patience
from hanse.network.server.server import Server
from hanse.network.server.upkeep import OtherRunOpen, choose_runs, close_run, find_ended_run, open_run
from hanse.runs import Parties
from hanse.store import Runs

SETTINGS = """
rounds = 2
algorithm = { name = "fed_avg", lr = 0.5, fraction = 1.0 }
partition = { name = "iid", num_clients = 1 }
"""


def begin(home: Path, given: RunJob) -> str:
    """Begins a run whose server is gone at once."""
    home.mkdir(exist_ok=True)
    return Runs(home / "runs.db").begin(given.said, given.environment or {})


def test_other_settings_are_a_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the answer continues the run, with its own settings."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.toml").write_text(SETTINGS)
    old = Parties().job(Path("app.toml"), ())
    run = begin(tmp_path / "home", old)
    (tmp_path / "app.toml").write_text(SETTINGS.replace("0.5", "0.3").replace("rounds = 2", "rounds = 9"))
    serve = ("serve", "app.toml", "--home", "home", "--listen", f"127.0.0.1:{free_port()}")

    said = typed(*serve, code=2)
    assert f"run {run} is open in home: it was interrupted after round 0 of 2" in said
    assert "  algorithm.lr: 0.5 -> 0.3\n" in said
    assert "  rounds: 2 -> 9\n" in said
    assert f"hanse serve --resume {run}\n" in said
    assert "hanse serve FILE --fresh\n" in said
    assert not (tmp_path / "home" / "members.db").exists()  # nothing was begun
    assert len(Runs("home/runs.db").infos()) == 1
    again = Parties().job_of(Path("home/runs.db"), run)
    assert (again.said, again.plan) == (old.said, old.plan)

    terminal, its_end = os.openpty()
    server = python("-u", "-m", "hanse", *serve, stdin=its_end, stdout=PIPE, stderr=STDOUT)
    os.write(terminal, b"perhaps\ncontinue\n")
    assert server.stdout is not None
    seen = ""
    while "hanse join" not in (line := server.stdout.readline()):
        seen += line
        assert line, seen
    assert f"run {run} is served at" in seen
    assert seen.count("(continue, new, stop)") == 2  # it does not guess at another word
    server.kill()
    server.communicate()
    os.close(terminal)
    os.close(its_end)


def test_resume_and_fresh_answer_the_question(tmp_path: Path) -> None:
    old, new = job(FED_AVG, 2), job(FED_AVG, 3)
    run = begin(tmp_path, old)
    assert choose_runs(tmp_path, [old]) == [run]
    with pytest.raises(OtherRunOpen, match=r"rounds: 2 -> 3") as raised:
        choose_runs(tmp_path, [new])
    assert raised.value.run == run
    with pytest.raises(OtherRunOpen):  # also beside a run that goes on
        choose_runs(tmp_path, [replace(new), job(FED_AVG, 4)])
    assert choose_runs(tmp_path, [old], resume=run[:6]) == [run]
    assert choose_runs(tmp_path, [new], fresh=True) == [None]
    assert Runs(tmp_path / "runs.db").info(run).status == "stopped"
    assert choose_runs(tmp_path, [new]) == [None]  # nobody is asked about it again
    assert choose_runs(tmp_path, [old]) == [None]  # and it does not go on by itself
    assert choose_runs(tmp_path, [old], resume=run) == [run]
    assert choose_runs(tmp_path, [old]) == [run]
    newest = begin(tmp_path, old)
    assert choose_runs(tmp_path, [old]) == [newest]
    Runs(tmp_path / "runs.db").finish(newest, "completed")
    with pytest.raises(InvalidInput, match=f"run {newest} is completed, and can't go on"):
        choose_runs(tmp_path, [old], resume=newest)
    assert choose_runs(tmp_path / "nothing", [new]) == [None]
    assert find_ended_run(Runs(tmp_path / "runs.db"), old) == newest
    assert find_ended_run(Runs(tmp_path / "runs.db"), new) is None


def test_a_run_that_goes_on_is_not_named_anew_in_silence(tmp_path: Path) -> None:
    given = job(FED_AVG, 2)
    run = Runs(tmp_path / "runs.db").begin(given.said, {}, name="spring", tags=("a", "b"))
    named = replace(given, name="spring", tags=("b",))
    assert choose_runs(tmp_path, [given]) == choose_runs(tmp_path, [named]) == [run]
    for other, left_out in (
        (replace(named, name="summer"), "--name summer"),
        (replace(named, tags=("b", "c")), "--tag c"),
    ):
        for resume in (None, run):
            with pytest.raises(
                InvalidInput, match=rf"the name 'spring' and the tags a, b, .* {left_out}, or"
            ):
                choose_runs(tmp_path, [other], resume=resume)
    assert choose_runs(tmp_path, [replace(named, name="summer")], fresh=True) == [None]


def test_a_run_that_was_completed_waits_for_nobody_again(tmp_path: Path) -> None:
    """Its server was killed while clients heard that it is over; those have gone."""
    given = job(FED_AVG, 1)
    with federation(tmp_path) as here:
        run = here.lead(given)
        here.enter()
        ended = here.end(run)
    with federation(tmp_path) as again:
        again.server.lead(given, run)
        assert again.end(run) == ended


def test_a_run_whose_end_nobody_heard_goes_on_with_the_same_settings(tmp_path: Path) -> None:
    given = job(FED_AVG, 1)
    run, runs = begin(tmp_path, given), Runs(tmp_path / "runs.db")
    open_run(runs, run)
    runs.finish(run, "completed")
    assert choose_runs(tmp_path, [job(FED_AVG, 2)]) == [None]
    assert choose_runs(tmp_path, [given]) == [run]
    close_run(runs, run)
    assert choose_runs(tmp_path, [given]) == [None]
    assert runs.info(run).settings == given.said


def test_a_server_closes_the_runs_that_it_has_concluded(tmp_path: Path) -> None:
    said: list[str] = []
    address = ("127.0.0.1", 0)

    def join_when_told(line: str) -> None:
        said.append(line)
        if found := re.search(r"hanse join (\S+) --token (\S+)", line):
            home = ClientHome(tmp_path / "client")
            join(home, found[1], Token.parse(found[2]))
            threading.Thread(target=Threaded(home, lambda plan: population().client(0), learner).run).start()

    given = replace(job(FED_AVG, 1), num_clients=1)
    assert lead([given], tmp_path / "home", address, address, say=join_when_told) == "completed"
    (info,) = Runs(tmp_path / "home" / "runs.db").infos()
    assert (info.status, "untold" in info.settings) == ("completed", False)
    assert choose_runs(tmp_path / "home", [given]) == [None]


def code(name: str, digest: str, folder: str) -> dict[str, Any]:
    return {"name": name, "kind": "file", "digest": digest, "files": {}, "folder": folder}


def test_changed_code_and_another_version_are_questions(tmp_path: Path) -> None:
    def of(digest: str, folder: str = "a", version: str = "1.0") -> RunJob:
        said = {
            "experiment": {"rounds": 2, "imports": ["own.py"]},
            "imports": [code("own.py", digest, folder)],
        }
        return job(FED_AVG, 2, settings=said, environment={"hanse": version})

    run = begin(tmp_path, of("sha256:1"))
    assert choose_runs(tmp_path, [of("sha256:1", folder="moved")]) == [run]
    with pytest.raises(OtherRunOpen, match=r"the code of own\.py: sha256:1 -> sha256:2"):
        choose_runs(tmp_path, [of("sha256:2")])
    runs = Runs(tmp_path / "runs.db")
    runs.amend(run, lambda kept: {**kept, "accepted_imports": [{"command": "replay"}]})
    assert choose_runs(tmp_path, [of("sha256:1")]) == [run]  # what a replay accepted changes no run

    upgraded = of("sha256:1", version="2.0")
    with pytest.raises(OtherRunOpen, match=r"the version of Hanse: 1\.0 -> 2\.0"):
        choose_runs(tmp_path, [upgraded])
    for _ in range(2):
        assert choose_runs(tmp_path, [upgraded], resume=run) == [run]
    assert runs.info(run).settings["continued_with"] == ["2.0"]
    assert choose_runs(tmp_path, [upgraded]) == [run]  # it was answered
    with pytest.raises(OtherRunOpen, match=r"1\.0 -> 3\.0"):
        choose_runs(tmp_path, [of("sha256:1", version="3.0")])


def test_fresh_and_resume_exclude_each_other() -> None:
    assert re.search(
        "--fresh begins a new run and --resume", typed("serve", "--fresh", "--resume", "a", code=2)
    )


def test_too_few_clients_are_an_error_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.toml").write_text(SETTINGS)
    run = begin(tmp_path / "home", Parties().job(Path("app.toml"), ()))
    members = Members(tmp_path / "home" / "members.db")
    members.join(Identity.derive(members.invite()[0]).public, Identity.generate().public)
    members.close()
    monkeypatch.setattr("hanse.network.server.run_thread.RunThread._await_clients", lambda self: None)
    listen = f"127.0.0.1:{free_port()}"
    said = typed("serve", "app.toml", "--home", "home", "--listen", listen, "--round-s", "0.01", code=1)
    assert f"run {run} was interrupted: too few clients came within" in said
    assert "0 of 1 are present; not heard: client 0" in said
    assert "serve the same settings again to go on" in said


def test_a_server_that_can_not_listen_sets_no_run_aside(tmp_path: Path) -> None:
    old = job(FED_AVG, 2)
    run = begin(tmp_path, old)
    with closing(listen("127.0.0.1", 0)) as taken:
        address = taken.getsockname()
        with pytest.raises(InvalidInput, match=str(address[1])):
            lead([old], tmp_path, address, address, fresh=True)
    assert Runs(tmp_path / "runs.db").info(run).status == "interrupted"
    assert choose_runs(tmp_path, [old]) == [run]


def test_options_of_serve_that_change_the_bits_are_kept_and_compared(tmp_path: Path) -> None:
    old = job(FED_AVG, 2, patience=Patience(over_select=1.5, max_weight_ratio=math.inf))
    run = Runs(tmp_path / "runs.db").begin({**old.said, SERVED: old.served}, {})
    assert choose_runs(tmp_path, [old]) == [run]
    assert choose_runs(tmp_path, [replace(old, patience=replace(old.patience, silent_s=7.0))]) == [run]
    for patience, said in (
        (replace(old.patience, over_select=2.0), "--over-select: 1.5 -> 2.0"),
        (replace(old.patience, min_clients=3), "--min-clients: null -> 3"),
        (replace(old.patience, max_weight_ratio=5.0), "--max-weight-ratio: inf -> 5.0"),
    ):
        with pytest.raises(OtherRunOpen, match=said):
            choose_runs(tmp_path, [replace(old, patience=patience)])
    with pytest.raises(OtherRunOpen, match="--clients: 5 -> 4"):
        choose_runs(tmp_path, [replace(old, num_clients=4)])
    kept = Runs(tmp_path / "runs.db").info(run).settings
    assert job(FED_AVG, 2).take_options(kept).served == old.served
    other = job(FED_AVG, 2).take_options(kept, ["over_select"])
    assert other.served == {**old.served, "over_select": 1.0}
    assert choose_runs(tmp_path, [other], resume=run) == [run]
    assert choose_runs(tmp_path, [other]) == [run]  # it was answered


def test_a_resumed_run_keeps_its_options_except_those_that_are_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.toml").write_text(SETTINGS)
    began = Parties().job(Path("app.toml"), ())
    began = replace(began, patience=Patience(over_select=1.5, max_weight_ratio=3.0))
    (tmp_path / "home").mkdir()
    run = Runs("home/runs.db").begin({**began.said, SERVED: began.served}, dict(began.environment or {}))
    serve = ("serve", "app.toml", "--home", "home", "--listen", f"127.0.0.1:{free_port()}")
    monkeypatch.setattr(Server, "check_store", stop_here)
    typed(*serve, "--resume", run, "--max-weight-ratio", "4", code=2)
    kept = Runs("home/runs.db").info(run).settings[SERVED]
    assert (kept["over_select"], kept["max_weight_ratio"]) == (1.5, 4.0)


def stop_here(self: Server, resumed: Any, *, fresh: bool) -> None:
    raise InvalidInput("far enough")
