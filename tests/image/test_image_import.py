"""imageImport against a real web server on loopback, which only a setting opens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from gateway.image.formats import MIB
from gateway.kernel.settings import Settings
from tests.image import web
from tests.image.cloud import Died, Images, dying, sha256
from tests.world import World
from workers.image import accept


@pytest.fixture
def site() -> Iterator[web.Site]:
    with web.serving() as site:
        yield site


def allow_loopback(world: World, **more: object) -> None:
    settings = Settings(state_dir=world.settings.state_dir, allowed_import_networks=["127.0.0.0/8"], **more)  # type: ignore[arg-type]  # any setting
    world.settings = settings
    world.runner.settings = settings
    world.db.provide("settings", settings)


def bring(folk: Images, url: str, **given: object) -> tuple[str, str]:
    """Ids of the image and the job, which has ended."""
    made = folk.alice.do(
        "imageImport", "image { id status upload { url } } job { id kind }", name="i", url=url, **given
    )
    assert (made["image"]["status"], made["image"]["upload"], made["job"]["kind"]) == (
        "RECEIVING",
        None,
        "image.import",
    )
    folk.world.work()
    return made["image"]["id"], made["job"]["id"]


def refusal(folk: Images, job: str) -> tuple[str, str, str]:
    kept = folk.world.job(job)
    assert kept.error is not None
    return kept.status.value, kept.error["code"], kept.error["data"].get("reason", "")


def test_a_file_is_fetched(folk: Images, site: web.Site, qcow2: bytes) -> None:
    allow_loopback(folk.world)
    site.pages["/disk"] = web.redirect("/real")
    site.pages["/real"] = web.answer(qcow2)
    image, job = bring(folk, site.url("/disk"), sha256=sha256(qcow2), format="QCOW2")
    found = folk.get(image)
    assert (found["status"], found["format"], found["sizeBytes"]) == ("ACTIVE", "QCOW2", len(qcow2))
    assert [(each.name, each.status.value) for each in folk.world.job(job).told] == [
        ("fetch", "DONE"), ("activate", "DONE"),
    ]  # fmt: skip
    assert folk.used() == {"IMAGES": 1, "IMAGE_GIB": 1}
    assert folk.web.get(found["downloadUrl"]).content == qcow2


def test_loopback_is_refused_by_default(folk: Images, site: web.Site) -> None:
    image, job = bring(folk, site.url("/disk"))
    assert refusal(folk, job) == ("FAILED", "IMAGE_REFUSED", "FORBIDDEN_ADDRESS")
    assert site.asked == []
    found = folk.get(image)
    assert (found["status"], "public internet" in found["statusReason"]) == ("ERROR", True)
    assert folk.used() == {"IMAGES": 0, "IMAGE_GIB": 0}


def test_a_redirect_inside_is_refused(folk: Images, site: web.Site) -> None:
    allow_loopback(folk.world)
    for target in ("http://169.254.169.254/latest/meta-data", "http://[::1]/"):
        site.pages["/disk"] = web.redirect(target)
        _, job = bring(folk, site.url("/disk"))
        assert refusal(folk, job) == ("FAILED", "IMAGE_REFUSED", "FORBIDDEN_ADDRESS")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://a/b", "http://u:p@a/b", "http://", "x" * 3000])
def test_urls_that_are_none(folk: Images, url: str) -> None:
    assert folk.alice.refused("imageImport", name="i", url=url) == [("INVALID", ["url"])]
    assert folk.used() == {"IMAGES": 0, "IMAGE_GIB": 0}


def test_what_cannot_be_used_is_refused(folk: Images, site: web.Site, qcow2: bytes) -> None:
    allow_loopback(folk.world, max_image_gib=1)
    site.pages["/gone"] = web.answer(b"", status=404)
    site.pages["/page"] = web.answer(b"<!DOCTYPE html><html></html>")
    site.pages["/huge"] = web.answer(b"x", length=2 << 30)
    site.pages["/disk"] = web.answer(qcow2)
    for path, given, reason in (
        ("/gone", {}, "HTTP_STATUS"),
        ("/page", {}, "NOT_AN_IMAGE"),
        ("/huge", {}, "TOO_BIG"),
        ("/disk", {"sha256": "0" * 64}, "CHECKSUM_MISMATCH"),
        ("/disk", {"format": "VDI"}, "FORMAT_MISMATCH"),
    ):
        image, job = bring(folk, site.url(path), **given)
        assert refusal(folk, job) == ("FAILED", "IMAGE_REFUSED", reason)
        assert folk.get(image)["status"] == "ERROR"
    assert folk.used() == {"IMAGES": 0, "IMAGE_GIB": 0}
    assert folk.files() == []


def test_a_server_that_comes_back_is_waited_for(folk: Images, site: web.Site, qcow2: bytes) -> None:
    allow_loopback(folk.world)
    site.pages["/disk"] = web.in_turn(web.answer(b"", status=503), web.answer(b"", status=502), web.answer(qcow2))
    image, _ = bring(folk, site.url("/disk"))
    assert folk.get(image)["status"] == "ACTIVE"
    assert len(site.asked) == 3
    site.pages["/disk"] = web.answer(b"", status=503)
    image, job = bring(folk, site.url("/disk"))
    assert refusal(folk, job) == ("FAILED", "IMAGE_REFUSED", "HTTP_STATUS")


def in_two(
    data: bytes, looked: list[Any], look: Callable[[], Any]
) -> Callable[[BaseHTTPRequestHandler], None]:  # fmt: skip
    """A page that sends half, lets the test look or act, and sends the rest."""

    def page(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        for start in range(0, len(data), MIB):
            if start == len(data) // 2:
                looked.append(look())
            request.wfile.write(data[start : start + MIB])

    return page


def test_progress_is_told(folk: Images, site: web.Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept, "TELL_EVERY_S", 0.0)
    allow_loopback(folk.world)
    data = bytes(range(256)) * (10 * MIB // 256)
    seen: list[Any] = []

    def look() -> object:
        (found,) = folk.alice.ok(
            "{ images { nodes { status receivedBytes activeJob { progress steps { message } } } } }"
        )["images"]["nodes"]
        return found

    site.pages["/disk"] = in_two(data, seen, look)
    image, _ = bring(folk, site.url("/disk"))
    assert folk.get(image)["sha256"] == sha256(data)
    (told,) = seen
    assert told["status"] == "RECEIVING"
    assert 0 < told["receivedBytes"] <= len(data)
    here, of, total, unit = told["activeJob"]["steps"][0]["message"].split()  # read a moment after the bytes
    assert (of, int(total), unit) == ("of", len(data), "bytes")
    assert told["receivedBytes"] <= int(here) < len(data)
    assert 0 < told["activeJob"]["progress"] <= 0.5


def test_an_import_stops_when_it_is_cancelled_or_deleted(
    folk: Images, site: web.Site, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(accept, "TELL_EVERY_S", 0.0)
    allow_loopback(folk.world)
    data = bytes(range(256)) * (10 * MIB // 256)

    def the_image() -> dict[str, str]:
        found: dict[str, str] = folk.alice.ok(
            "{ images(filter: {status: [RECEIVING]}) { nodes { id activeJob { id } } } }"
        )["images"]["nodes"][0]
        return found

    def cancel() -> None:
        job: object = the_image()["activeJob"]
        assert isinstance(job, dict)
        folk.alice.do("jobCancel", "__typename", id=job["id"])

    site.pages["/disk"] = in_two(data, [], cancel)
    image, job = bring(folk, site.url("/disk"))
    assert folk.world.job(job).status.value == "CANCELLED"
    assert folk.get(image)["status"] == "ERROR"
    site.pages["/disk"] = in_two(data, [], lambda: folk.alice.do("imageDelete", "__typename", id=the_image()["id"]))
    image, job = bring(folk, site.url("/disk"))
    assert folk.world.job(job).status.value == "CANCELLED"
    assert folk.get(image) is None
    assert folk.used() == {"IMAGES": 0, "IMAGE_GIB": 0}
    assert folk.files() == []


def test_a_worker_may_die_at_any_commit(folk: Images, site: web.Site, qcow2: bytes) -> None:
    allow_loopback(folk.world)
    site.pages["/disk"] = web.answer(qcow2)
    deaths = 0
    for after in range(20):
        made = folk.alice.do("imageImport", "image { id }", name="i", url=site.url("/disk"))["image"]["id"]
        try:
            with dying(folk.world, after):
                folk.world.work()
        except Died:
            deaths += 1
        folk.world.work()
        assert folk.get(made)["sha256"] == sha256(qcow2)
        if deaths <= after:
            break
    assert deaths >= 3
    assert len(folk.files()) == deaths + 1
