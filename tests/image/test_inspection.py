from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.image import inspection
from gateway.image.formats import ImageFormat, ImageRefused, Inspection, InspectionLimits, RefusalCode
from tests.image import corpus

LIMITS = InspectionLimits()


@pytest.mark.parametrize("case", corpus.HOSTILE, ids=lambda case: case.name)
def test_hostile_file_is_refused_with_its_reason_within_five_seconds(case: corpus.Hostile, tmp_path: Path) -> None:
    path = case.make(tmp_path)
    started = time.monotonic()
    with pytest.raises(ImageRefused) as refused:
        inspection.inspect(path, declared=None, limits=LIMITS)
    assert (refused.value.reason_code, time.monotonic() - started < 5) == (case.code, True), refused.value
    assert str(tmp_path) not in refused.value.message


@pytest.mark.parametrize("image_format", list(ImageFormat))
def test_honest_file_is_accepted(image_format: ImageFormat, tmp_path: Path) -> None:
    path = corpus.honest(tmp_path, image_format)
    size_bytes = path.stat().st_size
    virtual_size_bytes = size_bytes if image_format is ImageFormat.ISO else 10 * corpus.MIB
    wanted = Inspection(image_format, virtual_size_bytes, size_bytes)
    assert inspection.inspect(path, declared=None, limits=LIMITS) == wanted
    assert inspection.inspect(path, declared=image_format.lower(), limits=LIMITS) == wanted


@pytest.mark.parametrize(
    ("image_format", "options"),
    [
        (ImageFormat.QCOW2, ["-o", "compat=0.10"]),
        (ImageFormat.QCOW2, ["-c", "-o", "compression_type=zstd"]),
        (ImageFormat.QCOW2, ["-o", "cluster_size=2M"]),
        (ImageFormat.QCOW2, ["-o", "cluster_size=512"]),
        (ImageFormat.VMDK, ["-o", "subformat=streamOptimized"]),
        (ImageFormat.VDI, ["-o", "static=on"]),
        (ImageFormat.VHDX, ["-o", "subformat=fixed"]),
    ],
)
def test_every_harmless_variant_is_accepted(image_format: ImageFormat, options: list[str], tmp_path: Path) -> None:
    path = corpus.disk(tmp_path, image_format, *options)
    assert inspection.inspect(path, declared=None, limits=LIMITS).virtual_size_bytes == 10 * corpus.MIB


def test_partitioned_disk_is_raw_and_hybrid_iso_is_iso(tmp_path: Path) -> None:
    table = bytes.fromhex("80000200ee ffffff 01000000 ff3f0000") + bytes(48) + b"\x55\xaa"
    raw = corpus.patch(corpus.disk(tmp_path, ImageFormat.RAW), 446, table)
    hybrid = corpus.patch(corpus.iso(tmp_path), 446, table)
    assert inspection.inspect(raw, declared="RAW", limits=LIMITS).format is ImageFormat.RAW
    assert inspection.inspect(hybrid, declared="ISO", limits=LIMITS).format is ImageFormat.ISO


def test_stream_with_a_footer_is_accepted(tmp_path: Path) -> None:
    path = corpus.vmdk_with_footer(tmp_path)
    assert inspection.inspect(path, declared="VMDK", limits=LIMITS).virtual_size_bytes == 10 * corpus.MIB


def test_raw_disk_is_counted_in_whole_sectors(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"\x01" * 513)
    assert inspection.inspect(path, declared="raw", limits=LIMITS) == Inspection(ImageFormat.RAW, 1024, 513)


@pytest.mark.parametrize("declared", [one for one in ImageFormat if one is not ImageFormat.QCOW2])
def test_wrong_declaration_is_refused(declared: ImageFormat, tmp_path: Path) -> None:
    path = corpus.disk(tmp_path, ImageFormat.QCOW2)
    with pytest.raises(ImageRefused) as refused:
        inspection.inspect(path, declared=declared, limits=LIMITS)
    assert refused.value.reason_code is RefusalCode.FORMAT_MISMATCH
    with pytest.raises(ImageRefused) as early:
        inspection.inspect_head(path.read_bytes().ljust(inspection.HEAD_BYTES, b"\0"), declared=declared, limits=LIMITS)
    assert early.value.reason_code is RefusalCode.FORMAT_MISMATCH


def test_unknown_declaration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageRefused) as refused:
        inspection.inspect(tmp_path / "none", declared="floppy", limits=LIMITS)
    assert refused.value.reason_code is RefusalCode.UNSUPPORTED_FORMAT


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    real = corpus.disk(tmp_path, ImageFormat.RAW)
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(real)
    os.mkfifo(pipe)
    for path in (link, pipe, tmp_path, Path("/dev/zero"), tmp_path / "absent"):
        with pytest.raises(ImageRefused) as refused:
            inspection.inspect(path, declared=None, limits=LIMITS)
        assert refused.value.reason_code is RefusalCode.NOT_A_FILE


