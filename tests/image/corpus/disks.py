"""Hostile VDI, VHDX and ISO files."""

from __future__ import annotations

import struct
from pathlib import Path

from gateway.image.formats import ImageFormat, RefusalCode
from tests.image.corpus.honest import MIB, cut, disk, hostile, iso, patch


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
