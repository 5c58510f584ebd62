"""Moving servers between simulated hosts: what people ask, what the hosts have then, and what is counted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from drivers.api import HostAtFault, Refused, Transient
from tests.migration.scene import MAC, REF, Moving, machine
from tests.world import World

PLAN = """query($input: ServerMigrateInput!) { serverMigratePlan(input: $input) {
  possible diskGib notes { kind message } decision { counts { constraint hosts } smallestChange { message } }
  userErrors { code path } } }"""


@pytest.fixture
def moving(world: World) -> Moving:
    return Moving.make(world)


def test_a_server_goes_with_all_it_has_and_is_confirmed(moving: Moving) -> None:
    scene = moving.scene
    server = scene.server(networks=[{"networkId": scene.network}])
    uid = str(moving.world.uid(server))
    before = moving.centre.snapshot_of_world()
    quotas = scene.used()
    scene.do_and_work("serverMigrate", serverId=server, toHypervisor="SIM")
    found = moving.shown(server)
    (migration,) = found["migrations"]
    assert (found["status"], found["host"]["name"]) == ("ACTIVE", "other")
    assert (migration["status"], migration["wasRunning"], migration["host"]["name"]) == ("UNCONFIRMED", True, "h")
    (disk,) = migration["disks"]
    assert (disk["device"], disk["sizeBytes"], disk["volumeId"]) == ("vda", 1 << 30, None)
    assert disk["sha256Before"] == disk["sha256After"]
    there = moving.other.snapshot_of_world()
    assert (there.machines[uid].power, there.ports) == ("RUNNING", before.ports)
    contents = [{key: each.content for key, each in side.volumes.items()} for side in (before, there)]
    assert contents[0] == contents[1]
    assert moving.centre.snapshot_of_world().machines[uid].power == "OFF"
    assert moving.used() == [(1, 256, 1), (1, 256, 1)]
    moving.world.clock.advance(seconds=300)
    moving.world.reconcile("networks", "servers", "migrations")
    assert moving.centre.snapshot_of_world().ports == before.ports  # the old machine keeps what it needs
    scene.do_and_work("serverMigrateConfirm", serverId=server)
    assert moving.shown(server)["migrations"][0]["status"] == "CONFIRMED"
    empty = moving.centre.snapshot_of_world()
    assert (empty.machines, empty.volumes, empty.ports, empty.networks) == ({}, {}, {}, {})
    assert moving.used() == [(0, 0, 0), (1, 256, 1)]
    assert scene.used() == quotas


def adopted(moving: Moving) -> str:
    return moving.adopted(networks=[{"macAddress": MAC, "networkId": moving.scene.network}])


def asked(moving: Moving, server: str, **given: Any) -> tuple[str, str | None]:
    """How a move ends, and the code of its error."""
    made = moving.scene.alice.do("serverMigrate", "job { id }", serverId=server, toHypervisor="SIM", **given)
    moving.world.work()
    job = moving.world.job(made["job"]["id"])
    return job.status.value, (job.error or {}).get("code")


def test_a_move_is_put_back_on_command(moving: Moving) -> None:
    server = adopted(moving)
    before, used = moving.centre.snapshot_of_world(), moving.used()
    assert asked(moving, server) == ("SUCCEEDED", None)
    alice = moving.scene.alice
    assert alice.refused("serverMigrate", serverId=server, toHypervisor="SIM") == [("IN_USE", ["serverId"])]
    volume = alice.do("volumeCreate", "volume { id }", name="more", sizeGib=1)["volume"]["id"]
    moving.world.work()
    assert alice.refused("volumeAttach", volumeId=volume, serverId=server) == [("INVALID_STATE", ["serverId"])]
    moving.scene.do_and_work("volumeDelete", id=volume)
    moving.scene.do_and_work("serverMigrateRevert", serverId=server)
    found = moving.shown(server)
    assert (found["host"]["name"], found["status"], found["migrations"][0]["status"]) == ("h", "ACTIVE", "REVERTED")
    assert moving.centre.snapshot_of_world() == before
    other = moving.other.snapshot_of_world()
    assert (other.machines, other.volumes, other.ports, other.networks) == ({}, {}, {}, {})
    assert moving.used() == used
    for mutation in ("serverMigrateConfirm", "serverMigrateRevert"):
        assert alice.refused(mutation, serverId=server) == [("INVALID_STATE", ["serverId"])]


def test_a_guest_that_does_not_come_up_goes_back_by_itself(moving: Moving) -> None:
    server = adopted(moving)
    before = moving.centre.snapshot_of_world()
    ended = asked(moving, server, expectOnConsole="no guest says this", expectTimeoutS=1)
    assert ended == ("FAILED", "HYPERVISOR_ERROR")
    found = moving.shown(server)
    assert (found["host"]["name"], found["status"], found["migrations"][0]["status"]) == ("h", "ACTIVE", "FAILED")
    assert "did not write" in found["migrations"][0]["statusReason"]
    assert moving.centre.snapshot_of_world() == before
    assert moving.other.snapshot_of_world().volumes == {}


@pytest.mark.parametrize("fault", [HostAtFault, Refused])
def test_a_new_host_that_fails_leaves_all_as_it_was(moving: Moving, fault: type[Exception]) -> None:
    server = adopted(moving)
    before, used = moving.centre.snapshot_of_world(), moving.used()
    moving.other.fail("transport.import_disk", fault, times=None)  # type: ignore[arg-type]  # they are driver errors
    assert asked(moving, server)[0] == "FAILED"
    assert moving.centre.snapshot_of_world() == before
    assert moving.used() == used
    assert moving.other.snapshot_of_world().volumes == {}
    assert [each["status"] for each in moving.shown(server)["volumes"]] == ["HELD"]
    moving.other.heal()
    assert asked(moving, server) == ("SUCCEEDED", None)


def test_what_arrives_changed_is_not_taken(moving: Moving) -> None:
    """The disk is written to behind our back on the new host, between its arrival and its being read back."""
    server = adopted(moving)
    before = moving.centre.snapshot_of_world()
    moving.centre.fail("transport.export_disk", Refused, after=True, skip=1)
    assert asked(moving, server)[0] == "FAILED"
    assert moving.centre.snapshot_of_world() == before


def test_the_plan_says_what_stays_behind(moving: Moving) -> None:
    server = adopted(moving)
    given = {"serverId": server, "toHypervisor": "SIM"}
    rows = moving.scene.rows()
    plan = moving.scene.alice.ok(PLAN, input=given)["serverMigratePlan"]
    assert (plan["possible"], plan["diskGib"], plan["userErrors"]) == (True, 2, [])
    kinds = [each["kind"] for each in plan["notes"]]
    assert kinds == ["DOWNTIME", "OLD_MACHINE", "INTERFACES", "SECURITY_GROUPS", "ADDRESSES"]
    nowhere = moving.scene.alice.ok(PLAN, input={**given, "toHypervisor": "KVM"})["serverMigratePlan"]
    assert not nowhere["possible"]
    assert {"constraint": "HYPERVISOR", "hosts": 2} in nowhere["decision"]["counts"]
    here = {each["constraint"]: each["hosts"] for each in plan["decision"]["counts"]}
    assert here == {"SAME_HOST": 1}
    gone = moving.scene.alice.ok(PLAN, input={**given, "serverId": moving.scene.image})["serverMigratePlan"]
    assert gone["userErrors"] == [{"code": "NOT_FOUND", "path": ["serverId"]}]
    assert moving.scene.rows() == rows


def test_who_and_what_may_not_be_moved(moving: Moving) -> None:
    server = adopted(moving)
    stranger = moving.world.member(moving.world.tenant())
    for mutation in ("serverMigrate", "serverMigrateConfirm", "serverMigrateRevert"):
        given = {"serverId": server} | ({"toHypervisor": "SIM"} if mutation == "serverMigrate" else {})
        assert stranger.refused(mutation, **given) == [("NOT_FOUND", ["serverId"])]
    moving.world.reconcile("servers")
    moving.centre.stop(moving.world.uid(server), crashed=True)
    moving.world.reconcile("servers")
    refused = moving.scene.alice.refused("serverMigrate", serverId=server, toHypervisor="SIM")
    assert refused == [("INVALID_STATE", ["serverId"])]
    assert stranger.ok("{ migrations { nodes { id } } }")["migrations"]["nodes"] == []


def test_the_same_key_moves_once(moving: Moving) -> None:
    server = adopted(moving)
    given = {"serverId": server, "toHypervisor": "SIM", "idempotencyKey": "once"}
    first = moving.scene.alice.do("serverMigrate", "migration { id } job { id }", **given)
    moving.world.work()
    again = moving.scene.alice.do("serverMigrate", "migration { id } job { id }", **given)
    assert first == again
    assert len(moving.shown(server)["migrations"]) == 1


def test_disks_are_copied_while_it_runs_and_again_where_they_changed(moving: Moving) -> None:
    server = adopted(moving)
    uid, given = str(moving.world.uid(server)), {"serverId": server, "toHypervisor": "SIM", "copyWhile": "RUNNING"}
    volume = moving.world.uid(moving.scene.alice.ok("{ volumes { nodes { id } } }")["volumes"]["nodes"][0]["id"])
    assert moving.scene.alice.ok(PLAN, input=given)["serverMigratePlan"]["notes"][0]["message"].startswith(
        "The server runs while 2 GiB are copied from snapshots"
    )
    moving.centre.fail("machines.power", Transient)
    made = moving.scene.alice.do("serverMigrate", "job { id }", **given)
    moving.world.runner.run(moving.world.crank.rung.popleft())
    here, there = moving.centre.snapshot_of_world(), moving.other.snapshot_of_world()
    assert (here.machines[uid].power, here.snapshots, there.machines) == ("RUNNING", {}, {})
    assert {key: each.content for key, each in here.volumes.items()} == {
        key: each.content for key, each in there.volumes.items()
    }
    moving.centre.write(volume, b"written between the two passes")
    moving.world.work()
    job = moving.world.job(made["job"]["id"])
    assert job.status.value == "SUCCEEDED", job.error
    messages = {each.name: each.message for each in job.told}
    assert messages["ahead"] == "Disks copied from snapshots while it runs: 2."
    assert (messages["copy"] or "").endswith("Unchanged since their snapshot: 1.")
    here, there = moving.centre.snapshot_of_world(), moving.other.snapshot_of_world()
    assert (here.machines[uid].power, there.machines[uid].power) == ("OFF", "RUNNING")
    assert there.volumes[str(volume)].content == moving.centre.content(volume)
    assert {key: each.content for key, each in here.volumes.items()} == {
        key: each.content for key, each in there.volumes.items()
    }
    moving.scene.do_and_work("serverMigrateRevert", serverId=server)
    assert moving.other.snapshot_of_world().volumes == {}


def test_a_source_that_fails_while_it_runs_is_left_running(moving: Moving) -> None:
    server = adopted(moving)
    before = moving.centre.snapshot_of_world()
    moving.centre.fail("transport.export_disk", Refused, skip=1)
    assert asked(moving, server, copyWhile="RUNNING")[0] == "FAILED"
    assert moving.centre.snapshot_of_world() == before
    assert moving.other.snapshot_of_world().volumes == {}


def test_what_was_heard_of_the_guest_is_told_before_it_is_confirmed(world: World) -> None:
    moving = Moving.make(world)
    server = adopted(moving)
    assert asked(moving, server, verify="AGENT", expectTimeoutS=1) == ("FAILED", "HYPERVISOR_ERROR")
    found = moving.shown(server)
    assert (found["host"]["name"], found["status"]) == ("h", "ACTIVE")
    assert found["migrations"][0]["verified"] == "NOT_VERIFIED"
    assert "its agent did not answer" in found["migrations"][0]["statusReason"]
    assert asked(moving, server) == ("SUCCEEDED", None)
    migration = moving.shown(server)["migrations"][1]
    assert (migration["verified"], migration["status"]) == ("BOOTED", "UNCONFIRMED")
    assert migration["seen"].startswith("Its console says: ")
    moving.scene.do_and_work("serverMigrateRevert", serverId=server)
    world.admin.do("hostUpdate", "host { id }", id=moving.host_id("other"), enabled=False)
    world.host("third", vcpus=4, ram_mib=4096, disk_gib=100, guest_agent="yes")
    assert asked(moving, server, verify="AGENT", expectTimeoutS=5) == ("SUCCEEDED", None)
    migration = moving.shown(server)["migrations"][2]
    assert migration["verified"] == "AGENT"
    assert migration["seen"].startswith("The agent in the guest answers; its console says: ")


def test_a_server_that_is_off_stays_off(world: World) -> None:
    moving = Moving.make(world, foreign=machine("OFF"))
    server = moving.adopted()
    assert asked(moving, server) == ("SUCCEEDED", None)
    found = moving.shown(server)
    assert (found["status"], found["migrations"][0]["seen"]) == ("STOPPED", None)
    moving.scene.do_and_work("serverDelete", id=server)  # with what is kept of it: the adopted machine is handed back
    assert moving.centre.foreign(REF).adopted_as is None
    assert moving.other.snapshot_of_world().machines == {}
    assert moving.used() == [(0, 0, 0), (0, 0, 0)]


def test_a_server_gets_other_devices_while_it_is_off(moving: Moving) -> None:
    scene = moving.scene
    server = adopted(moving)
    given = {"id": server, "devices": "VMWARE"}
    scene.do_and_work("serverStop", id=server, gracefulTimeoutS=0)
    assert scene.alice.refused("serverDevicesSet", **given) == [("INVALID_STATE", ["id"])]  # it is where it was found
    assert asked(moving, server) == ("SUCCEEDED", None)
    scene.do_and_work("serverMigrateConfirm", serverId=server)
    before = moving.other.snapshot_of_world()
    scene.do_and_work("serverDevicesSet", **given)
    assert moving.shown(server)["devices"] == "VMWARE"
    after = moving.other.snapshot_of_world()
    assert (after.volumes, after.ports, set(after.machines)) == (before.volumes, before.ports, set(before.machines))
    assert scene.alice.do("serverDevicesSet", "job { id }", **given)["job"] is None
    scene.do_and_work("serverStart", id=server)
    assert scene.alice.refused("serverDevicesSet", id=server, devices="OWN") == [("INVALID_STATE", ["id"])]


V2V = """#!/bin/sh
# Stands in for virt-v2v: takes its options as they are given, and writes what it would write.
while [ $# -gt 0 ]; do
  case $1 in
    -i) kind=$2 ;;
    -os) folder=$2 ;;
    -of) format=$2 ;;
    -on) name=$2 ;;
    *.xml) description=$1; shift; continue ;;
  esac
  shift 2
