"""Sending an image's file: whole, or one range of it, with a validator, read in chunks on threads.

The file never changes once the image is ACTIVE, so its SHA-256 is a strong ETag, and a range can be trusted to be of
the same file. Several ranges at once are answered with the whole, as HTTP allows. A name given by a user appears in
the headers only in RFC 8187's encoding, and the browser is told to save, not to show.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Final
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from gateway.image.formats import ImageFormat
from gateway.image.image import Image
from gateway.image.store import Content, ImageStore, NotStored, RangeRefused
from resolvers.image.answers import Problem, empty
from resolvers.kernel.context import on_thread

_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")
_NAME_CHARACTERS: Final = 100


async def serve(request: Request, image: Image, store: ImageStore) -> Response:
    """Answer GET or HEAD. Raises Problem."""
    held = image.format
    if held is None:
        raise AssertionError("an ACTIVE image has a format")
    tag = f'"{image.sha256}"'
    if tag in {each.strip() for each in request.headers.get("if-none-match", "").split(",")}:
        return empty(304, {"ETag": tag})
    size = image.size_bytes or 0
    start, end, partial = _wanted(request, tag, size)
    try:
        content = await on_thread(lambda: store.open_range(image.uid, held, start, end))
    except (NotStored, RangeRefused):
        raise Problem(404, "NOT_FOUND", "The image's file is gone.") from None
    headers = {
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": disposition(image.name, held),
        "Content-Length": str(end - start),
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "ETag": tag,
        "X-Content-Type-Options": "nosniff",
    }
    if partial:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    status = 206 if partial else 200
    if request.method == "HEAD":
        content.close()
        return Response(status_code=status, headers=headers, media_type="application/octet-stream")
    return StreamingResponse(_read(content), status, headers, media_type="application/octet-stream")


def _wanted(request: Request, tag: str, size: int) -> tuple[int, int, bool]:
    """From which byte, up to which (exclusive), and whether that is an answer to a range."""
    text = request.headers.get("range")
    if text is None or request.headers.get("if-range", tag) != tag:
        return 0, size, False
    parts = _RANGE.fullmatch(text.replace(" ", ""))
    if parts is None or parts[1] == parts[2] == "":
        return 0, size, False
    if parts[1] == "":
        start, end = max(0, size - int(parts[2])), size
    else:
        start, end = int(parts[1]), min(size, int(parts[2]) + 1 if parts[2] else size)
        if parts[2] and int(parts[2]) < start:
            return 0, size, False
    if start >= size or start >= end:
        headers = {"Content-Range": f"bytes */{size}"}
        raise Problem(416, "INVALID", f"The file has {size} bytes.", headers=headers, sizeBytes=size)
    return start, end, True


def disposition(name: str, image_format: ImageFormat) -> str:
    """Content-Disposition of a file called after the image."""
    ending = f".{image_format.suffix}"
    stem = name[: -len(ending)] if name.lower().endswith(ending) else name
    stem = stem[:_NAME_CHARACTERS]
    plain = _UNSAFE.sub("_", stem).strip("._") or "image"
    return f"attachment; filename=\"{plain}{ending}\"; filename*=UTF-8''{quote(stem + ending, safe='')}"


async def _read(content: Content) -> AsyncIterator[bytes]:
    pieces = iter(content)
    try:
        while (piece := await on_thread(lambda: next(pieces, None))) is not None:
            yield piece
    finally:
        content.close()
