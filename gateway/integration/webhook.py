"""Webhooks: the event log, pushed to a URL of a tenant's own.

A webhook is a cursor into the log. Deliveries go out one after the other, so events of one object arrive in order; one
that fails holds the others back and is tried again with growing pauses, and after a day of failures the webhook is
disabled, which is itself an event. Each request is signed (HMAC-SHA256 over moment and body); the secret is shown once
and kept sealed. A delivery carries what happened and to what, never the object: whoever is told reads it by GraphQL
with rights of their own. Sending is the workers' business (workers/integration/webhook.py).
"""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import urlsplit

import sqlalchemy as sa
from pydantic import AfterValidator, StringConstraints
from sqlmodel import Field, Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from gateway.identity import ownership
from gateway.jobs import event as events
from gateway.jobs.event import Cursor, Event
from gateway.kernel import clock, ids, row
from gateway.kernel.access import Role, Subject, require, within
from gateway.kernel.command import AnyId, Command, Name, Retryable, Versioned
from gateway.kernel.errors import Conflict, InvalidState
from gateway.kernel.noun import Noun, register
from gateway.kernel.row import Row, expect
from gateway.kernel.secretbox import Sealed

MOST_OF_A_TENANT = 20
GIVE_UP_AFTER = timedelta(hours=24)
PAUSES_S = (1, 5, 15, 60, 300, 900, 1800)
KEPT_DELIVERIES = timedelta(days=7)


class Webhook(Row, table=True):
    """Where a tenant wants its events. ``nouns`` empty means all; ``failing_since`` is the first failure in a row."""

    __tablename__ = "webhook"

    tenant_id: int = row.ref("tenant.id")
    name: str = Field(max_length=255)
    url: str = Field(max_length=2048)
    nouns: list[str] = row.json(default_factory=list)
    sealed_secret: str = Field(max_length=1024, repr=False)
    enabled: bool = True
    disabled_reason: str | None = Field(default=None, max_length=500)
    failures: int = 0
    failing_since: datetime | None = None
    due_at: datetime
    lease_until: datetime | None = None
    cursor_transaction: int = row.big()
    cursor_id: int = row.big()

    __table_args__ = (sa.Index("ix_webhook_due", "enabled", "due_at"),)

    @property
    def cursor(self) -> Cursor:
        """Behind the last event that was delivered or did not concern it."""
        return Cursor(self.cursor_transaction, self.cursor_id)


class DeliveryStatus(StrEnum):
    """How a delivery went."""

    DELIVERED = "DELIVERED"
    """The receiver answered with a status of 200 to 299."""
    FAILED = "FAILED"
    """It did not; it is tried again until the webhook is disabled."""


class WebhookDelivery(Row, table=True):
    """One event sent to one webhook: the last try's outcome, and how often it was tried."""

    __tablename__ = "webhook_delivery"

    tenant_id: int = row.ref("tenant.id", index=False)
    webhook_id: int = row.ref("webhook.id", ondelete="CASCADE")
    transaction: int = row.big()
    event_id: int = row.big()
    kind: str = Field(max_length=64)
    body: dict[str, Any] = row.json(default_factory=dict)
    status: DeliveryStatus = row.enum(DeliveryStatus)
    attempts: int = 1
    response_status: int | None = None
    problem: str | None = Field(default=None, max_length=500)
    at: datetime = Field(index=True)

    __table_args__ = (sa.UniqueConstraint("webhook_id", "transaction", "event_id"),)


NOUN = register(Noun("webhook", Webhook, lambda subject: within(col(Webhook.tenant_id), subject)))
DELIVERIES = register(
    Noun("delivery", WebhookDelivery, lambda subject: within(col(WebhookDelivery.tenant_id), subject), announce=False)
)

ORDERS: dict[str, Any] = {"NAME": col(Webhook.name)}
SELF = frozenset({"webhook", "delivery", "event"})
"""Nouns that are never delivered: a delivery must not cause the next."""


