"""Whose a new thing will be: the tenant that an input names, or the caller's only one."""

from __future__ import annotations

from sqlmodel import Session

from gateway.identity.tenant import NOUN, Tenant
from gateway.kernel.access import Role, Subject, require
from gateway.kernel.errors import Invalid, NotFound


def tenant_for(session: Session, subject: Subject, tenant_id: str | None, role: Role) -> Tenant:
    """The tenant in which the caller, holding at least that role there, makes something.

    Raises NotFound, Forbidden, and Invalid at ``tenantId`` when none is named and the caller has none or several.
    """
    found = _only(session, subject) if tenant_id is None else NOUN.get(session, subject, tenant_id, "tenantId")
    try:
        require(subject, role, found.id, what="making something here")
    except NotFound as refused:
        raise refused.at("tenantId") from None
    return found


def _only(session: Session, subject: Subject) -> Tenant:
    found = NOUN.by_key(session, subject, "id", sorted(subject.roles))
    if len(found) != 1:
        text = "You belong to several tenants; say in which." if found else "You belong to no tenant; name one."
        raise Invalid(text, path=("tenantId",))
    return found[0]
