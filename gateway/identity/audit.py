"""The audit trail: exactly one record for every mutation, carried out or denied.

The record of a mutation that was carried out is part of its transaction; a denied one is recorded in a transaction of
its own. Secrets never get in: fields of a command whose names say so are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field, Session, SQLModel

from gateway.kernel import clock, noun
from gateway.kernel.access import Subject
from gateway.kernel.command import Command
from gateway.kernel.row import Json, Key, Row

_SECRET = ("password", "secret", "token", "user_data", "private_key")
_LONGEST = 200


class AuditRecord(SQLModel, table=True):
    """Who asked for what, from where, and what came of it. ``result`` is OK or the refusal's code."""

    __tablename__ = "audit_record"

    id: int = Field(default=None, primary_key=True, sa_type=Key)
    at: datetime = Field(index=True)
    operation: str = Field(max_length=64)
    result: str = Field(max_length=32)
    user_id: int | None = Field(default=None, sa_type=sa.BigInteger, index=True)
    user_name: str = Field(default="", max_length=255)
    api_key_id: int | None = Field(default=None, sa_type=sa.BigInteger)
    address: str = Field(default="", max_length=64)
    request_id: str = Field(default="", max_length=64)
    asked: dict[str, Any] = Field(default_factory=dict, sa_type=Json)
    objects: list[str] = Field(default_factory=list, sa_type=Json)


def record(
    session: Session,
    subject: Subject,
    operation: str,
    result: str,
    command: Command | None,
    outcome: Mapping[str, Any] | None = None,
) -> None:
    """Add the mutation's record to this unit of work."""
    rows = [each for value in (outcome or {}).values() for each in (value if isinstance(value, list) else [value])]
    session.add(
        AuditRecord(
            at=clock.now(session),
            operation=operation,
            result=result,
            user_id=subject.user_id if subject.user_id > 0 else None,
            user_name=subject.user_name,
            api_key_id=subject.api_key_id,
            address=subject.address,
            request_id=subject.request_id,
            asked={} if command is None else _safe(command.model_dump(mode="json", exclude_unset=True)),
            objects=[noun.public(each) for each in rows if isinstance(each, Row) and type(each) in noun.BY_TABLE],
        )
    )


def _safe(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: "***" if any(word in k for word in _SECRET) else _safe(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_safe(each) for each in value[:50]]
    if isinstance(value, str) and len(value) > _LONGEST:
        return value[:_LONGEST] + "…"
    return value