def _http(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("the URL must begin with https:// or http://")
    if parts.username or parts.password or parts.fragment:
        raise ValueError("the URL may have no credentials and no fragment")
    return text


Url = Annotated[str, StringConstraints(strip_whitespace=True, max_length=2048), AfterValidator(_http)]
NounName = Annotated[str, StringConstraints(pattern="^[a-z_]{1,32}$")]


class WebhookCreate(Retryable):
    """A new webhook. It gets what happens from now on."""

    name: Name = Field(description="Its name.")
    url: Url = Field(description="Where to send to, by POST.")
    tenant_id: AnyId | None = Field(default=None, description="Whose events; your only tenant by default.")
    nouns: list[NounName] = Field(
        default_factory=list,
        max_length=50,
        description="Only events of these kinds of objects, such as `server`; all when empty.",
    )


class WebhookUpdate(Versioned):
    """What to change of a webhook; what is absent stays."""

    id: AnyId = Field(description="The webhook.")
    name: Name | None = Field(default=None, description="Its new name.")
    url: Url | None = Field(default=None, description="Where to send to.")
    nouns: list[NounName] | None = Field(
        default=None, max_length=50, description="Only events of these kinds of objects."
    )
    enabled: bool | None = Field(
        default=None, description="Enabling one that was disabled goes on behind the last event it got."
    )


class WebhookDelete(Retryable):
    """The webhook to delete."""

    id: AnyId = Field(description="The webhook.")


class WebhookRedeliver(Retryable):
    """The delivery to send again."""

    id: AnyId = Field(description="The delivery.")


class Filter(Command):
    """Which webhooks."""

    name: str | None = Field(default=None, max_length=255, description="With exactly this name.")
    enabled: bool | None = Field(default=None, description="Enabled or not.")


class DeliveryFilter(Command):
    """Which deliveries."""

    webhook_id: AnyId | None = Field(default=None, description="Of this webhook.")
    status: list[DeliveryStatus] | None = Field(default=None, description="That went like this.")


def create(session: Session, subject: Subject, command: WebhookCreate) -> dict[str, Any]:
    """Make a webhook; its secret is answered once."""
    tenant = ownership.tenant_for(session, subject, command.tenant_id, Role.MANAGER)
    known = session.exec(select(Webhook.id).where(Webhook.tenant_id == tenant.id).limit(MOST_OF_A_TENANT)).all()
    if len(known) >= MOST_OF_A_TENANT:
        raise Conflict(f"A tenant has at most {MOST_OF_A_TENANT} webhooks.")
    secret = secrets.token_urlsafe(32)
    start = events.newest(session)
    webhook = Webhook(
        tenant_id=tenant.id,
        name=command.name,
        url=command.url,
        nouns=sorted(set(command.nouns)),
        sealed_secret=_box(session).seal(secret),
        due_at=clock.now(session),
        cursor_transaction=start.transaction,
        cursor_id=start.id,
    )
    session.add(webhook)
    return {"webhook": webhook, "secret": secret}


def update(session: Session, subject: Subject, command: WebhookUpdate) -> Webhook:
    """Change a webhook."""
    webhook = _reach(session, subject, command.id)
    expect(webhook, command.expected_version)
    for name in ("name", "url", "nouns"):
        value = getattr(command, name)
        if value is not None:
            setattr(webhook, name, value)
    if command.enabled is not None:
        webhook.enabled = command.enabled
        webhook.disabled_reason = None if command.enabled else "Disabled on request."
        webhook.failures, webhook.failing_since = 0, None
        webhook.due_at = clock.now(session)
    return webhook


def delete(session: Session, subject: Subject, command: WebhookDelete) -> dict[str, Any]:
    """Delete a webhook with its deliveries."""
    webhook = _reach(session, subject, command.id)
    public = NOUN.public(webhook)
    session.execute(sa.delete(WebhookDelivery).where(col(WebhookDelivery.webhook_id) == webhook.id))
    session.delete(webhook)
    return {"id": public}


def redeliver(session: Session, subject: Subject, command: WebhookRedeliver) -> WebhookDelivery:
    """Have a delivery sent again, beside the order of the others. Raises InvalidState while it is still being tried."""
    delivery = DELIVERIES.get(session, subject, command.id, "id")
    require(subject, Role.MANAGER, delivery.tenant_id, what="redelivering")
    webhook = session.get_one(Webhook, delivery.webhook_id)
    if webhook.cursor < (delivery.transaction, delivery.event_id):
        raise InvalidState(
            "It is being tried already.", path=("id",), current=delivery.status.value, allowed=["DELIVERED"]
        )
    delivery.status = DeliveryStatus.FAILED
    delivery.problem = "To be sent again on request."
    webhook.due_at = clock.now(session)
    return delivery


def find(subject: Subject, wanted: Filter) -> SelectOfScalar[Webhook]:
    """The webhooks a subject may see."""
    found = select(Webhook).where(NOUN.scope(subject))
    if wanted.name is not None:
        found = found.where(Webhook.name == wanted.name)
    if wanted.enabled is not None:
        found = found.where(col(Webhook.enabled).is_(wanted.enabled))
    return found


def find_deliveries(subject: Subject, wanted: DeliveryFilter) -> SelectOfScalar[WebhookDelivery]:
    """The deliveries a subject may see."""
    found = select(WebhookDelivery).where(DELIVERIES.scope(subject))
    if wanted.webhook_id is not None:
        own = select(Webhook.id).where(Webhook.uid == NOUN.uid(wanted.webhook_id, "webhookId"))
        found = found.where(col(WebhookDelivery.webhook_id).in_(own))
    if wanted.status is not None:
        found = found.where(col(WebhookDelivery.status).in_(wanted.status))
    return found


# ------------------------------------------------------------------------------------------------ for the workers


def sign(secret: str, at: datetime, body: bytes) -> str:
    """The signature header's value: ``t=<unix seconds>,v1=<hex HMAC-SHA256 of "<t>.<body>">``."""
    moment = str(int(at.timestamp()))
    digest = hmac.new(secret.encode(), moment.encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"t={moment},v1={digest}"


def body_of(webhook: Webhook, event: Event) -> dict[str, Any]:
    """What is sent of an event."""
    return {
        "webhookId": NOUN.public(webhook),
        "cursor": event.cursor.encode(),
        "kind": event.kind,
        "at": event.at.isoformat(),
        "objectId": ids.encode(event.noun, event.object_uid),
        "version": event.version,
        "changed": list(event.changed),
    }


def pending(session: Session, webhook: Webhook, limit: int) -> Sequence[Event]:
    """The next events that concern a webhook, in the log's order."""
    statement = select(Event).where(
        Event.tenant_id == webhook.tenant_id,
        sa.tuple_(col(Event.transaction), col(Event.id)) > sa.tuple_(*webhook.cursor),
        col(Event.noun).not_in(SELF),
    )
    if webhook.nouns:
        statement = statement.where(col(Event.noun).in_(webhook.nouns))
    statement = events.settled(session, statement)
    return session.exec(statement.order_by(col(Event.transaction), col(Event.id)).limit(limit)).all()


def asked_again(session: Session, webhook: Webhook) -> Sequence[WebhookDelivery]:
    """Deliveries behind the cursor that are to be sent again."""
    statement = select(WebhookDelivery).where(
        WebhookDelivery.webhook_id == webhook.id,
        WebhookDelivery.status == DeliveryStatus.FAILED,
        sa.tuple_(col(WebhookDelivery.transaction), col(WebhookDelivery.event_id)) <= sa.tuple_(*webhook.cursor),
    )
    return session.exec(statement.order_by(col(WebhookDelivery.id)).limit(20)).all()


def claim(session: Session, webhook_id: int, lease: timedelta) -> Webhook | None:
    """Take a due webhook to deliver its events, or None: another worker has it, or it is not due."""
    now = clock.now(session)
    taken = session.execute(
        _change(webhook_id)
        .where(
            col(Webhook.enabled).is_(True),
            col(Webhook.due_at) <= now,
            sa.or_(col(Webhook.lease_until).is_(None), col(Webhook.lease_until) < now),
        )
        .values(lease_until=now + lease)
    )
    return session.get(Webhook, webhook_id) if getattr(taken, "rowcount", 0) else None


def due(session: Session) -> Sequence[int]:
    """Keys of the webhooks that may have something to deliver."""
    statement = select(Webhook.id).where(col(Webhook.enabled).is_(True), col(Webhook.due_at) <= clock.now(session))
    return session.exec(statement.order_by(col(Webhook.due_at)).limit(500)).all()


def failed(session: Session, webhook_id: int, problem: str) -> None:
    """Count a failure: pause, or after a day of them give up and say so (only that is an event)."""
    now = clock.now(session)
    webhook = session.get(Webhook, webhook_id)
    if webhook is None:
        return
    since, failures = webhook.failing_since or now, webhook.failures + 1
    if now - since >= GIVE_UP_AFTER:
        webhook.enabled = False
        webhook.disabled_reason = f"Nothing could be delivered for a day: {problem}"[:500]
        session.flush()
    pause = timedelta(seconds=PAUSES_S[min(failures, len(PAUSES_S)) - 1])
    session.execute(
        _change(webhook_id).values(failures=failures, failing_since=since, due_at=now + pause, lease_until=None)
    )


def delivered(session: Session, webhook_id: int, cursor: Cursor) -> None:
    """Move on behind an event."""
    session.execute(
        _change(webhook_id).values(
            failures=0, failing_since=None, cursor_transaction=cursor.transaction, cursor_id=cursor.id
        )
    )


def rest(session: Session, webhook_id: int) -> None:
    """Let go of a webhook that has nothing more to deliver."""
    session.execute(_change(webhook_id).values(lease_until=None))


def _change(webhook_id: int) -> Any:
    """An update beside the row's version and without an event: a delivery must not cause the next."""
    return sa.update(Webhook).where(col(Webhook.id) == webhook_id).execution_options(synchronize_session=False)


def prune(session: Session) -> int:
    """Forget old deliveries; how many."""
    gone = session.execute(
        sa.delete(WebhookDelivery).where(col(WebhookDelivery.at) < clock.now(session) - KEPT_DELIVERIES)
    )
    return int(getattr(gone, "rowcount", 0))


def _reach(session: Session, subject: Subject, public_id: str) -> Webhook:
    webhook = NOUN.get(session, subject, public_id, "id")
    require(subject, Role.MANAGER, webhook.tenant_id, what="changing a webhook")
    return webhook


def _box(session: Session) -> Sealed:
    box: Sealed = session.info["sealed"]
    return box
