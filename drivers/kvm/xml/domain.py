"""A machine as libvirt domain XML, and the reading of our marks in one.

Machine type ``pc``: its single PCI bus takes hot-plugged disks without empty root ports laid out in advance. The seed
is a CD on virtio-scsi, not one more virtio disk, so that the guest's ``vdb`` is the contract's ``vdb``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

from drivers.api import Devices, DiskSpec, Firmware, MachineSpec, NicSpec
from drivers.kvm import names
from drivers.kvm.options import Options
from drivers.kvm.xml.common import NAMESPACE, OURS, E, Element, canonical, strings

_TRANSLATION_CACHE_MIB = 32  # TCG: the default costs 40 MiB more a guest, 16 MiB makes a boot 40 % dearer
_STATS_PERIOD_SECONDS = 10
AGENT = "org.qemu.guest_agent.0"
"""The channel on which a guest's agent answers, if the guest has one. libvirt makes its end on the host."""


@dataclass(frozen=True, slots=True)
class DiskSource:
    """A disk and where its file is on the host."""

    spec: DiskSpec
    path: str


@dataclass(frozen=True, slots=True)
class DomainPlan:
    """All that becomes a domain: the spec, and the host's part in it. ``accelerator`` is kvm or tcg."""

    spec: MachineSpec
    disks: Sequence[DiskSource]
    console_path: str
    seed_path: str | None
    accelerator: str
    options: Options


def domain(plan: DomainPlan) -> Element:
    """The whole machine."""
    spec = plan.spec
    kvm = plan.accelerator == "kvm"
    return E.domain(
        E.name(names.of(spec.id)),
        E.uuid(str(spec.id)),
        E.metadata(metadata(spec.name, spec.marks)),
        E.memory(str(spec.ram_mib), unit="MiB"),
        E.currentMemory(str(spec.ram_mib), unit="MiB"),
        E.vcpu(str(spec.vcpus), placement="static"),
        _boot(plan),
        _features(kvm=kvm),
        E.cpu(mode="host-passthrough" if kvm else "maximum", check="none"),
        E.clock(
            E.timer(name="rtc", tickpolicy="catchup"),
            E.timer(name="pit", tickpolicy="delay"),
            E.timer(name="hpet", present="no"),
            offset="utc",
        ),
        E.on_poweroff("destroy"),
        E.on_reboot("restart"),
        E.on_crash("destroy"),
        _devices(plan),
        type="kvm" if kvm else "qemu",
    )


def disk(
    source: DiskSource, cache: str, boot_order: int | None = None, devices: Devices = Devices.OWN
) -> Element:  # fmt: skip
    """One volume as a virtio disk, or as one on VMware's paravirtual SCSI controller."""
    vmware = devices is Devices.VMWARE
    element = E.disk(
        E.driver(name="qemu", type="qcow2", cache=cache, discard="unmap"),
        E.source(file=source.path),
        E.target(dev=source.spec.device, bus="scsi" if vmware else "virtio"),
        type="file",
        device="disk",
    )
    if source.spec.read_only:
        element.append(E.readonly())
    if boot_order is not None:
        element.append(E.boot(order=str(boot_order)))
    element.append(E.serial(names.serial(source.spec.volume_id)))
    element.append(E.alias(name=names.alias(source.spec.volume_id)))
    if vmware:
        # pvscsi has one unit a target; the seed's drive is on another bus, so the targets are the disks' alone.
        target = str(_place(source.spec.device))
        element.append(E.address(type="drive", controller="0", bus="0", target=target, unit="0"))
    return element


def _place(device: str) -> int:
    """0 for ``vda``, 25 for ``vdz``, 26 for ``vdaa``."""
    place = 0
    for letter in device.removeprefix("vd"):
        place = place * 26 + ord(letter) - ord("a") + 1
    return place - 1


def has_vmware_devices(element: Element) -> bool:
    """Whether a domain's disks are on VMware's controller."""
    return element.find("devices/controller[@model='vmpvscsi']") is not None


def metadata(name: str, marks: Mapping[str, str]) -> Element:
    """Our element in a domain's metadata: the machine's name and marks."""
    return OURS.machine(OURS.name(name), *(OURS.mark(text, key=key) for key, text in sorted(marks.items())))


