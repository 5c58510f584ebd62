"""The vocabulary of image files: which formats exist, what bounds an inspection keeps, and why a file is refused.

It holds values only, so that the header rules, the inspection, the conversion and the image noun can share them
without importing each other. It deliberately reads no file and decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MIB: Final = 1 << 20
GIB: Final = 1 << 30
TIB: Final = 1 << 40


class ImageFormat(StrEnum):
    """A format in which an image may be uploaded and kept. The value is what users write and the table stores."""

    RAW = "RAW"
    """The bytes of the disk as they are."""
    QCOW2 = "QCOW2"
    """QEMU's format."""
    VMDK = "VMDK"
    """VMware's format, sparse or stream-optimized."""
    VDI = "VDI"
    """VirtualBox's format."""
    VHDX = "VHDX"
    """Hyper-V's format."""
    ISO = "ISO"
    """An optical image."""

    @property
    def qemu_name(self) -> str:
        """The name qemu-img knows the format by; an ISO image is raw to it."""
        return "raw" if self is ImageFormat.ISO else self.value.lower()

    @property
    def suffix(self) -> str:
        """The file name's ending in the store, without a dot."""
        return self.value.lower()


class RefusalCode(StrEnum):
    """Why a file is not accepted as an image. Stable: clients may branch on it."""

    BACKING_FILE = "BACKING_FILE"
    EXTERNAL_DATA_FILE = "EXTERNAL_DATA_FILE"
    VMDK_DESCRIPTOR = "VMDK_DESCRIPTOR"
    UNKNOWN_FEATURE = "UNKNOWN_FEATURE"
    SNAPSHOTS = "SNAPSHOTS"
    ENCRYPTED = "ENCRYPTED"
    VIRTUAL_SIZE = "VIRTUAL_SIZE"
    EXPANSION = "EXPANSION"
    TRUNCATED = "TRUNCATED"
    COMPRESSED = "COMPRESSED"
    FORMAT_MISMATCH = "FORMAT_MISMATCH"
    POLYGLOT = "POLYGLOT"
    UNSUPPORTED_FORMAT = "UNSUPPORTED_FORMAT"
    NOT_AN_IMAGE = "NOT_AN_IMAGE"
    EMPTY = "EMPTY"
    TOO_BIG = "TOO_BIG"
    CORRUPT = "CORRUPT"
    TOO_COMPLEX = "TOO_COMPLEX"
    NOT_A_FILE = "NOT_A_FILE"
    TOOL_MISSING = "TOOL_MISSING"


class ImageRefused(Exception):  # noqa: N818 - the domain's word; every refusal of the cloud is named like this
    """The file is not accepted as an image.

    ``reason_code`` is for programs, ``message`` one English sentence for the user who sent the file. The message never
    repeats bytes of the file beyond a short, printable, quoted part.
    """

    def __init__(self, reason_code: RefusalCode, message: str) -> None:
        super().__init__(f"{reason_code}: {message}")
        self.reason_code = reason_code
        self.message = message


@dataclass(frozen=True, slots=True)
class InspectionLimits:
    """Bounds of one inspection. The defaults suit a cloud whose largest disk is 2 TiB."""

    max_virtual_size_bytes: int = 2 * TIB
    max_size_bytes: int = 2 * TIB
    #: allocated guest bytes may be this many times the file's size (real systems stay below 10) ...
    max_expansion_ratio: int = 200
    #: ... once they exceed this floor, below which a bomb is no threat.
    expansion_floor_bytes: int = 256 * MIB
    #: seconds qemu-img may take to say what the file is.
    info_timeout_s: float = 2.0
    #: seconds qemu-img may take to check the file's tables, plus ``check_timeout_per_gib_s`` for every GiB of file.
    check_timeout_s: float = 2.5
    check_timeout_per_gib_s: float = 0.25
    #: address space of the qemu-img process.
    memory_bytes: int = GIB
    #: whether qcow2, VMDK, VDI and VHDX need qemu-img's consent. Only an installation which never hands images to
    #: a hypervisor (the simulated driver on a laptop without QEMU) may turn it off.
    second_opinion: bool = True


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a safe file is: its format, the size of the disk it holds and its own size, both in bytes."""

    format: ImageFormat
    virtual_size_bytes: int
    size_bytes: int
