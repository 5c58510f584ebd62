"""Add migrations of servers, and what an adopted server is.

Revision 0007, after 0006.
"""

import sqlalchemy as sa
import sqlmodel
from alembic import op

from gateway.kernel import row

revision = '0007'
down_revision = '0006'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('migration',
    sa.Column('id', row.Key, nullable=False),
    sa.Column('uid', sa.Uuid(), nullable=False),
    sa.Column('version', sa.Integer(), nullable=False),
    sa.Column('created_at', sqlmodel.sql.sqltypes.UTCDateTime(), nullable=False),
    sa.Column('updated_at', sqlmodel.sql.sqltypes.UTCDateTime(), nullable=False),
    sa.Column('tenant_id', row.Key, nullable=False),
    sa.Column('server_id', row.Key, nullable=False),
    sa.Column('status', sa.Enum('RUNNING', 'UNCONFIRMED', 'CONFIRMING', 'REVERTING', 'CONFIRMED', 'REVERTED', 'FAILED', name='migrationstatus', native_enum=False, length=32), nullable=False),
    sa.Column('status_reason', sqlmodel.sql.sqltypes.AutoString(length=500), nullable=True),
    sa.Column('from_hypervisor', sa.Enum('KVM', 'ESXI', 'SIM', name='hypervisor', native_enum=False, length=32), nullable=False),
    sa.Column('to_hypervisor', sa.Enum('KVM', 'ESXI', 'SIM', name='hypervisor', native_enum=False, length=32), nullable=False),
    sa.Column('conversion', sa.Enum('NONE', 'VIRT_V2V', name='guestconversion', native_enum=False, length=32), nullable=False),
    sa.Column('host_id', row.Key, nullable=True),
    sa.Column('vcpus', sa.Integer(), nullable=False),
    sa.Column('ram_mib', sa.Integer(), nullable=False),
    sa.Column('disk_gib', sa.Integer(), nullable=False),
    sa.Column('was_running', sa.Boolean(), nullable=False),
    sa.Column('old_devices', sa.Enum('OWN', 'VMWARE', name='devices', native_enum=False, length=32), nullable=False),
    sa.Column('disks', row.Json, nullable=False),
    sa.Column('notes', row.Json, nullable=False),
    sa.Column('seen', sqlmodel.sql.sqltypes.AutoString(length=500), nullable=True),
    sa.Column('finished_at', sqlmodel.sql.sqltypes.UTCDateTime(), nullable=True),
    sa.ForeignKeyConstraint(['host_id'], ['host.id'], name=op.f('fk_migration_host_id')),
    sa.ForeignKeyConstraint(['server_id'], ['server.id'], name=op.f('fk_migration_server_id')),
    sa.ForeignKeyConstraint(['tenant_id'], ['tenant.id'], name=op.f('fk_migration_tenant_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_migration')),
    sa.UniqueConstraint('uid', name=op.f('uq_migration_uid'))
    )
    with op.batch_alter_table('migration', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_migration_host_id'), ['host_id'], unique=False)
        batch_op.create_index(batch_op.f('ix_migration_server_id'), ['server_id'], unique=False)
        batch_op.create_index(batch_op.f('ix_migration_tenant_id'), ['tenant_id'], unique=False)

    with op.batch_alter_table('server', schema=None) as batch_op:
        batch_op.add_column(sa.Column('firmware', sa.Enum('BIOS', 'UEFI', name='firmware', native_enum=False, length=32), nullable=False, server_default='BIOS'))
        batch_op.add_column(sa.Column('devices', sa.Enum('OWN', 'VMWARE', name='devices', native_enum=False, length=32), nullable=False, server_default='OWN'))
        batch_op.add_column(sa.Column('adopted', sa.Boolean(), nullable=False, server_default=sa.false()))
        batch_op.add_column(sa.Column('managed', sa.Boolean(), nullable=False, server_default=sa.true()))
        batch_op.add_column(sa.Column('in_place', sa.Boolean(), nullable=False, server_default=sa.false()))
        batch_op.add_column(sa.Column('origin', row.Json, nullable=False, server_default='{}'))
        batch_op.add_column(sa.Column('migration_id', row.Key, nullable=True))



def downgrade() -> None:
    with op.batch_alter_table('server', schema=None) as batch_op:
        batch_op.drop_column('migration_id')
        batch_op.drop_column('origin')
        batch_op.drop_column('in_place')
        batch_op.drop_column('managed')
        batch_op.drop_column('adopted')
        batch_op.drop_column('devices')
        batch_op.drop_column('firmware')

    with op.batch_alter_table('migration', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_migration_tenant_id'))
        batch_op.drop_index(batch_op.f('ix_migration_server_id'))
        batch_op.drop_index(batch_op.f('ix_migration_host_id'))

    op.drop_table('migration')
