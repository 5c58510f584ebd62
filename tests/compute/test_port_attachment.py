"""Ports attached to servers and taken away."""

from __future__ import annotations

from typing import Any

import pytest

from drivers import registry, sim
from drivers.api import Capability, HostAtFault, Refused
from gateway.kernel.access import Role
from tests.compute.scene import Scene
from tests.world import World

SHOW = "query($id: ID!) { port(id: $id) { status ipAddresses server { id } } }"
SERVER = "query($id: ID!) { server(id: $id) { addresses allowedActions ports { id status macAddress } } }"


@pytest.fixture
def scene(world: World) -> Scene:
    return Scene.make(world)


def server_with_port(scene: Scene) -> tuple[str, str]:
    """A server on the network, and its port."""
    server = scene.server(networks=[{"networkId": scene.network}])
    return server, ports(scene, server)[0]


def ports(scene: Scene, server: str) -> list[str]:
    return [each["id"] for each in scene.alice.ok(SERVER, id=server)["server"]["ports"]]


def plugged(scene: Scene, server: str) -> set[str]:
    """The ports that the machine really has, as public ids."""
    machine = scene.centre.snapshot_of_world().machines[str(scene.world.uid(server))]
    uids = {str(scene.world.uid(each)): each for each in ports(scene, server)}
    return {uids.get(each, each) for each in machine.nics}


def attach(scene: Scene, server: str, **given: Any) -> str:
    """Attach a port and carry it out; the port."""
    wanted = given or {"networkId": scene.network}
    answer = scene.alice.do("portAttach", "port { id status } job { id }", serverId=server, **wanted)
    assert answer["port"]["status"] == "ATTACHING"
    scene.world.work()
    kept = scene.world.job(answer["job"]["id"])
    assert kept.status.value == "SUCCEEDED", kept.error
    port: str = answer["port"]["id"]
    return port


@pytest.mark.parametrize("running", [True, False])
def test_a_server_gets_another_port_and_gives_it_back(scene: Scene, *, running: bool) -> None:
    server, first = server_with_port(scene)
    if not running:
        scene.do_and_work("serverStop", id=server, gracefulTimeoutS=0)
    port = attach(scene, server)
    assert scene.alice.ok(SHOW, id=port)["port"] == {
        "status": "IN_USE", "ipAddresses": ["10.0.0.3"], "server": {"id": server},
    }  # fmt: skip
    assert scene.alice.ok(SERVER, id=server)["server"]["addresses"] == ["10.0.0.2", "10.0.0.3"]
    assert plugged(scene, server) == {first, port}
    assert scene.used()["PORTS"] == 2
    scene.do_and_work("portDetach", portId=port)
    assert scene.alice.ok(SHOW, id=port)["port"] == {"status": "AVAILABLE", "ipAddresses": ["10.0.0.3"], "server": None}
    assert plugged(scene, server) == {first}
    assert scene.used()["PORTS"] == 2
    assert attach(scene, server, portId=port) == port
    scene.do_and_work("portDetach", portId=port, delete=True)
    assert scene.alice.ok(SHOW, id=port)["port"] is None
    assert scene.used()["PORTS"] == 1
    assert plugged(scene, server) == {first}


def test_a_port_made_for_a_server_goes_with_it_and_another_stays(scene: Scene) -> None:
    server, _ = server_with_port(scene)
    attach(scene, server)
    own = scene.alice.do("portCreate", "port { id }", networkId=scene.network, fixedIps=["10.0.0.77"])["port"]["id"]
    attach(scene, server, portId=own)
    scene.do_and_work("serverDelete", id=server)
    assert scene.alice.ok(SHOW, id=own)["port"] == {"status": "AVAILABLE", "ipAddresses": ["10.0.0.77"], "server": None}
    assert scene.used()["PORTS"] == 1
    assert scene.centre.snapshot_of_world().ports == {}


