"""Files that clients download in pieces: what is answered to each range."""

from pathlib import Path

import pytest
from starlette.requests import Request

from hanse.network.protocol.errors import Refused
from hanse.network.server.answers import send_file


def asking(**headers: str) -> Request:
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "GET", "path": "/", "headers": named})


@pytest.mark.parametrize(
    ("given", "start"),
    [
        ("bytes=3-", 3),
        ("bytes=9-", 9),
        ("bytes=0-", 0),
        ("bytes=10-", 0),
        ("bytes=3-5", 0),
        ("bytes=-3", 0),
        ("bytes=٣-", 0),
        ("lines=3-", 0),
    ],
)
def test_an_open_range_is_answered_from_its_beginning_and_any_other_with_all(
    given: str, start: int, tmp_path: Path
) -> None:
    path = tmp_path / "model"
    path.write_bytes(bytes(10))
    answer = send_file(path, "ab", asking(range=given.encode().decode("latin-1")))
    assert answer.status_code == (206 if start else 200)
    assert answer.headers["content-length"] == str(10 - start)
    assert answer.headers.get("content-range") == (f"bytes {start}-9/10" if start else None)
    assert answer.headers["etag"] == '"ab"'


def test_what_is_held_already_is_not_sent_again_and_what_is_gone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(bytes(10))
    assert send_file(path, "ab", asking(if_none_match='"ab"')).status_code == 304
    assert send_file(path, "ab", asking(if_none_match='"cd"')).status_code == 200
    with pytest.raises(Refused) as refused:
        send_file(tmp_path / "nothing", "ab", asking())
    assert (refused.value.status, refused.value.code) == (404, "no-object")
