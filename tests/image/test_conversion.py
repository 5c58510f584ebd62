from __future__ import annotations

import hashlib
import os
import stat
import threading
from itertools import pairwise
from pathlib import Path

import pytest

from gateway.image import conversion, inspection, qemu_img
from gateway.image.conversion import ConversionFailed, ConversionLimits, ConversionProblem
from gateway.image.formats import ImageFormat, ImageRefused, InspectionLimits, RefusalCode
from tests.image import corpus
from tests.image.small_disk import run_on_small_disk

LIMITS = ConversionLimits()
DISKS = [one for one in ImageFormat if one is not ImageFormat.ISO]


def content(path: Path, image_format: ImageFormat) -> bytes:
    """The disk's bytes as qemu-img reads them."""
    raw = path.with_suffix(".content")
    corpus.qemu_img("convert", "-f", image_format.qemu_name, "-O", "raw", path, raw)
    data = raw.read_bytes()
    raw.unlink()
    return data


@pytest.mark.parametrize("source_format", DISKS)
@pytest.mark.parametrize("target_format", DISKS)
def test_the_disk_is_the_same_in_every_format(
    source_format: ImageFormat, target_format: ImageFormat, tmp_path: Path
) -> None:
    source, target = corpus.disk(tmp_path, source_format), tmp_path / "target"
    heard: list[float] = []
    done = conversion.convert(
        source, source_format, target, target_format, limits=LIMITS, progress=heard.append
    )  # fmt: skip
    disk = content(target, target_format)
    assert len(disk) == done.virtual_size_bytes == 10 * corpus.MIB
    assert disk == bytes(corpus.MIB) + corpus.CONTENT + bytes(9 * corpus.MIB - len(corpus.CONTENT))
    assert (done.path, done.format, done.size_bytes) == (target, target_format, target.stat().st_size)
    assert done.sha256 == hashlib.sha256(target.read_bytes()).hexdigest()
    assert done.allocated_bytes == target.stat().st_blocks * 512
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert heard[-1] == 1.0
    assert all(before < after for before, after in pairwise(heard))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([source.name, "target"])


def test_iso_becomes_a_disk_but_no_disk_becomes_iso(tmp_path: Path) -> None:
    source = corpus.iso(tmp_path)
    done = conversion.convert(source, ImageFormat.ISO, tmp_path / "t", ImageFormat.QCOW2, limits=LIMITS)
    assert done.virtual_size_bytes == source.stat().st_size
    with pytest.raises(ConversionFailed) as failed:
        conversion.convert(tmp_path / "t", ImageFormat.QCOW2, tmp_path / "i", ImageFormat.ISO, limits=LIMITS)
    assert failed.value.problem is ConversionProblem.UNSUPPORTED


def test_hostile_source_is_refused_before_it_is_read(tmp_path: Path) -> None:
    source = corpus.qcow2_backing_file(tmp_path)
    with pytest.raises(ImageRefused) as refused:
        conversion.convert(source, ImageFormat.QCOW2, tmp_path / "t", ImageFormat.RAW, limits=LIMITS)
    assert refused.value.reason_code is RefusalCode.BACKING_FILE
    with pytest.raises(ImageRefused) as mismatch:
        conversion.convert(source, ImageFormat.RAW, tmp_path / "t", ImageFormat.QCOW2, limits=LIMITS)
    assert mismatch.value.reason_code in {RefusalCode.FORMAT_MISMATCH, RefusalCode.BACKING_FILE}
    assert list(tmp_path.iterdir()) == [source]


