"""Stamp hosts with a revision, by which placement learns what changed; its old index is not needed any more.

Revision 0006, after 0005.
"""

import sqlalchemy as sa
from alembic import op

revision = '0006'
down_revision = '0005'
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table('host', schema=None) as batch_op:
        batch_op.add_column(sa.Column('revision', sa.BigInteger(), nullable=False, server_default='0'))
        batch_op.drop_index('ix_host_room')
        batch_op.create_index(batch_op.f('ix_host_revision'), ['revision'], unique=False)


def downgrade() -> None:
    with op.batch_alter_table('host', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_host_revision'))
        batch_op.create_index('ix_host_room', ['enabled', 'status', 'free_ram_mib'], unique=False)
        batch_op.drop_column('revision')
