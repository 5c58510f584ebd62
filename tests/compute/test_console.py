"""Graphical consoles: who gets a ticket, what it opens, and what ends it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import col, select
from websockets.exceptions import ConnectionClosed, InvalidStatus

from drivers import registry, sim
from drivers.api import Capability, HostAtFault
from drivers.sim.picture import HEIGHT, WIDTH, PixelFormat
from gateway.compute import console
from gateway.compute.console import Console
from gateway.identity.api_key import ApiKey
from gateway.identity.audit import AuditRecord
from gateway.identity.role import Membership
from gateway.identity.session import Session as SignIn
from gateway.identity.user import User
from gateway.kernel import clock
from gateway.kernel.access import Role, Subject
from resolvers.compute import console_route
from tests.compute.scene import Scene
from tests.compute.screens import CREATE, Gateway, Screen, serving
from tests.servers.daemon import wait_until
from tests.world import Client, World

OWN = "http://127.0.0.1:{}"
LAMP = (WIDTH // 2, 170, 1, 1)
WHOLE = (0, 0, WIDTH, HEIGHT)


@pytest.fixture
def scene(world: World) -> Scene:
    return Scene.make(world)


@pytest.fixture
def gateway(scene: Scene) -> Iterator[Gateway]:
    with serving(scene.world) as made:
        yield made


def test_a_screen_is_shown_and_takes_keys(scene: Scene, gateway: Gateway) -> None:
    server = scene.server()
    made = scene.alice.do("serverConsoleCreate", CREATE, id=server)
    ticket = made["url"].partition("/console#")[2]
    assert made["websocketUrl"] == f"ws://127.0.0.1:8080/console/socket?ticket={ticket}"
    assert (made["protocol"], made["server"]) == ("VNC", {"id": server})
    screen = gateway.dial(ticket)
    assert screen.wire.subprotocol == "binary"
    assert screen.greet() == (WIDTH, HEIGHT, f"[simulated] {name_of(scene, server)}")
    screen.ask(WHOLE)
    assert len(screen.update()) == WIDTH * HEIGHT * 4
    screen.ask(LAMP)
    assert screen.update() == PixelFormat().pixel(0)
    screen.ask(LAMP, again=True)  # nothing changed: the answer is for after the key
    screen.key(0x61)
    assert screen.update() == PixelFormat().pixel(1)
    scene.do_and_work("serverReboot", id=server, hard=True)
    screen.ask(LAMP)
    assert screen.update() == PixelFormat().pixel(1)
    scene.do_and_work("serverStop", id=server, gracefulTimeoutS=0)
    assert screen.end() == (1000, "The console is over")
    wait_until(lambda: consoles(scene) == 0, 10, "the console is forgotten")


def test_a_ticket_is_kept_as_a_hash_and_told_once(scene: Scene) -> None:
    server = scene.server()
    made = scene.alice.do("serverConsoleCreate", "websocketUrl expiresAt", id=server)
    ticket = made["websocketUrl"].partition("?ticket=")[2]
    with scene.world.db.read() as session:
        kept = session.exec(select(Console)).one()
        (record,) = session.exec(select(AuditRecord).where(AuditRecord.operation == "serverConsoleCreate"))
    assert ticket not in repr(kept.model_dump())
    assert kept.expires_at - kept.created_at <= console.TICKET_LASTS
    assert (record.tenant_id, record.objects, record.result) == (scene.tenant_row.id, [server], "OK")
    assert ticket not in repr(record.model_dump())


def test_the_same_key_tells_no_address_twice(scene: Scene) -> None:
    server = scene.server()
    asked = {"id": server, "idempotencyKey": "screen-of-web"}
    first, second = (scene.alice.do("serverConsoleCreate", CREATE, **asked) for _ in range(2))
    assert first["url"] is not None
    assert second == {**dict.fromkeys(first), "server": {"id": server}, "userErrors": []}
    assert consoles(scene) == 1


def test_a_ticket_opens_once(scene: Scene, gateway: Gateway) -> None:
    server = scene.server()
    ticket = gateway.ticket(scene.alice, server)
    first = gateway.dial(ticket)
    first.greet()
    assert gateway.dial(ticket).end()[0] == 4404
    first.ask(LAMP)
    assert len(first.update()) == 4  # who had it first is not disturbed
    with scene.world.db.read() as session:
        (record,) = session.exec(select(AuditRecord).where(AuditRecord.operation == "consoleOpen"))
    assert (record.tenant_id, record.objects, record.address) == (scene.tenant_row.id, [server], "127.0.0.1")
    assert record.user_name == scene.alice.subject.user_name
    first.wire.close()
    wait_until(lambda: consoles(scene) == 0, 10, "the console is forgotten")
    assert gateway.dial(ticket).end()[0] == 4404


def test_of_two_who_show_a_ticket_at_once_one_gets_in(scene: Scene, gateway: Gateway) -> None:
    server = scene.server()
    ticket = gateway.ticket(scene.alice, server)
    screens = [gateway.dial(ticket) for _ in range(6)]
    greeted = [screen for screen in screens if shows(screen)]
    assert len(greeted) == 1


def test_a_ticket_that_is_over_or_made_up_opens_nothing(scene: Scene, gateway: Gateway) -> None:
    server = scene.server()
    ticket = gateway.ticket(scene.alice, server)
    scene.world.clock.advance(seconds=61)
    assert gateway.dial(ticket).end() == (4404, "This ticket was used, is over, or never was.")
    for wrong in ("", "x" * 43, ticket[:-1], ticket * 100):
        assert gateway.dial(wrong).end()[0] == 4404
    assert consoles(scene) == 1
    scene.world.clock.advance(hours=25)
    scene.world.reconcile("retention")
    assert consoles(scene) == 0


def test_a_page_of_another_origin_opens_nothing(scene: Scene, gateway: Gateway) -> None:
    server = scene.server()
    ticket = gateway.ticket(scene.alice, server)
    for origin in ("https://evil.example", "null", f"http://127.0.0.1:{gateway.port}.evil.example", ""):
        with pytest.raises(InvalidStatus) as refused:
            gateway.dial(ticket, origin=origin)
        assert refused.value.response.status_code == 403
    own = OWN.format(gateway.port)
    assert gateway.dial(ticket, origin=own).greet()[0] == WIDTH  # and the ticket was not used up by them
    bound = gateway.ticket(scene.alice, server, origin="https://cloud.example")
    assert gateway.dial(bound, origin=own).end()[0] == 4404
    assert gateway.dial(bound).end()[0] == 4404  # a program that names none is not that page either
    bound = gateway.ticket(scene.alice, server, origin=own.upper().replace("HTTP", "http"))
    assert gateway.dial(bound, origin=own).greet()[0] == WIDTH
    for wrong in ("cloud.example", "https://", "https://a/b", "ftp://a", "https://a b"):
        assert scene.alice.refused("serverConsoleCreate", id=server, origin=wrong) == [("INVALID", ["origin"])]


def test_only_binary_messages_of_a_bounded_size(scene: Scene, gateway: Gateway) -> None:
    server = scene.server()
    for message, code in (("text", 1003), (b"\0" * (1 << 17), 1009)):
        screen = gateway.open(scene.alice, server)
        screen.greet()
        screen.wire.send(message)
        assert screen.end()[0] == code
    ticket = gateway.ticket(scene.alice, server)
    assert gateway.dial(ticket, subprotocols=("base64",)).end()[0] == 4406
    assert gateway.dial(ticket, subprotocols=()).greet()[0] == WIDTH


def test_a_client_that_reads_nothing_holds_back_its_console_only(scene: Scene, gateway: Gateway) -> None:
    """It asks for far more than any buffer on the way holds (tests/transport/test_console.py); another goes on."""
    server = scene.server()
    slow, other = gateway.open(scene.alice, server), gateway.open(scene.alice, server)
    slow.greet()
    asked = 100  # 25 MiB of pixels
    for _ in range(asked):
        slow.ask(WHOLE)
    other.greet()
    other.ask(LAMP)
    assert len(other.update()) == 4
    for _ in range(asked):
        assert len(slow.update()) == WIDTH * HEIGHT * 4


# ------------------------------------------------------------------------------------------------ who


def test_readers_strangers_and_nobody_get_no_ticket(scene: Scene) -> None:
    server = scene.server()
    before = scene.rows()
    reader = scene.world.member(scene.tenant_row, Role.READER)
    stranger = scene.world.member(scene.world.tenant(), Role.MANAGER)
    rows = scene.rows()
    assert reader.refused("serverConsoleCreate", id=server) == [("FORBIDDEN", None)]
    assert stranger.refused("serverConsoleCreate", id=server) == [("NOT_FOUND", ["id"])]
    asked = 'mutation { serverConsoleCreate(input: {id: "x"}) { url } }'
    assert scene.world.nobody.run(asked).codes == ["UNAUTHENTICATED"]
    assert scene.rows() == rows
    assert rows["console"] == before["console"] == 0


def test_a_server_that_does_not_run_has_no_screen(scene: Scene) -> None:
    server = scene.server()
    scene.do_and_work("serverPause", id=server)
    scene.alice.do("serverConsoleCreate", "url", id=server)
    scene.do_and_work("serverStop", id=server, gracefulTimeoutS=0)
    asked = "__typename userErrors { code path ... on InvalidState { current allowed } }"
    found = scene.alice.ok(
        f"mutation($s: ID!) {{ serverConsoleCreate(input: {{id: $s}}) {{ url {asked} }} }}", s=server
    )["serverConsoleCreate"]
    assert found["url"] is None
    assert found["userErrors"] == [
        {
            "code": "INVALID_STATE",
            "path": ["id"],
            "current": "STOPPED",
            "allowed": ["ACTIVE", "PAUSED", "VERIFY_RESIZE"],
        }
    ]


def test_a_driver_without_screens_is_told(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    lesser = sim.driver_type("SIM", without=frozenset({Capability.GRAPHICAL_CONSOLE}))
    types = {**registry.all_types(), "SIM": lesser}
    monkeypatch.setattr(registry, "_found", lambda: (types, {}))
    scene.world.hosts.close()
    scene.world.reconcile("hosts")
    server = scene.server()
    asked = "userErrors { code path ... on Unsupported { capability hypervisor } }"
    found = scene.alice.ok(f"mutation($s: ID!) {{ serverConsoleCreate(input: {{id: $s}}) {{ {asked} }} }}", s=server)
    assert found["serverConsoleCreate"]["userErrors"] == [
        {"code": "UNSUPPORTED", "path": ["id"], "capability": "GRAPHICAL_CONSOLE", "hypervisor": "SIM"}
    ]
    assert scene.rows()["console"] == 0


def test_tickets_and_consoles_of_a_user_are_bounded(
    scene: Scene, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = scene.server()
    monkeypatch.setattr(console, "MOST_UNUSED", 3)
    tickets = [gateway.ticket(scene.alice, server) for _ in range(3)]
    assert scene.alice.refused("serverConsoleCreate", id=server) == [("RATE_LIMITED", None)]
    bob = scene.world.member(scene.tenant_row)
    gateway.open(bob, server).greet()  # another one's are not counted
    gateway.dial(tickets[0]).greet()
    tickets.append(gateway.ticket(scene.alice, server))  # one was used
    scene.world.clock.advance(seconds=61)
    gateway.ticket(scene.alice, server)  # the others are over
    monkeypatch.setattr(console, "MOST_UNUSED", 100)
    screens = [gateway.open(scene.alice, server) for _ in range(console_route.MOST_OF_A_USER - 1)]
    for each in screens:
        each.greet()
    assert gateway.open(scene.alice, server).end()[0] == 4429
    screens[0].wire.close()
    wait_until(lambda: shows(gateway.open(scene.alice, server)), 10, "there is room again")


# ------------------------------------------------------------------------------------------------ what ends it


def change(table: type[Any], where: Any, **values: Any) -> Any:
    """A change behind the API's back: as another process makes it."""
    return lambda session: session.execute(sa.update(table).where(where).values(**values))


