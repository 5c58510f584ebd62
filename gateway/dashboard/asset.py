"""The built files: what `assets/manifest.json` lists, answered compressed or plain, whichever the client takes.

Invariant: only listed names are ever opened, so no path of a request reaches the file system. Files are stored gzipped
and nothing else; a client that refuses gzip gets them unpacked.
Deliberately not here: building (`playground/build.mjs`).
"""

import gzip
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from starlette.requests import Request
from starlette.responses import Response

from gateway.dashboard import policy

_FOLDER = Path(__file__).parent / "assets"
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".graphql": "application/graphql; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".ttf": "font/ttf",
    ".txt": "text/plain; charset=utf-8",
}
IMMUTABLE = "public, max-age=31536000, immutable"
REVALIDATED = "public, no-cache"


@dataclass(frozen=True, slots=True)
class Asset:
    """One file: its gzipped bytes, the SHA-256 of the plain ones (hex), its media type and how long it may be kept."""

    packed: bytes
    sha256: str
    media_type: str
    cache_control: str

    @classmethod
    def of_text(cls, name: str, text: str) -> Self:
        """A file made while the program runs: `name` gives the media type; clients ask again each time."""
        body = text.encode()
        sha256 = hashlib.sha256(body).hexdigest()
        return cls(gzip.compress(body, mtime=0), sha256, _MEDIA_TYPES[Path(name).suffix], REVALIDATED)

    def answer(self, request: Request) -> Response:
        """200 with the file, or 304 when the client already has this representation."""
        packed = takes_gzip(request.headers.get("accept-encoding", ""))
        etag = f'"{self.sha256[:32]}{"-gzip" if packed else ""}"'
        headers = policy.for_file() | {"Cache-Control": self.cache_control, "ETag": etag, "Vary": "Accept-Encoding"}
        if _has(request.headers.get("if-none-match", ""), etag):
            return Response(status_code=304, headers=headers)
        if packed:
            return Response(self.packed, headers=headers | {"Content-Encoding": "gzip"}, media_type=self.media_type)
        return Response(gzip.decompress(self.packed), headers=headers, media_type=self.media_type)


class Assets:
    """The built files of the dashboard, read once and kept packed (about 2 MB)."""

    def __init__(self, folder: Path = _FOLDER) -> None:
        self._folder = folder

    @cached_property
    def _manifest(self) -> Mapping[str, Mapping[str, str]]:
        listed = json.loads((self._folder / "manifest.json").read_text(encoding="utf-8"))
        files = {name: f["sha256"] for name, f in listed["files"].items()}
        return {"documents": listed["documents"], "entries": listed["entries"], "files": files}

    @cached_property
    def _files(self) -> Mapping[str, Asset]:
        return {name: self._read(name, sha256) for name, sha256 in self._manifest["files"].items()}

    def _read(self, name: str, sha256: str) -> Asset:
        # The notices keep their name from build to build; everything else changes its name with its content.
        cache_control = REVALIDATED if name.endswith(".txt") else IMMUTABLE
        packed = (self._folder / f"{name}.gz").read_bytes()
        return Asset(packed, sha256, _MEDIA_TYPES[Path(name).suffix], cache_control)

    def name_of(self, entry: str) -> str:
        """The hashed name of what a page calls `playground.js`. KeyError when the build made no such entry."""
        return self._manifest["entries"][entry]

    @property
    def documents(self) -> Mapping[str, str]:
        """The GraphQL documents that the playground itself sends (sign-in, sign-out, introspection), by SHA-256."""
        return self._manifest["documents"]

    def find(self, name: str) -> Asset | None:
        """The listed file of this hashed name, or None."""
        return self._files.get(name)


def takes_gzip(accept_encoding: str) -> bool:
    """Whether an Accept-Encoding header admits gzip (RFC 9110, 12.5.3): named or starred, with a weight above zero."""
    weights: dict[str, float] = {}
    for part in accept_encoding.lower().split(","):
        coding, _, parameters = part.partition(";")
        weights[coding.strip()] = _weight(parameters)
    return weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0))) > 0


def _weight(parameters: str) -> float:
    name, _, value = parameters.partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0


def _has(if_none_match: str, etag: str) -> bool:
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in tags or tags == ["*"]
