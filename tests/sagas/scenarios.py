"""How a world comes to the point where a job of each kind waits to be run. One function a saga; a saga without one
fails the test. What else is tested of it follows from the saga itself.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from typing import Any

from sqlmodel import select

from drivers.sim.records import ForeignRecord
from gateway.compute import (
    adoption,
    attachment,
    capture,
    devices,
    migration,
    port_attachment,
    relocation,
    resizing,
    server,
    server_create,
    snapshotting,
    standstill,
)
from gateway.compute import flavor as flavors
from gateway.compute import host as hosts
from gateway.compute.host import Host, Hypervisor
from gateway.compute.machine_model import CopyWhile, Devices
from gateway.image import image_change, image_create, reception
from gateway.image.formats import ImageFormat
from gateway.integration import export
from gateway.kernel import noun
from gateway.kernel.access import CLOUD
from gateway.network import network as networks
from gateway.network import security_group as groups
from gateway.network import security_group_rule as rules
from gateway.volume import snapshot, snapshot_create, volume
from tests.image import web
from tests.sagas.stage import CONTENT, Stage, host

Scenario = Callable[[Stage], object]
SCENARIOS: dict[str, Scenario] = {}


def scenario(kind: str) -> Callable[[Scenario], Scenario]:
    """Register the scenario of a kind of job."""

    def keep(made: Scenario) -> Scenario:
        SCENARIOS[kind] = made
        return made

    return keep


def _server(stage: Stage, **given: Any) -> server_create.ServerCreate:
    wanted = {"name": "s", "flavor_id": stage.parts["flavor"], "image_id": stage.parts["image"], **given}
    return server_create.ServerCreate.model_validate(wanted)


def _full(stage: Stage) -> server_create.ServerCreate:
    """A server with a port, a volume that goes with it and one that stays."""
    volumes = [{"size_gib": 1, "delete_with_server": True}, {"size_gib": 2}]
    return _server(stage, networks=[{"network_id": stage.parts["network"]}], volumes=volumes)


def _volume(stage: Stage, **given: Any) -> volume.Volume:
    made: volume.Volume = stage.done(volume.create, volume.VolumeCreate(**{"name": "v", "size_gib": 3, **given}))
    assert made.status is volume.VolumeStatus.AVAILABLE
    return made


def _attached(stage: Stage) -> tuple[str, str]:
    """A server and a volume that it holds."""
    holder = stage.id(stage.done(server_create.create, _server(stage)))
    held = stage.id(_volume(stage))
    stage.done(attachment.attach, attachment.VolumeAttach(volume_id=held, server_id=holder))
    return holder, held


@scenario("export.create")
def _export(stage: Stage) -> None:
    stage.order(export.create, export.BulkExport(kind=export.ExportKind.INVENTORY))


@scenario("host.probe")
def _probe(stage: Stage) -> None:
    stage.order(hosts.enlist, host("another"), subject=stage.root)


@cache
def _site() -> web.Site:
    """A web server with one image, as long as this process lives."""
    stack = ExitStack()
    atexit.register(stack.close)
    site = stack.enter_context(web.serving())
    site.pages["/image"] = web.answer(CONTENT)
    return site


@scenario("image.accept")
def _image_accept(stage: Stage) -> None:
    image = stage.order(image_create.create, image_create.ImageCreate(name="i", format=ImageFormat.RAW))
    store = reception.store_of(stage.world.settings)
    store.prepare()
    with store.writing(image.uid, 0) as upload:
        upload.write(CONTENT)
    digest = upload.digest
    stage.world.db.run(lambda session: reception.completed(session, stage.alice, image.uid, len(CONTENT), digest))


@scenario("image.import")
def _image_import(stage: Stage) -> None:
    wanted = image_create.ImageImport(name="i", format=ImageFormat.RAW, url=_site().url("/image"))
    stage.order(image_create.bring, wanted)


@scenario("image.delete")
def _image_delete(stage: Stage) -> None:
    image = stage.parts["image"]
    stage.order(volume.delete, volume.VolumeDelete(id=stage.id(_volume(stage, image_id=image))))
    stage.world.work()
    stage.order(image_change.delete, image_change.ImageDelete(id=image))


@scenario("server.create")
def _create(stage: Stage) -> None:
    stage.order(server_create.create, _full(stage))


@scenario("server.delete")
def _delete(stage: Stage) -> None:
    made = stage.done(server_create.create, _full(stage))
    stage.order(server.delete, server.ServerDelete(id=stage.id(made)))


@scenario("server.start")
def _start(stage: Stage) -> None:
    made = stage.id(stage.done(server_create.create, _server(stage)))
    stage.done(server.stop, server.ServerStop(id=made))
    stage.order(server.start, server.ServerStart(id=made))


@scenario("server.stop")
def _stop(stage: Stage) -> None:
    made = stage.id(stage.done(server_create.create, _server(stage)))
    stage.order(server.stop, server.ServerStop(id=made))


@scenario("server.reboot")
def _reboot(stage: Stage) -> None:
    made = stage.id(stage.done(server_create.create, _server(stage)))
    stage.order(server.reboot, server.ServerReboot(id=made))


@scenario("server.halt")
def _halt(stage: Stage) -> None:
    made = stage.id(stage.done(server_create.create, _server(stage)))
    stage.order(standstill.suspend, standstill.ServerSuspend(id=made))


@scenario("server.resume")
def _resume(stage: Stage) -> None:
    made = stage.id(stage.done(server_create.create, _server(stage)))
    stage.done(standstill.suspend, standstill.ServerSuspend(id=made))
    stage.order(standstill.resume, standstill.ServerResume(id=made))


@scenario("volume.create")
def _volume_create(stage: Stage) -> None:
    stage.order(volume.create, volume.VolumeCreate(name="v", size_gib=3, image_id=stage.parts["image"]))


@scenario("volume.extend")
def _volume_extend(stage: Stage) -> None:
    stage.order(volume.extend, volume.VolumeExtend(id=stage.id(_volume(stage)), size_gib=5))


@scenario("volume.delete")
def _volume_delete(stage: Stage) -> None:
    stage.order(volume.delete, volume.VolumeDelete(id=stage.id(_volume(stage))))


@scenario("volume.attach")
def _volume_attach(stage: Stage) -> None:
    holder = stage.id(stage.done(server_create.create, _server(stage)))
    command = attachment.VolumeAttach(volume_id=stage.id(_volume(stage)), server_id=holder)
    stage.order(attachment.attach, command)


@scenario("volume.detach")
def _volume_detach(stage: Stage) -> None:
    _, held = _attached(stage)
    stage.order(attachment.detach, attachment.VolumeDetach(volume_id=held))


@scenario("port.attach")
def _port_attach(stage: Stage) -> None:
    holder = stage.id(stage.done(server_create.create, _server(stage)))
    stage.order(port_attachment.attach, port_attachment.PortAttach(server_id=holder, network_id=stage.parts["network"]))


@scenario("port.detach")
def _port_detach(stage: Stage) -> None:
    """Of two ports on a network, in a group that no rule names: that the network leaves the host, and that others'
    rules are applied again, are the matter of other jobs.
    """
    group = stage.id(stage.order(groups.create, groups.SecurityGroupCreate(name="lone")))
    network = {"network_id": stage.parts["network"], "security_group_ids": [group]}
    holder = stage.id(stage.done(server_create.create, _server(stage, networks=[network])))
    port = stage.id(
        stage.done(port_attachment.attach, port_attachment.PortAttach(server_id=holder, **network))  # type: ignore[arg-type]  # checked by the model
    )
    stage.order(port_attachment.detach, port_attachment.PortDetach(port_id=port, delete=True))


def _snapshotted(stage: Stage) -> tuple[str, snapshotting.ServerSnapshotCreate]:
    """A running server with a volume, and the wish for a snapshot of it."""
    holder, _ = _attached(stage)
    return holder, snapshotting.ServerSnapshotCreate(server_id=holder, name="n")


@scenario("server_snapshot.create")
def _server_snapshot_create(stage: Stage) -> None:
    _, wanted = _snapshotted(stage)
    stage.order(snapshotting.create, wanted)


@scenario("server_snapshot.restore")
def _server_snapshot_revert(stage: Stage) -> None:
    _, wanted = _snapshotted(stage)
    made = stage.id(stage.done(snapshotting.create, wanted))
    stage.order(snapshotting.revert, snapshotting.ServerSnapshotRevert(id=made))


@scenario("server_snapshot.delete")
def _server_snapshot_delete(stage: Stage) -> None:
    """The middle of three."""
    _, wanted = _snapshotted(stage)
    made = [stage.id(stage.done(snapshotting.create, wanted)) for _ in range(3)]
    stage.order(snapshotting.delete, snapshotting.ServerSnapshotDelete(id=made[1]))


@scenario("snapshot.create")
def _snapshot_create(stage: Stage) -> None:
    stage.order(snapshot_create.create, snapshot_create.SnapshotCreate(volume_id=stage.id(_volume(stage)), name="n"))


@scenario("snapshot.delete")
def _snapshot_delete(stage: Stage) -> None:
    command = snapshot_create.SnapshotCreate(volume_id=stage.id(_volume(stage)), name="n")
    made = stage.done(snapshot_create.create, command)
    stage.order(snapshot.delete, snapshot.SnapshotDelete(id=stage.id(made)))


def _on_host(stage: Stage) -> None:
    stage.done(server_create.create, _server(stage, networks=[{"network_id": stage.parts["network"]}]))


@scenario("network.apply")
def _network_apply(stage: Stage) -> None:
    _on_host(stage)
    stage.order(networks.update, networks.NetworkUpdate(id=stage.parts["network"], mtu=1400))


@scenario("network.delete")
def _network_delete(stage: Stage) -> None:
    """A network that stayed on a host without ports: as when the host did not answer when the last port left."""
    public = stage.parts["network"]
    with stage.world.db.read() as session:
        key = networks.NOUN.get(session, stage.alice, public, "id").id
    stage.world.db.run(lambda session: networks.settle(session, key, 1))
    stage.done(networks.update, networks.NetworkUpdate(id=public, mtu=1400))
    stage.world.db.run(lambda session: networks.settle(session, key, 1))
    stage.order(networks.delete, networks.NetworkDelete(id=public))


@scenario("security_group.apply")
def _group_apply(stage: Stage) -> None:
    group = stage.id(stage.order(groups.create, groups.SecurityGroupCreate(name="web")))
    network = {"network_id": stage.parts["network"], "security_group_ids": [group]}
    stage.done(server_create.create, _server(stage, networks=[network]))
    rule = rules.SecurityGroupRuleAdd.model_validate(
        {"security_group_id": group, "direction": "INGRESS", "protocol": "TCP", "port_min": 80}
    )
    stage.order(rules.add, rule)


def _foreign(stage: Stage, power: str) -> str:
    """A machine of others on the host, with two small disks; the host's public id."""
    disks: list[dict[str, object]] = [{"key": str(key), "size_bytes": 65536, "content": f"c{key}"} for key in (1, 2)]
    nics: list[dict[str, object]] = [{"mac": "00:50:56:12:34:56", "network": "VM Network"}]
    stage.order(flavors.create, flavors.FlavorCreate(name="same", vcpus=1, ram_mib=64, disk_gib=1), subject=CLOUD)
    stage.centre.plant(ForeignRecord("vm-1", "accounts", 1, 64, power, disks=disks, nics=nics))
    with stage.world.db.read() as session:
        return noun.public(session.get_one(Host, 1))


