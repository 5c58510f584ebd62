from __future__ import annotations

import pytest

from drivers.api import Transient
from gateway.kernel.access import Role
from tests.compute.scene import Scene
from tests.world import World
from workers import hypervisor

HOST = "{ hosts { nodes { name status statusReason vcpus ramMib diskGib capabilities } } }"


def test_a_registered_host_is_probed(world: World) -> None:
    world.host("h1", vcpus=4, ram_mib=8192, disk_gib=100)
    (host,) = world.admin.ok(HOST)["hosts"]["nodes"]
    assert (host["status"], host["vcpus"], host["ramMib"], host["diskGib"]) == ("ONLINE", 4, 8192, 100)
    assert "VOLUME_SNAPSHOT" in host["capabilities"]


def test_a_host_that_does_not_answer_is_told_and_comes_back(world: World) -> None:
    centre = world.host("h2")
    centre.down(Transient)
    world.reconcile("hosts")
    (host,) = world.admin.ok(HOST)["hosts"]["nodes"]
    assert host["status"] == "OFFLINE"
    assert host["statusReason"]
    centre.up()
    world.reconcile("hosts")
    (host,) = world.admin.ok(HOST)["hosts"]["nodes"]
    assert (host["status"], host["statusReason"]) == ("ONLINE", None)


def test_tenants_see_no_host(world: World) -> None:
    world.host("h3")
    manager = world.member(world.tenant(), Role.MANAGER)
    assert manager.run(HOST).codes == ["FORBIDDEN"]
    assert manager.refused("hostRegister", name="x", hypervisor="SIM", endpoint="sim://x") == [("FORBIDDEN", None)]


def test_a_host_in_use_is_not_removed_and_an_empty_one_is(world: World) -> None:
    scene = Scene.make(world)
    server = scene.server(networks=[{"networkId": scene.network}])
    host = world.admin.ok("{ hosts { nodes { id } } }")["hosts"]["nodes"][0]["id"]
    assert world.admin.refused("hostRemove", id=host) == [("IN_USE", ["id"])]
    scene.do_and_work("serverDelete", id=server)
    world.admin.do("hostRemove", "id", id=host)
    assert world.admin.ok("{ hosts { nodes { id } } }")["hosts"]["nodes"] == []


def test_the_connection_to_a_removed_host_is_closed_and_that_to_a_kept_one_is_not(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hypervisor, "IDLE_S", 0.0)
    world.host("kept")
    world.host("removed")
    connected = world.hosts.connected
    assert len(connected) == 2
    gone = world.admin.ok("{ hosts { nodes { id name } } }")["hosts"]["nodes"]
    world.admin.do("hostRemove", "id", id=next(each["id"] for each in gone if each["name"] == "removed"))
    world.reconcile("watches")
    assert len(world.hosts.connected) == 1
    assert world.hosts.connected < connected
