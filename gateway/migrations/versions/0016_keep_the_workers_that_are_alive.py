"""Keep the workers that are alive.

Revision 0016, after 0015.
"""

import sqlalchemy as sa
import sqlmodel
from alembic import op

revision = '0016'
down_revision = '0015'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('worker',
    sa.Column('name', sqlmodel.sql.sqltypes.AutoString(length=56), nullable=False),
    sa.Column('alive_until', sqlmodel.sql.sqltypes.UTCDateTime(), nullable=False),
    sa.PrimaryKeyConstraint('name', name=op.f('pk_worker'))
    )


def downgrade() -> None:
    op.drop_table('worker')
