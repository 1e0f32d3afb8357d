"""The times of tickets on the simulated clock."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Adds them. Earlier rounds had none."""
    op.add_column("rounds", sa.Column("times", sa.Text, nullable=False, server_default="[]"))
