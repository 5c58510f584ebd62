from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from gateway.image.formats import MIB, ImageFormat
from gateway.image.store import (
    AlreadyStored,
    ImageStore,
    NotStored,
    RangeRefused,
    StoreFull,
    UploadBusy,
    UploadTooLarge,
    WrongOffset,
)
from tests.image.small_disk import run_on_small_disk


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    store = ImageStore(tmp_path / "images", keep_free_bytes=0)
    store.prepare()
    return store


@pytest.fixture
def uid() -> UUID:
    return uuid4()


def names(store: ImageStore) -> list[str]:
    return sorted(path.name for path in store.root.iterdir())


def test_upload_in_pieces_over_restarts_becomes_the_file(store: ImageStore, uid: UUID) -> None:
    data = os.urandom(3 * MIB + 17)
    assert store.received(uid) is None
    assert store.append(uid, 0, [data[:100], data[100:MIB]]) == MIB
    again = ImageStore(store.root, keep_free_bytes=0)  # another process, or this one after kill -9
    assert again.received(uid) == MIB
    assert again.append(uid, MIB, [data[MIB:]]) == len(data)
    stored = again.finish(uid, ImageFormat.RAW)
    assert (stored.size_bytes, stored.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert stored.path == store.path(uid, ImageFormat.RAW)
    assert stored.path.read_bytes() == data
    assert names(store) == [f"{uid}.raw"]
    assert again.stored(uid) == [ImageFormat.RAW]


def test_hash_is_known_at_once_when_the_upload_came_in_one_piece(store: ImageStore, uid: UUID) -> None:
    with store.writing(uid, 0) as upload:
        upload.write(b"one")
        upload.write(b"two")
        assert upload.sha256 == hashlib.sha256(b"onetwo").hexdigest()
    known = upload.digest
    assert known is not None
    with store.finishing(uid) as candidate:
        assert candidate.sha256(known) == candidate.sha256() == known.sha256 == hashlib.sha256(b"onetwo").hexdigest()
    with store.writing(uid, 6) as upload:
        assert upload.sha256 is None
        upload.write(b"!")
    assert upload.digest is None
    with store.finishing(uid) as candidate:  # what was known is of a file that is no more
        assert candidate.sha256(known) == hashlib.sha256(b"onetwo!").hexdigest()


def test_files_are_the_owners_alone(store: ImageStore, uid: UUID) -> None:
    store.append(uid, 0, [b"x"])
    assert stat.S_IMODE(store.root.stat().st_mode) == 0o700
    assert stat.S_IMODE(store.upload_path(uid).stat().st_mode) == 0o600


def test_zeros_take_no_room_and_keep_their_length(store: ImageStore, uid: UUID) -> None:
    store.append(uid, 0, [b"a", bytes(8 * MIB), b"b", bytes(5 * MIB)])
    path = store.finish(uid, ImageFormat.RAW).path
    assert path.stat().st_size == 13 * MIB + 2
    assert path.stat().st_blocks * 512 < MIB
    assert path.read_bytes() == b"a" + bytes(8 * MIB) + b"b" + bytes(5 * MIB)


@pytest.mark.parametrize("offset", [0, 4, 6, 1 << 60])
def test_wrong_offset_is_refused_with_the_right_one(offset: int, store: ImageStore, uid: UUID) -> None:
    store.append(uid, 0, [b"12345"])
    with pytest.raises(WrongOffset) as refused:
        store.append(uid, offset, [b"x"])
    assert (refused.value.asked, refused.value.current) == (offset, 5)
    assert store.upload_path(uid).read_bytes() == b"12345"


def test_an_upload_that_never_began_leaves_nothing(store: ImageStore, uid: UUID) -> None:
    with pytest.raises(WrongOffset):
        store.append(uid, 7, [b"x"])
    assert names(store) == []


def test_size_cap_holds_in_mid_stream_and_takes_the_append_back(store: ImageStore, uid: UUID) -> None:
    store.append(uid, 0, [b"12345"])
    asked: list[int] = []

    def chunks() -> Iterator[bytes]:
        for number in range(1000):
            asked.append(number)
            yield b"x" * 10

    with pytest.raises(UploadTooLarge) as refused:
        store.append(uid, 5, chunks(), max_size_bytes=35)
    assert refused.value.max_size_bytes == 35
    assert asked == [0, 1, 2, 3]
    assert store.received(uid) == 5
    assert store.append(uid, 5, [b"x" * 30], max_size_bytes=35) == 35


def test_expected_size_is_judged_before_the_first_byte(store: ImageStore, uid: UUID) -> None:
    with pytest.raises(UploadTooLarge), store.writing(uid, 0, max_size_bytes=10, expected_bytes=11):
        raise AssertionError("never begun")
    huge = ImageStore(store.root, max_size_bytes=1 << 60, keep_free_bytes=0)
    with pytest.raises(StoreFull), huge.writing(uid, 0, expected_bytes=1 << 59):
        raise AssertionError("never begun")
    assert names(store) == []


def test_reserve_of_the_file_system_is_kept(store: ImageStore, uid: UUID) -> None:
    full = ImageStore(store.root, keep_free_bytes=1 << 60)
    assert full.free_bytes() == 0
    with pytest.raises(StoreFull):
        full.append(uid, 0, [b"x"])
    assert names(store) == []


DISK_FULL = """
import resource, signal, sys
from pathlib import Path
from uuid import UUID
from gateway.image.store import ImageStore, StoreFull
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))
store, uid = ImageStore(Path(sys.argv[1]), keep_free_bytes=0), UUID(sys.argv[2])
for offset in (0, 1_000_000):
    assert (store.received(uid) or 0) == offset
    try:
        store.append(uid, offset, [b"x" * 700_000] * 5)
    except StoreFull:
        assert store.received(uid) == (offset or None), store.received(uid)
    else:
        raise SystemExit("not full")
    if not offset:
        assert list(store.root.iterdir()) == []
        store.append(uid, 0, [b"y" * 1_000_000])
print("ok")
"""


def test_full_disk_is_a_typed_answer_and_leaves_what_was_before(store: ImageStore, uid: UUID) -> None:
    """The kernel itself refuses to write on, in a process of its own."""
    command = [sys.executable, "-c", DISK_FULL, str(store.root), str(uid)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("ok\n", 0), done.stderr


NO_SPACE = """
import sys
from pathlib import Path
from uuid import uuid4
from gateway.image.store import ImageStore, StoreFull
store, uid = ImageStore(Path(sys.argv[1]), keep_free_bytes=0), uuid4()
store.append(uid, 0, [b"y" * 1_000_000])
free = store.free_bytes()
try:
    store.append(uid, 1_000_000, (b"x" * 100_000 for _ in range(100)))
except StoreFull:
    print(store.received(uid), store.free_bytes() == free, len(list(store.root.iterdir())))
"""


def test_disk_without_space_is_a_typed_answer_and_gets_its_space_back(tmp_path: Path) -> None:
    assert run_on_small_disk(NO_SPACE, tmp_path, size="4m") == "1000000 True 1\n"


def test_broken_off_stream_keeps_what_came(store: ImageStore, uid: UUID) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"came"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        store.append(uid, 0, chunks())
    assert store.received(uid) == 4
    assert store.append(uid, 4, [b"!"]) == 5


def test_one_writer_at_a_time(store: ImageStore, uid: UUID) -> None:
    with store.writing(uid, 0) as upload:
        upload.write(b"first")
        with pytest.raises(UploadBusy):
            store.append(uid, 0, [b"second"])
        with pytest.raises(UploadBusy):
            store.finish(uid, ImageFormat.RAW)
    assert store.finish(uid, ImageFormat.RAW).path.read_bytes() == b"first"


def test_of_many_appends_at_one_offset_one_wins(store: ImageStore, uid: UUID) -> None:
    won: list[int] = []
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait(timeout=30)
        try:
            store.append(uid, 0, [bytes([number + 1]) * MIB])
        except (UploadBusy, WrongOffset):
            return
        won.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(won) == 1
    assert store.upload_path(uid).read_bytes() == bytes([won[0] + 1]) * MIB


def test_writer_killed_outright_frees_the_upload(store: ImageStore, uid: UUID) -> None:
    script = (
        "import sys, time; from pathlib import Path; from uuid import UUID\n"
        "from gateway.image.store import ImageStore\n"
        "with ImageStore(Path(sys.argv[1]), keep_free_bytes=0).writing(UUID(sys.argv[2]), 0) as upload:\n"
        "    upload.write(b'abc'); print('written', flush=True); time.sleep(60)\n"
    )
    command = [sys.executable, "-c", script, str(store.root), str(uid)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        with pytest.raises(UploadBusy):
            store.append(uid, 3, [b"d"])
        process.kill()
        process.wait(timeout=30)
    assert store.append(uid, 3, [b"d"]) == 4
    assert store.upload_path(uid).read_bytes() == b"abcd"


def test_ranges(store: ImageStore, uid: UUID) -> None:
    data = os.urandom(2 * MIB + 5)
    store.append(uid, 0, [data])
    store.finish(uid, ImageFormat.QCOW2)
    for start, end in ((0, None), (0, 0), (1, 2), (MIB - 1, 2 * MIB + 1), (len(data), None), (5, len(data))):
        with store.open_range(uid, ImageFormat.QCOW2, start, end) as content:
            assert b"".join(content) == data[start:end]
            assert content.size_bytes == len(data)
    for start, end in ((-1, None), (3, 2), (0, len(data) + 1), (len(data) + 1, None)):
        with pytest.raises(RangeRefused) as refused:
            store.open_range(uid, ImageFormat.QCOW2, start, end)
        assert refused.value.size_bytes == len(data)
    with pytest.raises(NotStored):
        store.open_range(uid, ImageFormat.RAW)


def test_finished_file_is_never_replaced(store: ImageStore, uid: UUID) -> None:
    store.append(uid, 0, [b"first"])
    store.finish(uid, ImageFormat.RAW)
    store.append(uid, 0, [b"second"])
    with pytest.raises(AlreadyStored):
        store.finish(uid, ImageFormat.RAW)
    assert store.path(uid, ImageFormat.RAW).read_bytes() == b"first"
    with pytest.raises(NotStored):
        store.finish(uuid4(), ImageFormat.RAW)


def test_remove_takes_all_and_twice_equals_once(store: ImageStore, uid: UUID) -> None:
    store.append(uid, 0, [b"x"])
    store.finish(uid, ImageFormat.RAW)
    store.path(uid, ImageFormat.VMDK).write_bytes(b"variant")
    store.append(uid, 0, [b"x"])
    assert (store.abandon(uid), store.abandon(uid)) == (True, False)
    store.append(uid, 0, [b"x"])
    assert store.remove(uid, ImageFormat.VMDK) == 1
    assert store.remove(uid) == 2
    assert store.remove(uid) == 0
    assert names(store) == []


def test_entries_and_orphans(store: ImageStore) -> None:
    known, unknown = uuid4(), uuid4()
    store.append(known, 0, [b"x"])
    store.finish(known, ImageFormat.QCOW2)
    store.append(unknown, 0, [b"xyz"])
    partial = store.root / f"{known}.raw.0123456789abcdef.partial"
    stray, young = store.root / "stray", store.root / f"{uuid4()}.raw"
    for path in (partial, stray, young):
        path.touch()
    found = {(entry.uid, entry.format, entry.size_bytes) for entry in store.entries() if entry.path != young}
    assert found == {(known, ImageFormat.QCOW2, 1), (unknown, None, 3)}
    for path in store.root.iterdir():
        if path != young:
            os.utime(path, (1000, 1000))
    orphans = store.orphans({known}, untouched_since=2000)
    assert orphans == sorted([store.upload_path(unknown), partial, stray])
    assert [store.discard(path) for path in orphans] == [True, True, True]
    assert store.discard(stray) is False
    with pytest.raises(NotStored):
        store.discard(store.root.parent / "elsewhere")
    assert names(store) == sorted([f"{known}.qcow2", young.name])


def test_link_in_place_of_an_upload_is_not_followed(store: ImageStore, uid: UUID, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"keep")
    store.upload_path(uid).symlink_to(victim)
    with pytest.raises(OSError, match="symbolic"):
        store.append(uid, 0, [b"overwritten"])
    assert victim.read_bytes() == b"keep"
