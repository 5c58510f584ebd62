"""Sending a file to an upload link, by the core of the tus protocol (1.0.0): resumable, and told how far it is.

The link is the whole permission, so no token goes with it. Where a request breaks, the cloud is asked how many bytes it
has and the next one goes on there. What comes back as a refusal is final.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

import httpx2

from gateway.client.problem import Problem, Unreachable

Progress = Callable[[int, int], object]
"""Told the bytes that were sent and all bytes."""

_CHUNK_BYTES: Final = 1 << 20
_AGAIN_S: Final = (0.2, 0.5, 1.0, 2.0)
_TUS: Final = {"tus-resumable": "1.0.0"}
_LOCKED: Final = 423
_WRONG_OFFSET: Final = 409


def send(
    http: httpx2.Client, url: str, path: Path, progress: Progress | None, *, patience_s: float
) -> None:  # fmt: skip
    """Send the whole file. Raises Problem when it is refused, Unreachable after ``patience_s`` without progress."""
    size_bytes = path.stat().st_size
    if not size_bytes:
        raise Problem("INVALID", f"{path} is empty.")
    offset, attempt = 0, 0
    until = time.monotonic() + patience_s
    with path.open("rb") as file:
        while True:
            try:
                at = _offset(http, url)
                if at > offset:
                    offset, attempt, until = at, 0, time.monotonic() + patience_s
                if at < size_bytes:
                    _append(http, url, _Part(file, at, size_bytes, progress))
            except Unreachable:
                pause = _AGAIN_S[min(attempt, len(_AGAIN_S) - 1)]
                attempt += 1
                if time.monotonic() + pause > until:
                    raise
                time.sleep(pause)
            else:
                return


class _Part:
    """The rest of the file from an offset on, as chunks."""

    def __init__(self, file: BinaryIO, offset: int, size_bytes: int, progress: Progress | None) -> None:
        self.file = file
        self.offset = offset
        self.size_bytes = size_bytes
        self.progress = progress or (lambda _sent, _all: None)

    def __iter__(self) -> Iterator[bytes]:
        self.file.seek(self.offset)
        sent = self.offset
        self.progress(sent, self.size_bytes)
        while sent < self.size_bytes and (chunk := self.file.read(min(_CHUNK_BYTES, self.size_bytes - sent))):
            yield chunk
            sent += len(chunk)
            self.progress(sent, self.size_bytes)


def _offset(http: httpx2.Client, url: str) -> int:
    """How many bytes the cloud has."""
    answer = _asked(http, http.build_request("HEAD", url, headers=_TUS))
    try:
        return int(answer.headers["upload-offset"])
    except (KeyError, ValueError):
        raise Problem("NOT_A_CLOUD", "The upload link does not say where to go on.") from None


def _append(http: httpx2.Client, url: str, part: _Part) -> None:
    headers = {
        **_TUS,
        "content-type": "application/offset+octet-stream",
        "upload-offset": str(part.offset),
        "upload-length": str(part.size_bytes),
        "content-length": str(part.size_bytes - part.offset),
    }
    _asked(http, http.build_request("PATCH", url, headers=headers, content=iter(part)))


def _asked(http: httpx2.Client, request: httpx2.Request) -> httpx2.Response:
    """The answer to a request. Raises Problem, Unreachable for what may be tried again."""
    try:
        answer = http.send(request)
    except httpx2.TransportError as error:
        raise Unreachable(f"The upload broke: {type(error).__name__} {error}".rstrip()) from error
    if answer.is_success:
        return answer
    message = f"The upload was refused with HTTP {answer.status_code}: {_reason(answer)}"
    elsewhere = answer.status_code == _WRONG_OFFSET and "upload-offset" in answer.headers
    if answer.status_code >= 500 or answer.status_code == _LOCKED or elsewhere:  # noqa: PLR2004 - HTTP's own numbers
        raise Unreachable(message)
    raise Problem(_code(answer), message)


def _body(answer: httpx2.Response) -> dict[str, object]:
    try:
        body = answer.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _code(answer: httpx2.Response) -> str:
    return str(_body(answer).get("code", "UPLOAD_REFUSED"))


def _reason(answer: httpx2.Response) -> str:
    return str(_body(answer).get("message", answer.text[:200].strip() or answer.reason_phrase))