def test_disk_larger_than_a_raw_target_may_be(tmp_path: Path) -> None:
    source = corpus.disk(tmp_path, ImageFormat.QCOW2)
    limits = ConversionLimits(max_target_bytes=10 * corpus.MIB - 1)
    with pytest.raises(ConversionFailed) as failed:
        conversion.convert(source, ImageFormat.QCOW2, tmp_path / "t", ImageFormat.RAW, limits=limits)
    assert failed.value.problem is ConversionProblem.TOO_BIG
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize("target_format", [ImageFormat.QCOW2, ImageFormat.VMDK, ImageFormat.VDI, ImageFormat.VHDX])
def test_target_that_outgrows_its_bound_is_stopped_by_the_kernel(
    target_format: ImageFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "disk.raw"
    source.write_bytes(os.urandom(4 * corpus.MIB))
    monkeypatch.setattr(conversion, "_HEADROOM_BYTES", 0)
    limits = ConversionLimits(max_target_bytes=2 * corpus.MIB)
    with pytest.raises(ConversionFailed) as failed:
        conversion.convert(source, ImageFormat.RAW, tmp_path / "t", target_format, limits=limits)
    assert failed.value.problem is ConversionProblem.TOO_BIG
    assert list(tmp_path.iterdir()) == [source]


NO_SPACE = """
import os, sys
from pathlib import Path
from gateway.image.conversion import ConversionFailed, ConversionLimits, convert
from gateway.image.formats import ImageFormat
folder = Path(sys.argv[1])
source = folder / "disk.raw"
source.write_bytes(os.urandom(3_000_320))
for target_format in (ImageFormat.RAW, ImageFormat.QCOW2, ImageFormat.VMDK, ImageFormat.VDI, ImageFormat.VHDX):
    try:
        convert(source, ImageFormat.RAW, folder / "target", target_format, limits=ConversionLimits())
    except ConversionFailed as failed:
        print(failed.problem, os.listdir(folder))
"""


def test_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    assert run_on_small_disk(NO_SPACE, tmp_path, size="4m") == "DISK_FULL ['disk.raw']\n" * 5


def test_deadline_kills_and_cleans(tmp_path: Path) -> None:
    source = corpus.disk(tmp_path, ImageFormat.RAW)
    limits = ConversionLimits(timeout_s=0.0)
    with pytest.raises(ConversionFailed) as failed:
        conversion.convert(source, ImageFormat.RAW, tmp_path / "t", ImageFormat.QCOW2, limits=limits)
    assert failed.value.problem is ConversionProblem.TIMEOUT
    assert list(tmp_path.iterdir()) == [source]


def test_too_little_memory_is_a_failure_not_a_crash(tmp_path: Path) -> None:
    source = corpus.disk(tmp_path, ImageFormat.RAW)
    limits = ConversionLimits(memory_bytes=24 * corpus.MIB)
    with pytest.raises(ConversionFailed) as failed:
        conversion.convert(source, ImageFormat.RAW, tmp_path / "t", ImageFormat.QCOW2, limits=limits)
    assert failed.value.problem is ConversionProblem.BROKEN
    assert list(tmp_path.iterdir()) == [source]


def test_what_progress_raises_stops_the_conversion(tmp_path: Path) -> None:
    source = corpus.disk(tmp_path, ImageFormat.RAW)

    def cancelled(_share: float) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        conversion.convert(source, ImageFormat.RAW, tmp_path / "t", ImageFormat.VMDK, limits=LIMITS, progress=cancelled)
    assert list(tmp_path.iterdir()) == [source]


def test_failure_keeps_the_target_that_was_there(tmp_path: Path) -> None:
    source, target = corpus.disk(tmp_path, ImageFormat.RAW), tmp_path / "target"
    target.write_bytes(b"before")
    with pytest.raises(ConversionFailed):
        conversion.convert(source, ImageFormat.RAW, target, ImageFormat.QCOW2, limits=ConversionLimits(timeout_s=0.0))
    assert target.read_bytes() == b"before"
    conversion.convert(source, ImageFormat.RAW, target, ImageFormat.QCOW2, limits=LIMITS)
    assert inspection.inspect(target, declared="QCOW2", limits=InspectionLimits()).format is ImageFormat.QCOW2


def test_names_that_look_like_protocols_are_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("nbd:localhost:1").write_bytes(bytes(corpus.MIB))
    target = Path('json:{"driver":"nbd"}')
    conversion.convert(Path("nbd:localhost:1"), ImageFormat.RAW, target, ImageFormat.QCOW2, limits=LIMITS)
    assert (tmp_path / target).stat().st_size > 0


def test_many_threads_convert_at_once(tmp_path: Path) -> None:
    source = corpus.disk(tmp_path, ImageFormat.QCOW2)
    results: list[str] = []

    def work(number: int) -> None:
        target = tmp_path / f"target-{number}"
        done = conversion.convert(source, ImageFormat.QCOW2, target, ImageFormat.RAW, limits=LIMITS)
        results.append(done.sha256)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(results) == 8
    assert len(set(results)) == 1


def test_output_beyond_its_bound_is_dropped_not_waited_for(tmp_path: Path) -> None:
    outcome = qemu_img.run(["--help"], qemu_img.Bounds(timeout_s=10, memory_bytes=1 << 30))
    assert outcome.exit_status == 0
    assert 0 < len(outcome.output) <= qemu_img.MAX_OUTPUT_BYTES
    bad = qemu_img.run(["info", "-f", "raw", str(tmp_path / "x")], qemu_img.Bounds(timeout_s=10, memory_bytes=1 << 30))
    assert bad.exit_status == 1
    assert "No such file" in bad.error