@pytest.mark.parametrize("ending", ["session", "expiry", "user", "role", "membership", "key", "deleted", "moved"])
def test_a_console_ends_with_what_it_stands_on(scene: Scene, gateway: Gateway, ending: str) -> None:
    """Each of them, while nothing goes over the console: the gateway looks by itself."""
    server, world, alice = scene.server(), scene.world, scene.alice
    now = clock.system()
    user = alice.subject.user_id
    sign_in = SignIn(user_id=user, expires_at=now.replace(year=now.year + 100), last_used_at=now)
    key = ApiKey(name="k", user_id=user, tenant_id=scene.tenant_row.id, role=Role.MEMBER, digest="0" * 64)
    world.db.run(lambda session: session.add_all([sign_in, key]))
    by = {"api_key_id": key.id} if ending == "key" else {"session_id": sign_in.id}
    someone = Client(world, replaced(alice, **by))
    screen, other = gateway.open(someone, server), gateway.open(scene.world.admin, server)
    screen.greet()
    other.greet()
    late = gateway.ticket(someone, server)
    member = sa.and_(col(Membership.user_id) == user, col(Membership.tenant_id) == scene.tenant_row.id)
    endings = {
        "session": change(SignIn, col(SignIn.id) == sign_in.id, revoked_at=now),
        "expiry": change(SignIn, col(SignIn.id) == sign_in.id, expires_at=world.clock.at),
        "user": change(User, col(User.id) == user, enabled=False),
        "role": change(Membership, member, role=Role.READER),
        "membership": lambda session: session.execute(sa.delete(Membership).where(member)),
        "key": change(ApiKey, col(ApiKey.id) == key.id, revoked_at=now),
    }
    if ending in endings:
        world.db.run(endings[ending])
        assert screen.end() == (4403, "You may not see it any more")
        assert gateway.dial(late).end()[0] == 4404
        other.ask(LAMP)
        assert len(other.update()) == 4  # who has nothing to do with it sees on
    elif ending == "deleted":
        scene.do_and_work("serverDelete", id=server)
        assert {screen.end()[0], other.end()[0]} <= {1000, 4403}
        assert gateway.dial(late).end()[0] == 4404
    else:
        world.db.run(lambda session: session.execute(sa.update(Console).values(host_id=-1)))
        assert {screen.end()[0], other.end()[0]} == {4403}


