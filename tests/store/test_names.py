"""Names and tags of runs, runs that are removed, and stores that can only be read."""

import gc
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from forked import PIPE, python

import hanse
from hanse.core import InvalidInput, StoreError
from hanse.store import Runs, migrations
from hanse.store.database import Database
from hanse.store.naming import Known, find_meant
from hanse.store.tables import metadata, version

KNOWN = (Known("aaaa00000003", None), Known("aabb00000002", "aaaa"), Known("cc0000000001", "slow-1"))


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("last", "aaaa00000003"),
        ("aaaa", "aabb00000002"),  # a whole name goes before the beginning of an id
        ("aaaa0", "aaaa00000003"),
        ("aabb", "aabb00000002"),
        ("cc0000000001", "cc0000000001"),
        ("slow-1", "cc0000000001"),
    ],
)
def test_a_run_is_meant_by_name_id_or_last(given: str, meant: str) -> None:
    assert find_meant(given, KNOWN) == meant


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("aa", r"2 runs begin with 'aa': aaaa00000003, aabb00000002 \(aaaa\); write more of the one"),
        ("slow", r"no run 'slow': did you mean cc0000000001 \(slow-1\)\? `hanse ls --store x` lists them"),
        ("ccd0", r"did you mean cc0000000001 \(slow-1\)\?"),
        ("", "no run '': the newest is aaaa00000003; `hanse ls --store x`"),
        ("zzzzzzzz", "no run 'zzzzzzzz': the newest is aaaa00000003"),
    ],
)
def test_who_is_not_understood_hears_what_there_is(given: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        find_meant(given, KNOWN, option=" --store x")


def test_last_of_nothing_is_no_run() -> None:
    with pytest.raises(StoreError, match="no run 'last': none has begun"):
        find_meant("last", ())


def test_a_name_is_that_of_one_run(runs: Runs) -> None:
    first = runs.begin({}, {}, name="slow", tags=("a", "b", "a"))
    with pytest.raises(InvalidInput, match=f"name 'slow' is that of run {first}; take another name"):
        runs.begin({}, {}, name="slow")
    runs.begin({}, {})
    runs.begin({}, {})  # several have none
    assert len(runs.infos()) == 3
    assert (runs.info("slow").name, runs.info("slow").tags) == ("slow", ("a", "b"))
    runs.remove("slow")
    assert runs.info(runs.begin({}, {}, name="slow")).run != first


# -- removal -----------------------------------------------------------------------------------


def counts(path: Path) -> dict[str, int]:
    with closing(sqlite3.connect(path)) as database:
        return {
            name: database.execute(f"SELECT count(*) FROM {name}").fetchone()[0]
            for name in ("runs", "rounds", "objects", "checkpoints", "traffic", "memories", "journal")
        }


def test_a_removed_run_leaves_nothing_and_takes_nothing_of_others(tmp_path: Path) -> None:
    """Two runs of the same seed keep tensors of the same hash."""
    path = tmp_path / "runs.db"
    first = hanse.run(rounds=2, store=path)
    alone = counts(path)
    second = hanse.run(rounds=2, store=path)
    runs = Runs(path)
    before = path.stat().st_size
    freed = runs.remove(str(first.run))
    assert freed == before - path.stat().st_size > 0
    assert counts(path) == alone
    assert [info.run for info in runs.infos()] == [second.run]
    assert hanse.load(store=path).params_sha256 == second.params_sha256
    with pytest.raises(StoreError, match="there is no run"):
        runs.remove(str(first.run))


def test_a_run_in_progress_is_not_removed(runs: Runs) -> None:
    run = runs.begin({}, {})
    with runs.open(run):
        with pytest.raises(StoreError, match=r"is performed by process .* so it can't be removed"):
            runs.remove(run)
        with pytest.raises(StoreError, match="is in progress; wait for it, or stop it"):
            hanse.runs.remove_runs([run], runs._database.path)
    assert runs.info(run).run == run
    runs.remove(run)
    assert runs.infos() == ()


def test_all_are_found_before_one_is_removed(runs: Runs) -> None:
    ids = [runs.begin({}, {}) for _ in range(3)]
    path = runs._database.path
    with pytest.raises(StoreError, match="no run 'nothing'"):
        hanse.runs.remove_runs(["last", "nothing"], path)
    assert len(runs.infos()) == 3
    assert hanse.runs.remove_runs(["last", "last", ids[2]], path)[0] == (ids[2],)
    assert [info.run for info in runs.infos()] == [ids[1], ids[0]]


def test_a_run_of_real_parties_is_not_removed_alone(runs: Runs) -> None:
    run = runs.begin({"served": {}}, {})
    with pytest.raises(InvalidInput, match=r"led with real parties.*remove the folder .* as a whole"):
        hanse.runs.remove_runs([run], runs._database.path)
    assert runs.info(run).run == run


# -- stores that can only be read --------------------------------------------------------------

READ = """
import sys
from typer.testing import CliRunner
import hanse
from hanse.cli import app
place, folder, *commands = sys.argv[1:]
for words in commands:
    if "--no-images" in words:
        try: import vl_convert
        except ImportError: continue
        words += f" --to {folder}/{words.split()[0]}"
    done = CliRunner().invoke(app, [*words.split(), "--store", place])
    print(words.split()[0], done.exit_code, done.stderr.strip()[:90])
print("load", hanse.load(store=place).params_sha256)
"""

OBEY = """
import ctypes, os
if os.geteuid() == 0:  # give up all rights of root, such as to write where permissions forbid it
    header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert ctypes.CDLL(None).capset(header, none) == 0
"""

MOUNT = """
import ctypes, sys
from pathlib import Path
here, libc = str(Path(sys.argv[1]).parent).encode(), ctypes.CDLL(None)
new_mounts, private, bind, read_only = 0x20000, 16384 | 262144, 4096, 32 | 1
if (
    libc.unshare(new_mounts)
    or libc.mount(b"none", b"/", None, private, None)
    or libc.mount(here, here, None, bind, None)
    or libc.mount(None, here, None, bind | read_only, None)
):
    print("this machine lets no process mount anything")
    sys.exit()
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a store with two runs."""
    path = tmp_path_factory.mktemp("two") / "runs.db"
    hanse.run(rounds=1, seed=1, store=path, name="first")
    hanse.run(rounds=2, seed=2, store=path)
    return path


READING = ("ls", "show last")
PAGES = ("report last --no-images", "compare first last --no-images")


def read_all(before: str, place: Path, folder: Path, *commands: str) -> str:
    """Run reading commands in one process, and one that writes."""
    words = (*commands, "rm last --yes")
    process = python(
        "-c", before + READ, str(place), str(folder), *words, cwd=folder, stdout=PIPE, stderr=PIPE
    )
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return str(out)


def check_read(said: str, sha256: str) -> None:
    lines = dict(line.split(" ", 1) for line in said.splitlines())
    assert lines.pop("load") == sha256
    assert lines.pop("rm").startswith("2 Error: the store")
    assert set(lines.values()) == {"0 "}, said


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="made with calls of Linux")


