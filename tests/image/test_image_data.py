"""The way of the bytes: real HTTP, cut, wrong, forged, resumed."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from gateway.image.formats import MIB, ImageFormat
from gateway.kernel.settings import Settings
from resolvers.image import upload
from resolvers.image.download import disposition
from resolvers.image.routes import routes
from tests.image.cloud import Images, served, sha256, target_of, until
from tests.world import World


def noise(mib: int) -> bytes:
    """Bytes that no two chunks of which are alike."""
    return b"".join(index.to_bytes(8, "little") for index in range(mib * MIB // 8))


def test_pieces_become_the_same_file(folk: Images, qcow2: bytes) -> None:
    made = folk.create(sizeBytes=len(qcow2), sha256=sha256(qcow2))
    url = made["upload"]["url"]
    cut = len(qcow2) * 6 // 10
    first = folk.patch(url, qcow2[:cut], 0)
    assert (first.status_code, first.headers["upload-offset"]) == (204, str(cut))
    found = folk.get(made["id"])
    assert (found["status"], found["receivedBytes"], found["upload"]["offset"]) == ("RECEIVING", cut, cut)
    told = folk.web.head(url, headers={"Tus-Resumable": "1.0.0"})
    assert (told.status_code, told.headers["upload-offset"]) == (200, str(cut))
    assert told.headers["upload-length"] == str(len(qcow2))
    assert told.headers["cache-control"] == "no-store"
    wrong = folk.patch(url, qcow2[cut:], cut + 1)
    assert (wrong.status_code, wrong.headers["upload-offset"]) == (409, str(cut))
    assert (wrong.json()["code"], wrong.json()["offset"]) == ("CONFLICT", cut)
    assert folk.patch(url, qcow2[cut:], cut).status_code == 204
    assert folk.get(made["id"])["status"] == "CHECKING"
    after = folk.web.head(url)
    assert (after.status_code, after.headers["upload-offset"]) == (200, str(len(qcow2)))
    assert folk.patch(url, b"more", len(qcow2)).json()["code"] == "INVALID_STATE"
    folk.world.work()
    found = folk.get(made["id"])
    assert (found["status"], found["sha256"]) == ("ACTIVE", sha256(qcow2))


def test_a_length_told_late_ends_the_upload(folk: Images, qcow2: bytes) -> None:
    made = folk.create()
    url = made["upload"]["url"]
    assert folk.patch(url, qcow2[:1000], 0).status_code == 204
    told = folk.web.head(url)
    assert (told.headers["upload-defer-length"], "upload-length" in told.headers) == ("1", False)
    assert folk.patch(url, qcow2[1000:], 1000, Upload_Length=str(len(qcow2))).status_code == 204
    assert folk.get(made["id"])["status"] == "CHECKING"


def test_another_length_than_told_is_refused(folk: Images) -> None:
    made = folk.create(sizeBytes=2000)
    url = made["upload"]["url"]
    assert folk.patch(url, b"x" * 10, 0, Upload_Length="3000").json()["code"] == "CONFLICT"
    larger = folk.put(url, b"x" * 2001)
    assert (larger.status_code, larger.json()["code"]) == (413, "INVALID")
    assert (folk.get(made["id"])["status"], folk.files()) == ("QUEUED", [])


def test_a_body_of_unknown_length_is_a_whole_file(folk: Images, qcow2: bytes) -> None:
    made = folk.create()
    pieces = (qcow2[start : start + 30_000] for start in range(0, len(qcow2), 30_000))
    assert folk.put(made["upload"]["url"], pieces).status_code == 202
    folk.world.work()
    assert folk.get(made["id"])["sha256"] == sha256(qcow2)


def test_a_put_begins_anew(folk: Images, qcow2: bytes) -> None:
    made = folk.create()
    url = made["upload"]["url"]
    folk.patch(url, b"something else" * 1000, 0)
    assert folk.put(url, qcow2).json()["receivedBytes"] == len(qcow2)
    folk.world.work()
    assert folk.get(made["id"])["sha256"] == sha256(qcow2)


def test_a_connection_cut_at_sixty_percent_keeps_what_came(
    folk: Images, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(upload, "TELL_EVERY_S", 0.0)
    data = noise(10)
    made = folk.create(sizeBytes=len(data), sha256=sha256(data))
    url, cut = made["upload"]["url"], len(data) * 6 // 10
    with served(folk.world) as port:
        with socket.create_connection(("127.0.0.1", port)) as wire:
            head = f"PUT {target_of(url)} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
            wire.sendall(head.encode() + data[:cut])
            until(lambda: folk.get(made["id"])["receivedBytes"] >= 5 * MIB)  # seen while it is going on
            busy = folk.patch(url, b"x", 0)
            assert (busy.status_code, busy.json()["code"]) == (423, "BUSY")
        until(lambda: folk.get(made["id"])["receivedBytes"] == cut)
    told = folk.web.head(url)
    assert told.headers["upload-offset"] == str(cut)
    assert folk.patch(url, data[cut:], cut).status_code == 204
    folk.world.work()
    found = folk.get(made["id"])
    assert (found["status"], found["format"], found["sha256"]) == ("ACTIVE", "RAW", sha256(data))


def test_a_silent_sender_is_let_go(folk: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "IDLE_S", 0.2)
    made = folk.create(sizeBytes=1000)
    with served(folk.world) as port, socket.create_connection(("127.0.0.1", port)) as wire:
        head = f"PUT {target_of(made['upload']['url'])} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
        wire.sendall(head.encode() + b"x" * 300)
        wire.settimeout(20)
        assert wire.recv(12) == b"HTTP/1.1 408"
    found = folk.get(made["id"])
    assert (found["receivedBytes"], found["upload"]["offset"]) == (300, 300)


def test_the_last_byte_without_the_last_word(folk: Images, qcow2: bytes) -> None:
    made = folk.create(sizeBytes=len(qcow2))
    kept = folk.world.settings.state_dir / "images"
    folk.patch(made["upload"]["url"], qcow2[:-1], 0)
    (partial,) = kept.iterdir()
    with partial.open("ab") as file:  # as a process leaves it that dies between the bytes and the row
        file.write(qcow2[-1:])
    assert folk.web.head(made["upload"]["url"]).headers["upload-offset"] == str(len(qcow2))
    folk.world.work()
    assert folk.get(made["id"])["sha256"] == sha256(qcow2)


def test_the_reconciler_completes_what_is_whole(folk: Images, qcow2: bytes) -> None:
    made = folk.create(sizeBytes=len(qcow2))
    folk.patch(made["upload"]["url"], qcow2[:-1], 0)
    (partial,) = (folk.world.settings.state_dir / "images").iterdir()
    with partial.open("ab") as file:
        file.write(qcow2[-1:])
    folk.world.reconcile("images")
    assert folk.get(made["id"])["sha256"] == sha256(qcow2)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Tus-Resumable": "0.2.2"}, 412),
        ({"Upload-Offset": "minus one"}, 400),
        ({"Upload-Offset": "9" * 20}, 400),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Encoding": "gzip"}, 415),
        ({"Upload-Length": str(65 << 30)}, 413),
    ],
)
def test_headers_that_make_no_sense(folk: Images, headers: dict[str, str], status: int) -> None:
    made = folk.create()
    answer = folk.patch(
        made["upload"]["url"], b"x", 0, **{name.replace("-", "_"): text for name, text in headers.items()}
    )
    assert answer.status_code == status
    assert set(answer.json()) >= {"code", "message"}
    assert (folk.get(made["id"])["status"], folk.files()) == ("QUEUED", [])


def test_a_patch_says_where_it_begins(folk: Images) -> None:
    made = folk.create()
    answer = folk.web.patch(made["upload"]["url"], content=b"x")
    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID")


def test_larger_than_allowed_is_stopped_and_taken_back(world: World, tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, max_image_gib=1)
    world.settings = settings
    world.db.provide("settings", settings)
    folk = Images.open(world)
    made = folk.create()
    url = made["upload"]["url"]
    over = folk.web.put(url, content=b"x", headers={"Upload-Offset": str(1 << 30)})
    assert (over.status_code, over.json()["maxSizeBytes"]) == (413, 1 << 30)
    sparse = tmp_path / "images"
    folk.patch(url, b"\x01", 0)
    (partial,) = sparse.iterdir()
    with partial.open("r+b") as file:
        file.truncate((1 << 30) - 10)
    stopped = folk.web.patch(
        url,
        content=iter([b"x" * 5, b"x" * 20]),
        headers={"Upload-Offset": str((1 << 30) - 10), "Content-Type": "application/offset+octet-stream"},
    )
    assert (stopped.status_code, stopped.json()["code"]) == (413, "INVALID")
    assert folk.get(made["id"])["receivedBytes"] == partial.stat().st_size == (1 << 30) - 10
    assert folk.alice.refused("imageCreate", name="x", sizeBytes=(1 << 30) + 1) == [("INVALID", ["sizeBytes"])]


# ------------------------------------------------------------------------------------------------ links


def test_links_expire_and_cannot_be_changed(folk: Images) -> None:
    one, other = folk.create(), folk.create()
    url = one["upload"]["url"]
    for forged in (
        url.replace(one["id"], other["id"]),
        url.replace("HEAD%2CPATCH%2CPUT", "GET%2CHEAD%2CPATCH%2CPUT"),
        url[:-1] + ("0" if url[-1] != "0" else "1"),
        url + "&more=1",
        url.partition("?")[0],
    ):
        answer = folk.put(forged, b"x")
        assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN")
    assert folk.web.get(url).status_code == 403
    folk.world.clock.advance(hours=6, seconds=1)
    assert folk.put(url, b"x").status_code == 403
    assert folk.put(folk.get(one["id"])["upload"]["url"], b"x").status_code == 202
    assert folk.files() == [f"{folk.world.uid(one['id'])}.upload"]


def test_a_download_link_does_not_upload(folk: Images, qcow2: bytes) -> None:
    image = folk.active(qcow2)
    url = folk.get(image)["downloadUrl"]
    assert folk.put(url, b"x").status_code == 403
    folk.world.clock.advance(hours=1, seconds=1)
    assert folk.web.get(url).status_code == 403


def test_other_methods_are_told_what_there_is(folk: Images) -> None:
    made = folk.create()
    url = made["upload"]["url"]
    assert folk.web.post(url).status_code == 405
    options = folk.web.options(url)
    assert (options.status_code, options.headers["tus-version"]) == (204, "1.0.0")
    assert options.headers["tus-max-size"] == str(64 << 30)
    assert "access-control-allow-origin" not in options.headers


def test_pages_of_other_origins_only_by_setting(folk: Images) -> None:
    preflight = {"Origin": "https://console.example", "Access-Control-Request-Method": "PATCH"}
    url = folk.create()["upload"]["url"]
    assert "access-control-allow-origin" not in folk.web.options(url, headers=preflight).headers
    settings = Settings(state_dir=folk.world.settings.state_dir, cors_origins=["https://console.example"])
    web = TestClient(Starlette(routes=routes(folk.world.db, settings)))
    allowed = web.options(url, headers=preflight | {"Access-Control-Request-Headers": "upload-offset,tus-resumable"})
    assert allowed.headers["access-control-allow-origin"] == "https://console.example"
    asked = web.head(url, headers={"Origin": "https://console.example"})
    assert "upload-offset" in asked.headers["access-control-expose-headers"].lower()
    other = web.options(url, headers=preflight | {"Origin": "https://elsewhere.example"})
    assert "access-control-allow-origin" not in other.headers


# ------------------------------------------------------------------------------------------------ download


def test_ranges(folk: Images) -> None:
    data = noise(3)
    image = folk.active(data, format="RAW")
    url, size = folk.get(image)["downloadUrl"], len(data)
    whole = folk.web.get(url)
    assert (whole.status_code, whole.content, whole.headers["accept-ranges"]) == (200, data, "bytes")
    tag = whole.headers["etag"]
    assert tag == f'"{sha256(data)}"'
    for asked, start, end in (
        ("bytes=0-0", 0, 1),
        ("bytes=1000000-2000000", 1_000_000, 2_000_001),
        (f"bytes={size - 5}-", size - 5, size),
        ("bytes=-7", size - 7, size),
        (f"bytes=10-{size * 2}", 10, size),
    ):
        part = folk.web.get(url, headers={"Range": asked})
        assert (part.status_code, part.content) == (206, data[start:end])
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
    for asked in ("bytes=0-1,5-6", "lines=1-2", "bytes=5-1"):
        assert folk.web.get(url, headers={"Range": asked}).content == data
    beyond = folk.web.get(url, headers={"Range": f"bytes={size}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{size}")
    same = folk.web.get(url, headers={"Range": "bytes=0-1", "If-Range": tag})
    other = folk.web.get(url, headers={"Range": "bytes=0-1", "If-Range": '"other"'})
    assert (same.status_code, other.status_code) == (206, 200)
    assert folk.web.get(url, headers={"If-None-Match": tag}).status_code == 304
    head = folk.web.head(url)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(size), b"")


def test_a_client_that_hangs_up_leaves_no_open_file(folk: Images) -> None:
    data = noise(30)
    image = folk.active(data)
    uid = str(folk.world.uid(image))

    def held() -> list[str]:
        found = []
        for each in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found.append(str(each.readlink()))
        return [name for name in found if uid in name]

    with served(folk.world) as port:
        with socket.create_connection(("127.0.0.1", port)) as wire:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            wire.sendall(f"GET {target_of(folk.get(image)['downloadUrl'])} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert wire.recv(12) == b"HTTP/1.1 200"
            until(held)
        until(lambda: not held())


def test_names_in_headers_are_safe() -> None:
    assert disposition("disk", ImageFormat.QCOW2) == (
        "attachment; filename=\"disk.qcow2\"; filename*=UTF-8''disk.qcow2"
    )  # fmt: skip
    nasty = disposition('../"évil\r\nX: y;', ImageFormat.RAW)
    assert nasty == "attachment; filename=\"vil_X_y.raw\"; filename*=UTF-8''..%2F%22%C3%A9vil%0D%0AX%3A%20y%3B.raw"
    assert disposition("a.ISO", ImageFormat.ISO).startswith('attachment; filename="a.iso"')
