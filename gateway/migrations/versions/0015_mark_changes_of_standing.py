"""Mark changes of standing.

Revision 0015, after 0014.
"""

import sqlalchemy as sa
from alembic import op

from gateway.kernel import row

revision = '0015'
down_revision = '0014'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('identity_mark',
    sa.Column('id', row.Key, nullable=False),
    sa.Column('number', row.Key, nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_identity_mark')),
    )


def downgrade() -> None:
    op.drop_table('identity_mark')
