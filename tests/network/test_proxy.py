"""Behind an ordinary reverse proxy: nginx ends the clients' TLS and speaks its own to the server."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from federation import CASES, federation, job, simulated
from test_kill import free_port

from hanse.network.certificates import fingerprint, make

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
    client_max_body_size 16m;
    location / {{
      proxy_pass {upstream};
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_request_buffering off;
      proxy_buffering off;
    }}
  }}
}}
"""


@contextmanager
def proxied(folder: Path, port: int, upstream: str) -> Iterator[None]:
    assert NGINX is not None
    certificate, key = make(folder, ("127.0.0.1",))
    conf = folder / "nginx.conf"
    conf.write_text(
        CONF.format(folder=folder, port=port, upstream=upstream, certificate=certificate, key=key)
    )
    process = subprocess.Popen([NGINX, "-c", str(conf), "-e", str(folder / "error.log")])
    try:
        until_s = time.monotonic() + 10
        while not (folder / "nginx.pid").exists() and time.monotonic() < until_s:
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait()


@pytest.mark.skipif(NGINX is None, reason="needs nginx (Debian: apt-get install nginx-light)")
def test_the_bits_are_the_same_through_nginx(tmp_path: Path) -> None:
    with federation(tmp_path / "f") as here:
        port, folder = free_port(), tmp_path / "nginx"
        with proxied(folder, port, here.url):
            here.url = f"https://127.0.0.1:{port}"
            here.server.fingerprint = fingerprint((folder / "certificate.pem").read_text())
            run = here.lead(job(CASES["scaffold"], 3))
            here.enter()
            assert here.end(run)["params_sha256"] == simulated(CASES["scaffold"], 3)
            here.server.done.wait(10)
