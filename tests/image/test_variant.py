"""One image on several kinds of hosts: variants made once, checked each time, collected when nobody wants them."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from uuid import UUID, uuid4

import pytest

from drivers import registry
from drivers.api import DiskFormat, DriverType, ImageSpec, Refused
from gateway.image import reception
from gateway.image.formats import ImageFormat
from gateway.image.image import Image
from gateway.image.store import ImageStore
from gateway.kernel.settings import Settings
from workers.image import variant

CONTENT = hashlib.shake_256(b"variant").digest(65_536) * 16


class Cloud:
    """A store with one image in it."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(state_dir=folder)
        self.kept: ImageStore = reception.store_of(self.settings)
        self.kept.prepare()
        self.uid: UUID = uuid4()
        self.raw = folder / "content"
        self.raw.write_bytes(CONTENT)

    def image(self, image_format: ImageFormat, *options: str) -> Image:
        path = self.kept.path(self.uid, image_format)
        convert = ["qemu-img", "convert", "-f", "raw", "-O", image_format.qemu_name, *options, str(self.raw), str(path)]
        subprocess.run(convert, check=True, capture_output=True, timeout=60)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        told = SimpleNamespace(uid=self.uid, format=image_format, virtual_size_bytes=len(CONTENT), sha256=digest)
        return cast("Image", told)

    def of(self, image: Image, kind: str) -> ImageSpec:
        return variant.of(self.settings, image, self.kind(kind))

    def kind(self, kind: str) -> DriverType:
        return registry.get(kind)

    def names(self) -> list[str]:
        return sorted(path.name.partition(".")[2] for path in self.kept.root.iterdir())

    def content(self, spec: ImageSpec) -> bytes:
        out = self.raw.with_name("out")
        name = spec.format.value.lower()
        command = ["qemu-img", "convert", "-f", name, "-O", "raw", str(spec.path), str(out)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        return out.read_bytes()


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    return Cloud(tmp_path)


@pytest.mark.parametrize("own", [ImageFormat.QCOW2, ImageFormat.RAW, ImageFormat.VHDX])
def test_one_image_is_the_same_disk_on_every_kind_of_host(cloud: Cloud, own: ImageFormat) -> None:
    image = cloud.image(own)
    for kind in ("KVM", "ESXI", "SIM"):
        spec = cloud.of(image, kind)
        assert spec.format.value in {each.value for each in cloud.kind(kind).image_formats}
        assert (spec.id, spec.virtual_size_bytes, spec.size_bytes) == (
            cloud.uid, len(CONTENT), spec.path.stat().st_size,
        )  # fmt: skip
        assert hashlib.sha256(spec.path.read_bytes()).hexdigest() == spec.sha256
        assert cloud.content(spec) == CONTENT
    assert cloud.of(image, "ESXI").format is DiskFormat.VMDK
    assert variant.is_stream(cloud.kept.path(cloud.uid, ImageFormat.VMDK))


def test_those_who_want_it_at_once_make_it_once(cloud: Cloud) -> None:
    """A second making would put another file in its place."""
    image = cloud.image(ImageFormat.QCOW2)

    def made(_: int) -> tuple[str, int]:
        spec = cloud.of(image, "ESXI")
        return spec.sha256, spec.path.stat().st_ino

    with ThreadPoolExecutor(4) as pool:
        seen = set(pool.map(made, range(4)))
    assert len(seen | {made(5)}) == 1
    assert cloud.names() == ["qcow2", "vmdk", "vmdk.sha256"]


def test_a_variant_that_rots_is_made_anew(cloud: Cloud) -> None:
    image = cloud.image(ImageFormat.QCOW2)
    spec = cloud.of(image, "ESXI")
    with spec.path.open("r+b") as file:
        file.seek(spec.size_bytes // 2)
        file.write(b"rotten")
    assert cloud.content(cloud.of(image, "ESXI")) == CONTENT
    cloud.kept.checksum_path(spec.path).write_text("no checksum\n")
    assert cloud.content(cloud.of(image, "ESXI")) == CONTENT
    cloud.kept.checksum_path(spec.path).unlink()
    assert cloud.content(cloud.of(image, "ESXI")) == CONTENT


def test_a_vmdk_is_given_to_esxi_as_it_is_only_when_hosts_take_disks_from_it(cloud: Cloud) -> None:
    stream = cloud.image(ImageFormat.VMDK, "-o", "subformat=streamOptimized")
    assert cloud.of(stream, "ESXI").path == cloud.kept.path(cloud.uid, ImageFormat.VMDK)
    sparse = cloud.image(ImageFormat.VMDK, "-o", "subformat=monolithicSparse")
    spec = cloud.of(sparse, "ESXI")
    assert spec.path != cloud.kept.path(cloud.uid, ImageFormat.VMDK)
    assert variant.is_stream(spec.path)
    assert cloud.content(spec) == CONTENT
    assert cloud.of(sparse, "SIM").path == cloud.kept.path(cloud.uid, ImageFormat.VMDK)
    assert cloud.of(sparse, "KVM").format is DiskFormat.QCOW2


def test_a_checksum_stays_as_long_as_its_file(cloud: Cloud) -> None:
    spec = cloud.of(cloud.image(ImageFormat.QCOW2), "ESXI")
    old = time.time() - 8 * 86_400
    for path in cloud.kept.root.iterdir():
        os.utime(path, (old, old))
    assert cloud.kept.orphans({cloud.uid}, untouched_since=time.time()) == []
    cloud.kept.discard(spec.path)
    (left,) = cloud.kept.orphans({cloud.uid}, untouched_since=time.time())
    assert left == cloud.kept.checksum_path(spec.path)
    assert cloud.kept.remove(cloud.uid) == 1
    assert cloud.names() == []


def test_what_is_gone_or_unsound_is_no_image(cloud: Cloud) -> None:
    image = cloud.image(ImageFormat.QCOW2)
    path = cloud.kept.path(cloud.uid, ImageFormat.QCOW2)
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    with pytest.raises(Refused):
        cloud.of(image, "ESXI")
    path.unlink()
    with pytest.raises(FileNotFoundError):
        cloud.of(image, "ESXI")
    assert cloud.names() == []
