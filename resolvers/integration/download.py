"""The way of an export's file, past GraphQL: a signed link, served whole or in ranges.

The link is the whole permission: no token is looked at. It dies with its hour, and with the export. The file never
changes, so its SHA-256 is a strong ETag. Every other answer is JSON with a code, as problems of GraphQL have.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from gateway.image.signed_url import SignatureRefused
from gateway.integration import export as exports
from gateway.integration.export import Export
from gateway.kernel.db import Database
from gateway.kernel.errors import NotFound
from gateway.kernel.settings import Settings
from resolvers.kernel.context import on_thread

PATH: Final = "/exports/{id}/data"
_METHODS: Final = ("GET", "HEAD")
_EXPOSED: Final = ("content-disposition", "content-range", "etag")

log = structlog.get_logger(__name__)


def routes(db: Database, settings: Settings) -> list[Route]:
    """The route of exports' files, to be mounted at the root."""
    endpoint = ExportData(db, settings)
    middleware = []
    if settings.cors_origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=settings.cors_origins,
                allow_methods=_METHODS,
                allow_headers=("range", "if-range"),
                expose_headers=_EXPOSED,
                max_age=600,
            )
        )
    return [Route(PATH, endpoint.serve, methods=list(_METHODS), middleware=middleware)]


@dataclass(frozen=True, slots=True)
class ExportData:
    """The endpoint."""

    db: Database
    settings: Settings

    async def serve(self, request: Request) -> Response:
        """Answer one request."""
        try:
            export, path, found = await on_thread(lambda: self._admit(request))
        except SignatureRefused as refused:
            log.info("link refused", problem=refused.problem.value, path=request.scope["path"])
            return _problem(403, "FORBIDDEN", "The link is not, or no longer, good. Ask the schema for a new one.")
        except (NotFound, FileNotFoundError):
            return _problem(404, "NOT_FOUND", "There is no such export.")
        headers = {
            "Cache-Control": "private, no-cache",
            "Content-Security-Policy": "default-src 'none'; sandbox",
            "ETag": f'"{export.sha256}"',
            "X-Content-Type-Options": "nosniff",
        }
        name = f"{export.kind.value.lower()}-{export.created_at:%Y%m%dT%H%M%S}Z.jsonl"
        return FileResponse(path, headers=headers, media_type="application/jsonl", filename=name, stat_result=found)

    def _admit(self, request: Request) -> tuple[Export, Path, os.stat_result]:
        """The export that the link names, its file, and what the file system says of it."""
        query = request.scope["query_string"].decode("latin-1")
        with self.db.read() as session:
            export = exports.permitted(session, request.method, request.path_params["id"], query)
        path = exports.file_of(self.settings.state_dir, export.uid)
        return export, path, path.stat()


def _problem(status: int, code: str, message: str) -> Response:
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return JSONResponse({"code": code, "message": message}, status_code=status, headers=headers)
