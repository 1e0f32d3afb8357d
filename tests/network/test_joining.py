"""Joining in one order: invitation, plans, approval, data, enrolment; and the questions at a terminal."""

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from federation import CASES, Federation, federation, job, learner, population
from starlette.types import ASGIApp, Receive, Scope, Send
from test_leaks import NUM_ROWS, SETTINGS, table
from typer.testing import CliRunner

from hanse.cli import app
from hanse.core import InvalidInput
from hanse.network.client import AuditLog, ClientHome, Entrant, Owner, Sources, enrolment, join_in_order
from hanse.network.protocol import Plan, Token, seal_plan
from hanse.network.protocol.envelope_words import describe_plan
from hanse.network.protocol.errors import Forbidden
from hanse.network.server import https as serving
from hanse.network.server.job import RunJob
from hanse.network.server.rehearsal import foresee
from hanse.runs import Parties, describe_run
from hanse.runs.contract import CONTRACT, Contract
from hanse.runs.dry_run import plan_messages
from hanse.runs.preparation import prepare_run
from hanse.runs.what_leaves import FIELDS, Contradiction, make_examples

DATA = population().client(0)
WORDS = [word for i in range(NUM_ROWS * 5) for word in (f"Person {i}", f"note {i % 3}", "north")]


class Watched:
    """All that happens while a client joins, in order: requests, questions, data that are opened."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.answer = True

    def spy(self, inner: ASGIApp) -> ASGIApp:
        async def spying(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http" and not scope["path"].endswith("about"):
                self.events.append(f"{scope['method']} {scope['path']}")
            await inner(scope, receive, send)

        return spying

    def agree(self, news: Sequence[str]) -> bool:
        self.events.append("asked")
        self.news = list(news)
        return self.answer

    def data(self, plan: Plan) -> Any:
        self.events.append("opened")
        return DATA

    def owner(self, attended: bool = True) -> Owner:
        return Owner(
            lambda plans, number: Sources(self.data, None), learner, lambda line: None,
            self.agree if attended else None,
        )  # fmt: skip

    def take(self) -> list[str]:
        taken, self.events = self.events, []
        return taken


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    here = Watched()
    application = serving.application
    monkeypatch.setattr(serving, "application", lambda *given: here.spy(application(*given)))
    return here


def invite(here: Federation, number: int = 0) -> Entrant:
    secret, _ = here.server.members.invite(number=number)
    return Entrant(here.url, Token(here.server.fingerprint, secret, here.server.identity.public))


def stop(here: Federation) -> None:
    for run in here.server.led():
        run.mailbox.stop()


def served(rounds: int = 1) -> RunJob:
    return job(CASES["fed_avg"], rounds)


def test_nothing_is_opened_or_promised_too_early(tmp_path: Path, watched: Watched) -> None:
    """It holds for a first join, for a restart, and for a second run on the same server."""
    with federation(tmp_path, stay=True) as here:
        here.lead(served())
        home, asked = ClientHome(tmp_path / "own"), invite(here)
        watched.answer = False
        with pytest.raises(Forbidden, match="no data were opened"):
            join_in_order(home, asked, watched.owner())
        *received, last = watched.take()
        assert (last, "POST /v1/join" in received, home.membership) == ("asked", False, None)
        assert any("local_sgd" in line for line in watched.news), watched.news
        watched.answer = True
        join_in_order(home, asked, watched.owner())
        *received, first, second, third = watched.take()
        assert [first, second, third] == ["asked", "opened", "POST /v1/join"]
        assert received
        join_in_order(home, Entrant(), watched.owner())  # it restarts: what was approved is not asked again
        assert watched.take() == ["GET /v1/plans", "opened"]
        here.lead(served(2))
        watched.answer = False
        with pytest.raises(Forbidden, match="no data were opened"):
            join_in_order(home, Entrant(), watched.owner())
        assert watched.take() == ["GET /v1/plans", "asked"]
        stop(here)
    decided = ("joined", "receives a plan", "approves", "refuses")
    log = [line for line in home.audit.lines() if line["what"] in decided]
    assert [line["what"] for line in log] == [
        *("receives a plan", "refuses", "approves", "joined", "receives a plan", "refuses"),
    ]
    assert [line["code"] for line in log if line["what"] == "refuses"] == ["approval"] * 2
    first, second = (line["plan"] for line in log if line["what"] == "receives a plan")
    assert [line["plan"] for line in log if "plan" in line] == [first, first, first, second, second]


@pytest.mark.parametrize("forbids", ["policy", "data"])
def test_a_refusal_before_joining_is_in_the_log(tmp_path: Path, watched: Watched, forbids: str) -> None:
    with federation(tmp_path, stay=True) as here:
        run = here.lead(served())
        home = ClientHome(tmp_path / "own")
        policy = "models = ['cnn']" if forbids == "policy" else f"min_examples = {len(DATA) + 1}"
        (home.folder / "policy.toml").write_text(policy)
        with pytest.raises(Forbidden):
            join_in_order(home, invite(here), watched.owner(attended=False))
        stop(here)
    *_, received, refused = home.audit.lines()
    assert (received["what"], received["run"]) == ("receives a plan", run)
    assert (refused["what"], refused["plan"], refused["code"]) == ("refuses", received["plan"], "policy")


def test_a_second_run_waits_for_approval_before_data_are_opened(tmp_path: Path, watched: Watched) -> None:
    """A client that is at work already can't be asked: its policy decides."""
    with federation(tmp_path, stay=True) as here:
        home = here.client_home(0)
        (home.folder / "policy.toml").write_text("approve_plans = true")
        run = here.lead(job(CASES["fed_avg"], 1, num_clients=1))
        here.enter_one(0, watched.data, learner)
        assert here.wait_for("(approval)", "nothing was refused")
        assert "opened" not in watched.take()
        with pytest.raises(Forbidden, match="waits for approval"):  # nor does --yes stand for an approval
            join_in_order(ClientHome(home.folder), Entrant(), watched.owner(attended=False))
        assert "opened" not in watched.take()
        here.server.run(run).mailbox.stop()
        stop(here)