def _adopt(stage: Stage, power: str = "RUNNING") -> dict[str, Any]:
    network = {"mac_address": "00:50:56:12:34:56", "network_id": stage.parts["network"]}
    wanted = {"host_id": _foreign(stage, power), "machine_ref": "vm-1", "tenant_id": noun.public(stage.tenant)}
    command = adoption.ServerAdopt.model_validate({**wanted, "networks": [network]})
    return stage.order(adoption.adopt, command, subject=stage.root)


@scenario("server.adopt")
def _server_adopt(stage: Stage) -> None:
    _adopt(stage)


@scenario("image.capture")
def _image_capture(stage: Stage) -> None:
    """Of an adopted machine's second disk: a simulated disk of 64 KiB, where a volume's smallest is a GiB to read."""
    _adopt(stage, power="OFF")
    stage.world.work()
    with stage.world.db.read() as session:
        held = stage.id(session.exec(select(volume.Volume)).one())
    stage.order(capture.capture, capture.ImageCapture(name="i", volume_id=held, format=ImageFormat.RAW))


def _moved(stage: Stage, **given: Any) -> str:
    """A server that is adopted and asked to move; its id."""
    server_id = stage.id(_adopt(stage)["server"])
    stage.world.work()
    stage.open_other()
    wanted = {"server_id": server_id, "to_hypervisor": Hypervisor.SIM, "graceful_timeout_s": 0, **given}
    command = migration.ServerMigrate.model_validate(wanted)
    stage.order(migration.migrate, command)
    return server_id