def name_in(element: Element) -> str | None:
    """The machine's name in our metadata element, which libvirt hands out without its namespace."""
    return next(iter(strings(element, "*[local-name()='name']/text()")), None)


def with_changes(element: Element, spec: MachineSpec) -> Element | None:
    """A domain's persistent definition with this size, name and marks; None when it has them already. Disks and
    interfaces are left alone: they have verbs of their own.
    """
    changed = deepcopy(element)
    kib = str(spec.ram_mib * 1024)
    for tag, value in (("memory", kib), ("currentMemory", kib), ("vcpu", str(spec.vcpus))):
        found = changed.find(tag)
        if found is None:
            found = E(tag)
            changed.append(found)
        found.text = value
        if "current" in found.attrib:
            del found.attrib["current"]
        if tag != "vcpu":
            found.set("unit", "KiB")
    holder = changed.find("metadata")
    if holder is None:
        holder = E.metadata()
        changed.append(holder)
    for old in holder.iterfind(f"{{{NAMESPACE}}}machine"):
        holder.remove(old)
    holder.append(metadata(spec.name, spec.marks))
    return None if canonical(changed) == canonical(element) else changed


def _boot(plan: DomainPlan) -> Element:
    system = E.os(E.type("hvm", arch="x86_64", machine="pc"))
    if plan.spec.firmware is Firmware.UEFI:
        # Loader and variables by name: asking for firmware='efi' may pick one with Secure Boot and enrolled keys.
        system.append(E.loader(plan.options.uefi_code, readonly="yes", type="pflash"))
        system.append(E.nvram(template=plan.options.uefi_vars))
    return system


def _features(*, kvm: bool) -> Element:
    features = E.features(E.acpi(), E.apic())
    if not kvm:
        features.append(E.tcg(E("tb-cache", str(_TRANSLATION_CACHE_MIB), unit="MiB")))
    return features


def _devices(plan: DomainPlan) -> Element:
    look = plan.spec.devices
    vmware = look is Devices.VMWARE
    cache = plan.options.disk_cache
    devices = E.devices(*(disk(each, cache, 1 if at == 0 else None, look) for at, each in enumerate(plan.disks)))
    if vmware:
        devices.append(E.controller(type="scsi", index="0", model="vmpvscsi"))
    if plan.seed_path is not None:
        if not vmware:
            devices.append(E.controller(type="scsi", index="0", model="virtio-scsi"))
        devices.append(_seed(plan.seed_path, bus="ide" if vmware else "scsi"))
    devices.extend(interface(nic, look) for nic in plan.spec.nics)
    devices.extend(
        (
            E.serial(E.log(file=plan.console_path, append="on"), E.target(type="isa-serial", port="0"), type="pty"),
            E.channel(E.target(type="virtio", name=AGENT), type="unix"),
            E.input(type="tablet", bus="usb"),
            # No port and no socket file: libvirtd hands the screen over (drivers.kvm.console), and nobody else can.
            E.graphics(E.listen(type="none"), type="vnc"),
            E.video(E.model(type="vga", vram="16384")),
            E.memballoon(E.stats(period=str(_STATS_PERIOD_SECONDS)), model="virtio"),
            E.rng(E.backend("/dev/urandom", model="random"), model="virtio"),
        )
    )
    return devices


def interface(nic: NicSpec, look: Devices) -> Element:
    """A network card on a port, behind the port's filter."""
    return E.interface(
        E.mac(address=nic.mac),
        E.source(network=names.of(nic.network_id)),
        E.model(type="vmxnet3" if look is Devices.VMWARE else "virtio"),
        E.filterref(filter=names.port_filter(nic.port_id)),
        E.alias(name=names.alias(nic.port_id)),
        type="network",
    )


def _seed(path: str, bus: str) -> Element:
    return E.disk(
        E.driver(name="qemu", type="raw"),
        E.source(file=path),
        E.target(dev="hda" if bus == "ide" else "sda", bus=bus),
        E.readonly(),
        E.alias(name="ua-seed"),
        type="file",
        device="cdrom",
    )