def test_a_console_that_nobody_uses_is_closed(world: World) -> None:
    world.settings = world.settings.model_copy(update={"console_idle_s": 0.3})
    scene = Scene.make(world)
    with serving(world) as gateway:
        screen = gateway.open(scene.alice, scene.server())
        screen.greet()
        assert screen.end() == (4408, "Nothing went over it for too long")


def test_a_gateway_that_stops_says_so(scene: Scene, gateway: Gateway) -> None:
    screen = gateway.open(scene.alice, scene.server())
    screen.greet()
    gateway.stop()
    assert screen.end() == (1001, "The server is stopping")
    wait_until(lambda: consoles(scene) == 0, 10, "the console is forgotten")


def test_a_ticket_outlives_the_gateway_that_gave_it(scene: Scene) -> None:
    server = scene.server()
    with serving(scene.world) as gateway:
        ticket = gateway.ticket(scene.alice, server)
    with serving(scene.world) as gateway:
        assert gateway.dial(ticket).greet()[0] == WIDTH


def test_a_host_that_cannot_show_it_now_is_told(scene: Scene, gateway: Gateway) -> None:
    server = scene.server()
    scene.centre.fail("open_console", HostAtFault)
    code, reason = gateway.open(scene.alice, server).end()
    assert code == 4409
    assert "ordered" in reason or reason
    ticket = gateway.ticket(scene.alice, server)
    scene.centre.stop(scene.world.uid(server))  # the cloud does not know it yet
    assert gateway.dial(ticket).end() == (4409, "the machine does not run")
    assert consoles(scene) == 0


def test_no_thread_and_no_socket_is_left(scene: Scene, gateway: Gateway) -> None:
    server = scene.server()
    for _ in range(3):
        screen = gateway.open(scene.alice, server)
        screen.greet()
        screen.wire.close()
    wait_until(lambda: not any(each.name == "sim-console" for each in threading.enumerate()), 10, "all screens ended")


def shows(screen: Screen) -> bool:
    """Whether it was let in."""
    try:
        screen.greet()
    except ConnectionClosed:
        return False
    return True


def replaced(client: Client, **changes: Any) -> Subject:
    return replace(client.subject, **changes)


def consoles(scene: Scene) -> int:
    return scene.rows()["console"]


def name_of(scene: Scene, server: str) -> str:
    name: str = scene.alice.ok("query($id: ID!) { server(id: $id) { name } }", id=server)["server"]["name"]
    return name
