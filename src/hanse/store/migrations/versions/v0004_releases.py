"""The noised totals that a round released."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Adds them. Earlier rounds released none."""
    op.add_column("rounds", sa.Column("releases", sa.Text, nullable=False, server_default="[]"))
