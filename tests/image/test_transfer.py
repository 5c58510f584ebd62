from __future__ import annotations

import hashlib
import ipaddress
import os
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from gateway.image import transfer
from gateway.image.fetch import FetchFailed, FetchLimits
from gateway.image.formats import MIB, ImageFormat, ImageRefused, InspectionLimits, RefusalCode
from gateway.image.store import AlreadyStored, ImageStore, NotStored, UploadBusy, UploadTooLarge
from gateway.image.transfer import ChecksumMismatch, Terms
from tests.image import corpus, web

OPEN = FetchLimits(timeout_s=20, idle_timeout_s=5, allowed_networks=(ipaddress.ip_network("127.0.0.0/8"),))


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    store = ImageStore(tmp_path / "images", keep_free_bytes=0)
    store.prepare()
    return store


@pytest.fixture
def uid() -> UUID:
    return uuid4()


@pytest.fixture
def site() -> Iterator[web.Site]:
    with web.serving() as site:
        yield site


def send(store: ImageStore, uid: UUID, data: bytes, terms: Terms, *, offset: int = 0) -> transfer.Reception:
    with transfer.receiving(store, uid, offset, terms) as reception:
        for start in range(0, len(data), 70_000):
            reception.write(data[start : start + 70_000])
    return reception


def test_upload_in_pieces_becomes_an_image(store: ImageStore, uid: UUID, tmp_path: Path) -> None:
    data = corpus.disk(tmp_path, ImageFormat.QCOW2).read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    terms = Terms(declared="qcow2", expected_sha256=sha256.upper())
    send(store, uid, data[:100_000], terms)
    assert send(store, uid, data[100_000:], terms, offset=100_000).digest is None
    accepted = transfer.accept(store, uid, terms)
    assert (accepted.format, accepted.virtual_size_bytes) == (ImageFormat.QCOW2, 10 * MIB)
    assert (accepted.size_bytes, accepted.sha256) == (len(data), sha256)
    assert accepted.path.read_bytes() == data
    assert transfer.accept(store, uid, terms) == accepted
    assert store.received(uid) is None


def test_hash_of_a_whole_upload_is_used(store: ImageStore, uid: UUID) -> None:
    data = os.urandom(2 * MIB)
    digest = send(store, uid, data, Terms()).digest
    assert digest is not None
    assert transfer.accept(store, uid, Terms(), known=digest).sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("make", [corpus.gzip_bomb, corpus.qcow2_backing_file, corpus.vmdk_parent_hint])
def test_hostile_upload_ends_at_its_first_mib(make: object, store: ImageStore, uid: UUID, tmp_path: Path) -> None:
    assert callable(make)
    data = make(tmp_path).read_bytes().ljust(8 * MIB, b"\x01")
    asked: list[int] = []

    def sent() -> None:
        with transfer.receiving(store, uid, 0, Terms()) as reception:
            for start in range(0, len(data), 1000):
                asked.append(start)
                reception.write(data[start : start + 1000])

    with pytest.raises(ImageRefused):
        sent()
    assert asked[-1] <= MIB
    assert list(store.root.iterdir()) == []


def test_early_judgement_spans_requests(store: ImageStore, uid: UUID) -> None:
    data = b"\x1f\x8b" + os.urandom(2 * MIB)
    send(store, uid, data[:1000], Terms())
    with pytest.raises(ImageRefused) as refused:
        send(store, uid, data[1000:], Terms(), offset=1000)
    assert refused.value.reason_code is RefusalCode.COMPRESSED
    assert store.received(uid) is None


def test_refused_file_is_not_published(store: ImageStore, uid: UUID, tmp_path: Path) -> None:
    data = corpus.qcow2_data_file(tmp_path).read_bytes()[:400_000]
    send(store, uid, data, Terms(declared="QCOW2"))
    for _ in range(2):
        with pytest.raises(ImageRefused) as refused:
            transfer.accept(store, uid, Terms(declared="QCOW2"))
        assert refused.value.reason_code is RefusalCode.EXTERNAL_DATA_FILE
    assert store.stored(uid) == []


def test_wrong_checksum_is_told(store: ImageStore, uid: UUID) -> None:
    send(store, uid, b"x" * 512, Terms())
    with pytest.raises(ChecksumMismatch) as wrong:
        transfer.accept(store, uid, Terms(expected_sha256="0" * 64))
    assert wrong.value.found == hashlib.sha256(b"x" * 512).hexdigest()
    assert store.stored(uid) == []


def test_the_lower_of_two_caps_counts(store: ImageStore) -> None:
    for terms in (Terms(max_size_bytes=10), Terms(limits=InspectionLimits(max_size_bytes=10))):
        with pytest.raises(UploadTooLarge):
            send(store, uuid4(), b"x" * 11, terms)


def test_nothing_can_be_written_while_it_is_judged(store: ImageStore, uid: UUID) -> None:
    send(store, uid, b"x" * 512, Terms())
    with store.finishing(uid) as candidate:
        with pytest.raises(UploadBusy):
            store.append(uid, 512, [b"more"])
        candidate.publish(ImageFormat.RAW)
    with pytest.raises(NotStored):
        transfer.accept(store, uuid4(), Terms())


def test_import_makes_an_image(store: ImageStore, uid: UUID, site: web.Site, tmp_path: Path) -> None:
    data = corpus.disk(tmp_path, ImageFormat.VMDK).read_bytes()
    site.pages["/"] = web.in_turn(web.answer(data, sent=100_000), web.answer(data))
    store.append(uid, 0, [b"left behind by a worker that died"])
    heard: list[int] = []
    accepted = transfer.import_url(
        store, uid, site.url("/"), Terms(declared="VMDK"), limits=OPEN, progress=lambda now, _all: heard.append(now)
    )
    assert accepted.sha256 == hashlib.sha256(data).hexdigest()
    assert heard[-1] == accepted.size_bytes == len(data)
    assert transfer.import_url(store, uid, site.url("/gone"), Terms(), limits=OPEN) == accepted


def test_failed_import_leaves_nothing_but_what_was_finished(store: ImageStore, uid: UUID, site: web.Site) -> None:
    site.pages |= {
        "/gzip": web.answer(b"\x1f\x8b" + bytes(3 * MIB)),
        "/short": web.answer(b"\x1f\x8b short"),
        "/none": web.answer(b"", status=404),
        "/good": web.answer(b"x" * 1024),
    }
    for path in ("/gzip", "/short"):
        with pytest.raises(ImageRefused):
            transfer.import_url(store, uid, site.url(path), Terms(), limits=OPEN)
    with pytest.raises(FetchFailed):
        transfer.import_url(store, uid, site.url("/none"), Terms(), limits=OPEN)
    with pytest.raises(ChecksumMismatch):
        transfer.import_url(store, uid, site.url("/good"), Terms(expected_sha256="0" * 64), limits=OPEN)
    assert list(store.root.iterdir()) == []
    finished = transfer.import_url(store, uid, site.url("/good"), Terms(), limits=OPEN)
    store.append(uid, 0, [b"again"])
    with pytest.raises(AlreadyStored):
        transfer.import_url(store, uid, site.url("/good"), Terms(), limits=OPEN)
    assert list(store.root.iterdir()) == [finished.path]