@scenario("server.migrate")
def _migrate(stage: Stage) -> None:
    _moved(stage, copy_while=CopyWhile.RUNNING)


@scenario("migration.confirm")
def _confirm(stage: Stage) -> None:
    server_id = _moved(stage)
    stage.world.work()
    stage.order(migration.confirm, migration.ServerMigrateConfirm(server_id=server_id))


@scenario("migration.revert")
def _revert(stage: Stage) -> None:
    server_id = _moved(stage)
    stage.world.work()
    stage.order(migration.revert, migration.ServerMigrateRevert(server_id=server_id))


@scenario("server.devices")
def _devices(stage: Stage) -> None:
    made = stage.id(stage.done(server_create.create, _full(stage)))
    stage.done(server.stop, server.ServerStop(id=made))
    stage.order(devices.set_devices, devices.ServerDevicesSet(id=made, devices=Devices.VMWARE))


def _neighbour(stage: Stage) -> str:
    """A server with a port and volumes, and another host in its pool; both have its image and network anyway: that a
    host lets go of these is the matter of other sagas. Its id.
    """
    made = stage.id(stage.done(server_create.create, _full(stage)))
    for _ in range(2):
        _on_host(stage)
    stage.open_other()
    _on_host(stage)
    assert stage.other.snapshot_of_world().networks
    return made


@scenario("server.relocate")
def _relocate(stage: Stage) -> None:
    """Not live, so that each step has something to do."""
    command = relocation.ServerRelocate(server_id=_neighbour(stage), live=False)
    stage.order(relocation.relocate, command, subject=stage.root)


def _resized(stage: Stage) -> str:
    """A server that is asked to grow beyond what its host has room for, so that it goes to the other; its id."""
    made = _neighbour(stage)
    wanted = flavors.FlavorCreate(name="large", vcpus=3, ram_mib=768, disk_gib=4)
    large = stage.id(stage.order(flavors.create, wanted, subject=CLOUD))
    stage.order(resizing.resize, resizing.ServerResize(server_id=made, flavor_id=large))
    return made


@scenario("server.resize")
def _resize(stage: Stage) -> None:
    _resized(stage)


@scenario("resize.confirm")
def _resize_confirm(stage: Stage) -> None:
    made = _resized(stage)
    stage.world.work()
    stage.order(resizing.confirm, resizing.ServerResizeConfirm(server_id=made))


@scenario("resize.revert")
def _resize_revert(stage: Stage) -> None:
    made = _resized(stage)
    stage.world.work()
    stage.order(resizing.revert, resizing.ServerResizeRevert(server_id=made))
