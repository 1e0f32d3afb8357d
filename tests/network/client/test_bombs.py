"""A server whose answers never end, or grow when they are read, costs a client little memory and no disk."""

import functools
import gzip
import itertools
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from federation import federation, job
from played import Heard, HostileServer

from hanse.algorithms import fed_avg
from hanse.core import Close, MessageError, layout
from hanse.core.exchange import Payload, Stored, Task, pack
from hanse.learners import softmax
from hanse.network.protocol.sealed_plan import read_plan, seal_plan, unpack_sent
from hanse.network.protocol.wire import JSON_BYTES, PLANS_BYTES, Plan

DEEP = b'{"wire": [' + b"[]," * (JSON_BYTES // 3 - 10) + b"[]]}"
BLOCK = b"a" * (1 << 16)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 872415232\r\n\r\n"

CHILD = """
import resource, sys
from pathlib import Path
from hanse.network.client.transport import ServerLink
from hanse.network.protocol import Identity, answers
from hanse.network.protocol.wire import About

url, pem, key, folder = sys.argv[1:]
link = ServerLink(url, Path(pem).read_text(), Identity.generate(), "c0", key)
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
def attempt(act, name):
    try:
        act()
        print(name, "was taken")
    except Exception as error:
        print(name, type(error).__name__, str(error).replace("\\n", " "))
attempt(lambda: link.ask("GET", "/v1/fine", About), "fine:")
before = peak()
for name in ("gzip", "endless", "headers", "deep", "wrong", "unsigned"):
    attempt(lambda: link.ask("GET", f"/v1/{name}", About), f"{name}:")
attempt(lambda: link.download("/v1/endless", "0" * 64, 100_000, Path(folder) / "object"), "download:")
answers.ANSWER_S = answers.SLOW_S = 0.0
attempt(lambda: link.ask("GET", "/v1/slow", About), "slow:")
attempt(lambda: link.download("/v1/slow", "0" * 64, 100_000, Path(folder) / "other"), "slow download:")
print("grew by", peak() - before)
"""


def answer(server: HostileServer, heard: Heard) -> Iterable[bytes]:
    small = b'{"wire": [7], "hanse": "7", "time": 1.0}'
    match heard.path.removeprefix("/v1/"):
        case "gzip":
            return server.sign(heard, bomb(), Content_Encoding="gzip")
        case "endless":
            return itertools.chain([HEAD], itertools.repeat(BLOCK))
        case "headers":
            return itertools.chain([b"HTTP/1.1 200 OK\r\n"], itertools.repeat(b"X-A: " + BLOCK + b"\r\n"))
        case "deep":
            return server.sign(heard, DEEP)
        case "wrong":
            return server.sign(heard, b'{"wire": [' + b"0.5," * (JSON_BYTES // 4 - 10) + b"0]}")
        case "slow":
            return itertools.chain([HEAD], itertools.repeat(b"a"))
        case "unsigned":
            return [HEAD.replace(b"872415232", str(len(small)).encode()) + small]
    return server.sign(heard, small)


@functools.cache
def bomb() -> bytes:
    """Made where it is needed, since it takes more than a second."""
    return gzip.compress(bytes(300 << 20), 6)


@pytest.mark.skipif(sys.platform == "win32", reason="measures memory by the resource module")
def test_resource_bombs_end_in_little_memory_and_no_byte_too_many(tmp_path: Path) -> None:
    assert len(bomb()) < JSON_BYTES > len(DEEP)
    given: list[HostileServer] = []
    with HostileServer(tmp_path, lambda heard: answer(given[0], heard)) as server:
        given.append(server)
        command = [sys.executable, "-c", CHILD, server.url, str(tmp_path / "certificate.pem")]
        command += [server.identity.public, str(tmp_path)]
        said = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    lines = dict(line.split(" ", 1) for line in said.replace("slow download:", "slowly:").splitlines())
    assert lines["fine:"] == "was taken"
    assert "is not JSON" in lines["gzip:"]
    assert f"more than {JSON_BYTES} bytes" in lines["endless:"]
    assert "Unreachable" in lines["headers:"]
    assert "more than 100000 lists" in lines["deep:"]
    assert "can't be read: 3 validation errors" in lines["wrong:"]  # one of the list
    assert "not signed by the server" in lines["unsigned:"]
    assert "does not have its SHA-256" in lines["download:"]
    assert "did not arrive within" in lines["slow:"]
    assert "the download brought 1 bytes" in lines["slowly:"]
    assert int(lines["grew"].removeprefix("by ")) < 30
    assert not (tmp_path / "object.part").exists()
    assert sum(path.stat().st_size for path in tmp_path.glob("other*")) == 0


@pytest.mark.parametrize("size", [PLANS_BYTES - 100, 3 * PLANS_BYTES])
def test_a_header_that_takes_much_memory_is_not_parsed(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        b'{"__metadata__":{"hanse":"['
        + (b"[]," * (size // 3) if size < PLANS_BYTES else b" " * size)
        + b'[]]"}}'
    )
    (tmp_path / "payload").write_bytes(len(text).to_bytes(8, "little") + text)
    monkeypatch.setattr(layout.json, "loads", lambda text: pytest.fail("it is parsed"))
    for kind in (Payload, Task):
        with pytest.raises(MessageError, match=r"^a header of "):
            unpack_sent(Stored(tmp_path / "payload"), kind)
    with pytest.raises(MessageError, match=r"^a header of "):
        read_plan((tmp_path / "payload").read_bytes())


def test_a_plan_whose_model_takes_much_memory_is_not_opened() -> None:
    many = replace(
        seal_plan(Plan("run", "{}", softmax(), (8, 8), 10)), packed=pack({"model": ((),) * 300_000})
    )
    with pytest.raises(MessageError, match="a header of more than 250000 lists"):
        many.open()


def test_a_download_above_the_policy_does_not_begin(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        house = here.client_home(4)
        (house.folder / "policy.toml").write_text("max_download_bytes = 1000")
        run = here.lead(job(fed_avg(lr=0.5, fraction=1.0, close=Close(minimum_fraction=0.5)), 1))
        here.enter()
        here.end(run, status="incomplete")
        assert "its policy's budget for this run is used up (budget)" in here.events()
        assert not list(house.folder.glob("runs/*/*.payload*"))
        assert any("allows 1000 bytes of all runs on its disk" in line for line in here.said)


def test_files_of_all_runs_count_together_and_unfinished_ones_too(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        house = here.client_home(0)
        folder, other = house.run("run"), house.run("other")
        (folder / "test").mkdir()
        for name, size in (("a.payload", 5), ("test/b.payload.part", 7), ("3.c.own", 11), ("memory", 100)):
            (folder / name).write_bytes(bytes(size))
        (other / ("0" * 64)).write_bytes(bytes(13))  # a plan
        assert house.count_download_bytes(folder / "d.payload") == 36
        assert house.count_download_bytes(folder / "test" / "b.payload") == 29
        assert house.count_download_bytes(folder / "b.payload") == 36
