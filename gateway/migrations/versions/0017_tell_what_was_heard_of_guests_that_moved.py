"""Tell what was heard of guests that moved, and what they did while their disks were copied.

Revision 0017, after 0016.
"""

import sqlalchemy as sa
from alembic import op

revision = '0017'
down_revision = '0016'
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table('migration', schema=None) as batch_op:
        batch_op.add_column(sa.Column('copy_while', sa.Enum('STOPPED', 'RUNNING', name='copywhile', native_enum=False, length=32), nullable=False, server_default='STOPPED'))
        batch_op.add_column(sa.Column('verified', sa.Enum('NOT_VERIFIED', 'BOOTED', 'AGENT', name='verification', native_enum=False, length=32), nullable=False, server_default='NOT_VERIFIED'))


def downgrade() -> None:
    with op.batch_alter_table('migration', schema=None) as batch_op:
        batch_op.drop_column('verified')
        batch_op.drop_column('copy_while')
