"""Hostile VMDK files."""

from __future__ import annotations

import struct
from pathlib import Path

from gateway.image.formats import ImageFormat, RefusalCode
from tests.image.corpus.honest import SECTOR, cut, disk, hostile, patch


def vmdk_text(*extents: str, kind: str = "monolithicFlat", more: str = "") -> str:
    lines = "\n".join(extents)
    return (
        f'# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType="{kind}"\n{more}\n'
        f'# Extent description\n{lines}\n\n# The Disk Data Base\n#DDB\nddb.virtualHWVersion = "4"\n'
    )


def vmdk_with(folder: Path, text: str) -> Path:
    """A sound sparse VMDK whose embedded descriptor is replaced."""
    return patch(disk(folder, ImageFormat.VMDK), SECTOR, text.encode().ljust(20 * SECTOR, b"\x00"))


def vmdk_descriptor(folder: Path, text: str) -> Path:
    path = folder / "disk.vmdk"
    path.write_text(text)
    return path


SELF = 'RW 20480 SPARSE "disk.vmdk"'


@hostile(RefusalCode.VMDK_DESCRIPTOR)
def vmdk_monolithic_flat(folder: Path) -> Path:
    return vmdk_descriptor(folder, vmdk_text('RW 8 FLAT "/etc/passwd" 0'))


@hostile(RefusalCode.VMDK_DESCRIPTOR)
def vmdk_flat_neighbour(folder: Path) -> Path:
    return vmdk_descriptor(folder, vmdk_text('RW 8 FLAT "another-tenants-image.raw" 0'))


@hostile(RefusalCode.VMDK_DESCRIPTOR)
def vmdk_sparse_text_only(folder: Path) -> Path:
    return vmdk_descriptor(folder, vmdk_text('RW 8 SPARSE "another-tenants-image.vmdk"', kind="monolithicSparse"))


@hostile(RefusalCode.VMDK_DESCRIPTOR)
def vmdk_text_with_a_late_type(folder: Path) -> Path:
    return vmdk_descriptor(folder, "# padding\n" * 90_000 + vmdk_text('RW 8 FLAT "/etc/passwd" 0'))


@hostile(RefusalCode.VMDK_DESCRIPTOR)
def vmdk_embedded_flat_extent(folder: Path) -> Path:
    return vmdk_with(folder, vmdk_text('RW 20480 FLAT "/etc/passwd" 0', kind="monolithicSparse"))


@hostile(RefusalCode.VMDK_DESCRIPTOR)
def vmdk_embedded_flat_neighbour(folder: Path) -> Path:
    return vmdk_with(folder, vmdk_text('RW 20480 FLAT "secret.raw" 0', kind="monolithicSparse"))


@hostile(RefusalCode.VMDK_DESCRIPTOR)
def vmdk_two_extents(folder: Path) -> Path:
    return vmdk_with(folder, vmdk_text(SELF, 'RW 8 FLAT "secret.raw" 0', kind="monolithicSparse"))


@hostile(RefusalCode.VMDK_DESCRIPTOR)
def vmdk_two_types(folder: Path) -> Path:
    text = vmdk_text('RW 8 FLAT "secret.raw" 0', SELF)
    return vmdk_with(folder, 'CREATETYPE="monolithicSparse"\n' + text)


@hostile(RefusalCode.VMDK_DESCRIPTOR)
def vmdk_without_capacity(folder: Path) -> Path:
    path = vmdk_with(folder, vmdk_text('RW 8 FLAT "/etc/passwd" 0', kind="monolithicSparse"))
    return patch(path, 12, bytes(8))


@hostile(RefusalCode.BACKING_FILE)
def vmdk_parent_hint(folder: Path) -> Path:
    hint = 'parentFileNameHint="/etc/passwd"'
    return vmdk_with(folder, vmdk_text(SELF, kind="monolithicSparse", more=hint))


@hostile(RefusalCode.BACKING_FILE)
def vmdk_parent_hint_behind_the_descriptor(folder: Path) -> Path:
    """The header says the descriptor has one sector; QEMU reads twenty and finds the hint in a comment of the next."""
    text = vmdk_text(SELF, kind="monolithicSparse").ljust(SECTOR, "\n") + '# parentFileNameHint="/etc/passwd"\n'
    return patch(vmdk_with(folder, text), 36, struct.pack("<Q", 1))


@hostile(RefusalCode.BACKING_FILE)
def vmdk_parent_cid(folder: Path) -> Path:
    text = vmdk_text(SELF, kind="monolithicSparse").replace("parentCID=ffffffff", "parentCID=0badcafe")
    return vmdk_with(folder, text)


@hostile(RefusalCode.VMDK_DESCRIPTOR)
def vmdk_huge_descriptor(folder: Path) -> Path:
    return patch(disk(folder, ImageFormat.VMDK), 36, struct.pack("<Q", 1 << 40))


@hostile(RefusalCode.VMDK_DESCRIPTOR)
def vmdk_descriptor_elsewhere(folder: Path) -> Path:
    return patch(disk(folder, ImageFormat.VMDK), 28, struct.pack("<Q", 2))


@hostile(RefusalCode.VIRTUAL_SIZE)
def vmdk_8_eib(folder: Path) -> Path:
    return patch(disk(folder, ImageFormat.VMDK), 12, struct.pack("<Q", (1 << 54) - 1))


@hostile(RefusalCode.VMDK_DESCRIPTOR)
def vmdk_footer_with_another_descriptor(folder: Path) -> Path:
    return vmdk_with_footer(folder, 28, struct.pack("<Q", 5))


@hostile(RefusalCode.CORRUPT)
def vmdk_footer_with_another_size(folder: Path) -> Path:
    return vmdk_with_footer(folder, 12, struct.pack("<Q", 40960))


def vmdk_with_footer(folder: Path, offset: int = 0, data: bytes = b"") -> Path:
    """A stream as VMware writes it: the header points to a footer at the end, here with ``data`` put into it."""
    path = disk(folder, ImageFormat.VMDK, "-o", "subformat=streamOptimized")
    with path.open("r+b") as file:
        header = bytearray(file.read(SECTOR))
        header[offset : offset + len(data)] = data
        file.seek(0, 2)
        file.write(bytes(-file.tell() % SECTOR))
        file.write(struct.pack("<QII", 1, 0, 3).ljust(SECTOR, b"\x00") + header + bytes(SECTOR))
    return patch(path, 56, b"\xff" * 8)


@hostile(RefusalCode.CORRUPT)
def vmdk_cut(folder: Path) -> Path:
    path = disk(folder, ImageFormat.VMDK)
    return cut(path, path.stat().st_size // 2)