@on_linux
def test_commands_read_a_store_without_write_permission(two: Path, tmp_path: Path) -> None:
    sha256 = hanse.load(store=two).params_sha256
    shut, out = tmp_path / "shut", tmp_path / "out"
    shut.mkdir()
    out.mkdir()
    shutil.copy(two, shut / "runs.db")
    (shut / "runs.db").chmod(0o444)
    shut.chmod(0o555)
    try:
        said = read_all(OBEY, shut / "runs.db", out, *READING, *PAGES)
    finally:
        shut.chmod(0o755)
    check_read(said, sha256)
    assert [path.name for path in shut.iterdir()] == ["runs.db"]


@on_linux
def test_commands_read_a_store_on_a_read_only_mount(two: Path, tmp_path: Path) -> None:
    said = read_all(MOUNT, two, tmp_path, *READING)
    if said.startswith("this machine"):
        pytest.skip(said)
    check_read(said, hanse.load(store=two).params_sha256)


def open_to_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    monkeypatch.setattr("hanse.store.database.is_writable", lambda path: False)
    return Runs(path, to_read=True)


def test_a_log_that_was_never_merged_is_read(
    tmp_path: Path, two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the log's index, as beside a process that writes, and without, as in a copy."""
    path = tmp_path / "runs.db"
    shutil.copy(two, path)
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("UPDATE runs SET name = 'late' WHERE name = 'first'")
        writer.commit()
        assert path.with_name("runs.db-wal").stat().st_size
        assert open_to_read(path, monkeypatch).info("late").name == "late"
        copied = tmp_path / "copied"
        copied.mkdir()
        for name in ("runs.db", "runs.db-wal"):
            shutil.copy(tmp_path / name, copied / name)
    files = {file: file.read_bytes() for file in copied.iterdir()}
    assert open_to_read(copied / "runs.db", monkeypatch).info("late").rounds == 1
    assert {file: file.read_bytes() for file in copied.iterdir()} == files


@pytest.mark.parametrize("to", ["0001", "0006"])
def test_an_older_store_is_read_and_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    database = Database(tmp_path / "runs.db")
    with database.begin() as connection:
        metadata.drop_all(connection)
        version.drop(connection)
        migrations.upgrade(connection, to)
        connection.exec_driver_sql(
            "insert into runs (run, created, status, revision, settings, environment)"
            " values ('abc', '2026-01-02T03:04:05.000006+00:00', 'completed', 1, '{}', '{}')"
        )
    with closing(sqlite3.connect(database.path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = database.path.read_bytes()
    runs = open_to_read(database.path, monkeypatch)
    folder = Path(str(runs._database._engine.url.database)).parent
    assert (runs.info("last").run, runs.info("abc").tags) == ("abc", ())
    assert database.path.read_bytes() == data
    del runs
    gc.collect()
    assert not folder.exists()


def test_a_newer_store_that_can_only_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Database(tmp_path / "runs.db").begin() as connection:
        connection.exec_driver_sql("update alembic_version set version_num = '9999'")
    with pytest.raises(StoreError, match=r"runs\.db: its tables are of version 9999.*upgrade Hanse"):
        open_to_read(tmp_path / "runs.db", monkeypatch)
