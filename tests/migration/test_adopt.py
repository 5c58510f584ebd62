"""Adopting machines of others: read, marked, counted, handed back; and moved away from where they were found."""

from __future__ import annotations

from typing import Any

import pytest
from sqlmodel import col, select

from drivers.api import Refused, Transient
from drivers.sim.records import ForeignRecord
from gateway.metering.usage import Interval
from tests.migration.scene import MAC, OTHER_MAC, REF, Moving, machine
from tests.world import World

FOREIGN = """query($host: ID!, $after: String, $first: Int! = 20) {
  foreignMachines(hostId: $host, after: $after, first: $first) { after nodes {
    ref name power vcpus ramMib firmware guest obstacles disks { key sizeBytes }
    interfaces { macAddress network } } } }"""


@pytest.fixture
def moving(world: World) -> Moving:
    return Moving.make(world)


def test_operators_see_what_is_not_ours(moving: Moving) -> None:
    for number in range(3):
        moving.centre.plant(ForeignRecord(f"zz-{number}", "x", 1, 64, "OFF", obstacles=["it has snapshots"]))
    found = moving.world.admin.ok(FOREIGN, host=moving.host_id(), first=2)["foreignMachines"]
    assert found["nodes"][0] == {
        "ref": REF, "name": "accounts", "power": "RUNNING", "vcpus": 1, "ramMib": 256, "firmware": "BIOS",
        "guest": "debian12_64Guest", "obstacles": [],
        "disks": [{"key": "2000", "sizeBytes": 65536}, {"key": "2001", "sizeBytes": 65536}],
        "interfaces": [{"macAddress": mac, "network": "VM Network"} for mac in (MAC, OTHER_MAC)],
    }  # fmt: skip
    rest = moving.world.admin.ok(FOREIGN, host=moving.host_id(), after=found["after"])["foreignMachines"]
    assert [each["ref"] for each in (*found["nodes"], *rest["nodes"])] == [REF, "zz-0", "zz-1", "zz-2"]
    assert rest["after"] is None
    assert moving.scene.alice.run(FOREIGN, host=moving.host_id()).codes == ["FORBIDDEN"]
    assert moving.world.admin.run(FOREIGN, host=moving.host_id(), first=101).codes == ["INVALID"]
    moving.centre.down(Transient)
    assert moving.world.admin.run(FOREIGN, host=moving.host_id()).codes == ["HYPERVISOR_ERROR"]


def test_a_machine_becomes_a_server_and_is_handed_back(moving: Moving) -> None:
    before, quotas = moving.centre.snapshot_of_world(), moving.scene.used()
    server = moving.adopted(networks=[{"macAddress": MAC, "networkId": moving.scene.network, "fixedIp": "10.0.0.77"}])
    found = moving.shown(server)
    assert (found["name"], found["status"], found["flavor"]["name"]) == ("accounts", "ACTIVE", "tiny")
    assert (found["adopted"], found["managed"], found["inPlace"]) == (True, True, True)
    assert (found["vcpus"], found["ramMib"], found["diskGib"]) == (1, 256, 1)
    assert [(each["device"], each["status"], each["sizeGib"]) for each in found["volumes"]] == [("vdb", "HELD", 1)]
    assert (found["ports"], found["addresses"]) == ([{"macAddress": MAC}], ["10.0.0.77"])
    assert not {"ATTACH_VOLUME", "DETACH_VOLUME"} & set(found["allowedActions"])
    taken = {name: count - quotas[name] for name, count in moving.scene.used().items()}
    assert taken == {"SERVERS": 1, "VCPUS": 1, "RAM_MIB": 256, "VOLUMES": 1, "VOLUME_GIB": 1, "PORTS": 1}
    assert moving.used()[0] == (1, 256, 2)
    with moving.world.db.read() as session:
        open_now = {
            each.resource.value for each in session.exec(select(Interval).where(col(Interval.ended_at).is_(None)))
        }
    assert {"VCPU", "RAM_MIB", "DISK_GIB", "VOLUME_GIB", "ADDRESS"} <= open_now
    moving.scene.do_and_work("serverStop", id=server, gracefulTimeoutS=0)
    moving.scene.do_and_work("serverStart", id=server)
    volume = moving.scene.alice.ok("{ volumes { nodes { id } } }")["volumes"]["nodes"][0]["id"]
    for mutation in ("volumeDetach", "snapshotCreate"):
        given = {"volumeId": volume} | ({"name": "n"} if mutation == "snapshotCreate" else {})
        assert moving.scene.alice.refused(mutation, **given)[0][0] == "INVALID_STATE"
    moving.scene.do_and_work("serverDelete", id=server)
    assert moving.centre.snapshot_of_world() == before
    assert moving.scene.used() == quotas
    assert moving.used() == [(0, 0, 0), (0, 0, 0)]