def test_the_last_port_is_only_taken_when_it_is_said(scene: Scene) -> None:
    server, port = server_with_port(scene)
    assert scene.alice.refused("portDetach", portId=port) == [("CONFLICT", ["evenIfLast"])]
    scene.do_and_work("portDetach", portId=port, evenIfLast=True)
    assert (ports(scene, server), plugged(scene, server)) == ([], set())
    assert scene.centre.snapshot_of_world().networks == {}


def test_what_is_refused_changes_nothing(scene: Scene) -> None:
    server, port = server_with_port(scene)
    other, others = server_with_port(scene)
    free = scene.alice.do("portCreate", "port { id }", networkId=scene.network)["port"]["id"]
    scene.world.work()
    before = scene.rows()
    refused = scene.alice.refused
    assert refused("portAttach", serverId=server, portId=others) == [("IN_USE", ["portId"])]
    assert refused("portAttach", serverId=server, portId=port) == [("INVALID_STATE", ["portId"])]
    assert refused("portDetach", portId=free) == [("INVALID_STATE", ["portId"])]
    assert refused("portAttach", serverId=server) == [("INVALID", None)]
    assert refused("portAttach", serverId=server, networkId=scene.network, fixedIp="192.0.2.1") == [
        ("INVALID", ["fixedIp"])
    ]
    assert scene.rows() == before
    scene.do_and_work("serverSuspend", id=other)
    scene.world.admin.do(
        "quotaSet", "quotas { id }", tenantId=scene.tenant, limits=[{"resource": "PORTS", "limit": 3}]
    )  # fmt: skip
    before = scene.rows()
    assert refused("portAttach", serverId=other, portId=free) == [("INVALID_STATE", ["serverId"])]
    assert refused("portDetach", portId=others, evenIfLast=True) == [("INVALID_STATE", ["portId"])]
    assert refused("portAttach", serverId=server, networkId=scene.network) == [("QUOTA_EXCEEDED", None)]
    assert scene.rows() == before
    assert scene.alice.ok(SHOW, id=free)["port"]["status"] == "AVAILABLE"


def test_others_see_nothing_and_readers_change_nothing(scene: Scene) -> None:
    server, port = server_with_port(scene)
    stranger = scene.world.member(scene.world.tenant())
    reader = scene.world.member(scene.tenant_row, Role.READER)
    before = scene.rows()
    assert stranger.refused("portAttach", serverId=server, networkId=scene.network) == [("NOT_FOUND", ["serverId"])]
    assert stranger.refused("portDetach", portId=port) == [("NOT_FOUND", ["portId"])]
    assert reader.refused("portAttach", serverId=server, networkId=scene.network) == [("FORBIDDEN", None)]
    assert reader.refused("portDetach", portId=port) == [("FORBIDDEN", None)]
    assert scene.rows() == before
    assert plugged(scene, server) == {port}


def test_a_server_has_at_most_eight_ports(scene: Scene) -> None:
    server = scene.server(networks=[{"networkId": scene.network}] * 8)
    assert scene.alice.refused("portAttach", serverId=server, networkId=scene.network) == [("CONFLICT", ["serverId"])]


def test_a_host_that_cannot_is_named_and_nothing_is_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    lesser = sim.driver_type("SIM", without=frozenset({Capability.PORT_HOT_ATTACH}))
    monkeypatch.setitem(registry._found()[0], "SIM", lesser)
    scene = Scene.make(world)
    server, port = server_with_port(scene)
    before = scene.rows()
    for mutation, given, path in (
        ("portAttach", {"serverId": server, "networkId": scene.network}, "serverId"),
        ("portDetach", {"portId": port, "evenIfLast": True}, "portId"),
    ):
        answer = scene.alice.ask(mutation, "__typename", **given)
        assert [(each["code"], each["path"]) for each in answer["userErrors"]] == [("UNSUPPORTED", [path])]
    assert scene.rows() == before


