"""The audit trail: exactly one record for every mutation, carried out or denied, and one for each screen opened.

The record of a mutation that was carried out is part of its transaction; a denied one is recorded in a transaction of
its own. Records are only ever added: the ORM refuses to change or delete one. Secrets never get in: fields of a command
whose names say so are left out. An operator sees all records, a tenant's managers those of what happened in it.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field, Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from gateway.identity import tenant
from gateway.identity.user import User
from gateway.kernel import clock, ids, noun
from gateway.kernel.access import Role, Subject
from gateway.kernel.command import AnyId, Command
from gateway.kernel.errors import NotFound
from gateway.kernel.noun import Noun, register
from gateway.kernel.prepared import Prepared
from gateway.kernel.row import Json, Row

_SECRET = ("password", "secret", "token", "user_data", "private_key")
_LONGEST = 200
_IDS_LOOKED_UP = 4


class AuditRecord(Row, table=True):
    """Who asked for what, from where, and what came of it. ``result`` is OK or the refusal's code."""

    __tablename__ = "audit_record"

    at: datetime = Field(index=True)
    operation: str = Field(max_length=64)
    result: str = Field(max_length=32)
    tenant_id: int | None = Field(default=None, sa_type=sa.BigInteger, index=True)
    user_id: int | None = Field(default=None, sa_type=sa.BigInteger, index=True)
    user_name: str = Field(default="", max_length=255)
    api_key_id: int | None = Field(default=None, sa_type=sa.BigInteger)
    address: str = Field(default="", max_length=64)
    request_id: str = Field(default="", max_length=128)
    asked: dict[str, Any] = Field(default_factory=dict, sa_type=Json)
    objects: list[str] = Field(default_factory=list, sa_type=Json)


def _scope(subject: Subject) -> sa.ColumnElement[bool]:
    if subject.admin:
        return sa.true()
    return col(AuditRecord.tenant_id).in_(sorted(key for key in subject.roles if subject.holds(Role.MANAGER, key)))


NOUN = register(Noun("audit", AuditRecord, _scope, announce=False))
tenant.not_owned.add(AuditRecord)

ORDERS: dict[str, Any] = {"AT": col(AuditRecord.at)}


class Filter(Command):
    """Which audit records."""

    operation: str | None = Field(default=None, max_length=64, description="Of this mutation, such as `serverCreate`.")
    result: str | None = Field(default=None, max_length=32, description="With this result: OK or a UserErrorCode.")
    user_name: str | None = Field(default=None, max_length=255, description="By the user of this name.")
    tenant_id: AnyId | None = Field(default=None, description="Of what happened in this tenant.")
    since: datetime | None = Field(default=None, description="From this moment on.")
    until: datetime | None = Field(default=None, description="Before this moment.")


def find(subject: Subject, wanted: Filter) -> SelectOfScalar[AuditRecord]:
    """The records a subject may see. Raises NotFound for an id that is no tenant's."""
    found = select(AuditRecord).where(NOUN.scope(subject))
    for column in ("operation", "result", "user_name"):
        value = getattr(wanted, column)
        if value is not None:
            found = found.where(getattr(AuditRecord, column) == value)
    if wanted.tenant_id is not None:
        uid = tenant.NOUN.uid(wanted.tenant_id, "filter", "tenantId")
        key = sa.select(col(tenant.Tenant.id)).where(col(tenant.Tenant.uid) == uid).scalar_subquery()
        found = found.where(col(AuditRecord.tenant_id) == key)
    if wanted.since is not None:
        found = found.where(col(AuditRecord.at) >= wanted.since)
    if wanted.until is not None:
        found = found.where(col(AuditRecord.at) < wanted.until)
    return found


def record(  # noqa: PLR0917 - the frame of all mutations calls it with these, in this order
    session: Session,
    subject: Subject,
    operation: str,
    result: str,
    command: Command | None,
    outcome: Mapping[str, Any] | None = None,
) -> None:
    """Add the mutation's record to this unit of work."""
    rows = [each for each in _flat(outcome or {}) if isinstance(each, Row) and type(each) in noun.BY_TABLE]
    user = next((each for each in rows if isinstance(each, User)), None) if not subject.signed_in else None
    values = {} if command is None else command.model_dump(mode="json", exclude_unset=True)
    now = clock.now(session)
    _ADD.later(
        session,
        uid=ids.new(session),
        created_at=now,
        updated_at=now,
        at=now,
        operation=operation,
        result=result,
        tenant_id=_tenant_of(session, subject, rows, values),
        user_id=user.id if user else subject.user_id if subject.user_id > 0 else None,
        user_name=user.name if user else subject.user_name,
        api_key_id=subject.api_key_id,
        address=subject.address,
        request_id=subject.request_id,
        asked=_safe(values),
        objects=[noun.public(each) for each in rows],
    )


_ADD = Prepared(
    sa.insert(AuditRecord).values(
        {
            **{each.key: sa.bindparam(each.key) for each in sa.inspect(AuditRecord).columns if each.key != "id"},
            "version": sa.literal_column("1"),
        }
    )
)
"""Records are written past the unit of work: nobody needs them as objects."""


def _tenant_of(session: Session, subject: Subject, rows: list[Row], values: Mapping[str, Any]) -> int | None:
    """The tenant it happened in: that of the first row, else of the first thing named that the subject may see."""
    for each in rows:
        key: Any = each.id if isinstance(each, tenant.Tenant) else getattr(each, "tenant_id", None)
        if key is not None:
            return int(key)
    if not subject.signed_in:
        return None
    named = [each for each in _flat(values) if isinstance(each, str)]
    kinds = [(noun.BY_PREFIX.get(each.rpartition("_")[0]), each) for each in named]
    for kind, text in [(kind, text) for kind, text in kinds if kind is not None][:_IDS_LOOKED_UP]:
        if kind.table is not tenant.Tenant and "tenant_id" not in kind.table.model_fields:
            continue
        try:
            row = kind.get(session, subject, text)
        except NotFound:
            continue
        found = row.id if kind.table is tenant.Tenant else row.tenant_id
        if found is not None:
            return int(found)
    return None


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from _flat(each)
    else:
        yield value


def _masked(key: str, value: Any) -> Any:
    if any(word in key for word in _SECRET):
        return "***"
    if key.endswith("url") and isinstance(value, str):
        return _safe(value.partition("?")[0])  # a query may carry a presigned secret
    return _safe(value)


def _safe(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _masked(key, each) for key, each in value.items()}
    if isinstance(value, list):
        return [_safe(each) for each in value[:50]]
    if isinstance(value, str) and len(value) > _LONGEST:
        return value[:_LONGEST] + "…"
    return value


@sa.event.listens_for(AuditRecord, "before_update")
@sa.event.listens_for(AuditRecord, "before_delete")
def _refuse(_mapper: object, _connection: object, _record: AuditRecord) -> None:
    raise AssertionError("an audit record is never changed or deleted")
