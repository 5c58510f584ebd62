from __future__ import annotations

import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from gateway.kernel.access import Role
from gateway.kernel.settings import Settings
from tests.world import Client, World

FIELDS = "webhook { id enabled disabledReason failures } secret"


class Receiver:
    """A real HTTP server on loopback that keeps what it got and answers as told."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.status = 204
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(outer.status)
                self.send_header("location", "http://127.0.0.1:1/")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook"

    @property
    def told(self) -> list[tuple[str, str]]:
        """(kind, object id) of each delivery."""
        return [(each["kind"], each["objectId"]) for each in (json.loads(body) for _, body in self.got)]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def manager(world: World) -> Client:
    world.settings = Settings(state_dir=world.settings.state_dir, allowed_webhook_networks=["127.0.0.0/8"])
    return world.member(world.tenant(), Role.MANAGER)


def hook(manager: Client, receiver: Receiver, **given: Any) -> tuple[str, str]:
    """A webhook's id and secret."""
    made = manager.do("webhookCreate", FIELDS, **{"name": "w", "url": receiver.url, "nouns": ["network"], **given})
    return made["webhook"]["id"], made["secret"]


def deliver(world: World, receiver: Receiver, count: int) -> None:
    """Let the workers deliver until so many requests have come: PostgreSQL tells an event once no older transaction of
    its whole cluster is open, and other tests share ours.
    """
    until = time.monotonic() + 20
    while len(receiver.got) < count and time.monotonic() < until:
        world.reconcile("webhooks")
    assert len(receiver.got) == count


def network(manager: Client, name: str) -> str:
    found: str = manager.do("networkCreate", "network { id }", name=name)["network"]["id"]
    return found


def test_events_arrive_in_order_signed_and_once(world: World, manager: Client, receiver: Receiver) -> None:
    _, secret = hook(manager, receiver)
    first, second = network(manager, "a"), network(manager, "b")
    manager.do("networkUpdate", "network { id }", id=first, name="c")
    other = world.member(world.tenant(), Role.MANAGER)
    network(other, "not told")
    deliver(world, receiver, 3)
    world.reconcile("webhooks")
    assert receiver.told == [("network.created", first), ("network.created", second), ("network.changed", first)]
    for headers, body in receiver.got:
        moment, signature = (part.split("=", 1)[1] for part in headers["stratograph-signature"].split(","))
        wanted = hmac.new(secret.encode(), f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
        assert hmac.compare_digest(signature, wanted)
        assert set(json.loads(body)) == {"webhookId", "cursor", "kind", "at", "objectId", "version", "changed"}


def test_a_receiver_that_was_down_gets_everything_in_order(world: World, manager: Client, receiver: Receiver) -> None:
    made, _ = hook(manager, receiver)
    receiver.status = 503
    names = [network(manager, str(number)) for number in range(3)]
    for tries in range(4):
        deliver(world, receiver, tries + 1)
        world.clock.advance(hours=1)
    assert set(receiver.told) == {("network.created", names[0])}
    ask = "query($id: ID!) { webhook(id: $id) { enabled failures deliveries { nodes { status attempts problem } } } }"
    found = manager.ok(ask, id=made)["webhook"]
    assert (found["enabled"], found["failures"]) == (True, 4)
    assert found["deliveries"]["nodes"] == [
        {"status": "FAILED", "attempts": 4, "problem": "The receiver answered with status 503."}
    ]
    receiver.status = 200
    receiver.got.clear()
    deliver(world, receiver, 3)
    assert receiver.told == [("network.created", each) for each in names]


def test_after_a_day_of_failures_it_is_disabled_and_says_so(world: World, manager: Client, receiver: Receiver) -> None:
    made, _ = hook(manager, receiver)
    receiver.status = 500
    lost = network(manager, "x")
    deliver(world, receiver, 1)
    for _ in range(26):
        world.clock.advance(hours=1)
        world.reconcile("webhooks")
    ask = "query($id: ID!) { webhook(id: $id) { enabled disabledReason } }"
    found = manager.ok(ask, id=made)["webhook"]
    assert found == {
        "enabled": False,
        "disabledReason": "Nothing could be delivered for a day: The receiver answered with status 500.",
    }
    count = len(receiver.got)
    world.reconcile("webhooks")
    assert len(receiver.got) == count
    receiver.status = 200
    manager.do("webhookUpdate", FIELDS.removesuffix(" secret"), id=made, enabled=True)
    receiver.got.clear()
    deliver(world, receiver, 1)
    assert receiver.told == [("network.created", lost)]


def test_a_delivery_is_sent_again_on_request(world: World, manager: Client, receiver: Receiver) -> None:
    made, _ = hook(manager, receiver)
    network(manager, "x")
    deliver(world, receiver, 1)
    ask = "query($id: ID!) { webhook(id: $id) { deliveries { nodes { id status attempts } } } }"
    (sent,) = manager.ok(ask, id=made)["webhook"]["deliveries"]["nodes"]
    assert (sent["status"], sent["attempts"]) == ("DELIVERED", 1)
    manager.do("webhookRedeliver", "delivery { status }", id=sent["id"])
    deliver(world, receiver, 2)
    (again,) = manager.ok(ask, id=made)["webhook"]["deliveries"]["nodes"]
    assert (again["status"], again["attempts"]) == ("DELIVERED", 2)
    assert receiver.got[0][1] == receiver.got[1][1]


def test_redirects_are_not_followed_and_private_addresses_not_called(
    world: World, manager: Client, receiver: Receiver
) -> None:
    made, _ = hook(manager, receiver)
    receiver.status = 302
    network(manager, "x")
    deliver(world, receiver, 1)
    ask = "query($id: ID!) { webhook(id: $id) { deliveries { nodes { problem } } } }"
    assert manager.ok(ask, id=made)["webhook"]["deliveries"]["nodes"][0]["problem"].endswith("status 302.")
    world.settings = Settings(state_dir=world.settings.state_dir)
    receiver.got.clear()
    world.clock.advance(hours=1)
    world.reconcile("webhooks")
    assert receiver.got == []
    told = manager.ok(ask, id=made)["webhook"]["deliveries"]["nodes"][0]["problem"]
    assert told == "The URL's host is not on the public internet."


@pytest.mark.parametrize("url", ["ftp://x/", "http://", "https://u:p@x/", "https://x/#f", "file:///etc/passwd", "x"])
def test_wrong_urls_are_refused(manager: Client, url: str) -> None:
    assert manager.refused("webhookCreate", name="w", url=url) == [("INVALID", ["url"])]


def test_only_managers_and_only_their_own(world: World, manager: Client, receiver: Receiver) -> None:
    made, _ = hook(manager, receiver)
    other = world.member(world.tenant(), Role.MANAGER)
    assert other.ok("query($id: ID!) { webhook(id: $id) { name } }", id=made)["webhook"] is None
    assert other.refused("webhookDelete", id=made) == [("NOT_FOUND", ["id"])]
    member = world.member(world.tenant())
    assert member.refused("webhookCreate", name="w", url=receiver.url) == [("FORBIDDEN", None)]
    manager.do("webhookDelete", "id", id=made)
    network(manager, "x")
    world.reconcile("webhooks")
    assert receiver.got == []
