"""Behind an ordinary reverse proxy: nginx ends the clients' TLS and speaks its own to the server."""

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from federation import CASES, NUM_CLIENTS, Federation, federation, job, simulated
from test_kill import free_port

from hanse.network.client import enrolment, transport
from hanse.network.client.enrolment import check
from hanse.network.client.home import ClientHome
from hanse.network.protocol import spool
from hanse.network.protocol.certificates import fingerprint, make
from hanse.network.protocol.errors import Refused
from hanse.network.protocol.tokens import Token
from hanse.network.protocol.wire import News, Poll
from hanse.network.server import client_routes, requests

NGINX = shutil.which("nginx")

CONF = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {certificate}; ssl_certificate_key {key};
    client_max_body_size {body};
    location / {{
      proxy_pass {upstream};
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_request_buffering off;
      proxy_buffering off;
      proxy_read_timeout {wait};
    }}
  }}
}}
"""


@contextmanager
def proxied(folder: Path, port: int, upstream: str, body: str = "16m", wait: str = "60s") -> Iterator[None]:
    assert NGINX is not None
    certificate, key = make(folder, ("127.0.0.1",))
    conf = folder / "nginx.conf"
    given = {"port": port, "upstream": upstream, "body": body, "wait": wait}
    conf.write_text(CONF.format(folder=folder, certificate=certificate, key=key, **given))
    process = subprocess.Popen([NGINX, "-c", str(conf), "-e", str(folder / "error.log")])
    try:
        while not (folder / "nginx.pid").exists():
            assert process.poll() is None, (folder / "error.log").read_text()
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait()


pytestmark = pytest.mark.skipif(NGINX is None, reason="needs nginx (Debian: apt-get install nginx-light)")


@contextmanager
def behind(here: Federation, folder: Path, **limits: str) -> Iterator[None]:
    """Clients reach the federation through a proxy from now on."""
    port = free_port()
    with proxied(folder, port, here.url, **limits):
        here.url = f"https://127.0.0.1:{port}"
        here.server.fingerprint = fingerprint((folder / "certificate.pem").read_text())
        yield


def test_the_bits_are_the_same_through_nginx(tmp_path: Path) -> None:
    with federation(tmp_path / "f") as here, behind(here, tmp_path / "nginx"):
        run = here.lead(job(CASES["scaffold"], 3))
        here.enter()
        assert here.end(run)["params_sha256"] == simulated(CASES["scaffold"], 3)
        here.server.done.wait(10)


def test_waiting_chunks_and_cached_downloads_pass_through_nginx(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for room in (spool, transport, requests, client_routes):
        monkeypatch.setattr(room, "CHUNK_BYTES", 1000)
    with federation(tmp_path / "f") as here, behind(here, tmp_path / "nginx"):
        links = [here.client_home(number).link() for number in range(NUM_CLIENTS)]
        here.show_up()
        news: list[News] = []
        waiting = threading.Thread(
            target=lambda: news.append(links[0].ask("POST", "/v1/work", News, Poll(wait_s=20)))
        )
        waiting.start()
        run = here.lead(job(CASES["fed_avg"], 1))  # there was nothing to do when it began to wait
        waiting.join(60)
        (work,) = news[0].work
        path = f"/v1/runs/{run}/objects/{work.payload}"
        links[0].download(path, work.payload, work.payload_bytes, tmp_path / "payload")
        etag = {"If-None-Match": f'"{work.payload}"'}
        assert links[0]._send("GET", path, headers=etag).status_code == 304
        (tmp_path / "again.part").write_bytes((tmp_path / "payload").read_bytes()[:100])
        links[0].download(path, work.payload, work.payload_bytes, tmp_path / "again")
        assert (tmp_path / "again").read_bytes() == (tmp_path / "payload").read_bytes()
        links[0].upload(run, work.ticket, spool.Outgoing.write(tmp_path, 0, [bytes(2500)]))
        for link in links:
            link.close()
        assert here.server.run(run).mailbox.has(work.ticket)


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"body": "1m"}, r"must let 8 MiB pass \(nginx: client_max_body_size 16m\)"),
        ({"wait": "1s"}, r"must wait for more than 25 s \(nginx: proxy_read_timeout 60s\)"),
        ({}, None),
    ],
)
def test_a_proxy_that_would_cut_uploads_or_waits_is_found_by_a_check(
    limits: dict[str, str], says: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrolment, "CHECK_S", 0.1 if says is None else 5.0)
    with federation(tmp_path / "f") as here, behind(here, tmp_path / "nginx", **limits):
        run = here.lead(job(CASES["fed_avg"], 1))
        secret, _ = here.server.members.invite()
        given = (
            ClientHome(tmp_path / "client"),
            here.url,
            Token(here.server.fingerprint, secret, here.server.identity.public),
        )
        if says is None:
            assert [plan.run for plan in check(*given)[0]] == [run]
        else:
            with pytest.raises(Refused, match=says):
                check(*given)
        assert here.server.members.clients() == (frozenset(), 0)
