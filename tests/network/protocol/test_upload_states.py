"""An upload is received, then complete, then durable: after a kill, an error of the disk, and damage."""

import builtins
import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hanse.core.exchange import Stored
from hanse.network.protocol import spool, uploads
from hanse.network.protocol.errors import Refused
from hanse.network.protocol.spool import Objects
from hanse.network.protocol.uploads import Damaged, Spool

DATA = bytes(range(250)) * 40
CHUNK = 4000
NAME = hashlib.sha256(
    b"".join(hashlib.sha256(DATA[at : at + CHUNK]).digest() for at in range(0, len(DATA), CHUNK))
).hexdigest()
RECEIVED, DURABLE = f"7.{NAME}.{len(DATA)}.upload", f"7.{NAME}.message"


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "CHUNK_BYTES", CHUNK)


def send(given: Spool) -> None:
    """Uploads what is missing, as the routes do for a client."""
    while (offset := given.offset(7, NAME, len(DATA))) < len(DATA):
        chunk = given.writing(7, NAME, len(DATA), offset)
        try:
            data = DATA[offset : offset + CHUNK]
            chunk.write(data)
            chunk.keep(hashlib.sha256(data).digest())
        finally:
            chunk.close()
    assert given.finish(7, NAME, len(DATA))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_complete_message_is_durable_after_a_restart(tmp_path: Path) -> None:
    (tmp_path / RECEIVED).write_bytes(DATA)
    found = Spool(tmp_path)
    assert names(tmp_path) == [DURABLE]
    assert found.tickets() == {7: NAME}
    assert found.read(7) == DATA
    send(found)  # a client that does not know it


@pytest.mark.parametrize("data", [DATA[:-1] + b"x", DATA + b"x"], ids=["changed", "too long"])
def test_a_complete_message_that_is_not_what_its_name_says_is_removed(data: bytes, tmp_path: Path) -> None:
    (tmp_path / RECEIVED).write_bytes(data)
    found = Spool(tmp_path)
    assert names(tmp_path) == []
    assert found.offset(7, NAME, len(DATA)) == 0
    send(found)
    assert found.read(7) == DATA


def test_what_was_received_is_kept_up_to_its_last_whole_chunk(tmp_path: Path) -> None:
    (tmp_path / RECEIVED).write_bytes(DATA[: 2 * CHUNK + 5])
    found = Spool(tmp_path)
    assert found.tickets() == {}
    assert found.offset(7, NAME, len(DATA)) == 2 * CHUNK
    send(found)
    assert found.read(7) == DATA


def test_a_second_upload_of_a_durable_message_is_removed(tmp_path: Path) -> None:
    (tmp_path / DURABLE).write_bytes(DATA)
    (tmp_path / RECEIVED).write_bytes(DATA)
    assert Spool(tmp_path).tickets() == {7: NAME}
    assert names(tmp_path) == [DURABLE]


