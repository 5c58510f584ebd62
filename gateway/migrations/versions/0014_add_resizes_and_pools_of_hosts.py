"""Add resizes and pools of hosts.

Revision 0014, after 0013.
"""

import sqlalchemy as sa
import sqlmodel
from alembic import op

from gateway.kernel import row

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:

    op.create_table("resize",
    sa.Column("id", row.Key, nullable=False),
    sa.Column("uid", sa.Uuid(), nullable=False),
    sa.Column("version", sa.Integer(), nullable=False),
    sa.Column("created_at", sqlmodel.sql.sqltypes.UTCDateTime(), nullable=False),
    sa.Column("updated_at", sqlmodel.sql.sqltypes.UTCDateTime(), nullable=False),
    sa.Column("tenant_id", row.Key, nullable=False),
    sa.Column("server_id", row.Key, nullable=False),
    sa.Column("status", sa.Enum("RUNNING", "UNCONFIRMED", "CONFIRMING", "REVERTING", "CONFIRMED", "REVERTED", "FAILED", name="resizestatus", native_enum=False, length=32), nullable=False),
    sa.Column("status_reason", sqlmodel.sql.sqltypes.AutoString(length=500), nullable=True),
    sa.Column("old_flavor_id", row.Key, nullable=False),
    sa.Column("new_flavor_id", row.Key, nullable=False),
    sa.Column("old_vcpus", sa.Integer(), nullable=False),
    sa.Column("old_ram_mib", sa.Integer(), nullable=False),
    sa.Column("old_disk_gib", sa.Integer(), nullable=False),
    sa.Column("new_vcpus", sa.Integer(), nullable=False),
    sa.Column("new_ram_mib", sa.Integer(), nullable=False),
    sa.Column("new_disk_gib", sa.Integer(), nullable=False),
    sa.Column("volumes_gib", sa.Integer(), nullable=False),
    sa.Column("host_id", row.Key, nullable=True),
    sa.Column("claimed", sa.Boolean(), nullable=False),
    sa.Column("moved", sa.Boolean(), nullable=False),
    sa.Column("confirm_at", sqlmodel.sql.sqltypes.UTCDateTime(), nullable=True),
    sa.Column("finished_at", sqlmodel.sql.sqltypes.UTCDateTime(), nullable=True),
    sa.ForeignKeyConstraint(["host_id"], ["host.id"], name=op.f("fk_resize_host_id")),
    sa.ForeignKeyConstraint(["new_flavor_id"], ["flavor.id"], name=op.f("fk_resize_new_flavor_id")),
    sa.ForeignKeyConstraint(["old_flavor_id"], ["flavor.id"], name=op.f("fk_resize_old_flavor_id")),
    sa.ForeignKeyConstraint(["server_id"], ["server.id"], name=op.f("fk_resize_server_id")),
    sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_resize_tenant_id")),
    sa.PrimaryKeyConstraint("id", name=op.f("pk_resize")),
    sa.UniqueConstraint("uid", name=op.f("uq_resize_uid"))
    )
    with op.batch_alter_table("resize", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_resize_host_id"), ["host_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_resize_server_id"), ["server_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_resize_tenant_id"), ["tenant_id"], unique=False)

    with op.batch_alter_table("host", schema=None) as batch_op:
        batch_op.add_column(sa.Column("pool", sqlmodel.sql.sqltypes.AutoString(length=512), nullable=True))
        batch_op.create_index(batch_op.f("ix_host_pool"), ["pool"], unique=False)

    with op.batch_alter_table("server", schema=None) as batch_op:
        batch_op.add_column(sa.Column("resize_id", row.Key, nullable=True))




def downgrade() -> None:

    with op.batch_alter_table("server", schema=None) as batch_op:
        batch_op.drop_column("resize_id")

    with op.batch_alter_table("host", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_host_pool"))
        batch_op.drop_column("pool")

    with op.batch_alter_table("resize", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_resize_tenant_id"))
        batch_op.drop_index(batch_op.f("ix_resize_server_id"))
        batch_op.drop_index(batch_op.f("ix_resize_host_id"))

    op.drop_table("resize")

