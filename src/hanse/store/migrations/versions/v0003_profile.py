"""How a round's clients were computed, and what its time went to."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Adds them. Of rounds before, nothing is known."""
    op.add_column("rounds", sa.Column("way", sa.Text))
    op.add_column("rounds", sa.Column("spent", sa.Text, nullable=False, server_default="{}"))
