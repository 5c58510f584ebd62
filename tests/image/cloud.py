"""People with images in the in-process world, and the real data routes in front of it."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.testclient import TestClient

from gateway.identity.tenant import Tenant
from gateway.kernel import noun
from resolvers.image.routes import routes
from tests.world import Client, World
from workers.image.image import store

IMAGE = """image { id name description status statusReason visibility format sizeBytes receivedBytes virtualSizeBytes
  sha256 minDiskGib minRamMib protected tags downloadUrl upload { url expiresAt offset } activeJob { id kind } }"""
GET = f"query($id: ID!) {{ {IMAGE.replace('image {', 'image(id: $id) {', 1)} }}"


@dataclass(slots=True)
class Images:
    """A tenant's image folk and their browser."""

    world: World
    web: TestClient
    tenant_row: Tenant
    alice: Client

    @classmethod
    def open(cls, world: World) -> Images:
        """A tenant with one member."""
        app = Starlette(routes=routes(world.db, world.settings))
        tenant = world.tenant()
        return cls(world, TestClient(app, base_url=world.settings.url), tenant, world.member(tenant))

    @property
    def tenant(self) -> str:
        """The tenant's id."""
        return noun.public(self.tenant_row)

    def create(self, **given: Any) -> dict[str, Any]:
        """Ask for an image that waits for data."""
        found: dict[str, Any] = self.alice.do("imageCreate", IMAGE, name="disk", **given)["image"]
        return found

    def get(self, image: str, client: Client | None = None) -> Any:
        """The image as somebody sees it."""
        return (client or self.alice).ok(GET, id=image)["image"]

    def put(self, url: str, data: bytes | Iterator[bytes], **headers: str) -> Any:
        """Send data with PUT."""
        return self.web.put(url, content=data, headers={name.replace("_", "-"): text for name, text in headers.items()})

    def patch(self, url: str, data: bytes, offset: int, **headers: str) -> Any:
        """Send data as tus clients do."""
        sent = {
            "Tus-Resumable": "1.0.0",
            "Upload-Offset": str(offset),
            "Content-Type": "application/offset+octet-stream",
            **{name.replace("_", "-"): text for name, text in headers.items()},
        }
        return self.web.patch(url, content=data, headers=sent)

    def active(self, data: bytes, **given: Any) -> str:
        """An image that is ready; its id."""
        made = self.create(**given)
        assert self.put(made["upload"]["url"], data).status_code == 202
        self.world.work()
        found = self.get(made["id"])
        assert found["status"] == "ACTIVE", found["statusReason"]
        return str(made["id"])

    def used(self) -> dict[str, int]:
        """What is taken of the quotas for images."""
        found = self.world.admin.ok("query($id: ID!) { tenant(id: $id) { quotas { resource used } } }", id=self.tenant)[
            "tenant"
        ]["quotas"]
        return {each["resource"]: each["used"] for each in found if each["resource"].startswith("IMAGE")}

    def files(self) -> list[str]:
        """Names of all files in the store."""
        return sorted(path.name for path in store(self.world.settings).root.iterdir())


def sha256(data: bytes) -> str:
    """Lower-case hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def target_of(url: str) -> str:
    """Path and query of a URL."""
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


@contextmanager
def served(world: World) -> Iterator[int]:
    """The data routes on a real server; its port."""
    app = Starlette(routes=routes(world.db, world.settings))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            until(lambda: server.started)
            yield int(listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(timeout=20)


def until(holds: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for a condition."""
    late = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < late, "it never came true"
        time.sleep(0.01)


class Died(BaseException):
    """A worker's process ends, just here."""


@contextmanager
def dying(world: World, after: int) -> Iterator[None]:
    """The process dies instead of making its commit number ``after`` (from 0)."""
    left = after
    run = world.db.run

    def counted(work: Callable[[Any], Any]) -> Any:
        nonlocal left
        if left == 0:
            raise Died
        left -= 1
        return run(work)

    world.db.run = counted  # type: ignore[method-assign]  # the process dies at a commit of its own code
    try:
        yield
    finally:
        world.db.run = run  # type: ignore[method-assign]  # as above
