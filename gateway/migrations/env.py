"""Alembic's environment: runs on the connection that gateway.migrations hands over."""

from __future__ import annotations

from alembic import context
from sqlmodel import SQLModel

from gateway.kernel import noun

noun.load_all()

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=SQLModel.metadata,
    render_as_batch=connection.dialect.name == "sqlite",
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
