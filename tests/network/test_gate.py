"""Everything that leaves a client passes one gate, and is in its audit log before."""

import ast
import errno
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from federation import NUM_CLIENTS, Threaded, federation, job

import hanse
from hanse.algorithms import fed_avg
from hanse.core import Close, InvalidInput
from hanse.network.client import audit, enrolment
from hanse.network.client.audit import AuditLog
from hanse.network.client.enrolment import check, fetch_plans, leave, rotate_key
from hanse.network.client.gate import Gate, check_versions, read_content
from hanse.network.client.home import ClientHome
from hanse.network.protocol.spool import Outgoing, hash_chunks
from hanse.network.protocol.tokens import Token
from hanse.network.protocol.wire import Failure, Join, News, Poll, Rekey
from hanse.network.server import https
from hanse.runs import what_leaves
from hanse.version import __version__

CLIENT = Path(hanse.__file__).parent / "network" / "client"
SENDS = {"ask", "plain", "probe", "upload", "download", "_send"}
NETWORKS = {"httpx", "socket", "urllib", "http", "ssl", "requests", "asyncio", "smtplib", "ftplib", "xmlrpc"}


def sends(code: str) -> list[str]:
    """The places in code that send by themselves, and not through the gate."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] in NETWORKS]
        elif isinstance(node, ast.ImportFrom):
            names = {alias.name for alias in node.names}
            if str(node.module).split(".")[0] in NETWORKS or names & {"fetch", "make_client"}:
                found.append(ast.unparse(node))
        elif isinstance(node, ast.Attribute):
            of = ast.unparse(node.value).split(".")[-1]
            sends_itself = node.attr in SENDS and of not in ("gate", "_gate")
            if sends_itself or (of == "certificates" and node.attr in ("fetch", "make_client")):
                found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize(
    "path",
    [p for p in sorted(CLIENT.rglob("*.py")) if p.name not in ("gate.py", "transport.py")],
    ids=lambda path: path.name,
)
def test_no_other_module_of_the_client_sends(path: Path) -> None:
    assert sends(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "code",
    [
        "home.link().plain('POST', '/v1/leave')",
        "act = self._connection.link.upload",
        "import urllib.request",
        "from socket import create_connection",
        "certificates.fetch(url, '')",
        "from hanse.network.protocol.certificates import make_client",
    ],
)
def test_what_sends_is_recognized(code: str) -> None:
    assert len(sends(code)) == 1
    assert sends("connection.gate.download(url, sha256, size, to)") == []


class Recorder:
    """An application that keeps all that it receives."""

    def __init__(self, app: Any, heard: list[tuple[str, str, dict[str, str], bytes]]) -> None:
        self._app, self._heard = app, heard

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = bytearray()

        async def listen() -> Any:
            message = await receive()
            body.extend(message.get("body", b""))
            return message

        try:
            await self._app(scope, listen, send)
        finally:
            if scope["type"] == "http":
                headers = {name.decode(): value.decode() for name, value in scope["headers"]}
                query = scope["query_string"].decode()
                path = scope["path"] + (f"?{query}" if query else "")
                self._heard.append((scope["method"], path, headers, bytes(body)))


NAMES = {"RUN": r"\w+", "SHA256": "[0-9a-f]{64}", "TICKET": r"\d+", "?": r"\?", "=": "=[^&]+"}
ADDRESSES = {
    re.sub(r"RUN|SHA256|TICKET|\?|=", lambda m: NAMES[m[0]], one): one for one in what_leaves.REQUESTS
}
"""The addresses that `hanse join --check` lists, as patterns."""

SAID = {name.strip().lower() for names in what_leaves.HEADERS for name in names.split(",")}
"""The header fields that it lists."""


def test_all_that_a_server_receives_is_in_the_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[str, str, dict[str, str], bytes]] = []
    application = https.application
    monkeypatch.setattr(enrolment, "CHECK_S", 0.05)
    monkeypatch.setattr(https, "application", lambda *given: Recorder(application(*given), heard))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))  # which httpx might read
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password of-theirs")
    with federation(tmp_path / "f") as here:
        homes = [here.client_home(number) for number in range(NUM_CLIENTS)]
        (homes[4].folder / "policy.toml").write_text("works = ['evaluate']")
        rotate_key(homes[0])
        keys = {f'keyid="c{number}"': number for number in range(NUM_CLIENTS)}
        stranger = ClientHome(tmp_path / "stranger")
        secret, _ = here.server.members.invite()
        invitation = Token(here.server.fingerprint, secret, here.server.identity.public)
        run = here.lead(job(fed_avg(lr=0.5, fraction=1.0, close=Close(minimum_fraction=0.5)), 1))
        check(stranger, here.url, invitation)
        fetch_plans(stranger, here.url, invitation)
        fetch_plans(homes[0])
        check_versions(homes[0])
        here.enter()
        here.end(run, status="incomplete")
        for thread in here.threads:
            thread.join(60.0)
        leave(ClientHome(homes[1].folder))
        rewritten = ClientHome(homes[0].folder)
        rewritten.audit.path.rename(tmp_path / "log")
        with pytest.raises(InvalidInput, match="is not the audit log that the server keeps"):
            Threaded(rewritten, lambda plan: None, lambda plan: None).run()
        shows = [line for line in rewritten.audit.lines() if "sha256" in line]
        (tmp_path / "log").replace(rewritten.audit.path)
    logs = [list(ClientHome(home.folder).audit.lines()) for home in homes]
    left = [{line["sha256"]: line for line in log if "sha256" in line} for log in logs]
    left[0] |= {line["sha256"]: line for line in shows}
    left.append({line["sha256"]: line for line in stranger.audit.lines()})
    chunks: dict[tuple[int, str], list[bytes]] = defaultdict(list)
    seen = defaultdict[str, int](int)
    addresses, fields = set[str](), set[str]()
    for method, path, headers, body in heard:
        (address,) = (said for one, said in ADDRESSES.items() if re.fullmatch(one, f"{method} {path}"))
        addresses.add(address)
        fields |= headers.keys()
        path = path.partition("?")[0]
        assert headers["user-agent"] == f"hanse/{__version__}"
        assert "somebody" not in str(headers)
        seen[path.split("/")[-1] if method != "GET" else "GET"] += 1
        if method == "GET":
            assert body == b""
            continue
        found = [number for key, number in keys.items() if key in headers["signature-input"]]
        own = left[found[0]] if found else {sha: line for log in left for sha, line in log.items()}
        if path == "/v1/work":
            poll = Poll.model_validate_json(body)
            assert poll.model_dump_json().encode() == body  # and nothing else
            body = read_content(poll).model_dump_json().encode()
        if method == "PUT":
            chunks[found[0], path].append(body)
        else:
            assert own[hashlib.sha256(body).hexdigest()]["bytes"] == len(body), path
    for (number, path), given in chunks.items():
        line = left[number][hash_chunks(given)]
        assert (line["what"], line["bytes"]) == ("sends", sum(map(len, given)))
        assert f"/{line['run']}/tickets/{line['ticket']}/" in path
    assert fields == SAID - {"range"}  # no download is cut off here
    rare = {"GET /v1/runs/RUN/tickets/TICKET/task", "GET /v1/runs/RUN/tickets/TICKET/message?sha256=&size="}
    assert addresses == set(what_leaves.REQUESTS) - rare
    assert {"join": NUM_CLIENTS, "key": 1, "leave": 1, "failure": 1}.items() <= seen.items()
    assert len(chunks) == NUM_CLIENTS - 1
    assert seen["work"] > 2 * NUM_CLIENTS

    for log in logs:  # each line stands for itself, in order
        text = json.dumps(log)
        assert str(tmp_path) not in text
        whats = [line["what"] for line in log]
        assert whats[:2] == ["joins", "joined"]
        assert whats.index("starts") < whats.index("receives a plan") < whats.index("ends")
    said = {line["what"]: line for line in logs[1]}
    assert said["sends"]["parts"] == {"update": {"bytes": 2600, "weight": True}}
    assert said["receives"]["payload"] in {path.split("/")[-1] for _, path, *_ in heard}
    settled = [line for line in logs[1] if line["what"] == "settled"]
    outcomes = [ticket for line in settled for ticket in (*line["counted"], *line["dropped"])]
    assert said["sent"]["ticket"] in outcomes
    assert said["starts"]["hanse"] == __version__
    assert said["ends"]["how"] == "over"
    assert [line["what"] for line in logs[1]][-2:] == ["consent withdrawn", "left"]
    policy = hashlib.sha256((homes[4].folder / "policy.toml").read_bytes()).hexdigest()
    refused = {line["what"]: line for line in logs[4]}
    assert refused["starts"]["policy"] == policy
    assert (refused["fails"]["code"], refused["fails"]["state"]) == ("policy", "refused")
    polls = [line["doing"] for line in logs[2] if line["what"] == "polls"]
    assert polls[0] == "waiting"
    lines = [{k: line[k] for k in ("doing", "have", "know")} for line in logs[2] if line["what"] == "polls"]
    assert all(one != next_ for one, next_ in pairwise(lines))


ORDER = MagicMock(run="r", ticket=1, work="evaluate")
SENDING: dict[str, Callable[[Gate, Outgoing], Any]] = {
    "check": lambda gate, message: gate.check(1.0),
    "ask_plans": lambda gate, message: gate.ask_plans(invited=True),
    "join": lambda gate, message: gate.join(Join()),
    "replace_key": lambda gate, message: gate.replace_key(Rekey(public="0" * 64, proof="0" * 128)),
    "leave": lambda gate, message: gate.leave(),
    "poll": lambda gate, message: gate.poll(Poll(), shows_log=False),
    "send": lambda gate, message: gate.send(ORDER, message, lambda act: act()),
    "fail": lambda gate, message: gate.fail(ORDER, Failure(state="refused", code="data"), lambda act: act()),
}
NO_BODY = {"close", "ask_about", "ask_head", "download"}


@pytest.mark.parametrize("method", SENDING)
def test_nothing_leaves_whose_line_is_not_on_the_disk(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {*SENDING, *NO_BODY} == {name for name in vars(Gate) if not name.startswith("_")}
    link, log, full = MagicMock(url=""), AuditLog(tmp_path / "audit.jsonl"), [False]
    message = Outgoing.write(tmp_path, 1, [b"true"])
    link.ask.return_value = News()

    def sync(number: int) -> None:
        if full[0]:
            raise OSError(errno.ENOSPC, "no space is left")

    monkeypatch.setattr(audit.os, "fsync", sync)
    gate = Gate(link, log)
    full[0] = True
    with pytest.raises(OSError, match="no space is left"):
        SENDING[method](gate, message)
    assert link.mock_calls == []
    full[0] = False
    SENDING[method](gate, message)
    assert link.mock_calls
