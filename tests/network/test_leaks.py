"""A hostile server asks a real client for cells of its table, for a file of its machine, for a function."""

import base64
import contextlib
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from federation import Federation, federation
from forked import PIPE, STDOUT, python
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from typer.testing import CliRunner

from hanse.cli import app
from hanse.core import Key, PartSpec, Program, RoundAbandoned, gather
from hanse.core.exchange import Progress
from hanse.network.protocol.errors import Unsuited
from hanse.network.protocol.tokens import Token
from hanse.network.protocol.wire import Plan
from hanse.network.server import https as serving
from hanse.network.server.job import RunJob
from hanse.preprocessing import Encoder, Schema
from hanse.preprocessing.vocabularies import TABLE, category_counts, tally
from hanse.runs import Parties

NUM_ROWS = 12
DRAWS = np.random.default_rng(0)
LETTERS = np.array(list("abcdefghijklmnopqrstuvwxyz"))
WORDS = ["".join(DRAWS.choice(LETTERS, 16)) for _ in range(3 * NUM_ROWS)]
"""The cells of three columns: each a word of its own, so that wherever one turns up, it has left."""

HEAD = "age,crp,ill,name,note,site"
SETTINGS = """
rounds = 2
data = { name = "csv", path = "server.csv", label = "ill", drop = ["name", "note", "site"] }
partition = { name = "iid", num_clients = 1 }
model = "softmax"
algorithm = { name = "fed_avg", lr = 0.1, fraction = 1.0 }
"""


