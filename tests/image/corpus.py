"""Image files for tests, made on the spot: honest ones of every format, and hostile ones with the reason they deserve.

Nothing binary is committed: qemu-img and pycdlib make what is well-formed, and a few struct.pack calls turn it into
what is not. Every hostile file names the refusal it must meet.
"""

from __future__ import annotations

import gzip
import io
import lzma
import struct
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pycdlib

from gateway.image.formats import ImageFormat, RefusalCode

MIB = 1 << 20
SECTOR = 512
CONTENT = b"stratograph!" * 5000


@dataclass(frozen=True)
class Hostile:
    """One hostile file: ``make`` writes it into a directory and answers its path; ``code`` is the refusal it meets."""

    name: str
    make: Callable[[Path], Path]
    code: RefusalCode


HOSTILE: list[Hostile] = []


def hostile(code: RefusalCode) -> Callable[[Callable[[Path], Path]], Callable[[Path], Path]]:
    def register(make: Callable[[Path], Path]) -> Callable[[Path], Path]:
        HOSTILE.append(Hostile(make.__name__, make, code))
        return make

    return register


# --------------------------------------------------------------------------------------------- honest files


def qemu_img(*arguments: str | Path) -> None:
    subprocess.run(["qemu-img", *map(str, arguments)], check=True, capture_output=True, timeout=30)


def disk(folder: Path, image_format: ImageFormat, *options: str, size_bytes: int = 10 * MIB) -> Path:
    """A disk of ``size_bytes`` which holds CONTENT at offset 1 MiB, in the given format."""
    raw = folder / "source.raw"
    with raw.open("wb") as file:
        file.truncate(size_bytes)
        file.seek(MIB)
        file.write(CONTENT)
    if image_format is ImageFormat.RAW:
        return raw
    path = folder / f"disk.{image_format.suffix}"
    qemu_img("convert", "-f", "raw", "-O", image_format.qemu_name, *options, raw, path)
    raw.unlink()
    return path


def iso(folder: Path) -> Path:
    text = b"#cloud-config\n" * 20_000
    disc, path = pycdlib.PyCdlib(), folder / "disk.iso"
    disc.new(interchange_level=3, joliet=3, vol_ident="cidata")
    disc.add_fp(io.BytesIO(text), len(text), "/USERDATA.;1", joliet_path="/user-data")
    disc.write(str(path))
    disc.close()
    return path


def honest(folder: Path, image_format: ImageFormat) -> Path:
    return iso(folder) if image_format is ImageFormat.ISO else disk(folder, image_format)


def patch(path: Path, offset: int, data: bytes) -> Path:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)
    return path


def cut(path: Path, size_bytes: int) -> Path:
    with path.open("r+b") as file:
        file.truncate(size_bytes)
    return path


# --------------------------------------------------------------------------------------------- qcow2


@hostile(RefusalCode.BACKING_FILE)
def qcow2_backing_file(folder: Path) -> Path:
    path = folder / "disk.qcow2"
    qemu_img("create", "-f", "qcow2", "-u", "-b", "/etc/shadow", "-F", "raw", path, "1M")
    return path


@hostile(RefusalCode.BACKING_FILE)
def qcow2_backing_protocol(folder: Path) -> Path:
    path = folder / "disk.qcow2"
    qemu_img("create", "-f", "qcow2", "-u", "-b", "nbd://127.0.0.1:1/x", "-F", "raw", path, "1M")
    return path


@hostile(RefusalCode.BACKING_FILE)
def qcow2_backing_format_only(folder: Path) -> Path:
    path = qcow2_backing_file(folder)
    return patch(path, 8, bytes(12))  # no offset and no length, yet the extension with the format is still there


@hostile(RefusalCode.EXTERNAL_DATA_FILE)
def qcow2_data_file(folder: Path) -> Path:
    path = folder / "disk.qcow2"
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={folder / 'data'},data_file_raw=on", path, "1M")
    return path


@hostile(RefusalCode.EXTERNAL_DATA_FILE)
def qcow2_data_file_without_its_bit(folder: Path) -> Path:
    return patch(qcow2_data_file(folder), 72, bytes(8))


