"""Runs, their rounds, checkpoints, journals and memories, and the objects that these refer to."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def _of_run(table: str) -> tuple[sa.Column[int], sa.ForeignKeyConstraint]:
    key = sa.ForeignKeyConstraint(["run"], ["runs.number"], f"fk_{table}_run", ondelete="CASCADE")
    return sa.Column("run", sa.Integer, nullable=False), key


def upgrade() -> None:
    """Makes the first tables."""
    op.create_table(
        "runs",
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("run", sa.String(32), nullable=False),
        sa.Column("created", sa.String(32), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("claimed_by", sa.Text),
        sa.Column("settings", sa.Text, nullable=False),
        sa.Column("environment", sa.Text, nullable=False),
        sa.Column("result", sa.Text),
        sa.PrimaryKeyConstraint("number", name="pk_runs"),
        sa.UniqueConstraint("run", name="uq_runs_run"),
    )
    op.create_table(
        "rounds",
        *_of_run("rounds"),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("metrics", sa.Text, nullable=False),
        sa.Column("bytes_up", sa.BigInteger, nullable=False),
        sa.Column("bytes_down", sa.BigInteger, nullable=False),
        sa.Column("counted", sa.Integer, nullable=False),
        sa.Column("dropped", sa.Integer, nullable=False),
        sa.Column("virtual_s", sa.Float, nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("abandoned", sa.Text),
        sa.PrimaryKeyConstraint("run", "position", name="pk_rounds"),
    )
    op.create_table(
        "objects",
        *_of_run("objects"),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("uses", sa.Integer, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("run", "sha256", name="pk_objects"),
    )
    op.create_table(
        "checkpoints",
        *_of_run("checkpoints"),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("tensors", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("run", name="pk_checkpoints"),
    )
    op.create_table(
        "journal",
        *_of_run("journal"),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("tensors", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("run", "position", name="pk_journal"),
    )
    op.create_table(
        "memories",
        *_of_run("memories"),
        sa.Column("party", sa.String(255), nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("run", "party", name="pk_memories"),
    )
