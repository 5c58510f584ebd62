"""Have SQLite keep uids as the digits of their TypeIDs.

Revision 0019, after 0018. The column stays as it is declared, CHAR(32): SQLite does not mind.
"""

from collections.abc import Callable
from uuid import UUID

import sqlalchemy as sa
from alembic import op

from gateway.kernel import ids

revision = '0019'
down_revision = '0018'
branch_labels = None
depends_on = None

UIDS = {"uid", "object_uid", "root_uid", "server_uid"}


def upgrade() -> None:
    _rewrite(lambda hexadecimal: ids.digits(UUID(hexadecimal)))


def downgrade() -> None:
    _rewrite(lambda digits: ids.of_digits(digits).hex)


def _rewrite(written: Callable[[str], str]) -> None:
    """Write every uid anew, on SQLite."""
    connection = op.get_bind()
    if connection.dialect.name != "sqlite":
        return
    connection.connection.driver_connection.create_function("stratograph_written", 1, written, deterministic=True)
    inspected = sa.inspect(connection)
    for table in inspected.get_table_names():
        names = [each["name"] for each in inspected.get_columns(table) if each["name"] in UIDS]
        for name in names:
            op.execute(f'UPDATE "{table}" SET {name} = stratograph_written({name}) WHERE {name} IS NOT NULL')