FAILING = {
    "create": (builtins, "open", lambda path, mode="r", *_, **__: "a" in mode),
    "write": (uploads, "write_all", lambda *_: True),
    "open": (builtins, "open", lambda path, mode="r", *_, **__: mode == "rb+"),
    "sync": (os, "fsync", lambda *_: True),
    "touch": (os, "utime", lambda *_: True),
    "rename": (Path, "rename", lambda *_: True),
    "sync the folder": (uploads, "sync_folder", lambda *_: True),
    "cut": (os, "truncate", lambda *_: True),
}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO], ids=errno.errorcode.get)
@pytest.mark.parametrize("step", FAILING)
def test_no_step_that_fails_blocks_the_next_try(
    step: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = Spool(tmp_path)
    where, name, is_hit = FAILING[step]
    act = getattr(where, name)
    num_failed = 0

    def fail(*args: Any, **named: Any) -> Any:
        nonlocal num_failed
        if is_hit(*args, **named):
            num_failed += 1
            raise OSError(number, os.strerror(number))
        return act(*args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(where, name, fail)
        if step == "cut":  # a chunk that is not kept, and can't be cut off
            chunk = given.writing(7, NAME, len(DATA), 0)
            chunk.write(b"half")
            chunk.close()
        else:
            with pytest.raises(Refused) as caught:
                send(given)
            expected = "unavailable" if number == errno.EIO else "disk-full"
            assert caught.value.code == expected
    assert num_failed == 1
    assert given.tickets() == {}
    for found in (given, Spool(tmp_path)):
        send(found)
        assert found.read(7) == DATA
        assert names(tmp_path) == [DURABLE]


@pytest.mark.parametrize("lost", [DATA[: 2 * CHUNK], b"", None], ids=["cut", "empty", "deleted"])
def test_an_upload_whose_file_was_changed_meanwhile_goes_on_from_what_is_left(
    lost: bytes | None, tmp_path: Path
) -> None:
    given = Spool(tmp_path)
    chunk = given.writing(7, NAME, len(DATA), 0)
    chunk.write(DATA[:CHUNK])
    chunk.keep(hashlib.sha256(DATA[:CHUNK]).digest())
    chunk.close()
    if lost is None:
        (tmp_path / RECEIVED).unlink()
    else:
        (tmp_path / RECEIVED).write_bytes(lost)
    with pytest.raises(Refused, match=f"{len(lost or b'')} bytes are here"):
        given.writing(7, NAME, len(DATA), CHUNK)
    send(given)
    assert given.read(7) == DATA


def test_a_complete_upload_that_lost_bytes_is_sent_again(tmp_path: Path) -> None:
    (tmp_path / RECEIVED).write_bytes(DATA[: 2 * CHUNK])
    given = Spool(tmp_path)
    chunk = given.writing(7, NAME, len(DATA), 2 * CHUNK)
    chunk.write(DATA[2 * CHUNK :])
    chunk.keep(hashlib.sha256(DATA[2 * CHUNK :]).digest())
    chunk.close()
    os.truncate(tmp_path / RECEIVED, CHUNK)
    with pytest.raises(Refused, match="bytes of the message were lost"):
        given.finish(7, NAME, len(DATA))
    send(given)
    assert given.read(7) == DATA


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "flipped": flip,
    "truncated": lambda path: os.truncate(path, path.stat().st_size - 1),
    "empty": lambda path: os.truncate(path, 0),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x") and None,
    "deleted": lambda path: path.unlink(),
}


@pytest.mark.parametrize("size", ["small", "mapped"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_message_is_not_read(
    damage: str, size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if size == "mapped":
        monkeypatch.setattr(uploads, "MAPPED_BYTES", 0)
    given = Spool(tmp_path)
    send(given)
    assert isinstance(given.read(7), Stored) == (size == "mapped")
    DAMAGES[damage](tmp_path / DURABLE)
    with pytest.raises(Damaged, match=DURABLE) as caught:
        given.read(7)
    assert caught.value.ticket == 7
    given.discard(7)
    assert given.tickets() == {}
    assert names(tmp_path) == []
    send(given)
    assert len(given.read(7)) == len(DATA)


def test_foreign_files_are_left_alone_and_can_be_named(tmp_path: Path) -> None:
    foreign = [".DS_Store", "7.message", "copy of 7.upload", f"x.{NAME}.message", "notes.message"]
    for name in foreign:
        (tmp_path / name).write_bytes(b"somebody's")
    (tmp_path / "lost+found").mkdir()
    given = Spool(tmp_path)
    send(given)
    given.keep_only(set(), 8)
    assert names(tmp_path) == sorted([*foreign, "lost+found"])
    assert sorted(path.name for path in given.find_foreign()) == names(tmp_path)
    objects = Objects(tmp_path)
    sha256, _ = objects.put([b"object"])
    objects.keep_only(set())
    assert names(tmp_path) == sorted([*foreign, "lost+found"])
    assert len(objects.find_foreign()) == len(foreign) + 1
    assert sha256 not in names(tmp_path)