# -- commands ----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(enrolment, "CHECK_S", 0.05)
    (tmp_path / "app.toml").write_text(SETTINGS)
    (tmp_path / "server.csv").write_text(table(["server"] * 3 * NUM_ROWS))
    (tmp_path / "own.csv").write_text(table(WORDS))
    return tmp_path


@pytest.fixture
def here(folder: Path) -> Iterator[Federation]:
    with federation(folder / "f", stay=True) as here:
        here.lead(Parties().job(folder / "app.toml", ()))
        yield here
        stop(here)


def line(here: Federation, *words: str) -> list[str]:
    asked = invite(here)
    return ["join", here.url, "--token", str(asked.token), "--home", "client", *words]


def typed(*words: str) -> tuple[int, str]:
    given = CliRunner().invoke(app, words, prog_name="hanse")
    return given.exit_code, given.output


class Terminal:
    """A command at a terminal of 80 columns."""

    def __init__(self, *words: str) -> None:
        self._own, theirs = pty.openpty()
        environment = {**os.environ, "COLUMNS": "80", "TERM": "dumb"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hanse", *words],
            stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True, env=environment,
        )  # fmt: skip
        os.close(theirs)
        self.said = ""
        self._at = 0

    def until(self, pattern: str, timeout_s: float = 120.0) -> str:
        """Reads until a pattern comes after what was answered last."""
        until_s = time.monotonic() + timeout_s
        while (found := re.compile(pattern).search(self.said, self._at)) is None:
            ready, _, _ = select.select([self._own], [], [], max(0.0, until_s - time.monotonic()))
            assert ready, f"nothing like {pattern!r} in:\n{self.said}"
            try:
                self.said += os.read(self._own, 65536).decode().replace("\r", "")
            except OSError:
                raise AssertionError(f"ended without {pattern!r}:\n{self.said}") from None
        self._at = found.end()
        return found[0]

    def answer(self, pattern: str, text: str = "") -> None:
        self.until(pattern)
        os.write(self._own, f"{text}\n".encode())

    def close(self) -> None:
        self.process.kill()
        self.process.wait(60.0)
        os.close(self._own)