@hostile(RefusalCode.ENCRYPTED)
def qcow2_encrypted(folder: Path) -> Path:
    return patch(disk(folder, ImageFormat.QCOW2), 32, struct.pack(">I", 2))


@hostile(RefusalCode.ENCRYPTED)
def qcow2_encryption_header_only(folder: Path) -> Path:
    return patch(disk(folder, ImageFormat.QCOW2), 112, struct.pack(">II", 0x0537BE77, 0))


@hostile(RefusalCode.SNAPSHOTS)
def qcow2_snapshots(folder: Path) -> Path:
    path = disk(folder, ImageFormat.QCOW2)
    qemu_img("snapshot", "-c", "one", path)
    return path


@hostile(RefusalCode.VIRTUAL_SIZE)
def qcow2_8_eib(folder: Path) -> Path:
    return patch(disk(folder, ImageFormat.QCOW2), 24, struct.pack(">Q", (1 << 63) - 512))


@hostile(RefusalCode.VIRTUAL_SIZE)
def qcow2_no_size(folder: Path) -> Path:
    return patch(disk(folder, ImageFormat.QCOW2), 24, bytes(8))


@hostile(RefusalCode.VIRTUAL_SIZE)
def qcow2_honest_but_huge(folder: Path) -> Path:
    path = folder / "disk.qcow2"
    qemu_img("create", "-f", "qcow2", path, "3T")
    return path


@hostile(RefusalCode.UNKNOWN_FEATURE)
def qcow2_unknown_feature(folder: Path) -> Path:
    return patch(disk(folder, ImageFormat.QCOW2), 72, struct.pack(">Q", 1 << 40))


@hostile(RefusalCode.UNKNOWN_FEATURE)
def qcow2_extended_l2(folder: Path) -> Path:
    path = folder / "disk.qcow2"
    qemu_img("create", "-f", "qcow2", "-o", "extended_l2=on", path, "1M")
    return path


@hostile(RefusalCode.UNKNOWN_FEATURE)
def qcow2_unknown_extension(folder: Path) -> Path:
    return patch(disk(folder, ImageFormat.QCOW2), 112, struct.pack(">II", 0x12345678, 0))


@hostile(RefusalCode.CORRUPT)
def qcow2_extension_beyond_header(folder: Path) -> Path:
    return patch(disk(folder, ImageFormat.QCOW2), 112, struct.pack(">II", 0x6803F857, 0xFFFFFFF0))


@hostile(RefusalCode.CORRUPT)
def qcow2_dirty(folder: Path) -> Path:
    return patch(disk(folder, ImageFormat.QCOW2), 72, struct.pack(">Q", 1))


@hostile(RefusalCode.CORRUPT)
def qcow2_marked_corrupt(folder: Path) -> Path:
    return patch(disk(folder, ImageFormat.QCOW2), 72, struct.pack(">Q", 2))


@hostile(RefusalCode.UNSUPPORTED_FORMAT)
def qcow1(folder: Path) -> Path:
    path = folder / "disk.qcow"
    qemu_img("create", "-f", "qcow", path, "1M")
    return path


@hostile(RefusalCode.CORRUPT)
def qcow2_impossible_clusters(folder: Path) -> Path:
    return patch(disk(folder, ImageFormat.QCOW2), 20, struct.pack(">I", 63))


@hostile(RefusalCode.TRUNCATED)
def qcow2_l1_beyond_the_file(folder: Path) -> Path:
    return patch(disk(folder, ImageFormat.QCOW2), 40, struct.pack(">Q", 1 << 40))


@hostile(RefusalCode.CORRUPT)
def qcow2_endless_l1(folder: Path) -> Path:
    return patch(disk(folder, ImageFormat.QCOW2), 36, struct.pack(">I", 0xFFFFFFFF))


@hostile(RefusalCode.CORRUPT)
def qcow2_bomb_of_4_gib(folder: Path) -> Path:
    return qcow2_of_one_cluster(folder, "4G")


@hostile(RefusalCode.TOO_COMPLEX)
def qcow2_bomb_of_2_tib(folder: Path) -> Path:
    return qcow2_of_one_cluster(folder, "2T")


