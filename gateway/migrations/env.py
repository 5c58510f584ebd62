"""Alembic's environment: runs on the connection that gateway.migrations hands over."""

from __future__ import annotations

from typing import Any, Literal

import sqlalchemy as sa
from alembic import context
from sqlmodel import SQLModel

from gateway.jobs.event import CurrentTransaction
from gateway.kernel import noun, row

noun.load_all()


def render(kind: str, item: Any, _context: object) -> str | Literal[False]:
    """Our own column types by their names, so that a revision reads as the models do."""
    if kind == "type" and isinstance(item, sa.JSON):
        return "row.Json"
    if kind == "type" and isinstance(item, row.Uid):
        return "row.Uid"
    if kind == "type" and isinstance(item, sa.BigInteger) and item._variant_mapping:  # noqa: SLF001 - no public way
        return "row.Key"
    if kind == "server_default" and isinstance(getattr(item, "arg", None), CurrentTransaction):
        return "CurrentTransaction()"
    return False


connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=SQLModel.metadata,
    render_as_batch=connection.dialect.name == "sqlite",
    compare_type=True,
    render_item=render,
)
with context.begin_transaction():
    context.run_migrations()