def test_what_cannot_be_adopted_is_refused_and_changes_nothing(moving: Moving) -> None:
    before, quotas = moving.centre.snapshot_of_world(), moving.scene.used()
    wanted = {"hostId": moving.host_id(), "tenantId": moving.scene.tenant}
    assert moving.scene.alice.refused("serverAdopt", machineRef=REF, **wanted)[0][0] == "FORBIDDEN"
    cases: list[tuple[dict[str, Any], str]] = [
        ({"machineRef": "vm-0"}, "NOT_FOUND"),
        ({"machineRef": REF, "networks": [{"macAddress": "00:50:56:00:00:01", "networkId": moving.scene.network}]},
         "INVALID"),
        ({"machineRef": "huge"}, "INVALID"),
        ({"machineRef": "locked"}, "HYPERVISOR_ERROR"),
    ]  # fmt: skip
    moving.centre.plant(ForeignRecord("huge", "x", 3, 1000, "OFF", disks=machine().disks))
    moving.centre.plant(ForeignRecord("locked", "x", 1, 256, "OFF", disks=machine().disks, obstacles=["encrypted"]))
    before = moving.centre.snapshot_of_world()
    for given, code in cases:
        made = moving.world.admin.do("serverAdopt", "server { id } job { id }", **wanted, **given)
        moving.world.work()
        job = moving.world.job(made["job"]["id"])
        assert (job.status.value, (job.error or {})["code"]) == ("FAILED", code)
        assert moving.shown(made["server"]["id"])["status"] == "ERROR"
        moving.scene.do_and_work("serverDelete", id=made["server"]["id"])
    assert moving.centre.snapshot_of_world() == before
    assert moving.scene.used() == quotas
    server = moving.adopted()
    again = moving.world.admin.do("serverAdopt", "job { id }", machineRef=REF, **wanted)
    moving.world.work()
    assert (moving.world.job(again["job"]["id"]).error or {})["code"] == "NOT_FOUND"
    assert moving.shown(server)["status"] == "ACTIVE"


def test_an_adopted_machine_moves_and_its_old_self_is_handed_back(moving: Moving) -> None:
    network = {"macAddress": MAC, "networkId": moving.scene.network, "fixedIp": "10.0.0.77"}
    server = moving.adopted(networks=[network])
    uid = str(moving.world.uid(server))
    contents = {each["content"] for each in moving.centre.foreign(REF).disks}
    moving.scene.do_and_work("serverMigrate", serverId=server, toHypervisor="SIM")
    found = moving.shown(server)
    (migration,) = found["migrations"]
    assert {each["kind"] for each in migration["notes"]} >= {"INTERFACES", "SECURITY_GROUPS", "OLD_MACHINE", "DOWNTIME"}
    assert (found["host"]["name"], found["status"]) == ("other", "ACTIVE")
    assert moving.used() == [(1, 256, 2), (1, 256, 2)]
    there = moving.other.snapshot_of_world()
    assert {each.content for each in there.volumes.values()} == contents
    assert {each.mac for each in there.ports.values()} == {MAC}
    assert there.machines[uid].power == "RUNNING"
    moving.scene.do_and_work("serverMigrateConfirm", serverId=server)
    assert moving.used() == [(0, 0, 0), (1, 256, 2)]
    old = moving.centre.foreign(REF)
    assert (old.adopted_as, old.power, {each["content"] for each in old.disks}) == (None, "OFF", contents)
    assert (moving.shown(server)["adopted"], moving.shown(server)["inPlace"]) == (True, False)
    moving.scene.do_and_work("serverDelete", id=server)
    assert moving.other.snapshot_of_world().machines == {}
    assert moving.used() == [(0, 0, 0), (0, 0, 0)]


def test_a_mark_that_cannot_be_written_is_taken_back(moving: Moving) -> None:
    before = moving.centre.snapshot_of_world()
    moving.centre.fail("adoption.adopt", Refused, after=True)
    wanted = {"hostId": moving.host_id(), "tenantId": moving.scene.tenant, "machineRef": REF}
    made = moving.world.admin.do("serverAdopt", "server { id } job { id }", **wanted)
    moving.world.work()
    assert moving.world.job(made["job"]["id"]).status.value == "FAILED"
    assert moving.centre.snapshot_of_world() == before
    assert moving.used() == [(0, 0, 0), (0, 0, 0)]
