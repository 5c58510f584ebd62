"""What the first bytes of an image file may say: our own rules, beside and beyond those of oslo.utils.

Each function is pure: the file's first MiB in, nothing out, or :class:`ImageRefused`. ``size_bytes`` is the file's
whole size, or None while it is still being uploaded, when rules about offsets into it cannot be applied yet. oslo.utils
knows backing files and data files of qcow2 and the VMDK descriptor's shape; it does not know, and so these rules add:
snapshots, encryption, table bounds and dangerous header extensions of qcow2; a VMDK parent hint (QEMU finds it anywhere
in ten KiB of text, comments included, wherever the header says the descriptor ends), a second extent, a descriptor that
QEMU reads when the header's capacity is zero; the parents of VDI and VHDX. qemu-img's own opinion comes on top.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple
from uuid import UUID

from gateway.image.formats import MIB, ImageFormat, ImageRefused, InspectionLimits, RefusalCode

HEAD_BYTES: Final = MIB
SECTOR_BYTES: Final = 512

# --------------------------------------------------------------------------------------------- what is no image

_COMPRESSED: Final = {
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"BZh": "bzip2",
    b"\x04\x22\x4d\x18": "lz4",
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"LZIP": "lzip",
    b"Rar!\x1a\x07": "RAR",
    b"\x5d\x00\x00\x80\x00": "lzma",
    b"\x1f\x9d": "compress",
}
_UNSUPPORTED: Final = {
    b"QED\x00": "QED",
    b"conectix": "VHD",
    b"COWD": "VMDK sparse extent of ESX 3",
    b"\xbe\xba\xfe\xca\x00\x00\x00\x00": "seSparse VMDK extent",
    b"WithoutFreeSpace": "Parallels",
    b"WithouFreSpacExt": "Parallels",
    b"Bochs Virtual HD Image": "Bochs",
    b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop": "cloop",
    b"OOOM\x00\x00\x00\x02": "User-Mode Linux COW",
}
_KNOWN_MAGIC: Final = {b"QFI\xfb": "qcow2", b"KDMV": "VMDK", b"vhdxfile": "VHDX"}
_LUKS_MAGIC: Final = b"LUKS\xba\xbe"
_TAR_MAGIC: Final = (257, b"ustar")
_DMG_TRAILER_MAGIC: Final = b"koly"
_WEB_PAGE: Final = re.compile(rb"\s*(?:<!doctype html|<html|<\?xml)", re.IGNORECASE)


def refuse_container(head: bytes) -> None:
    """Refuse compressed files, archives, encrypted volumes, web pages and disk formats we do not keep, all by magic."""
    for magic, name in _COMPRESSED.items():
        if head.startswith(magic):
            raise ImageRefused(RefusalCode.COMPRESSED, f"the file is compressed ({name}); send the image itself")
    offset, magic = _TAR_MAGIC
    if head[offset:].startswith(magic):
        raise ImageRefused(RefusalCode.COMPRESSED, "the file is a tar archive (OVA?); send the disk image inside it")
    if head.startswith(_LUKS_MAGIC):
        raise ImageRefused(RefusalCode.ENCRYPTED, "the file is an encrypted (LUKS) volume")
    for magic, name in _UNSUPPORTED.items():
        if head.startswith(magic):
            raise ImageRefused(RefusalCode.UNSUPPORTED_FORMAT, f"{name} images are not supported; convert to QCOW2")
    if _WEB_PAGE.match(head[:SECTOR_BYTES]):
        raise ImageRefused(RefusalCode.NOT_AN_IMAGE, "the file is a web page or XML text, not an image")


def refuse_disguised_raw(head: bytes, tail: bytes) -> None:
    """Refuse as raw what merely failed to be recognised: a cut-off known header, a VMDK text, a DMG.

    ``tail`` is the file's last sector (empty while the file is still coming).
    """
    for magic, name in _KNOWN_MAGIC.items():
        if head.startswith(magic):
            raise ImageRefused(RefusalCode.TRUNCATED, f"the file begins as a {name} image but its header is incomplete")
    text = head.split(b"\x00", 1)[0].lower()
    if text.isascii() and b"createtype" in text:
        raise ImageRefused(RefusalCode.VMDK_DESCRIPTOR, "the file is a VMDK descriptor; send one sparse VMDK file")
    if tail.startswith(_DMG_TRAILER_MAGIC):
        raise ImageRefused(RefusalCode.UNSUPPORTED_FORMAT, "Apple disk images (DMG) are not supported")


def refuse_header(image_format: ImageFormat, head: bytes, size_bytes: int | None, limits: InspectionLimits) -> None:
    """Apply our rules for ``image_format`` to the first MiB of the file."""
    if image_format is ImageFormat.QCOW2:
        _refuse_qcow2(head, size_bytes, limits)
    elif image_format is ImageFormat.VMDK:
        _refuse_vmdk(head, limits)
    elif image_format is ImageFormat.VDI:
        _refuse_vdi(head, size_bytes, limits)


def refuse_virtual_size(virtual_size_bytes: int, limits: InspectionLimits) -> None:
    """Refuse a disk of no size, or beyond the limit."""
    if virtual_size_bytes <= 0:
        raise ImageRefused(RefusalCode.VIRTUAL_SIZE, "the image holds a disk of no size")
    if virtual_size_bytes > limits.max_virtual_size_bytes:
        raise ImageRefused(
            RefusalCode.VIRTUAL_SIZE,
            f"the image holds a disk of {virtual_size_bytes} bytes; the limit is {limits.max_virtual_size_bytes}",
        )


# --------------------------------------------------------------------------------------------- qcow2


class _Qcow2(NamedTuple):
    magic: bytes
    version: int
    backing_offset: int
    backing_name_bytes: int
    cluster_bits: int
    size_bytes: int
    crypt_method: int
    l1_entries: int
    l1_offset: int
    refcount_offset: int
    refcount_clusters: int
    snapshots: int
    snapshots_offset: int


_QCOW2_V2: Final = struct.Struct(">4sIQIIQIIQQIIQ")
_QCOW2_V3: Final = struct.Struct(">QQQII")
_QCOW2_EXTENSION: Final = struct.Struct(">II")
_QCOW2_CLUSTER_BITS: Final = range(9, 22)
_QCOW2_L1_MAX_ENTRIES: Final = (32 * MIB) // 8  # QEMU's own bound
_QCOW2_REFCOUNT_MAX_BYTES: Final = 8 * MIB  # QEMU's own bound
_QCOW2_MAX_HEADER_EXTENSIONS: Final = 64
_INCOMPATIBLE: Final = {
    0: (RefusalCode.CORRUPT, "was not closed properly (dirty); run qemu-img check -r all on it"),
    1: (RefusalCode.CORRUPT, "is marked corrupt"),
    2: (RefusalCode.EXTERNAL_DATA_FILE, "keeps its data in an external file"),
}
_COMPRESSION_TYPE_BIT: Final = 3  # zstd clusters; the one incompatible feature that is harmless
_COMPRESSION_ZLIB, _COMPRESSION_ZSTD = 0, 1
_RAW_EXTERNAL_AUTOCLEAR: Final = 0x2
_EXTENSION_END: Final = 0
_SAFE_EXTENSIONS: Final = frozenset({0x6803F857, 0x23852875})  # feature names; dirty bitmaps
_EXTENSIONS: Final = {
    0xE2792ACA: (RefusalCode.BACKING_FILE, "names a backing file's format"),
    0x44415441: (RefusalCode.EXTERNAL_DATA_FILE, "names an external data file"),
    0x0537BE77: (RefusalCode.ENCRYPTED, "is encrypted"),
}


def _refuse_qcow2(head: bytes, size_bytes: int | None, limits: InspectionLimits) -> None:
    if len(head) < _QCOW2_V2.size:
        raise ImageRefused(RefusalCode.TRUNCATED, "the qcow2 header is incomplete")
    header = _Qcow2(*_QCOW2_V2.unpack_from(head))
    if header.backing_offset or header.backing_name_bytes:
        raise ImageRefused(RefusalCode.BACKING_FILE, "the qcow2 image needs a backing file")
    if header.version not in {2, 3}:
        raise ImageRefused(RefusalCode.UNSUPPORTED_FORMAT, f"qcow version {header.version} is not supported")
    if header.cluster_bits not in _QCOW2_CLUSTER_BITS:
        raise ImageRefused(RefusalCode.CORRUPT, "the qcow2 cluster size is impossible")
    if header.crypt_method:
        raise ImageRefused(RefusalCode.ENCRYPTED, "the qcow2 image is encrypted")
    if header.snapshots:
        raise ImageRefused(RefusalCode.SNAPSHOTS, "the qcow2 image has internal snapshots; convert it to drop them")
    refuse_virtual_size(header.size_bytes, limits)
    _refuse_qcow2_features(head, header)
    _refuse_qcow2_tables(header, size_bytes)


def _refuse_qcow2_features(head: bytes, header: _Qcow2) -> None:
    header_bytes = _QCOW2_V2.size
    if header.version == 3:  # noqa: PLR2004 - the only other version
        if len(head) < _QCOW2_V2.size + _QCOW2_V3.size:
            raise ImageRefused(RefusalCode.TRUNCATED, "the qcow2 header is incomplete")
        incompatible, _compatible, autoclear, _order, header_bytes = _QCOW2_V3.unpack_from(head, _QCOW2_V2.size)
        for bit in (bit for bit in range(64) if incompatible >> bit & 1 and bit != _COMPRESSION_TYPE_BIT):
            code, text = _INCOMPATIBLE.get(bit, (RefusalCode.UNKNOWN_FEATURE, f"needs feature bit {bit}"))
            raise ImageRefused(code, f"the qcow2 image {text}")
        if autoclear & _RAW_EXTERNAL_AUTOCLEAR:
            raise ImageRefused(RefusalCode.EXTERNAL_DATA_FILE, "the qcow2 image claims a raw external data file")
        _refuse_qcow2_compression(head, header_bytes, declared=bool(incompatible >> _COMPRESSION_TYPE_BIT & 1))
    for kind in _qcow2_extensions(head, header_bytes, 1 << header.cluster_bits):
        if kind not in _SAFE_EXTENSIONS:
            code, text = _EXTENSIONS.get(kind, (RefusalCode.UNKNOWN_FEATURE, f"has unknown extension {kind:#x}"))
            raise ImageRefused(code, f"the qcow2 image {text}")


def _refuse_qcow2_compression(head: bytes, header_bytes: int, *, declared: bool) -> None:
    offset = _QCOW2_V2.size + _QCOW2_V3.size
    kind = head[offset] if header_bytes > offset and len(head) > offset else _COMPRESSION_ZLIB
    if kind not in {_COMPRESSION_ZLIB, _COMPRESSION_ZSTD} or declared != (kind == _COMPRESSION_ZSTD):
        raise ImageRefused(RefusalCode.UNKNOWN_FEATURE, "the qcow2 image's compression type is unknown")


def _qcow2_extensions(head: bytes, offset: int, cluster_bytes: int) -> Iterator[int]:
    """The types of the header extensions, which begin after the header and must end within the first cluster."""
    end = min(cluster_bytes, HEAD_BYTES)
    for _ in range(_QCOW2_MAX_HEADER_EXTENSIONS):
        if offset + _QCOW2_EXTENSION.size > end:
            return  # QEMU too stops at the first cluster's end
        if offset + _QCOW2_EXTENSION.size > len(head):
            raise ImageRefused(RefusalCode.TRUNCATED, "the qcow2 header extensions are incomplete")
        kind, length = _QCOW2_EXTENSION.unpack_from(head, offset)
        if kind == _EXTENSION_END:
            return
        if length > end - offset - _QCOW2_EXTENSION.size:
            raise ImageRefused(RefusalCode.CORRUPT, "a qcow2 header extension is longer than the header cluster")
        yield kind
        offset += _QCOW2_EXTENSION.size + (length + 7) // 8 * 8
    raise ImageRefused(RefusalCode.CORRUPT, "the qcow2 image has too many header extensions")


def _refuse_qcow2_tables(header: _Qcow2, size_bytes: int | None) -> None:
    """L1 and refcount table: aligned, no longer than QEMU allows, long enough for the disk, inside the file."""
    cluster_bytes = 1 << header.cluster_bits
    mapped_by_entry = cluster_bytes * (cluster_bytes // 8)
    needed = -(-header.size_bytes // mapped_by_entry)
    refcount_bytes = header.refcount_clusters * cluster_bytes
    if not needed <= header.l1_entries <= _QCOW2_L1_MAX_ENTRIES or refcount_bytes > _QCOW2_REFCOUNT_MAX_BYTES:
        raise ImageRefused(RefusalCode.CORRUPT, "the qcow2 tables do not fit the disk's size")
    if not header.refcount_clusters or header.l1_offset % cluster_bytes or header.refcount_offset % cluster_bytes:
        raise ImageRefused(RefusalCode.CORRUPT, "the qcow2 tables are not where tables may be")
    if size_bytes is None:
        return
    if max(header.l1_offset + header.l1_entries * 8, header.refcount_offset + refcount_bytes) > size_bytes:
        raise ImageRefused(RefusalCode.TRUNCATED, "the qcow2 tables lie beyond the end of the file")


# --------------------------------------------------------------------------------------------- VMDK


class _Vmdk(NamedTuple):
    magic: bytes
    version: int
    flags: int
    capacity_sectors: int
    grain_sectors: int
    descriptor_sector: int
    descriptor_sectors: int


_VMDK: Final = struct.Struct("<4sIIQQQQ")
_VMDK_DESCRIPTOR_OFFSET: Final = SECTOR_BYTES
_VMDK_DESCRIPTOR_READ_BYTES: Final = (
    20 * SECTOR_BYTES
)  # what QEMU reads in search of a parent, whatever the header says
_VMDK_CREATE_TYPES: Final = frozenset({"monolithicsparse", "streamoptimized"})
_VMDK_CREATE_TYPE: Final = re.compile(r'createtype\s*=\s*"([^"\n]{0,64})"')
_VMDK_PARENT_CID: Final = re.compile(r"parentcid\s*=\s*([0-9a-z]{1,16})")
_VMDK_EXTENT: Final = re.compile(r"^[ \t]*(?:rw|rdonly|noaccess)\b(.*)$", re.MULTILINE)
_VMDK_SPARSE_EXTENT: Final = re.compile(r'^[ \t]+\d{1,19}[ \t]+sparse[ \t]+"[^"/\\:\n]{1,255}"[ \t]*$')
_VMDK_NO_PARENT: Final = "ffffffff"


def _refuse_vmdk(head: bytes, limits: InspectionLimits) -> None:
    if len(head) < _VMDK.size:
        raise ImageRefused(RefusalCode.TRUNCATED, "the VMDK header is incomplete")
    header = _Vmdk(*_VMDK.unpack_from(head))
    if header.magic != b"KDMV":
        raise ImageRefused(RefusalCode.VMDK_DESCRIPTOR, "the file is a VMDK descriptor; send one sparse VMDK file")
    if header.capacity_sectors == 0:  # QEMU then opens whatever files the embedded descriptor names
        raise ImageRefused(RefusalCode.VMDK_DESCRIPTOR, "the VMDK header has no capacity of its own")
    refuse_virtual_size(header.capacity_sectors * SECTOR_BYTES, limits)
    descriptor_bytes = header.descriptor_sectors * SECTOR_BYTES
    if header.descriptor_sector * SECTOR_BYTES != _VMDK_DESCRIPTOR_OFFSET:
        raise ImageRefused(RefusalCode.VMDK_DESCRIPTOR, "the VMDK descriptor is not in its place")
    if not 0 < descriptor_bytes <= HEAD_BYTES - _VMDK_DESCRIPTOR_OFFSET:
        raise ImageRefused(RefusalCode.VMDK_DESCRIPTOR, f"the VMDK descriptor has {descriptor_bytes} bytes")
    end = _VMDK_DESCRIPTOR_OFFSET + max(descriptor_bytes, _VMDK_DESCRIPTOR_READ_BYTES)
    text = head[_VMDK_DESCRIPTOR_OFFSET:end].split(b"\x00", 1)[0]
    if not text.isascii():
        raise ImageRefused(RefusalCode.VMDK_DESCRIPTOR, "the VMDK descriptor is not plain text")
    _refuse_vmdk_text(text.decode("ascii").lower(), header)


def _refuse_vmdk_text(text: str, header: _Vmdk) -> None:
    if "parentfilenamehint" in text:
        raise ImageRefused(RefusalCode.BACKING_FILE, "the VMDK image names a parent file")
    if any(cid != _VMDK_NO_PARENT for cid in _VMDK_PARENT_CID.findall(text)):
        raise ImageRefused(RefusalCode.BACKING_FILE, "the VMDK image needs a parent")
    types = _VMDK_CREATE_TYPE.findall(text)
    if text.count("createtype") != 1 or len(types) != 1 or types[0] not in _VMDK_CREATE_TYPES:
        raise ImageRefused(
            RefusalCode.VMDK_DESCRIPTOR, "only VMDK images of type monolithicSparse or streamOptimized are accepted"
        )
    extents = _VMDK_EXTENT.findall(text)
    if len(extents) != 1 or not _VMDK_SPARSE_EXTENT.match(extents[0]):
        raise ImageRefused(RefusalCode.VMDK_DESCRIPTOR, "the VMDK descriptor must name one sparse extent, itself")
    sectors = int(extents[0].split()[0])
    if sectors > header.capacity_sectors:
        raise ImageRefused(RefusalCode.VMDK_DESCRIPTOR, "the VMDK descriptor and its header disagree about the size")


# --------------------------------------------------------------------------------------------- VDI


class _Vdi(NamedTuple):
    signature: int
    version: int
    header_bytes: int
    kind: int
    flags: int
    map_offset: int
    data_offset: int
    disk_bytes: int
    block_bytes: int
    block_extra_bytes: int
    blocks: int
    blocks_allocated: int
    uuid_link: bytes
    uuid_parent: bytes


_VDI: Final = struct.Struct("<64xIIIII256xII16x4xQIIII32x16s16s")
_VDI_VERSION: Final = 0x00010001
_VDI_KINDS: Final = frozenset({1, 2})  # dynamic and static; 3 is an undo image, 4 a differencing one
_NO_UUID: Final = bytes(16)


def _refuse_vdi(head: bytes, size_bytes: int | None, limits: InspectionLimits) -> None:
    if len(head) < _VDI.size:
        raise ImageRefused(RefusalCode.TRUNCATED, "the VDI header is incomplete")
    header = _Vdi(*_VDI.unpack_from(head))
    if header.uuid_link != _NO_UUID or header.uuid_parent != _NO_UUID:
        raise ImageRefused(RefusalCode.BACKING_FILE, "the VDI image needs a parent")
    if header.version != _VDI_VERSION or header.kind not in _VDI_KINDS:
        raise ImageRefused(RefusalCode.UNKNOWN_FEATURE, "this kind of VDI image is not supported")
    refuse_virtual_size(header.disk_bytes, limits)
    if header.block_bytes != MIB or header.block_extra_bytes or header.blocks * header.block_bytes < header.disk_bytes:
        raise ImageRefused(RefusalCode.CORRUPT, "the VDI block map does not fit the disk's size")
    if size_bytes is None:
        return
    # The last block of QEMU's own images is as long as the others, VirtualBox's too.
    if header.data_offset + header.blocks_allocated * header.block_bytes > size_bytes:
        raise ImageRefused(RefusalCode.TRUNCATED, "the VDI image's blocks lie beyond the end of the file")


# --------------------------------------------------------------------------------------------- VHDX

_VHDX_TABLE_BYTES: Final = 64 << 10
_VHDX_TABLE: Final = struct.Struct("<8sxxH20x")
_VHDX_ENTRY: Final = struct.Struct("<16sIII4x")
_VHDX_PARAMETERS: Final = struct.Struct("<II")
_VHDX_FILE_PARAMETERS: Final = UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b").bytes_le
_VHDX_PARENT_LOCATOR: Final = UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c").bytes_le
_VHDX_HAS_PARENT: Final = 2


def refuse_vhdx_parent(read: Callable[[int, int], bytes], table_offset: int) -> None:
    """Refuse a differencing VHDX. ``read(offset, length)`` reads the file; its metadata are at ``table_offset``."""
    table = read(table_offset, _VHDX_TABLE_BYTES)
    if len(table) < _VHDX_TABLE_BYTES:
        raise ImageRefused(RefusalCode.TRUNCATED, "the VHDX metadata are incomplete")
    _signature, count = _VHDX_TABLE.unpack_from(table)
    last = (_VHDX_TABLE_BYTES - _VHDX_TABLE.size) // _VHDX_ENTRY.size
    for number in range(min(count, last)):
        offset = _VHDX_TABLE.size + number * _VHDX_ENTRY.size
        kind, item_offset, _length, _flags = _VHDX_ENTRY.unpack_from(table, offset)
        if kind == _VHDX_PARENT_LOCATOR:
            raise ImageRefused(RefusalCode.BACKING_FILE, "the VHDX image names a parent")
        if kind != _VHDX_FILE_PARAMETERS:
            continue
        item = read(table_offset + item_offset, _VHDX_PARAMETERS.size)
        if len(item) < _VHDX_PARAMETERS.size:
            raise ImageRefused(RefusalCode.TRUNCATED, "the VHDX metadata are incomplete")
        if _VHDX_PARAMETERS.unpack(item)[1] & _VHDX_HAS_PARENT:
            raise ImageRefused(RefusalCode.BACKING_FILE, "the VHDX image needs a parent")
