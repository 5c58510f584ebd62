"""A machine's specification as vSphere's documents: pure functions, nothing is asked of the host.

Disks hang on one paravirtual SCSI controller (unit 7 is its own), NICs are vmxnet3 with the MAC that the port has. The
name on the host is for people: a readable beginning and a piece of the id, so that no two are alike; the real name, our
id and the names of the disks are in extraConfig.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from pyVmomi import vim

from drivers.api import DiskSpec, Firmware, MachineSpec, NicSpec, Refused
from drivers.esxi.reading import DISK_MARK, MARK, NAME_MARK

GUEST = "otherLinux64Guest"
CONTROLLER_KEY, CDROM_CONTROLLER_KEY = -100, -200
OWN_UNIT = 7
UNITS = tuple(unit for unit in range(16) if unit != OWN_UNIT)
PLAIN = re.compile(r"[^A-Za-z0-9.-]+")
FIRMWARE = {Firmware.BIOS: "bios", Firmware.UEFI: "efi"}
TAG_MARK = "stratograph.mark."


def display_name(spec: MachineSpec) -> str:
    """What people see on the host; at most 80 characters, none that vSphere would escape."""
    return f"{PLAIN.sub('-', spec.name)[:40].strip('-') or 'server'}-{spec.id}"[:80]


def marks(spec: MachineSpec) -> dict[str, str]:
    """What is kept with the machine: id, name, disks, the cloud's own marks."""
    told = {MARK: str(spec.id), NAME_MARK: spec.name, "disk.EnableUUID": "TRUE"}
    told |= {f"{DISK_MARK}{disk.volume_id}": disk.device for disk in spec.disks}
    return told | {f"{TAG_MARK}{key}": value for key, value in spec.marks.items()}


def options(told: Mapping[str, str]) -> list[Any]:
    """A mapping as extraConfig."""
    return [vim.option.OptionValue(key=key, value=value) for key, value in told.items()]


def machine(
    spec: MachineSpec,
    paths: Mapping[UUID, str],
    backings: Mapping[UUID, Any],
    *,
    vmx: str,
    extra: Mapping[str, str],
) -> Any:
    """The whole machine in one document. ``paths`` are the files of its volumes, ``backings`` where its NICs are."""
    if len(spec.disks) > len(UNITS):
        raise Refused(f"an ESXi machine of ours has at most {len(UNITS)} disks")
    controller = vim.vm.device.ParaVirtualSCSIController(key=CONTROLLER_KEY, busNumber=0, sharedBus="noSharing")
    devices = [_add(controller)]
    for number, (unit, each) in enumerate(zip(UNITS, spec.disks, strict=False)):
        devices.append(_add(disk(each, paths[each.volume_id], CONTROLLER_KEY, unit, key=-1000 - number)))
    devices += [_add(nic_card(nic, backings[nic.port_id], key=-2000 - number)) for number, nic in enumerate(spec.nics)]
    return vim.vm.ConfigSpec(
        name=display_name(spec),
        guestId=GUEST,
        numCPUs=spec.vcpus,
        memoryMB=spec.ram_mib,
        instanceUuid=str(spec.id),
        firmware=FIRMWARE[spec.firmware],
        bootOptions=_boot(),
        cpuHotAddEnabled=False,
        memoryHotAddEnabled=False,
        files=vim.vm.FileInfo(vmPathName=vmx),
        extraConfig=options({**marks(spec), **extra}),
        deviceChange=devices,
    )


def boot_from(disk_key: int) -> Any:
    """Boot options with that disk and nothing else."""
    options = _boot()
    options.bootOrder = [vim.vm.BootOptions.BootableDiskDevice(deviceKey=disk_key)]
    return options


def _boot() -> Any:
    return vim.vm.BootOptions(efiSecureBootEnabled=False, enterBIOSSetup=False)


def cdrom(path: str) -> list[Any]:
    """A CD-ROM drive with that ISO, on a SATA controller of its own."""
    controller = vim.vm.device.VirtualAHCIController(key=CDROM_CONTROLLER_KEY, busNumber=0)
    backing = vim.vm.device.VirtualCdrom.IsoBackingInfo(fileName=path)
    connectable = vim.vm.device.VirtualDevice.ConnectInfo(startConnected=True, connected=True, allowGuestControl=True)
    drive = vim.vm.device.VirtualCdrom(
        key=-3000, controllerKey=CDROM_CONTROLLER_KEY, unitNumber=0, backing=backing, connectable=connectable
    )
    return [_add(controller), _add(drive)]


def disk(spec: DiskSpec, path: str, controller_key: int, unit: int, *, key: int) -> Any:
    """A disk of a volume. Taking it away again never deletes the file, since no file operation is named."""
    mode = "independent_nonpersistent" if spec.read_only else "persistent"
    backing = vim.vm.device.VirtualDisk.FlatVer2BackingInfo(fileName=path, diskMode=mode)
    return vim.vm.device.VirtualDisk(
        key=key, controllerKey=controller_key, unitNumber=unit, backing=backing, capacityInKB=0
    )


def plug(spec: DiskSpec, path: str, devices: Sequence[Any]) -> Any:
    """The change that adds a disk to a machine with these devices."""
    controller = next((each for each in devices if isinstance(each, vim.vm.device.VirtualSCSIController)), None)
    if controller is None:
        raise Refused("the machine has no SCSI controller for another disk")
    taken = {each.unitNumber for each in devices if each.controllerKey == controller.key}
    unit = next((each for each in UNITS if each not in taken), None)
    if unit is None:
        raise Refused(f"an ESXi machine of ours has at most {len(UNITS)} disks")
    told = options({f"{DISK_MARK}{spec.volume_id}": spec.device})
    return vim.vm.ConfigSpec(
        deviceChange=[_add(disk(spec, path, int(controller.key), unit, key=-1000))], extraConfig=told
    )


def unplug(found: Iterable[Any], volume_ids: Iterable[UUID]) -> Any:
    """The change that takes devices away and keeps their files."""
    change = [vim.vm.device.VirtualDeviceSpec(operation="remove", device=each) for each in found]
    told = options({f"{DISK_MARK}{volume_id}": "" for volume_id in volume_ids})
    return vim.vm.ConfigSpec(deviceChange=change, extraConfig=told)


def nic_card(spec: NicSpec, backing: Any, *, key: int) -> Any:
    """A network card of a port."""
    connectable = vim.vm.device.VirtualDevice.ConnectInfo(startConnected=True, connected=True, allowGuestControl=False)
    return vim.vm.device.VirtualVmxnet3(
        key=key, backing=backing, connectable=connectable, addressType="manual", macAddress=spec.mac
    )


def _add(device: Any) -> Any:
    return vim.vm.device.VirtualDeviceSpec(operation="add", device=device)
