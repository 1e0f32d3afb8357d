"""Changes to the tables, one file each, so that runs outlive the versions that made them.

A change gets a file in `versions/` whose `down_revision` is the last one before, and its number
becomes `hanse.store.database.HEAD`. There are no downgrades: keep a copy of the store instead.
"""

from pathlib import Path

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from hanse.core import StoreError

__all__ = ["scripts", "upgrade"]

scripts = ScriptDirectory(str(Path(__file__).parent))


def upgrade(connection: Connection, to: str = "head") -> None:
    """Upgrades the tables to a version, in the transaction that the caller has begun.

    Raises: StoreError: if they are of a version that this Hanse does not know.
    """
    context = MigrationContext.configure(connection)
    now = context.get_current_revision()
    if now is not None and now not in {script.revision for script in scripts.walk_revisions()}:
        raise StoreError(f"its tables are of version {now}, which this Hanse does not know: upgrade Hanse")
    with Operations.context(context):
        for script in reversed(list(scripts.iterate_revisions(to, now or "base"))):
            script.module.upgrade()
    context.stamp(scripts, to)