def table(words: list[str]) -> str:
    rows = [
        f"{30 + i}.5,{i}.25,{'yes' if i % 2 else 'no'},{','.join(words[3 * i : 3 * i + 3])}"
        for i in range(len(words) // 3)
    ]
    return "\n".join([HEAD, *rows, ""])


class Overhearing:
    """Keeps all that reaches a server: paths, headers, bodies."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.heard: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.heard += [scope["path"].encode(), scope["query_string"]]
        self.heard += [part for header in scope["headers"] for part in header]
        body = bytearray()

        async def overhear() -> Message:
            message = await receive()
            body.extend(message.get("body", b""))
            return message

        await self.app(scope, overhear, send)
        self.heard.append(bytes(body))


def spellings(word: str) -> Iterator[bytes]:
    """A word as it might be written into a message."""
    plain = word.encode()
    yield plain
    yield plain.hex().encode()
    yield plain[::-1]
    for shift in range(3):  # base64 has three places where a word may begin
        whole = base64.b64encode(bytes(shift) + plain)
        yield whole[-(-shift * 8 // 6) + (shift > 0) : len(whole) - 4]
    for kind in ("<u2", "<u4", "<i8", "<f4", "<f8", ">u2", ">u4"):
        yield np.frombuffer(plain, np.uint8).astype(kind).tobytes()
    yield json.dumps([*plain])[1:-1].encode()


def inflated(data: bytes) -> Iterator[bytes]:
    """The data, and whatever in them can be decompressed."""
    yield data
    for window, magic in ((15, b"\x78"), (31, b"\x1f\x8b")):
        at = data.find(magic)
        while at >= 0:
            with contextlib.suppress(zlib.error):
                yield zlib.decompressobj(window).decompress(data[at:], 10_000_000)
            at = data.find(magic, at + 1)


def leaked(heard: list[bytes]) -> list[str]:
    whole = b"\n".join(part for data in heard for part in inflated(data))
    return [word for word in WORDS if any(spelling in whole for spelling in spellings(word))]


def test_what_leaks_is_found() -> None:
    """The search itself: each way of writing is noticed, also when it is compressed."""
    for spelling in spellings(WORDS[7]):
        for data in (b"ab" + spelling + b"yz", b"x" + zlib.compress(spelling)):
            assert leaked([b"one", data]) == [WORDS[7]], spelling
    assert WORDS[7] in base64.b64decode(base64.b64encode(f"-{WORDS[7]}-".encode())).decode()
    assert leaked([base64.b64encode(f"name: {WORDS[7]}, and more".encode())]) == [WORDS[7]]
    assert leaked([b"nothing", HEAD.encode()]) == []


Twist: TypeAlias = Callable[[Plan], Plan]


def with_data(**said: Any) -> Twist:
    """Change the description of a plan's data."""

    def twist(plan: Plan) -> Plan:
        settings = json.loads(plan.settings)
        settings["data"] = {**settings["data"], **said}
        return replace(plan, settings=json.dumps(settings))

    return twist


def as_numbers(plan: Plan) -> Plan:
    """Wants words to be numbers, so that an error quotes one."""
    schema = Schema(("age", "name"))
    return replace(plan, encoder=Encoder(schema, *(np.zeros(2), np.zeros(2), np.ones(2))), feature_shape=(2,))


def as_they_are(plan: Plan) -> Plan:
    """Wants all columns, and says of none how it becomes numbers."""
    return with_data(drop=[])(replace(plan, encoder=None, feature_shape=()))


HOSTILE: dict[str, Twist] = {
    "a label of other classes": lambda plan: replace(with_data(label="name")(plan), classes=("a", "b")),
    "words as numbers": as_numbers,
    "a target of words": with_data(label=None, target="note"),
    "a column that is missing": with_data(label="diagnosis"),
    "columns as they are": as_they_are,
    "features of another shape": lambda plan: replace(plan, feature_shape=(7,)),
    "a label in a list": with_data(label=["name"]),
}


@pytest.fixture
def overheard(monkeypatch: pytest.MonkeyPatch) -> list[Overhearing]:
    here: list[Overhearing] = []
    application = serving.application

    def overhearing(*given: Any) -> Any:
        here.append(Overhearing(application(*given)))
        return here[-1]

    monkeypatch.setattr(serving, "application", overhearing)
    return here


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.toml").write_text(SETTINGS)
    (tmp_path / "server.csv").write_text(table(["server"] * 3 * NUM_ROWS))
    (tmp_path / "own.csv").write_text(table(WORDS))
    return tmp_path


def hostile_job(folder: Path, twist: Twist = lambda plan: plan) -> RunJob:
    job = Parties().job(folder / "app.toml", ())
    return replace(job, plan=twist(job.plan))


def joining(here: Federation, *words: str) -> list[str]:
    """Return the words that a client types, with an invitation of its own."""
    secret, _ = here.server.members.invite(number=0)
    token = str(Token(here.server.fingerprint, secret, here.server.identity.public))
    return ["join", here.url, "--token", token, "--home", "client", *words]


def typed(*words: str) -> tuple[int, str]:
    """Run a command in this process, where its modules are loaded already; return exit code and output."""
    given = CliRunner().invoke(app, words, prog_name="hanse")
    return given.exit_code, given.output


@pytest.mark.parametrize("twist", HOSTILE.values(), ids=HOSTILE)
def test_no_cell_leaves_with_a_plan_that_does_not_fit(
    twist: Twist, folder: Path, overheard: list[Overhearing]
) -> None:
    """Such a client does not even join; the same plan in a ticket ends it, and says one word of a list."""
    client = Parties().data("own.csv", 0)
    with federation(folder / "f", stay=True) as here:
        here.lead(hostile_job(folder, twist))
        code, said = typed(*joining(here, "--data", "own.csv"))
        assert (code, "joined" in said) == (2, False), said
        assert not here.server.members.active("client")
        (run,) = here.server.led()
        here.enter_one(0, client, Parties().bind)
        assert here.wait_for("failed: its data do not suit the run (data)", "client 0 left or the run ended")
        here.threads[-1].join(60.0)
        assert [type(error) for error in here.errors] == [Unsuited]
        run.mailbox.stop()
    assert leaked(overheard[0].heard) == []
    assert (folder / "f" / "client-0" / "client.log").exists()


class Asks:
    """A program that asks each client for the words in its columns."""

    def __init__(self, columns: tuple[str, ...]) -> None:
        self.columns = columns

    def __call__(self, progress: Progress[Any]) -> Program[Progress[Any]]:
        with contextlib.suppress(RoundAbandoned):
            yield from gather(
                category_counts(Schema((), self.columns)),
                (0,),
                {},
                Key.from_seed(0),
                counts=PartSpec(TABLE, into=tally()),
            )
        return progress


def test_no_work_reads_the_words_of_columns(folder: Path, overheard: list[Overhearing]) -> None:
    """There is a work that counts words, for simulations: over the network it finds numbers only."""
    with federation(folder / "f", stay=True) as here:
        here.lead(replace(hostile_job(folder), program=Asks(("name", "note"))))
        with python(
            "-m", "hanse", *joining(here, "--data", "own.csv"), stdout=PIPE, stderr=STDOUT
        ) as process:
            try:
                assert here.wait_for("(internal)", "the client did not fail", 60.0)
            finally:
                here.server.led()[0].mailbox.stop()
                process.kill()
    assert leaked(overheard[0].heard) == []


@pytest.mark.parametrize(
    "data",
    [
        {"name": "csv", "path": "client/key.pem", "label": "-----BEGIN PRIVATE KEY-----"},
        {"name": "custom", "function": "planted.py:load"},
        {"name": "npz", "path": "secret.npz"},
    ],
    ids=["a key file", "a function", "an archive"],
)
def test_share_opens_built_in_data_alone(
    data: dict[str, Any], folder: Path, overheard: list[Overhearing]
) -> None:
    (folder / "planted.py").write_text("from pathlib import Path\nPath('was-run').touch()\ndef load(): ...\n")
    (folder / "secret.npz").write_bytes(b"nothing that can be read")

    def twist(plan: Plan) -> Plan:
        return replace(plan, settings=json.dumps({**json.loads(plan.settings), "data": data}))

    with federation(folder / "f", stay=True) as here:
        here.lead(hostile_job(folder, twist))
        code, said = typed(*joining(here, "--data", "share"))
        here.server.led()[0].mailbox.stop()
    assert (code, "stands for a built-in set only (digits)" in said) == (2, True), said
    assert not (folder / "was-run").exists()
    key = (folder / "client" / "key.pem").read_bytes().splitlines()[1]
    assert not any(key in data for data in overheard[0].heard)


def test_a_plan_that_waits_for_approval_opens_nothing(folder: Path) -> None:
    with federation(folder / "f", stay=True) as here:
        here.lead(hostile_job(folder))
        (folder / "client").mkdir()
        (folder / "client" / "policy.toml").write_text("approve_plans = true")
        (folder / "own.csv").write_bytes(b"\xff")  # whoever opens it fails
        code, said = typed(*joining(here, "--data", "own.csv"))
        assert (code, "waits for approval" in said) == (2, True), said
        digest, *home = said.split("hanse approve ")[1].split()[:3]
        assert home == ["--home", "client"]
        for too_short in ("", digest[:7]):  # an empty variable of a script approves nothing
            code, why = typed("approve", too_short, *home)
            assert (code, digest in why) == (2, True), why
        assert typed("approve", digest, *home)[0] == 0
        assert typed(*joining(here, "--data", "own.csv"))[0] == 2  # now it is opened
        here.server.led()[0].mailbox.stop()


def test_how_a_file_is_read_is_said_by_its_owner(folder: Path) -> None:
    """The plan's own reader settings are ignored; a settings file of the client's stands in their place."""
    semicolons = (folder / "own.csv").read_text().replace(",", ";").replace(".", ",")
    (folder / "own.csv").write_text("# ours\n" + semicolons)
    plan = Parties().job(folder / "app.toml", ()).plan
    plan = with_data(delimiter=";", decimal=",", comment="#", encoding="latin-1")(plan)
    with pytest.raises(Exception, match=r"own\.csv"):
        Parties().data("own.csv", 0)(plan)
    own = 'data = { name = "csv", path = "own.csv", decimal = ",", comment = "#" }'
    (folder / "own.toml").write_text(own)
    examples = Parties().data("own.toml", 0)(plan)
    assert examples.y.tolist() == [i % 2 for i in range(NUM_ROWS)]
    numbers = np.array([[30.5 + i, i + 0.25] for i in range(NUM_ROWS)])
    assert np.allclose(examples.x, (numbers - plan.encoder.shift) / plan.encoder.scale, atol=1e-6)
    (folder / "own.toml").write_text(own.replace("path", 'label = "site", path'))
    with pytest.raises(Exception, match="is read to predict site; the run wants ill"):
        Parties().data("own.toml", 0)(plan)
