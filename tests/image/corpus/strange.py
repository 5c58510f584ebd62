"""What is no image at all, and what is several at once."""

from __future__ import annotations

import gzip
import lzma
import tarfile
import zipfile
from pathlib import Path

from gateway.image.formats import ImageFormat, RefusalCode
from tests.image.corpus.honest import MIB, SECTOR, disk, hostile, iso, patch, qemu_img
from tests.image.corpus.vmdk import vmdk_text


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