def test_limits_are_the_operators(tmp_path: Path) -> None:
    path = corpus.disk(tmp_path, ImageFormat.QCOW2)
    for limits, code in (
        (InspectionLimits(max_virtual_size_bytes=10 * corpus.MIB - 1), RefusalCode.VIRTUAL_SIZE),
        (InspectionLimits(max_size_bytes=path.stat().st_size - 1), RefusalCode.TOO_BIG),
        (InspectionLimits(info_timeout_s=0.0), RefusalCode.TOO_COMPLEX),
        (InspectionLimits(expansion_floor_bytes=1, max_expansion_ratio=0), RefusalCode.EXPANSION),
    ):
        with pytest.raises(ImageRefused) as refused:
            inspection.inspect(path, declared=None, limits=limits)
        assert refused.value.reason_code is code
    exact = InspectionLimits(max_virtual_size_bytes=10 * corpus.MIB, max_size_bytes=path.stat().st_size)
    assert inspection.inspect(path, declared=None, limits=exact).format is ImageFormat.QCOW2


def test_missing_tool_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = corpus.disk(tmp_path, ImageFormat.QCOW2)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImageRefused) as refused:
        inspection.inspect(path, declared=None, limits=LIMITS)
    assert refused.value.reason_code is RefusalCode.TOOL_MISSING
    alone = InspectionLimits(second_opinion=False)
    assert inspection.inspect(path, declared=None, limits=alone).format is ImageFormat.QCOW2


def test_upload_is_judged_by_its_first_mib(tmp_path: Path) -> None:
    early = {
        case.name
        for number, case in enumerate(corpus.HOSTILE)
        if _refused_early(case.make(_folder(tmp_path, number)).read_bytes()[: inspection.HEAD_BYTES])
    }
    sure = {
        "qcow2_backing_file", "qcow2_data_file", "qcow2_encrypted", "qcow2_8_eib", "vmdk_monolithic_flat",
        "vmdk_parent_hint", "vdi_8_eib", "gzip_bomb", "zip_archive", "luks", "vhd", "polyglot_qcow2_and_iso",
    }  # fmt: skip
    assert sure <= early
    for image_format in ImageFormat:
        head = corpus.honest(_folder(tmp_path, image_format), image_format).read_bytes()[: inspection.HEAD_BYTES]
        inspection.inspect_head(head.ljust(inspection.HEAD_BYTES, b"\0"), declared=image_format, limits=LIMITS)


def test_nothing_is_judged_before_the_first_mib_is_there() -> None:
    inspection.inspect_head(b"\x1f\x8b" + bytes(1000), declared="raw", limits=LIMITS)


def _folder(parent: Path, name: object) -> Path:
    folder = parent / str(name)
    folder.mkdir()
    return folder


def _refused_early(head: bytes) -> bool:
    try:
        inspection.inspect_head(head.ljust(inspection.HEAD_BYTES, b"\0"), declared=None, limits=LIMITS)
    except ImageRefused:
        return True
    return False


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[ImageFormat, bytes]:
    folder = tmp_path_factory.mktemp("sound")
    return {one: corpus.honest(_folder(folder, one), one).read_bytes() for one in ImageFormat}


FUZZ = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
OFFSETS = st.one_of(
    st.integers(0, 700),
    st.integers(32 * 1024, 34 * 1024),
    st.integers(192 * 1024, 193 * 1024),
    st.integers(2 << 20, (2 << 20) + 512),
)


@FUZZ
@given(
    image_format=st.sampled_from(list(ImageFormat)),
    edits=st.lists(st.tuples(OFFSETS, st.binary(min_size=1, max_size=16)), min_size=1, max_size=4),
    length=st.one_of(st.none(), st.integers(1, 3 << 20)),
)
def test_damaged_headers_are_judged_never_stumbled_over(
    image_format: ImageFormat,
    edits: list[tuple[int, bytes]],
    length: int | None,
    sound: dict[ImageFormat, bytes],
    tmp_path: Path,
) -> None:
    data = bytearray(sound[image_format])
    for offset, piece in edits:
        if offset < len(data):
            data[offset : offset + len(piece)] = piece
    _judged(bytes(data[:length]), tmp_path)


@FUZZ
@given(
    data=st.one_of(
        st.binary(min_size=1, max_size=2048),
        st.text(min_size=1, max_size=2048).map(str.encode),
        st.sampled_from([b"QFI\xfb", b"KDMV", b"vhdxfile", b'# Disk DescriptorFile\ncreateType="', b"LUKS\xba\xbe"])
        .flatmap(lambda magic: st.binary(max_size=2048).map(lambda rest: magic + rest)),
    ),
    pad=st.sampled_from([0, 512, 40_000, 300_000]),
)  # fmt: skip
def test_arbitrary_bytes_are_judged_never_stumbled_over(data: bytes, pad: int, tmp_path: Path) -> None:
    _judged(data + bytes(pad), tmp_path)


def _judged(data: bytes, folder: Path) -> None:
    path = folder / "fuzzed"
    path.write_bytes(data)
    started = time.monotonic()
    code = None
    try:
        found = inspection.inspect(path, declared=None, limits=LIMITS)
    except ImageRefused as refused:
        code = refused.reason_code
    else:
        assert found.size_bytes == len(data)
        assert 0 < found.virtual_size_bytes <= LIMITS.max_virtual_size_bytes
    assert code is not RefusalCode.TOOL_MISSING
    assert time.monotonic() - started < 10
    _refused_early(data)
