"""A machine of somebody else's on the simulated ESXi host, made and taken away by another client than ours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyVmomi import vim

from tests.drivers.esxi_host import content_of, finished
from tests.servers.esxsim import EsxSim

MIB = 1024**2
MAC = "00:50:56:3f:12:34"


@dataclass(frozen=True, slots=True)
class Theirs:
    """The machine; ``flats`` are the files in which a test puts what its disks hold."""

    vm: Any
    ref: str
    flats: tuple[Path, ...]


@contextmanager
def machine(
    sim: EsxSim, sizes_mib: Sequence[int] = (1, 1), *, name: str = "theirs", on: str | None = None, ram_mib: int = 128
) -> Iterator[Theirs]:  # fmt: skip
    """A machine that is off, with disks of these sizes on a paravirtual controller and one vmxnet3 interface; on the
    only host, or the one of that name.
    """
    content = content_of(sim)
    view = content.viewManager.CreateContainerView(content.rootFolder, [vim.HostSystem], True)
    host = next(each for each in view.view if on in (None, each.name))
    compute = datacenter = host.parent
    while not isinstance(datacenter, vim.Datacenter):
        datacenter = datacenter.parent
    store = host.datastore[0].name
    controller = vim.vm.device.ParaVirtualSCSIController(key=1000, busNumber=0, sharedBus="noSharing")
    devices = [vim.vm.device.VirtualDeviceSpec(operation="add", device=controller)]
    for number, size in enumerate(sizes_mib):
        path = f"[{store}] {name}/disk-{number}.vmdk"
        backing = vim.vm.device.VirtualDisk.FlatVer2BackingInfo(
            fileName=path, diskMode="persistent", thinProvisioned=True
        )
        disk = vim.vm.device.VirtualDisk(
            key=-100 - number, controllerKey=1000, unitNumber=number, capacityInKB=size * 1024, backing=backing
        )
        devices.append(vim.vm.device.VirtualDeviceSpec(operation="add", fileOperation="create", device=disk))
    cards = vim.vm.device.VirtualEthernetCard
    nic = vim.vm.device.VirtualVmxnet3(
        key=-200, addressType="manual", macAddress=MAC, backing=cards.NetworkBackingInfo(deviceName="VM Network")
    )
    devices.append(vim.vm.device.VirtualDeviceSpec(operation="add", device=nic))
    config = vim.vm.ConfigSpec(
        name=name, guestId="debian10_64Guest", numCPUs=1, memoryMB=ram_mib, deviceChange=devices,
        files=vim.vm.FileInfo(vmPathName=f"[{store}] {name}/{name}.vmx"),
    )  # fmt: skip
    vm = finished(datacenter.vmFolder.CreateVM_Task(config=config, pool=compute.resourcePool, host=host))
    flats = tuple(next(sim.daemon.folder.glob(f"*/{name}/disk-{number}-flat.vmdk")) for number in range(len(sizes_mib)))
    try:
        yield Theirs(vm, str(vm._moId), flats)
    finally:
        if vm.runtime.powerState == "poweredOn":
            finished(vm.PowerOffVM_Task())
        finished(vm.Destroy_Task())
