"""The tables of the database. A change here needs a migration beside it; a test compares the two."""

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

__all__ = [
    "checkpoints",
    "journal",
    "memories",
    "metadata",
    "objects",
    "rounds",
    "runs",
    "traffic",
    "version",
]

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
    }
)


def _of_run(*, primary_key: bool = True) -> Column[int]:
    return Column("run", ForeignKey("runs.number", ondelete="CASCADE"), primary_key=primary_key)


runs = Table(
    "runs",
    metadata,
    Column("number", Integer, primary_key=True),  # newer is higher
    Column("run", String(32), nullable=False, unique=True),
    Column("created", String(32), nullable=False),  # ISO 8601, UTC: SQLite has no type for it
    Column("status", String(16), nullable=False),
    Column("revision", Integer, nullable=False),  # counts claims: a process with an older one lost the run
    Column("claimed_by", Text),
    Column("settings", Text, nullable=False),
    Column("environment", Text, nullable=False),
    Column("result", Text),
    Column("name", String(64)),
    Column("tags", Text, nullable=False, server_default="[]"),
    Index("ix_runs_name", "name", unique=True),
)

rounds = Table(
    "rounds",
    metadata,
    _of_run(),
    Column("position", Integer, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("metrics", Text, nullable=False),
    Column("bytes_up", BigInteger, nullable=False),
    Column("bytes_down", BigInteger, nullable=False),
    Column("counted", Integer, nullable=False),
    Column("dropped", Integer, nullable=False),
    Column("virtual_s", Float, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("abandoned", Text),
    Column("flows", Text, nullable=False, server_default="[]"),
    Column("way", Text),
    Column("spent", Text, nullable=False, server_default="{}"),
    Column("releases", Text, nullable=False, server_default="[]"),
    Column("left_out", Text, nullable=False, server_default="[]"),
    Column("times", Text, nullable=False, server_default="[]"),
)

traffic = Table(
    "traffic",
    metadata,
    _of_run(),
    Column("client", Integer, primary_key=True),  # or the name of a party: SQLite keeps such text as it is
    Column("bytes_up", BigInteger, nullable=False),  # in all rounds so far
    Column("bytes_down", BigInteger, nullable=False),
)

objects = Table(
    "objects",
    metadata,
    _of_run(),
    Column("sha256", String(64), primary_key=True),
    Column("uses", Integer, nullable=False),  # by checkpoint, journal and memories; at 0 the row is deleted
    Column("data", LargeBinary, nullable=False),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    _of_run(),
    Column("round", Integer, nullable=False),
    Column("value", Text, nullable=False),
    Column("tensors", Text, nullable=False),
)

journal = Table(
    "journal",
    metadata,
    _of_run(),
    Column("position", Integer, primary_key=True),
    Column("value", Text, nullable=False),
    Column("tensors", Text, nullable=False),
)

memories = Table(
    "memories",
    metadata,
    _of_run(),
    Column("party", String(255), primary_key=True),  # in JSON, so that client 3 is not the role "3"
    Column("value", Text, nullable=False),
)

version = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))
"""The table that names the last migration. It is Alembic's own, read here without importing Alembic."""