done
[ "$kind" = libvirtxml ] || exit 9
letter=a
for file in $(sed 's/></>\\n</g' "$description" | sed -n 's/<source file="\\(.*\\)".*/\\1/p'); do
  qemu-img convert -f raw -O "$format" "$file" "$folder/$name-sd$letter" || exit 8
  letter=$(echo $letter | tr a-y b-z)
done
"""


def _path_without(name: str, folder: Path) -> str:
    """A PATH on which all is but that program, whether or not this machine has it."""
    folder.mkdir()
    for place in reversed(os.environ["PATH"].split(os.pathsep)):
        for program in Path(place).iterdir() if Path(place).is_dir() else ():
            if program.name != name:
                (folder / program.name).unlink(missing_ok=True)
                (folder / program.name).symlink_to(program)
    return str(folder)


def test_virt_v2v_is_used_where_it_is_asked_for(
    moving: Moving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a program in its place that converts the format and nothing else: what is shown is how it is called."""
    server = adopted(moving)
    without = {"serverId": server, "toHypervisor": "SIM", "conversion": "VIRT_V2V"}
    path = _path_without("virt-v2v", tmp_path / "plain")
    monkeypatch.setenv("PATH", path)
    moving.world.reconcile("hosts")
    assert moving.scene.alice.refused("serverMigrate", **without) == [("UNSUPPORTED", ["conversion"])]
    plan = moving.scene.alice.ok(PLAN, input=without)["serverMigratePlan"]
    assert (plan["possible"], plan["userErrors"]) == (False, [{"code": "UNSUPPORTED", "path": ["conversion"]}])
    for name, text in (("virt-v2v", V2V), ("nbdkit", "#!/bin/sh\n"), ("nbdcopy", "#!/bin/sh\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{path}")
    moving.world.reconcile("hosts")
    monkeypatch.setenv("PATH", path)  # it was taken away from the worker since
    assert asked(moving, server, conversion="VIRT_V2V") == ("FAILED", "UNSUPPORTED")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{path}")
    asleep = {**without, "copyWhile": "RUNNING"}
    assert moving.scene.alice.refused("serverMigrate", **asleep) == [("INVALID", ["copyWhile"])]
    assert asked(moving, server, conversion="VIRT_V2V") == ("SUCCEEDED", None)
    found = moving.shown(server)
    disks = found["migrations"][-1]["disks"]
    assert [each["device"] for each in disks] == ["vda", "vdb"]
    assert all(each["sha256Before"] == each["sha256After"] for each in disks)  # nothing was changed by this one
    assert found["devices"] == "OWN"
    assert not list((moving.world.settings.state_dir / "migrations").glob("*"))
