"""What a client remembers is on the disk in parts: only what changed is written, and nothing gets lost."""

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fragile import Crash, Fate, watch_files

from hanse.core import HanseError, Memory
from hanse.core.exchange import Fork, Forks, digest, pack, unpack
from hanse.network.client import memory_parts
from hanse.network.client.memory_parts import (
    MARK,
    MEMORY,
    PART_BYTES,
    PARTS,
    pack_parts,
    read_parts,
    sweep_parts,
)
from hanse.network.client.role import read_forks, write_forks
from hanse.network.protocol.spool import durably

LARGE = PART_BYTES // 8


def forks(committed: Memory, **own: Any) -> Forks:
    """Committed memory, and ticket 3's changes of it."""
    found = Forks(committed)
    if own:
        found.keep(3, Fork(None, own, ()))
    return found


def contents(found: Forks) -> str:
    return digest((dict(found.committed), found.forks))


def files(folder: Path) -> dict[Path, tuple[int, int, int]]:
    """Each file with its number, the time of its last change, and its size."""
    stats = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return {path: (stat.st_ino, stat.st_mtime_ns, stat.st_size) for path, stat in stats.items()}


def test_only_what_changed_is_written(tmp_path: Path) -> None:
    """100 MB are kept, of which 1 KB changes: that is written, and the index."""
    layers = {f"layer{i}": np.full(1_250_000, float(i)) for i in range(10)}
    write_forks(tmp_path, forks({"body": layers, "steps": np.zeros(128)}))
    assert sum(size for *_, size in files(tmp_path).values()) > 100_000_000
    found, before = read_forks(tmp_path), files(tmp_path)
    found.keep(3, Fork(None, {"steps": np.ones(128)}, ()))
    write_forks(tmp_path, found)
    found.settle([3], [])
    write_forks(tmp_path, found)
    written = {path: about for path, about in files(tmp_path).items() if before.get(path) != about}
    assert written.keys() == {tmp_path / MEMORY}
    assert 1024 < written[tmp_path / MEMORY][2] < 5000
    assert before.keys() == files(tmp_path).keys()
    last = read_forks(tmp_path)
    np.testing.assert_array_equal(last.committed["steps"], np.ones(128))
    assert all(np.array_equal(last.committed["body"][name], layer) for name, layer in layers.items())


def test_a_large_tensor_that_changed_is_one_new_part_and_the_old_one_goes(tmp_path: Path) -> None:
    same, old, new = (np.full(LARGE, x) for x in (1.0, 2.0, 3.0))
    write_forks(tmp_path, forks({"a": same, "b": (old, same)}))
    before = files(tmp_path / PARTS)
    assert len(before) == 2, "equal tensors are one part"
    found = read_forks(tmp_path)
    found.keep(3, Fork(None, {"b": (new, same)}, ()))
    write_forks(tmp_path, found)
    assert len(files(tmp_path / PARTS)) == 3
    assert contents(read_forks(tmp_path)) == contents(found)
    found.settle([3], [])
    write_forks(tmp_path, found)
    after = files(tmp_path / PARTS)
    assert len(after) == 2
    assert len(before.items() & after.items()) == 1
    assert contents(read_forks(tmp_path)) == contents(found)
    write_forks(tmp_path, Forks())
    assert not files(tmp_path / PARTS)


def test_a_tensor_is_hashed_again_if_somebody_may_have_changed_it(tmp_path: Path) -> None:
    """One that was read from bytes can't change, and is hashed once."""
    tensor = np.zeros(LARGE)
    view = tensor.view()
    view.flags.writeable = False
    for value in (1.0, 2.0):
        tensor[:] = value
        write_forks(tmp_path, forks({"a": view}))
        assert read_forks(tmp_path).committed["a"][0] == value
    frozen = unpack(pack(tensor))
    first = memory_parts._digest(frozen)
    assert memory_parts._DIGESTS[id(frozen)][1] == first == memory_parts._digest(np.full(LARGE, 2.0))
    number = id(frozen)
    del frozen
    assert number not in memory_parts._DIGESTS


@pytest.mark.parametrize("at", [0, 100, -1])
def test_a_flipped_bit_is_an_error_that_names_the_file(tmp_path: Path, at: int) -> None:
    write_forks(tmp_path, forks({"a": np.zeros(LARGE), "small": np.zeros(9)}))
    (part,) = (tmp_path / PARTS).iterdir()
    for path in (part, tmp_path / MEMORY):
        good = path.read_bytes()
        bad = bytearray(good)
        bad[at] ^= 1
        path.write_bytes(bad)
        with pytest.raises(HanseError, match=rf"{path} can't be used: .*remove {tmp_path / MEMORY}"):
            read_forks(tmp_path)
        path.write_bytes(good)
    part.unlink()
    with pytest.raises(HanseError, match=f"{part} can't be used: it is missing"):
        read_forks(tmp_path)


