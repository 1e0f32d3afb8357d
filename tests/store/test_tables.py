"""Versions of the tables, and the file that they are in."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from sqlite3 import connect
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from hanse.core import InvalidInput, StoreError, fields
from hanse.core.exchange import Usage
from hanse.store import Runs, migrations
from hanse.store.database import HEAD, Database
from hanse.store.tables import metadata, objects, rounds, version


def migrated(path: Path, to: str = "head") -> Database:
    """A store that came to a version by migrations alone, as old ones did."""
    database = Database(path)
    with database.begin() as connection:
        metadata.drop_all(connection)
        version.drop(connection)
        migrations.upgrade(connection, to)
    return database


def test_migrations_lead_to_the_tables(tmp_path: Path) -> None:
    with migrated(tmp_path / "runs.db").begin() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, metadata) == []


def test_migrations_lead_to_the_tables_to_the_letter(tmp_path: Path) -> None:
    """Also where Alembic does not compare, such as the names and the deeds of foreign keys."""

    def schema(path: Path) -> set[str]:
        with closing(connect(path)) as connection:
            rows = connection.execute("select sql from sqlite_master where name != 'alembic_version'")
            return {" ".join(sorted(sql.replace(",", " ").split())) for (sql,) in rows if sql}

    made = Database(tmp_path / "made.db")
    assert schema(migrated(tmp_path / "migrated.db").path) == schema(made.path) != set()


def test_the_head_is_the_last_migration() -> None:
    assert migrations.scripts.get_current_head() == HEAD


def test_a_store_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    (first,) = migrations.scripts.get_bases()
    database = migrated(tmp_path / "runs.db", first)
    with database.begin() as connection:
        connection.exec_driver_sql(
            "insert into runs (run, created, status, revision, settings, environment)"
            " values ('abc', '2026-01-02T03:04:05.000006+00:00', 'completed', 1, '{}', '{}')"
        )
    (info,) = Runs(database.path).infos()
    assert (info.run, info.status) == ("abc", "completed")
    with database.begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_a_store_of_a_newer_version_is_refused(runs: Runs) -> None:
    with runs._database.begin() as connection:
        connection.exec_driver_sql("update alembic_version set version_num = '9999'")
    with pytest.raises(StoreError, match=r"runs\.db: its tables are of version 9999.*upgrade Hanse"):
        Runs(runs._database.path)


def test_alembic_is_not_imported_for_a_store_that_is_up_to_date(runs: Runs, nursery: Any) -> None:
    assert nursery.start("imports", runs._database.path, runs.begin({}, {})).line() == "False"


def test_a_store_is_made_once_however_many_open_it(tmp_path: Path) -> None:
    script = f"from hanse.store import Runs; Runs({str(tmp_path / 'runs.db')!r}).begin({{}}, {{}})"
    processes = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert len(Runs(tmp_path / "runs.db").infos()) == 3


def test_threads_may_use_it_together(runs: Runs) -> None:
    def perform(number: int) -> int:
        run = runs.begin({"number": number}, {})
        with runs.open(run, flush_every_s=0.0):
            runs.finish(run, "completed")
        return int(runs.info(run).settings["number"])

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(perform, range(8))) == list(range(8))


def test_the_columns_of_usage_are_its_fields() -> None:
    names = {field.name for field in fields(Usage)}
    assert names - set(rounds.c.keys()) == {
        "clients"
    }  # which are summed over rounds, in a table of their own
    assert len(rounds.c) == 8 + len(names) - 1


def test_foreign_keys_hold(runs: Runs) -> None:
    with pytest.raises(StoreError, match="FOREIGN KEY"), runs._database.begin() as connection:
        connection.execute(objects.insert().values(run=1, sha256="", uses=1, data=b""))


def test_journal_mode_and_page_size(runs: Runs) -> None:
    with runs._database.connect() as connection:
        assert connection.exec_driver_sql("pragma journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("pragma page_size").scalar() == 16384
        assert connection.exec_driver_sql("pragma synchronous").scalar() == 1


# -- where a store can't be ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "error", "says"),
    [
        ("postgresql://host/runs", InvalidInput, "runs can't be kept in postgresql://host/runs yet; write"),
        ("sqlite://", InvalidInput, "runs can't be kept in sqlite:// yet; write the path of a file"),
        ("sqlite:///:memory:", InvalidInput, "yet; write the path of a file, such as .hanse/runs.db"),
        ("sqlite:///a.db?mode=ro", InvalidInput, "yet; write the path of a file"),
        ("a b://c", InvalidInput, "is no database URL"),
        ("{folder}", StoreError, "it can't be opened: is it a folder, or may this user not write there?"),
        ("{folder}/text", StoreError, "it is something else, not a store: write another path"),
        ("{folder}/text/runs.db", StoreError, "File exists"),
        ("{folder}/other.db", StoreError, "other.db holds other tables: write a path of its own"),
    ],
)
def test_a_place_that_can_not_be_used_says_so(
    tmp_path: Path, where: str, error: type[Exception], says: str
) -> None:
    (tmp_path / "text").write_text("no database " * 1000)
    with closing(connect(tmp_path / "other.db")) as connection:
        connection.execute("create table mine (number integer)")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(error) as caught:
        Runs(where.replace("{folder}", str(tmp_path)))
    assert says in str(caught.value)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_url_is_as_good_as_a_path(tmp_path: Path) -> None:
    run = Runs(f"sqlite:///{tmp_path}/x/runs.db").begin({}, {})
    assert Runs(tmp_path / "x" / "runs.db").info(run).run == run


def test_links_lead_to_the_same_claims(tmp_path: Path) -> None:
    runs = Runs(tmp_path / "runs.db")
    (tmp_path / "link.db").symlink_to(tmp_path / "runs.db")
    run = runs.begin({}, {})
    with runs.open(run), pytest.raises(StoreError, match="is open in this process"):
        Runs(tmp_path / "link.db").open(run)
