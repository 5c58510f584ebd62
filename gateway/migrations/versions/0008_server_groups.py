"""Add server groups.

Revision 0008, after 0007.
"""

import sqlalchemy as sa
import sqlmodel
from alembic import op

from gateway.kernel import row

revision = '0008'
down_revision = '0007'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('server_group',
    sa.Column('id', row.Key, nullable=False),
    sa.Column('uid', sa.Uuid(), nullable=False),
    sa.Column('version', sa.Integer(), nullable=False),
    sa.Column('created_at', sqlmodel.sql.sqltypes.UTCDateTime(), nullable=False),
    sa.Column('updated_at', sqlmodel.sql.sqltypes.UTCDateTime(), nullable=False),
    sa.Column('tenant_id', row.Key, nullable=False),
    sa.Column('name', sqlmodel.sql.sqltypes.AutoString(length=255), nullable=False),
    sa.Column('policy', sa.Enum('AFFINITY', 'ANTI_AFFINITY', 'SOFT_AFFINITY', 'SOFT_ANTI_AFFINITY', name='grouppolicy', native_enum=False, length=32), nullable=False),
    sa.Column('max_per_host', sa.Integer(), nullable=False),
    sa.ForeignKeyConstraint(['tenant_id'], ['tenant.id'], name=op.f('fk_server_group_tenant_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_server_group')),
    sa.UniqueConstraint('tenant_id', 'name', name=op.f('uq_server_group_tenant_id_name')),
    sa.UniqueConstraint('uid', name=op.f('uq_server_group_uid'))
    )
    with op.batch_alter_table('server_group', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_server_group_tenant_id'), ['tenant_id'], unique=False)

    with op.batch_alter_table('server', schema=None) as batch_op:
        batch_op.add_column(sa.Column('group_id', row.Key, nullable=True))
        batch_op.create_index(batch_op.f('ix_server_group_id'), ['group_id'], unique=False)
        batch_op.create_foreign_key(batch_op.f('fk_server_group_id'), 'server_group', ['group_id'], ['id'])


def downgrade() -> None:
    with op.batch_alter_table('server', schema=None) as batch_op:
        batch_op.drop_constraint(batch_op.f('fk_server_group_id'), type_='foreignkey')
        batch_op.drop_index(batch_op.f('ix_server_group_id'))
        batch_op.drop_column('group_id')

    with op.batch_alter_table('server_group', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_server_group_tenant_id'))

    op.drop_table('server_group')
