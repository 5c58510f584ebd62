"""Hostile QCOW2 files."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

from gateway.image.formats import ImageFormat, RefusalCode
from tests.image.corpus.honest import MIB, cut, disk, hostile, patch, qemu_img


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