def test_memory_of_an_earlier_version_is_read_and_turned_over(tmp_path: Path) -> None:
    old = forks({"a": np.ones(LARGE), "n": 3}, a=np.zeros(LARGE))
    durably(tmp_path / MEMORY, pack((old.committed, old.forks)))
    found = read_forks(tmp_path)
    assert contents(found) == contents(old)
    write_forks(tmp_path, found)
    assert (tmp_path / MEMORY).read_bytes().startswith(MARK)
    assert len(files(tmp_path / PARTS)) == 2
    assert contents(read_forks(tmp_path)) == contents(old)


def test_parts_that_a_note_names_are_kept_until_the_note_goes(tmp_path: Path) -> None:
    before = {"a": np.ones(LARGE)}
    write_forks(tmp_path, forks(before))
    (tmp_path / "3.task").write_bytes(pack_parts(tmp_path, ("a task", before)))
    (tmp_path / "4.task").write_bytes(pack_parts(tmp_path, "cut off")[:-1])
    write_forks(tmp_path, forks({"a": np.zeros(LARGE)}))
    assert digest(read_parts(tmp_path / "3.task")) == digest(("a task", before))
    assert len(files(tmp_path / PARTS)) == 2
    (tmp_path / "3.task").unlink()
    sweep_parts(tmp_path)
    assert len(files(tmp_path / PARTS)) == 1
    assert read_forks(tmp_path).committed["a"][0] == 0.0


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_anywhere_leaves_the_old_memory_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """It dies just before or after its n-th rename or removal of a file, for each n."""
    monkeypatch.setattr(memory_parts, "PART_BYTES", 0)
    old = forks({"a": np.ones(3), "b": np.ones(2), "c": np.ones(1)})
    new = forks({"a": np.ones(3), "b": np.zeros(2)}, c=np.zeros(1))
    fate, found, died = Fate(), list[str](), True
    watch_files(monkeypatch, tmp_path, fate, lambda path, target: "effect")
    while died:
        folder = tmp_path / str(len(found))
        folder.mkdir()
        write_forks(folder, old)
        fate.die("effect", len(found) + 1, when)
        with suppress(Crash):
            write_forks(folder, new)
        died = fate.dead.is_set()
        fate.revive()
        found.append(contents(read_forks(folder)))
        write_forks(folder, new)
        assert contents(read_forks(folder)) == contents(new)
        assert len(files(folder)) == 4, "nothing is left of the old memory, or half written"
    first = found.index(contents(new))
    assert found == [contents(old)] * first + [contents(new)] * (len(found) - first)
    assert (first, len(found)) == (3 if when == "before" else 2, 6), "two parts, the index, two removals"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it reads the names of open files in /proc")
def test_parts_have_reached_the_disk_before_the_index_that_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if a part is here already: a process that was killed may have written it a moment ago."""
    steps: list[str] = []
    sync, replace, unlink = os.fsync, Path.replace, Path.unlink

    def noted_sync(number: int) -> None:
        sync(number)
        name = Path(os.readlink(f"/proc/self/fd/{number}"))
        steps.append(f"sync {name.relative_to(tmp_path)}")

    def noted_replace(path: Path, target: Path) -> Path:
        steps.append(f"rename {target.relative_to(tmp_path)}")
        return replace(path, target)

    def noted_unlink(path: Path, missing_ok: bool = False) -> None:
        steps.append(f"remove {path.relative_to(tmp_path)}")
        unlink(path, missing_ok)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    monkeypatch.setattr(Path, "unlink", noted_unlink)
    index = ["sync memory.part", "rename memory", "sync ."]
    write_forks(tmp_path, forks({"a": np.ones(LARGE)}))
    (one,) = os.listdir(tmp_path / PARTS)
    assert steps == [f"sync parts/{one}.part", f"rename parts/{one}", "sync parts", *index]
    steps.clear()
    write_forks(tmp_path, forks({"a": np.ones(LARGE), "n": 1}))
    assert steps == ["sync parts", *index]
    steps.clear()
    write_forks(tmp_path, forks({}))
    assert steps == [*index, f"remove parts/{one}"]
