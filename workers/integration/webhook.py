"""Webhooks at work: one worker at a time sends a webhook's events, in order, to no address that it may not.

A redirect is not followed, an answer's body is not read, and the whole request has a deadline. What became of it is
recorded in the same transaction that moves the webhook's cursor, so an event is sent at least once; the receiver tells
a repeated one by its cursor.
"""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from ipaddress import ip_network
from typing import Any
from uuid import UUID

import httpcore2
import httpx2
import structlog
from sqlmodel import Session, select

from gateway.image.egress import AddressForbidden, AddressPolicy, CheckedBackend, Deadline, NameUnresolved
from gateway.integration import webhook as webhooks
from gateway.integration.webhook import DeliveryStatus, Webhook, WebhookDelivery
from gateway.jobs.event import Cursor
from gateway.kernel import clock
from gateway.kernel.db import Database
from gateway.kernel.secretbox import Sealed
from gateway.kernel.settings import Settings
from workers.sweep import Context, reconciler

LEASE = timedelta(seconds=60)
SEND_S = 10.0
BATCH = 50

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Sending:
    """One request to send."""

    webhook_id: int
    url: str
    secret: str
    cursor: Cursor
    kind: str
    body: dict[str, Any]
    delivery_uid: UUID | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came back: a status, or why there is none."""

    status: int | None
    problem: str | None

    @property
    def good(self) -> bool:
        """Whether the receiver took it."""
        return self.status is not None and 200 <= self.status < 300  # noqa: PLR2004 - HTTP's success range


@reconciler("webhooks", every_s=1.0)
def look(context: Context) -> None:
    """Deliver what is due."""
    with context.db.read() as session:
        waiting = webhooks.due(session)
    for webhook_id in waiting:
        _serve(context.db, context.settings, webhook_id)


def _serve(db: Database, settings: Settings, webhook_id: int) -> None:
    if db.run(partial(webhooks.claim, webhook_id=webhook_id, lease=LEASE)) is None:
        return
    for sending in _sendings(db, webhook_id):
        outcome = send(settings, sending, db.clock())
        if not db.run(partial(_record, sending=sending, outcome=outcome)):
            return
    db.run(partial(webhooks.rest, webhook_id=webhook_id))


def _sendings(db: Database, webhook_id: int) -> list[Sending]:
    with db.read() as session:
        webhook = session.get(Webhook, webhook_id)
        if webhook is None:
            return []
        box: Sealed = session.info["sealed"]
        secret = box.open(webhook.sealed_secret)
        again = [
            Sending(
                webhook_id, webhook.url, secret, Cursor(each.transaction, each.event_id), each.kind, each.body, each.uid
            )
            for each in webhooks.asked_again(session, webhook)
        ]
        fresh = [
            Sending(webhook_id, webhook.url, secret, each.cursor, each.kind, webhooks.body_of(webhook, each))
            for each in webhooks.pending(session, webhook, BATCH)
        ]
    return [*again, *fresh]


def _record(session: Session, sending: Sending, outcome: Outcome) -> bool:
    """Keep what came of it; whether the next may be sent."""
    if session.get(Webhook, sending.webhook_id) is None:
        return False
    delivery = session.exec(
        select(WebhookDelivery).where(
            WebhookDelivery.webhook_id == sending.webhook_id,
            WebhookDelivery.transaction == sending.cursor.transaction,
            WebhookDelivery.event_id == sending.cursor.id,
        )
    ).first()
    if delivery is None:
        delivery = WebhookDelivery(
            webhook_id=sending.webhook_id,
            tenant_id=session.get_one(Webhook, sending.webhook_id).tenant_id,
            transaction=sending.cursor.transaction,
            event_id=sending.cursor.id,
            kind=sending.kind,
            body=sending.body,
            attempts=0,
            status=DeliveryStatus.FAILED,
            at=clock.now(session),
        )
        session.add(delivery)
    delivery.attempts += 1
    delivery.response_status, delivery.problem = outcome.status, outcome.problem
    delivery.status = DeliveryStatus.DELIVERED if outcome.good else DeliveryStatus.FAILED
    delivery.at = clock.now(session)
    session.flush()
    if not outcome.good:
        webhooks.failed(session, sending.webhook_id, outcome.problem or f"status {outcome.status}")
        return False
    if sending.delivery_uid is None:
        webhooks.delivered(session, sending.webhook_id, sending.cursor)
    return True


def send(settings: Settings, sending: Sending, at: Any) -> Outcome:
    """POST one event; never raises for what the other side does."""
    body = json.dumps(sending.body, separators=(",", ":"), sort_keys=True).encode()
    url = httpx2.URL(sending.url)
    headers = [
        ("Host", url.netloc.decode("ascii")),
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
        ("User-Agent", "stratograph-webhook"),
        ("Stratograph-Event", sending.kind),
        ("Stratograph-Signature", webhooks.sign(sending.secret, at, body)),
        ("Connection", "close"),
    ]
    target = httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
    allowed = tuple(ip_network(each) for each in settings.allowed_webhook_networks)
    backend = CheckedBackend(AddressPolicy(allowed_networks=allowed), Deadline(SEND_S))
    timeouts = {"timeout": dict.fromkeys(("connect", "read", "write", "pool"), SEND_S)}
    try:
        with (
            httpcore2.ConnectionPool(
                ssl_context=ssl.create_default_context(), max_connections=1, network_backend=backend
            ) as pool,
            pool.stream("POST", target, headers=headers, content=body, extensions=timeouts) as response,
        ):
            status = response.status
    except AddressForbidden:
        return Outcome(None, "The URL's host is not on the public internet.")
    except NameUnresolved:
        return Outcome(None, "The URL's host is unknown.")
    except (httpcore2.TimeoutException, TimeoutError):
        return Outcome(None, "The receiver did not answer in time.")
    except (httpcore2.NetworkError, httpcore2.ProtocolError, OSError) as error:
        log.info("webhook could not be delivered", error=repr(error))
        return Outcome(None, "The receiver could not be reached.")
    good = 200 <= status < 300  # noqa: PLR2004 - HTTP's success range
    return Outcome(status, None if good else f"The receiver answered with status {status}.")
