"""Machines of somebody else's on a test's libvirt host, made with virsh: nothing of them lies where ours do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from tests.servers.libvirt_host import LibvirtHost

MIB = 1024**2
MAC = "52:54:00:3f:12:34"
_DISK = """<disk type='file' device='disk'><driver name='qemu' type='{format}'/><source file='{path}'/>
  <target dev='{key}' bus='{bus}'/></disk>"""
_DOMAIN = """<domain type='qemu'><name>{name}</name><uuid>{ref}</uuid>
  <metadata><libosinfo:libosinfo xmlns:libosinfo='http://libosinfo.org/xmlns/libvirt/domain/1.0'>
    <libosinfo:os id='http://debian.org/debian/12'/></libosinfo:libosinfo></metadata>
  <memory unit='MiB'>128</memory><vcpu>1</vcpu><os><type arch='x86_64' machine='pc'>hvm</type></os>
  <features><acpi/><tcg><tb-cache unit='MiB'>32</tb-cache></tcg></features>
  <devices>{disks}
    <interface type='user'><mac address='{mac}'/><model type='virtio'/></interface>
    {more}<serial type='pty'/></devices></domain>"""


@dataclass(frozen=True, slots=True)
class Theirs:
    """The machine: its UUID, its name, and the files of its disks."""

    ref: str
    name: str
    paths: tuple[Path, ...]


@contextmanager
def machine(
    host: LibvirtHost,
    disks: Sequence[tuple[str, Path | int]] = (("qcow2", 1), ("raw", 1)),
    *,
    name: str = "theirs",
    more: str = "",
) -> Iterator[Theirs]:
    """A machine that is off, with IDE disks of these formats, each blank with so many MiB or a copy of a file; the
    host's folder is where they lie.
    """
    folder = host.folder / f"{name}-{uuid4().hex[:6]}"
    folder.mkdir(mode=0o711)
    paths = []
    for number, (disk_format, content) in enumerate(disks):
        path = folder / f"disk-{number}.{disk_format}"
        if isinstance(content, int):
            host.run(("qemu-img", "create", "-q", "-f", disk_format, str(path), f"{content}M"))
        else:
            host.run(("qemu-img", "convert", "-f", "qcow2", "-O", disk_format, str(content), str(path)), seconds=60)
        path.chmod(0o666)
        paths.append(path)
    drives = "".join(
        _DISK.format(format=disk_format, path=path, key=f"hd{'ab'[at]}", bus="ide")
        for at, ((disk_format, _), path) in enumerate(zip(disks, paths, strict=True))
    )
    made = Theirs(str(uuid4()), name, tuple(paths))
    definition = folder / "domain.xml"
    definition.write_text(_DOMAIN.format(name=name, ref=made.ref, mac=MAC, disks=drives, more=more))
    host.run(("virsh", "define", str(definition)))
    try:
        yield made
    finally:
        host.run(("virsh", "destroy", made.ref), check=False)
        host.run(("virsh", "undefine", made.ref))