def qcow2_of_one_cluster(folder: Path, size: str) -> Path:
    """A full disk in 400 KiB: each L1 entry names the one L2 table and each of its entries the one data cluster."""
    path = folder / "disk.qcow2"
    qemu_img("create", "-f", "qcow2", path, size)
    subprocess.run(
        ["qemu-io", "-f", "qcow2", "-c", "write -P 7 0 64k", str(path)], check=True, capture_output=True, timeout=30
    )
    with path.open("r+b") as file:
        l1_entries, l1_offset = struct.unpack(">IQ", file.read(48)[36:])
        file.seek(l1_offset)
        l1_entry = file.read(8)
        l2_offset = struct.unpack(">Q", l1_entry)[0] & 0x00FFFFFFFFFFFE00
        file.seek(l1_offset)
        file.write(l1_entry * l1_entries)
        file.seek(l2_offset)
        l2_entry = file.read(8)
        file.seek(l2_offset)
        file.write(l2_entry * 8192)
    return path


@hostile(RefusalCode.EXPANSION)
def qcow2_bomb_of_compressed_clusters(folder: Path) -> Path:
    """320 MiB of one byte in less than one MiB: sound in all its tables, and yet a bomb."""
    raw, path = folder / "source.raw", folder / "disk.qcow2"
    piece = b"\x01" * (16 * MIB)
    with raw.open("wb") as file:
        for _ in range(20):
            file.write(piece)
    qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "compression_type=zstd", raw, path)
    raw.unlink()
    return path