def test_questions_at_a_terminal_make_a_contract(folder: Path, here: Federation) -> None:
    """Enter accepts what is proposed; the plan is asked about before the data are read."""
    terminal = Terminal(*line(here, "--data", "own.csv"))
    try:
        terminal.answer(r"Take part\? \[y/N\]:", "y")
        before = terminal.said
        terminal.until("own.csv: 60 rows")
        terminal.answer(r"Columns of numbers that runs may use \[age, crp\]:", "age, agee")
        terminal.until("'agee' is not in the file")
        terminal.answer(r"Columns of numbers that runs may use \[age, crp\]:")
        terminal.answer(r"Columns of categories that runs may use \[none\]:")
        terminal.answer(r"Fewest rows; .* \[30\]:", "33")
        terminal.answer(r"File of your own test examples \[none\]:", "none.csv")
        terminal.until("there is no file 'none.csv'")
        terminal.answer(r"File of your own test examples \[none\]:")
        terminal.answer(r"Write client/hanse.toml\? \[Y/n\]:")
        terminal.until("joined")
    finally:
        terminal.close()
    assert "own.csv: " not in before, terminal.said
    assert "Person 7" not in terminal.said  # what seems to identify persons is not shown
    assert max(map(len, terminal.said.replace(str(folder), "").splitlines())) <= 80
    found = Contract.at(folder / "client")
    assert found is not None
    own: Any = found.reader
    assert (own.path, own.label, own.classes) == (str(folder / "own.csv"), "ill", ("no", "yes"))
    assert (own.numeric, own.categorical, found.min_rows) == (("age", "crp"), (), 33)


def answered(monkeypatch: pytest.MonkeyPatch, words: Sequence[str], *answers: str) -> tuple[int, str]:
    """Types a command at what it takes for a terminal; no more answers: somebody interrupts a question."""
    monkeypatch.setattr("hanse.cli.contract.is_attended", lambda: True)
    said = CliRunner().invoke(app, list(words), input="".join(f"{answer}\n" for answer in answers))
    return said.exit_code, said.output


