"""The parties that a rule against liars kept out of a round."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Adds them. Earlier rounds kept nobody out."""
    op.add_column("rounds", sa.Column("left_out", sa.Text, nullable=False, server_default="[]"))