@hostile(RefusalCode.TRUNCATED)
def qcow2_cut_in_the_data(folder: Path) -> Path:
    path = disk(folder, ImageFormat.QCOW2)
    return cut(path, path.stat().st_size // 2)


@hostile(RefusalCode.TRUNCATED)
def qcow2_cut_in_the_header(folder: Path) -> Path:
    return cut(disk(folder, ImageFormat.QCOW2), 60)


@hostile(RefusalCode.TRUNCATED)
def qcow2_cut_behind_the_header(folder: Path) -> Path:
    return cut(disk(folder, ImageFormat.QCOW2), 4096)


# --------------------------------------------------------------------------------------------- VMDK


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


# --------------------------------------------------------------------------------------------- VDI, VHDX, ISO


@hostile(RefusalCode.VIRTUAL_SIZE)
def vdi_8_eib(folder: Path) -> Path:
    return patch(disk(folder, ImageFormat.VDI), 0x170, struct.pack("<Q", (1 << 63) - 512))


@hostile(RefusalCode.BACKING_FILE)
def vdi_parent(folder: Path) -> Path:
    return patch(disk(folder, ImageFormat.VDI), 0x1B8, b"\x01" * 16)


@hostile(RefusalCode.UNKNOWN_FEATURE)
def vdi_differencing(folder: Path) -> Path:
    return patch(disk(folder, ImageFormat.VDI), 0x4C, struct.pack("<I", 4))


@hostile(RefusalCode.TRUNCATED)
def vdi_cut(folder: Path) -> Path:
    path = disk(folder, ImageFormat.VDI)
    return cut(path, path.stat().st_size // 2)


@hostile(RefusalCode.CORRUPT)
def vdi_shared_blocks(folder: Path) -> Path:
    return patch(disk(folder, ImageFormat.VDI), 512, struct.pack("<10I", *[0] * 10))


VHDX_FILE_PARAMETERS = bytes.fromhex("3767a1ca36fa434db3b633f0aa44e76b")
VHDX_HAS_PARENT = 2


@hostile(RefusalCode.BACKING_FILE)
def vhdx_differencing(folder: Path) -> Path:
    path = disk(folder, ImageFormat.VHDX)
    data = path.read_bytes()
    entry = data.index(VHDX_FILE_PARAMETERS)
    metadata = data.rindex(b"metadata", 0, entry)
    item = metadata + struct.unpack_from("<I", data, entry + 16)[0]
    return patch(path, item + 4, struct.pack("<I", struct.unpack_from("<I", data, item + 4)[0] | VHDX_HAS_PARENT))


@hostile(RefusalCode.CORRUPT)
def vhdx_cut(folder: Path) -> Path:
    return cut(disk(folder, ImageFormat.VHDX), 9 * MIB)


@hostile(RefusalCode.TRUNCATED)
def vhdx_cut_in_the_header(folder: Path) -> Path:
    return cut(disk(folder, ImageFormat.VHDX), 100_000)


@hostile(RefusalCode.TRUNCATED)
def iso_cut(folder: Path) -> Path:
    path = iso(folder)
    return cut(path, path.stat().st_size // 2)


# --------------------------------------------------------------------------------------------- what is no image


@hostile(RefusalCode.EMPTY)
def empty(folder: Path) -> Path:
    path = folder / "disk"
    path.touch()
    return path


@hostile(RefusalCode.COMPRESSED)
def gzip_bomb(folder: Path) -> Path:
    path = folder / "disk.gz"
    path.write_bytes(gzip.compress(bytes(64 * MIB)))
    return path


@hostile(RefusalCode.COMPRESSED)
def xz(folder: Path) -> Path:
    path = folder / "disk.xz"
    path.write_bytes(lzma.compress(bytes(MIB)))
    return path


@hostile(RefusalCode.COMPRESSED)
def zstd(folder: Path) -> Path:
    path = folder / "disk.zst"
    path.write_bytes(b"\x28\xb5\x2f\xfd" + bytes(1000))
    return path


@hostile(RefusalCode.COMPRESSED)
def zip_archive(folder: Path) -> Path:
    path = folder / "disk.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("disk.raw", bytes(MIB))
    return path


@hostile(RefusalCode.COMPRESSED)
def ova(folder: Path) -> Path:
    inner, path = disk(folder, ImageFormat.VMDK), folder / "disk.ova"
    with tarfile.open(path, "w") as archive:
        archive.add(inner, arcname="disk.vmdk")
    return path


@hostile(RefusalCode.ENCRYPTED)
def luks(folder: Path) -> Path:
    path = folder / "disk.luks"
    path.write_bytes(b"LUKS\xba\xbe\x00\x01aes".ljust(MIB, b"\x00"))
    return path


@hostile(RefusalCode.UNSUPPORTED_FORMAT)
def vhd(folder: Path) -> Path:
    path = folder / "disk.vhd"
    qemu_img("create", "-f", "vpc", path, "1M")
    return path


@hostile(RefusalCode.UNSUPPORTED_FORMAT)
def qed(folder: Path) -> Path:
    path = folder / "disk.qed"
    path.write_bytes(b"QED\x00" + bytes(MIB))
    return path


@hostile(RefusalCode.UNSUPPORTED_FORMAT)
def dmg(folder: Path) -> Path:
    path = folder / "disk.dmg"
    path.write_bytes(bytes(MIB) + b"koly".ljust(SECTOR, b"\x00"))
    return path


@hostile(RefusalCode.NOT_AN_IMAGE)
def web_page(folder: Path) -> Path:
    path = folder / "disk.img"
    path.write_text("\n<!DOCTYPE html><html><body>404</body></html>")
    return path


# --------------------------------------------------------------------------------------------- several at once


@hostile(RefusalCode.POLYGLOT)
def polyglot_qcow2_and_iso(folder: Path) -> Path:
    path = iso(folder)
    header = disk(folder, ImageFormat.QCOW2).read_bytes()[:512]
    return patch(path, 0, header)


@hostile(RefusalCode.POLYGLOT)
def polyglot_qcow2_and_partitions(folder: Path) -> Path:
    path = patch(disk(folder, ImageFormat.QCOW2), 446, bytes.fromhex("80000200ee ffffff 01000000 ff3f0000"))
    return patch(path, 510, b"\x55\xaa")


@hostile(RefusalCode.POLYGLOT)
def polyglot_iso_and_vmdk_text(folder: Path) -> Path:
    return patch(iso(folder), 0, vmdk_text('RW 8 FLAT "/etc/passwd" 0').encode().ljust(SECTOR, b"\n"))


@hostile(RefusalCode.POLYGLOT)
def polyglot_vdi_and_qcow2(folder: Path) -> Path:
    return patch(disk(folder, ImageFormat.VDI), 0, b"QFI\xfb\x00\x00\x00\x03")
