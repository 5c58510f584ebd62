"""The way of an image's bytes, past GraphQL: signed links to upload, resume and download (``gateway.image.link``).

Uploads speak the core of tus 1.0 (HEAD tells the offset, PATCH continues there) and what curl does by itself: PUT of
the whole body, or with ``Upload-Offset`` of the rest. Invariants: whatever arrived stays, also when the client hangs
up; no more than a chunk of 1 MiB is in memory; the disk is only touched on threads; a broken, expired or foreign link
learns nothing. Every answer that is no file is JSON with a code, as problems of GraphQL have. No cookie or token is
ever looked at, so there is nothing that a foreign page could misuse; pages of other origins are let in by setting only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import structlog
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.image import image as images
from gateway.image import link, reception
from gateway.image.image import Image, ImageStatus
from gateway.image.link import Permit, Use
from gateway.image.signed_url import SignatureRefused
from gateway.kernel.db import Database
from gateway.kernel.errors import InvalidState, NotFound, Refusal
from gateway.kernel.settings import Settings
from resolvers.image import download
from resolvers.image.answers import TUS_VERSION, Problem, empty, of_refusal
from resolvers.image.upload import Asked, Upload, asked
from resolvers.kernel.context import on_thread

PATH: Final = "/images/{id}/data"
_METHODS: Final = ("GET", "HEAD", "PUT", "PATCH", "OPTIONS")
_REQUEST_HEADERS: Final = (
    "content-type", "range", "if-range", "tus-resumable", "upload-offset", "upload-length", "x-request-id",
)  # fmt: skip
_EXPOSED: Final = (
    "content-disposition", "content-range", "etag", "location", "retry-after", "tus-max-size", "tus-resumable",
    "tus-version", "upload-expires", "upload-length", "upload-offset", "x-request-id",
)  # fmt: skip

log = structlog.get_logger(__name__)


def routes(db: Database, settings: Settings) -> list[Route]:
    """The routes of images' data, to be mounted at the root."""
    endpoint = ImageData(db, settings)
    middleware = []
    if settings.cors_origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=settings.cors_origins,
                allow_methods=_METHODS,
                allow_headers=_REQUEST_HEADERS,
                expose_headers=_EXPOSED,
                max_age=600,
            )
        )
    return [Route(PATH, endpoint.serve, methods=list(_METHODS), middleware=middleware)]


@dataclass(frozen=True, slots=True)
class ImageData:
    """The endpoint."""

    db: Database
    settings: Settings

    async def serve(self, request: Request) -> Response:
        """Answer one request."""
        try:
            if request.method == "OPTIONS":
                return self._options()
            permit, image = await on_thread(lambda: self._admit(request))
            if permit.use is Use.DOWNLOAD:
                return await download.serve(request, image, reception.store_of(self.settings))
            return await self._upload(request, permit, asked(request, image.uid, self._largest))
        except Problem as problem:
            return problem.response()
        except Refusal as refused:
            return of_refusal(refused).response()
        except ClientDisconnect:
            return empty(499)

    async def _upload(self, request: Request, permit: Permit, wanted: Asked) -> Response:
        upload = Upload(self.db, self.settings, wanted, permit)
        return await (upload.tell() if request.method == "HEAD" else upload.take(request))

    def _admit(self, request: Request) -> tuple[Permit, Image]:
        """What the link permits, and the image it is of. Raises Problem and NotFound."""
        path, query = request.scope["path"], request.scope["query_string"].decode("latin-1")
        with self.db.read() as session:
            try:
                permit = link.permitted(session, request.method, path, query)
            except SignatureRefused as refused:
                log.info("link refused", problem=refused.problem.value, path=path)
                raise Problem(
                    403, "FORBIDDEN", "The link is not, or no longer, good. Ask the schema for a new one."
                ) from None
            image = reception.get(session, _uid(request.path_params["id"]))
        if permit.use is Use.DOWNLOAD and image.status is not ImageStatus.ACTIVE:
            raise InvalidState(
                f"The image is {image.status.value}.", current=image.status.value, allowed=[ImageStatus.ACTIVE.value]
            )
        return permit, image

    @property
    def _largest(self) -> int:
        return self.settings.max_image_gib << 30

    def _options(self) -> Response:
        headers: dict[str, Any] = {
            "Allow": ", ".join(_METHODS),
            "Tus-Version": TUS_VERSION,
            "Tus-Extension": "expiration",
            "Tus-Max-Size": str(self._largest),
        }
        return empty(204, headers)


def _uid(public_id: str) -> UUID:
    try:
        return images.NOUN.uid(public_id)
    except Refusal as refused:
        raise NotFound("There is no such image.") from refused
