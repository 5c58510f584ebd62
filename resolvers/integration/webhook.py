"""Webhooks in the graph."""

import strawberry

from gateway.identity import tenant
from gateway.integration import webhook
from gateway.kernel.access import Need
from resolvers.kernel.connections import Listing, children_connection, connection_query
from resolvers.kernel.graph import Node, column, edge, node
from resolvers.kernel.roots import mutation, node_query


@node(webhook.NOUN)
class Webhook(Node):
    """Where a tenant's events are sent to."""

    name = column("Its name.")
    url = column("Where to, by POST.")
    tenant = edge(tenant.NOUN, "tenant_id", "Whose events.")
    nouns = column("Only events of these kinds of objects; all when empty.")
    enabled = column("Whether events are sent.")
    disabled_reason = column("Why they are not; null when they are.")
    failures = column("How many tries in a row failed.")
    failing_since = column("When the first of them failed.")
    deliveries = children_connection(
        Listing(webhook.DELIVERIES, webhook.find_deliveries, webhook.DeliveryFilter, {}),
        "webhook_id",
        "What was sent in the last seven days, oldest first.",
    )
    version = column("Raised with every change.")
    created_at = column("When it was made.")
    updated_at = column("When it last changed.")


@node(webhook.DELIVERIES)
class WebhookDelivery(Node):
    """One event sent to one webhook."""

    webhook = edge(webhook.NOUN, "webhook_id", "The webhook.")
    kind = column("What happened, such as `server.created`.")
    status = column("How it went.")
    attempts = column("How often it was sent.")
    response_status = column("The receiver's last HTTP status; null when there was no answer.")
    problem = column("Why it failed; null when it did not.")
    at = column("When it was last sent.")


node_query(webhook.NOUN, "A webhook by its id.")
connection_query("webhooks", Listing(webhook.NOUN, webhook.find, webhook.Filter, webhook.ORDERS), "Webhooks.")

_WEBHOOK = (webhook.NOUN, "The webhook as it is now.")

mutation(
    "webhookCreate", webhook.create, webhook.WebhookCreate, Need.MANAGER, "Have a tenant's events sent to a URL.",
    payload={
        "webhook": (webhook.NOUN, "The new webhook."),
        "secret": (str, "What requests are signed with; shown this once."),
    },
    secret=frozenset({"secret"}),
)  # fmt: skip
mutation(
    "webhookUpdate", webhook.update, webhook.WebhookUpdate, Need.MANAGER, "Change a webhook, or enable it again.",
    payload={"webhook": _WEBHOOK},
)  # fmt: skip
mutation(
    "webhookDelete", webhook.delete, webhook.WebhookDelete, Need.MANAGER, "Delete a webhook.",
    payload={"id": (strawberry.ID, "The id that is gone.")},
)  # fmt: skip
mutation(
    "webhookRedeliver", webhook.redeliver, webhook.WebhookRedeliver, Need.MANAGER, "Send a delivery again.",
    payload={"delivery": (webhook.DELIVERIES, "The delivery, to be sent again.")},
)  # fmt: skip