def test_who_interrupts_a_question_has_not_joined(
    folder: Path, here: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    for answers in ((), ("y",), ("y", "age")):  # "Take part?", columns of numbers, columns of categories
        code, said = answered(monkeypatch, line(here, "--data", "own.csv"), *answers)
        assert (code, "stopped; it has not joined; type the line again" in said) == (130, True), said
        assert not (folder / "client" / CONTRACT).exists()
    assert not here.server.members.active("client")
    code, said = answered(monkeypatch, ("init", "own.csv", "--client", "--home", "c"))
    assert (code, "interrupted at a question" in said, (folder / "c").exists()) == (130, True, False), said


def test_no_answer_allows_a_column_by_mistake(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What seems to identify rows is asked about again, and words are no numbers."""
    rows = (folder / "own.csv").read_text().splitlines()
    (folder / "own.csv").write_text(
        "\n".join([f"{rows[0]},case", *(f"{row},P{number:05}" for number, row in enumerate(rows[1:]))])
    )
    ask = ("init", "own.csv", "--client", "--home", "client", "--label", "ill")
    code, said = answered(
        monkeypatch,
        ask,
        "ill",
        "age, note",
        "age",
        "site, case",
        "",
        "case",
        "y",
        "some",
        "-1",
        "9",
        "none",
        "y",
    )
    assert code == 0, said
    assert "'note' holds words, no numbers" in said
    assert said.count("'case' seems to identify rows or places. Allow it?") == 2
    assert said.count("write a whole number from 1") == 2
    found = Contract.at(folder / "client")
    assert found is not None
    own: Any = found.reader
    assert (own.numeric, own.categorical, found.min_rows) == (("age",), ("case",), 9)


def test_without_a_terminal_the_proposal_is_written_and_kept(folder: Path, here: Federation) -> None:
    (folder / "client").mkdir()
    (folder / "client" / "policy.toml").write_text("min_examples = 100")  # it ends where it would join
    code, said = typed(*line(here, "--data", "own.csv"))
    assert code == 2
    assert "wrote client/hanse.toml: runs may use age, crp, and predict ill" in " ".join(said.split())
    text = (folder / "client" / CONTRACT).read_text()
    (folder / "other.csv").write_text(table(WORDS))
    code, said = typed(*line(here, "--data", "other.csv"))
    assert (code, "--data names other.csv, but client/hanse.toml names" in said) == (2, True), said
    assert (folder / "client" / CONTRACT).read_text() == text
    (folder / "client" / CONTRACT).write_text(text.replace('"age", ', ""))
    (folder / "own.csv").unlink()
    (folder / "own.csv").mkdir()  # whoever opens it fails in another way
    code, said = typed(*line(here))
    assert (code, 'To allow it: numeric = ["crp", "age"]' in said) == (2, True), said
    assert not here.server.members.active("client")


def test_a_run_and_its_replay_use_the_rows_of_the_contract(folder: Path) -> None:
    """No file is named at either: the contract names it, and says which rows count."""
    (folder / "client").mkdir()
    text = """
    where = [{column = "note", among = ["note 1", "note 2"]}]
    [data]
    name = "csv"
    path = "../own.csv"
    label = "ill"
    numeric = ["age", "crp"]
    """
    (folder / "client" / CONTRACT).write_text(text)
    with federation(folder / "f") as here:
        run = here.lead(Parties().job(folder / "app.toml", ()))
        code, said = typed(*line(here))
        assert code == 0, said
        assert f"run {run}: 40 examples suit it" in said
        assert here.server.run(run).status == "completed", f"{here.events()}\n{said}"
    sent = [each for each in AuditLog(folder / "client" / "audit.jsonl").lines() if each["what"] == "sends"]
    code, said = typed("replay", run, "--home", "client", "--json")
    assert code == 0, said
    (again,) = json.loads(said[said.index("{") :])["replayed"]
    assert again["message_sha256"] == again["recorded_sha256"] == sent[-1]["sha256"]
    assert again["num_examples"] == 40


def test_a_client_without_data_or_contract_is_told_at_once(folder: Path, here: Federation) -> None:
    code, said = typed(*line(here))
    assert (code, "--data is missing" in said) == (2, True)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--data", "none.csv"), "--data none.csv: there is no such file; write a path, or 'share'"),
        (("--data", "own.csv", "--test", "none.csv"), "--test none.csv: there is no such file"),
        (("--data", "own.toml"), "--data own.toml names none.csv: there is no such file"),
        (("--data", "own.csv", "--test", "f"), "--test f: there is no such file"),
    ],
)
def test_a_file_that_is_missing_is_named_before_anything_is_asked(
    folder: Path, here: Federation, words: tuple[str, ...], says: str
) -> None:
    (folder / "own.toml").write_text('data = { name = "csv", path = "none.csv" }')
    code, said = typed(*line(here, "--yes", *words))
    assert (code, says in " ".join(said.split())) == (2, True), said
    assert not (folder / "client" / CONTRACT).exists()
    assert not (folder / "client" / "audit.jsonl").exists()  # nothing was sent


@pytest.mark.parametrize("name", ["north\x1b[31m", "n" * 101])
def test_a_name_that_no_server_takes_is_refused_before_anything_is_written(name: str) -> None:
    assert Entrant(name="n" * 100).name == "n" * 100
    with pytest.raises(InvalidInput, match=r"--name .* can't be shown as one line; write at most 100") as why:
        Entrant(name=name)
    assert "\x1b" not in str(why.value)


def test_a_contract_comes_before_any_server(folder: Path) -> None:
    ask = ("init", "own.csv", "--client", "--home", "client")
    code, said = typed(*ask)
    assert code == 2
    assert "nothing says that" in said
    assert not (folder / "client" / CONTRACT).exists()
    assert typed(*ask, "--label", "ill")[0] == 0
    found = Contract.at(folder / "client")
    assert found is not None
    own: Any = found.reader
    assert (own.label, own.numeric, own.categorical) == ("ill", ("age", "crp"), ("note", "site"))
    code, said = typed(*ask, "--yes")
    assert (code, "exists already; edit it" in said) == (2, True)


# -- what leaves -------------------------------------------------------------------------------


def test_check_shows_what_would_leave_without_data(folder: Path, here: Federation) -> None:
    code, said = typed(*line(here, "--check"))
    assert code == 0, said
    assert max(map(len, said.splitlines())) <= 80
    for words in ("What leaves your house", "  doing:", "not-ready", "local_sgd", "min_examples = "):
        assert words in said
    assert re.search(r"update +weights +float32 \(2, 2\) +16 ", said), said
    assert "the server sees each single update" in " ".join(said.split())
    assert "can be trained here" in said
    assert not (folder / "client" / CONTRACT).exists()
    code, said = typed(*line(here, "--data", "own.csv", "--check"))
    assert (code, "60 examples suit softmax" in said) == (0, True), said
    assert "there is no client/hanse.toml yet; hanse join would write it: runs may use age" in said
    assert not (folder / "client" / CONTRACT).exists()  # a check writes nothing
    assert "evaluate" not in said.partition("Run ")[2]  # the server measures on rows of its own
    (folder / "client" / "policy.toml").write_text("approve_plans = true")
    code, said = typed(*line(here, "--check"))
    assert (code, "waits for approval" in said) == (2, True), said
    assert "leaves: your update (6 numbers), enters a mean that shows single" in said
    assert not here.server.members.active("client")


def test_each_field_of_a_request_is_described() -> None:
    for kind, (_, about) in FIELDS.items():
        assert about.keys() == kind.model_fields.keys(), f"{kind.__name__}: describe its fields"


def test_an_example_is_as_large_as_what_is_sent(folder: Path) -> None:
    """Its bytes are those that the plan of the run counts, headers included."""
    from hanse.config import read

    ready = prepare_run(read(Path("app.toml"), ["algorithm.uplink=[{name = 'quantize', bits = 4}]"]))
    plan = foreseen("algorithm.uplink=[{name = 'quantize', bits = 4}]")
    (local, *_) = make_examples(plan)
    (exchange, *_) = plan_messages(ready).first
    assert local.num_bytes == pytest.approx(exchange.usage.bytes_up, abs=8)
    assert {str(v.dtype) for v in local.message.parts["update"].values.values()} == {"uint8", "float32"}
    shown = "\n".join(describe_run(plan, 10))
    assert f"{local.num_bytes} bytes in all" in shown
    broken = replace(
        plan, settings=json.dumps({**json.loads(plan.settings), "algorithm": {"name": "no_such"}})
    )
    assert any("No example could be made" in said for said in describe_run(broken, 10))


def foreseen(*sets: str) -> Plan:
    """The plan of settings, as a server sends it."""
    job = Parties().job(Path("app.toml"), sets)
    return replace(job.plan, run="r", envelopes=foresee(job)[0].write())


def test_clients_with_tests_of_their_own_see_what_they_measure(folder: Path) -> None:
    own = ("client_test_fraction=0.3", "data.test_fraction=0.0")
    plan = foreseen(*own)
    assert [example.work for example in make_examples(plan)] == ["local_sgd", "evaluate"]
    told = " ".join(" ".join(describe_plan(seal_plan(plan))).split())
    assert "stays: you read the result; it never leaves without share_row = true leaves: your row" in told
    noise = "{name='clip', max_norm=1.0}, {name='gaussian', noise_multiplier=1.0}"
    into = "{name='fixed_mean', denominator=1.0}"
    algorithm = f"{{name='fed_avg', lr=0.1, weighting='uniform', uplink=[{noise}], into={into}}}"
    noised = foreseen(*own, f"algorithm={algorithm}")
    assert "leaves: your row" not in " ".join(describe_plan(seal_plan(noised)))


def test_the_first_message_says_that_its_examples_are_noised(folder: Path) -> None:
    ways = make_examples(
        foreseen("privacy={name='examples', epsilon=8.0, delta=1e-3, open=['metrics', 'preprocessing']}")
    )
    views = [view for example in ways for view in example.views]
    assert (
        "update: the server: each client's own message, which its client has noised to hide each example"
        in (views)
    )
    assert not any(
        "hide each example" in view for example in make_examples(foreseen()) for view in example.views
    )


def test_settings_that_say_something_else_than_the_envelopes_are_refused(folder: Path) -> None:
    """The envelopes bind; settings are words of the server."""
    honest = foreseen()
    for words, differs in (
        ("[{name = 'clip', max_norm = 0.1}]", "the chain of part 'update' is"),
        ("[{name = 'quantize', bits = 2}]", "the chain of part 'update' is"),
    ):
        claims = foreseen(f"algorithm.uplink={words}")
        with pytest.raises(Contradiction, match=differs):
            list(describe_run(replace(honest, settings=claims.settings), 10))
        with pytest.raises(Contradiction, match=differs):
            make_examples(replace(claims, envelopes=honest.envelopes))
    with pytest.raises(Contradiction, match=r"the work's steps\.lr is 9"):
        make_examples(replace(honest, settings=foreseen("algorithm.lr=9.0").settings))
    assert "single update of yours" in " ".join(describe_run(honest, 10))
