"""The bytes of a round's messages by stage, and each client's bytes up and down in all."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Adds them. Nothing is known about earlier rounds."""
    op.add_column("rounds", sa.Column("flows", sa.Text, nullable=False, server_default="[]"))
    op.create_table(
        "traffic",
        sa.Column("run", sa.Integer, nullable=False),
        sa.Column("client", sa.Integer, nullable=False),
        sa.Column("bytes_up", sa.BigInteger, nullable=False),
        sa.Column("bytes_down", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("run", "client", name="pk_traffic"),
        sa.ForeignKeyConstraint(["run"], ["runs.number"], "fk_traffic_run", ondelete="CASCADE"),
    )
