"""Images know what was said of them, what quota they hold and when they were deleted; copies know whether they are whole.

Revision 0002, after 0001.
"""

import sqlalchemy as sa
import sqlmodel
from alembic import op

revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table('image', schema=None) as batch_op:
        batch_op.add_column(sa.Column('expected_bytes', sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column('expected_sha256', sqlmodel.sql.sqltypes.AutoString(length=64), nullable=True))
        batch_op.add_column(sa.Column('charged_gib', sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column('deleted_at', sqlmodel.sql.sqltypes.UTCDateTime(), nullable=True))
    with op.batch_alter_table('image_copy', schema=None) as batch_op:
        # Copies of before count as unfinished: bringing them again finds them there.
        batch_op.add_column(sa.Column('ready', sa.Boolean(), nullable=False, server_default=sa.false()))
        batch_op.drop_constraint('fk_image_copy_host_id', type_='foreignkey')
        batch_op.create_foreign_key('fk_image_copy_host_id', 'host', ['host_id'], ['id'], ondelete='CASCADE')


def downgrade() -> None:
    with op.batch_alter_table('image_copy', schema=None) as batch_op:
        batch_op.drop_constraint('fk_image_copy_host_id', type_='foreignkey')
        batch_op.create_foreign_key('fk_image_copy_host_id', 'host', ['host_id'], ['id'])
        batch_op.drop_column('ready')
    with op.batch_alter_table('image', schema=None) as batch_op:
        batch_op.drop_column('deleted_at')
        batch_op.drop_column('charged_gib')
        batch_op.drop_column('expected_sha256')
        batch_op.drop_column('expected_bytes')