def test_a_port_that_cannot_be_plugged_in_leaves_nothing(scene: Scene) -> None:
    """A new one is gone with its address, one that was there is free again; the host forgot both."""
    server, first = server_with_port(scene)
    free = scene.alice.do("portCreate", "port { id }", networkId=scene.network)["port"]["id"]
    scene.world.work()
    used = scene.used()
    for given in ({"networkId": scene.network}, {"portId": free}):
        scene.centre.fail("ports.plug", Refused)
        job = scene.alice.do("portAttach", "job { id }", serverId=server, **given)["job"]["id"]
        scene.world.work()
        assert scene.world.job(job).status.value == "FAILED"
        assert ports(scene, server) == [first]
        assert scene.used() == used
        assert set(scene.centre.snapshot_of_world().ports) == {str(scene.world.uid(first))}
    assert scene.alice.ok(SHOW, id=free)["port"]["status"] == "AVAILABLE"


def test_a_port_that_cannot_be_unplugged_stays_in_use(scene: Scene) -> None:
    server, first = server_with_port(scene)
    port = attach(scene, server)
    scene.centre.fail("ports.unplug", HostAtFault)
    job = scene.alice.do("portDetach", "job { id }", portId=port)["job"]["id"]
    scene.world.work()
    assert scene.world.job(job).status.value == "FAILED"
    assert scene.alice.ok(SHOW, id=port)["port"]["status"] == "IN_USE"
    assert plugged(scene, server) == {first, port}


def test_a_network_that_a_host_does_not_let_go_of_is_taken_back(scene: Scene) -> None:
    """The port had left it already; what this job began it takes back itself."""
    server, port = server_with_port(scene)
    scene.centre.fail("networks.remove", HostAtFault)
    job = scene.alice.do("portDetach", "job { id }", portId=port, evenIfLast=True)["job"]["id"]
    scene.world.work()
    assert scene.world.job(job).status.value == "FAILED"
    assert scene.alice.ok(SHOW, id=port)["port"]["status"] == "IN_USE"
    assert plugged(scene, server) == {port}


def test_a_port_attached_while_its_server_is_made_waits_for_it(scene: Scene) -> None:
    made = scene.create(networks=[{"networkId": scene.network}])
    server = made["server"]["id"]
    port = attach(scene, server)
    assert scene.status(server) == "ACTIVE"
    assert plugged(scene, server) == {*ports(scene, server)}
    assert port in plugged(scene, server)


def test_a_server_deleted_while_its_port_comes_leaves_nothing(scene: Scene) -> None:
    server, _ = server_with_port(scene)
    scene.alice.do("portAttach", "job { id }", serverId=server, networkId=scene.network)
    scene.alice.do("serverDelete", "job { id }", id=server)
    scene.world.work()
    assert scene.used()["PORTS"] == 0
    world = scene.centre.snapshot_of_world()
    assert (world.machines, world.ports, world.networks) == ({}, {}, {})


def test_an_overlapping_network_on_the_host_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    lesser = sim.driver_type("SIM", without=frozenset({Capability.OVERLAPPING_SUBNETS}))
    monkeypatch.setitem(registry._found()[0], "SIM", lesser)
    scene = Scene.make(world)
    server, _ = server_with_port(scene)
    twin = scene.alice.do("networkCreate", "network { id }", name="twin")["network"]["id"]
    scene.alice.do("subnetCreate", "subnet { id }", networkId=twin, cidr="10.0.0.0/25")
    scene.world.work()
    before = scene.rows()
    assert scene.alice.refused("portAttach", serverId=server, networkId=twin) == [("CONFLICT", ["networkId"])]
    assert scene.rows() == before


def test_the_same_key_attaches_once(scene: Scene) -> None:
    server, _ = server_with_port(scene)
    given = {"serverId": server, "networkId": scene.network, "idempotencyKey": "k"}
    first = scene.alice.do("portAttach", "port { id } job { id }", **given)
    assert scene.alice.do("portAttach", "port { id } job { id }", **given) == first
    scene.world.work()
    assert len(ports(scene, server)) == 2
