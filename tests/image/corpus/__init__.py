"""Image files for tests, made on the spot: honest ones of every format, and hostile ones with the reason they deserve.

Nothing binary is committed: qemu-img and pycdlib make what is well-formed, and a few struct.pack calls turn it into
what is not. Every hostile file names the refusal it must meet; importing this package registers them all.
"""

from __future__ import annotations

from tests.image.corpus import disks
from tests.image.corpus.honest import CONTENT, HOSTILE, MIB, Hostile, disk, honest, iso, patch, qemu_img
from tests.image.corpus.qcow2 import qcow2_backing_file, qcow2_data_file
from tests.image.corpus.strange import gzip_bomb
from tests.image.corpus.vmdk import vmdk_parent_hint, vmdk_with_footer

__all__ = [
    "CONTENT",
    "HOSTILE",
    "MIB",
    "Hostile",
    "disk",
    "disks",
    "gzip_bomb",
    "honest",
    "iso",
    "patch",
    "qcow2_backing_file",
    "qcow2_data_file",
    "qemu_img",
    "vmdk_parent_hint",
    "vmdk_with_footer",
]
