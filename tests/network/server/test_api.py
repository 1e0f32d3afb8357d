"""Every answer of the API is as its description says, whoever asks for whatever."""

from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from federation import FED_AVG, federation, job
from pydantic import BaseModel

from hanse.core import InvalidInput
from hanse.network.client import gate
from hanse.network.protocol.certificates import pin
from hanse.network.protocol.errors import Refused
from hanse.network.protocol.signing import Identity, sha256
from hanse.network.protocol.wire import WIRE, News, Problem
from hanse.network.server.api import application
from hanse.network.server.members import Members

OPEN = {"/v1/about"}
FILLED = {"run": "nowhere", "ticket": "1", "sha256": "0" * 64, "id": "nobody"}


class Asking:
    """Sends what no client of ours would."""

    def __init__(self, here: Any) -> None:
        self.url, self.key, self.id = here.url, Identity.generate(), "operator"
        here.server.members.appoint("operator", "operator", self.key.public)
        pem = (here.folder / "server" / "certificate.pem").read_text()
        self.http = httpx.Client(verify=pin(pem))

    def ask(
        self, method: str, path: str, body: bytes = b"", signed: bool = True, **headers: str
    ) -> httpx.Response:
        if signed:
            headers |= self.key.sign(self.id, method, self.url + path, sha256(body))
        return self.http.request(method, self.url + path, content=body, headers=headers)

    def close(self) -> None:
        self.http.close()


def test_every_refusal_is_described_and_says_what_is_wrong(tmp_path: Path) -> None:
    with federation(tmp_path, stay=True) as here:
        described = application(here.server).openapi()
        asking = Asking(here)
        for path, methods in described["paths"].items():
            for method, about in methods.items():
                assert {"401", "403", "405", "422", "503"} <= about["responses"].keys()
                assert (path in OPEN) == ("security" not in about), path
                answer = asking.ask(method.upper(), path.format(**FILLED), signed=False)
                assert answer.status_code == (200 if path in OPEN else 401), path
                if path not in OPEN:
                    assert Problem.model_validate_json(answer.content).code == "unsigned"
        for code, method, path, body in (
            ("no-path", "GET", "/nowhere", b""),
            ("method", "DELETE", "/v1/status", b""),
            ("wrong", "GET", "/v1/events?limit=many", b""),
            ("wrong", "POST", "/v1/clients/nobody/revoke", b""),
            ("wrong", "POST", "/v1/invitations", b'{"name": "two\\nlines"}'),
            ("wrong", "POST", "/v1/invitations", b'{"number": 1e400}'),
            ("wrong", "POST", "/v1/certificate", b'{"certificate": "junk"}'),
            ("no-run", "POST", "/v1/runs/nowhere/stop", b""),
            ("role", "POST", "/v1/work", b"{}"),
        ):
            answer = asking.ask(method, path, body)
            assert Problem.model_validate_json(answer.content).code == code, answer.text
            assert "Allow" in answer.headers or code != "method"
        objects = described["paths"]["/v1/runs/{run}/objects/{sha256}"]["get"]["responses"]
        assert {"200", "206", "304"} <= objects.keys()
        assert set(described["components"]["securitySchemes"]) == {"signature", "invitation"}
        asking.http.close()


def test_nobody_parts_for_another_by_taking_his_name(tmp_path: Path) -> None:
    members = Members(tmp_path / "members.db")
    for number, name in enumerate(["c2", "2", "client 0", "both", "both"]):
        secret, _ = members.invite(number=number)
        members.join(Identity.derive(secret).public, f"{number + 1:02d}" * 32, name)
    assert members.part("c2", "left").number == 2
    assert members.part("2", "revoked").number == 2
    assert members.part("client 0", "revoked").number == 2
    with pytest.raises(InvalidInput, match=r"2 members are called 'both'; give one of the ids: c3, c4"):
        members.part("both", "revoked")
    with pytest.raises(InvalidInput, match="no member is called 'c9'"):
        members.part("c9", "revoked")
    assert [m.number for m in members.active("client")] == [0, 1, 3, 4]
    members.close()


def test_what_strangers_write_can_not_steer_a_terminal(tmp_path: Path) -> None:
    members = Members(tmp_path / "members.db")
    members.note("client 0", "failed: \x1b[2J\x07\u202eevil\nTraceback\u2028")
    assert members.events()[0][2] == "failed: \\x1b[2J\\x07\\u202eevil\nTraceback\\u2028"
    members.close()


@pytest.mark.parametrize("spoken", [{"wire": 2}, {"wire": 99}, {"wire": 99, "have": "all of it"}])
def test_a_client_of_another_version_is_told_so_before_anything_else(
    tmp_path: Path, spoken: dict[str, Any]
) -> None:
    class Other(BaseModel):
        wire: Any
        have: Any = {}

    with federation(tmp_path, stay=True) as here, closing(here.client_home(0).link()) as link:
        with pytest.raises(
            Refused, match=f"version {spoken['wire']} .* version {WIRE}; upgrade the older"
        ) as seen:
            link.ask("POST", "/v1/work", News, Other(**spoken))
        assert (seen.value.status, seen.value.code) == (426, "wire")


def test_a_client_that_knows_no_version_of_the_servers_does_not_join(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "WIRE", 99)
    with (
        federation(tmp_path, stay=True) as here,
        pytest.raises(Refused, match="99; upgrade the older of the two"),
    ):
        here.client_home(0)


def test_long_numbers_are_refused_and_no_error_of_the_server(tmp_path: Path) -> None:
    with federation(tmp_path, stay=True) as here, closing(Asking(here)) as asking:
        run = here.lead(job(FED_AVG, 1))
        home, many = here.client_home(0), "9" * 300
        asking.key, asking.id = home.identity, "c0"
        name = "0" * 64
        for method, path in (
            ("GET", f"/v1/runs/{run}/tickets/0/message?sha256={name}&size={many}"),
            ("GET", f"/v1/runs/{run}/tickets/{many}/message?sha256={name}&size=1"),
            ("GET", f"/v1/runs/{run}/tickets/{many}/task"),
            ("PUT", f"/v1/runs/{run}/tickets/0/message?sha256={name}&size=1&offset=-{many}"),
        ):
            answer = asking.ask(method, path)
            assert (answer.status_code, answer.json()["code"]) == (422, "wrong"), answer.text
        plan = here.server.run(run).plan[0]
        path = f"/v1/runs/{run}/objects/{plan}"
        whole = asking.ask("GET", path).content
        assert asking.ask("GET", path, Range=f"bytes={'9' * 5000}-").content == whole
        assert asking.ask("GET", path, Range="bytes=5-").content == whole[5:]
