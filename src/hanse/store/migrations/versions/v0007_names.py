"""The names and tags of runs."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Adds them. Earlier runs have none."""
    op.add_column("runs", sa.Column("name", sa.String(64)))
    op.add_column("runs", sa.Column("tags", sa.Text, nullable=False, server_default="[]"))
    op.create_index("ix_runs_name", "runs", ["name"], unique=True)
