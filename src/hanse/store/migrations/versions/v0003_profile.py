"""The execution of a round's clients, and what its time was spent on."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Adds them. Nothing is known about earlier rounds."""
    op.add_column("rounds", sa.Column("way", sa.Text))
    op.add_column("rounds", sa.Column("spent", sa.Text, nullable=False, server_default="{}"))
