"""Fetching an image from a URL that a user gave, without becoming the user's way into our own network.

Invariants: only http and https, no credentials in URLs, no proxy from the environment, and no connection to an address
that ``egress`` does not permit, whichever redirect leads there; TLS is verified against the name in the URL, not the
address dialled; no more bytes than allowed are handed on; a file that came short never looks whole. A transfer that
drops is taken up where it stopped if the server can prove that the file is still the same one (ETag or date, by
If-Range), else from the start, a bounded number of times within one deadline. The bytes go to a sink as they are; what
they mean is for ``inspection``. Messages never quote the answer, which may come from where the user could not look.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol

import httpcore2
import httpx2

from gateway.image.egress import AddressForbidden, AddressPolicy, CheckedBackend, Deadline, NameUnresolved, Network
from gateway.image.formats import TIB

MAX_URL_CHARACTERS: Final = 2048
_MAX_PORT: Final = 65535
_OK, _PARTIAL_CONTENT, _SERVER_ERRORS = 200, 206, range(500, 600)
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
_SCHEMES: Final = frozenset({"http", "https"})
_HEADERS: Final = (
    ("User-Agent", "stratograph"),
    ("Accept", "*/*"),
    ("Accept-Encoding", "identity"),
    ("Connection", "close"),
)
_PAUSE_S: Final = 0.1  # before the first resumption; doubled for each further one


class FetchProblem(StrEnum):
    """What kind of failure a fetch met. Stable: clients may branch on it."""

    BAD_URL = "BAD_URL"
    FORBIDDEN_ADDRESS = "FORBIDDEN_ADDRESS"
    UNRESOLVED = "UNRESOLVED"
    TOO_MANY_REDIRECTS = "TOO_MANY_REDIRECTS"
    INSECURE_REDIRECT = "INSECURE_REDIRECT"
    HTTP_STATUS = "HTTP_STATUS"
    ENCODED = "ENCODED"
    TOO_BIG = "TOO_BIG"
    TIMEOUT = "TIMEOUT"
    TLS = "TLS"
    CONNECTION = "CONNECTION"
    INCOMPLETE = "INCOMPLETE"


_RETRYABLE: Final = frozenset(
    {FetchProblem.UNRESOLVED, FetchProblem.TIMEOUT, FetchProblem.CONNECTION, FetchProblem.INCOMPLETE}
)


class FetchFailed(Exception):  # noqa: N818 - reads as a statement where it is caught
    """The file was not fetched. ``problem`` is for programs, ``message`` a sentence for the user.

    ``retryable`` says that the same request may succeed later; ``status`` is the HTTP status if that was the problem.
    """

    def __init__(self, problem: FetchProblem, message: str, *, status: int | None = None) -> None:
        super().__init__(f"{problem}: {message}")
        self.problem = problem
        self.message = message
        self.status = status
        self.retryable = problem in _RETRYABLE or (status is not None and status in _SERVER_ERRORS)


class Sink(Protocol):
    """Where the bytes go, for one a :class:`gateway.image.store.Upload`. What it raises ends the fetch and goes on."""

    def write(self, chunk: bytes) -> None:
        """Take the next bytes."""

    def restart(self) -> None:
        """Forget all bytes taken so far; the file begins anew."""


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """Bounds of one fetch, redirects and resumptions included; sizes in bytes, times in seconds.

    ``ca_file`` replaces the system's certificate authorities. ``allowed_private`` and ``allowed_networks`` open what
    :class:`gateway.image.egress.AddressPolicy` describes.
    """

    max_bytes: int = 2 * TIB
    timeout_s: float = 3600.0
    idle_timeout_s: float = 30.0
    max_redirects: int = 5
    max_resumes: int = 5
    allowed_private: bool = False
    allowed_networks: tuple[Network, ...] = ()
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """A complete file: its size in bytes, and how often the transfer was taken up again."""

    size_bytes: int
    resumes: int


class _Dropped(Exception):  # noqa: N818 - a signal between two functions of this module
    """The transfer broke off in a way that trying again may mend."""


#: Called with the bytes received so far and the file's size, None while that is unknown.
Progress = Callable[[int, int | None], None]


def fetch(url: str, sink: Sink, *, limits: FetchLimits, progress: Progress | None = None) -> Fetched:
    """Fetch ``url`` into ``sink``, which is empty at first, and answer when every byte has been taken.

    Raises:
        FetchFailed: see :class:`FetchProblem`. The sink holds a part of the file then, or nothing.
    """
    transfer = _Transfer(_checked(url, None), sink, limits, progress)
    while True:
        try:
            transfer.attempt()
        except _Dropped as dropped:
            if not transfer.deadline.remaining:
                raise FetchFailed(FetchProblem.TIMEOUT, f"not complete after {limits.timeout_s:g} s") from dropped
            if transfer.resumes >= limits.max_resumes:
                raise FetchFailed(FetchProblem.INCOMPLETE, f"the transfer keeps breaking off: {dropped}") from dropped
            time.sleep(min(_PAUSE_S * 2**transfer.resumes, transfer.deadline.remaining))
            transfer.resumes += 1
        else:
            return Fetched(transfer.received_bytes, transfer.resumes)


def check_url(text: str) -> None:
    """Refuse a URL that would not even be tried. Raises FetchFailed with BAD_URL."""
    _checked(text, None)


def _checked(text: str, before: httpx2.URL | None) -> httpx2.URL:
    """The URL, absolute, if it is one we fetch; ``before`` is the one that redirected to it."""
    if len(text) > MAX_URL_CHARACTERS:
        raise FetchFailed(FetchProblem.BAD_URL, f"the URL has more than {MAX_URL_CHARACTERS} characters")
    try:
        url = before.join(text) if before else httpx2.URL(text)
        good = url.scheme in _SCHEMES and url.raw_host and (url.port is None or 0 < url.port <= _MAX_PORT)
    except (httpx2.InvalidURL, ValueError, TypeError) as error:
        raise FetchFailed(FetchProblem.BAD_URL, "the URL cannot be read") from error
    if not good:
        raise FetchFailed(FetchProblem.BAD_URL, "only http and https URLs with a host are fetched")
    if url.userinfo:
        raise FetchFailed(FetchProblem.BAD_URL, "a URL must not carry a user name or password")
    if before is not None and before.scheme == "https" and url.scheme != "https":
        raise FetchFailed(FetchProblem.INSECURE_REDIRECT, "a redirect leads from https to http")
    return url


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except OSError as error:
        raise FetchFailed(FetchProblem.TLS, "the file of certificate authorities cannot be read") from error


class _Transfer:
    """One file on its way, over however many connections it takes."""

    def __init__(self, url: httpx2.URL, sink: Sink, limits: FetchLimits, progress: Progress | None) -> None:
        self._url = url
        self._sink = sink
        self._limits = limits
        self._progress = progress
        self._policy = AddressPolicy(limits.allowed_private, limits.allowed_networks)
        self._tls = _tls(limits.ca_file)
        self._total_bytes: int | None = None
        self._validator: str | None = None
        self.deadline = Deadline(limits.timeout_s)
        self.received_bytes = 0
        self.resumes = 0

    def attempt(self) -> None:
        """Fetch what is missing. Raises _Dropped if that failed in passing, FetchFailed if for good."""
        if self.received_bytes and self._validator is None:
            self._restart()
        url = self._url
        for _ in range(self._limits.max_redirects + 1):
            with self._get(url) as response:
                if response.status not in _REDIRECTS:
                    self._take(response)
                    return
                url = _checked(_header(response, "location") or "", url)
        raise FetchFailed(FetchProblem.TOO_MANY_REDIRECTS, f"more than {self._limits.max_redirects} redirects")

    @contextmanager
    def _get(self, url: httpx2.URL) -> Iterator[httpcore2.Response]:
        """The answer to one request on a connection of its own. Network errors become ours."""
        headers = [("Host", url.netloc.decode("ascii")), *_HEADERS]
        if self.received_bytes and self._validator:
            headers += [("Range", f"bytes={self.received_bytes}-"), ("If-Range", self._validator)]
        target = httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        idle = self._limits.idle_timeout_s
        extensions = {"timeout": {"connect": idle, "read": idle, "write": idle, "pool": idle}}
        backend = CheckedBackend(self._policy, self.deadline)
        try:
            with (
                httpcore2.ConnectionPool(ssl_context=self._tls, max_connections=1, network_backend=backend) as pool,
                pool.stream("GET", target, headers=headers, extensions=extensions) as response,
            ):
                yield response
        except AddressForbidden as error:
            raise FetchFailed(FetchProblem.FORBIDDEN_ADDRESS, "the URL's host is not on the public internet") from error
        except NameUnresolved as error:
            raise self._lost(FetchProblem.UNRESOLVED, str(error)) from error
        except httpcore2.ConnectError as error:
            if any(isinstance(origin, ssl.SSLError) for origin in error.args):  # httpcore hands it over like this
                raise FetchFailed(FetchProblem.TLS, "the server's certificate or TLS is not acceptable") from error
            raise self._lost(FetchProblem.CONNECTION, "the server cannot be reached") from error
        except (httpcore2.TimeoutException, httpcore2.NetworkError) as error:
            problem = FetchProblem.TIMEOUT if isinstance(error, httpcore2.TimeoutException) else FetchProblem.CONNECTION
            raise self._lost(problem, "the server does not answer any more") from error
        except (httpcore2.RemoteProtocolError, httpcore2.LocalProtocolError) as error:
            raise self._lost(FetchProblem.CONNECTION, "the server broke off or does not speak HTTP") from error

    def _lost(self, problem: FetchProblem, message: str) -> Exception:
        """Worth another attempt if the transfer had begun; final if not even that worked."""
        if not self.deadline.remaining:
            return FetchFailed(FetchProblem.TIMEOUT, f"not complete after {self._limits.timeout_s:g} s")
        return _Dropped(message) if self.received_bytes or self.resumes else FetchFailed(problem, message)

    def _take(self, response: httpcore2.Response) -> None:
        if response.status == _PARTIAL_CONTENT and self.received_bytes:
            self._match_range(response)
        elif response.status == _OK:
            if self.received_bytes:  # the file changed, or the server knows no ranges
                self._restart()
            length = _header(response, "content-length")
            self._total_bytes = int(length) if length is not None and length.isdecimal() else None
        elif self.received_bytes and response.status in _SERVER_ERRORS:
            raise _Dropped(f"status {response.status}")
        else:
            raise FetchFailed(
                FetchProblem.HTTP_STATUS, f"the server answered with status {response.status}", status=response.status
            )
        if (_header(response, "content-encoding") or "identity").lower() != "identity":
            raise FetchFailed(FetchProblem.ENCODED, "the server sends the file compressed, which was not asked for")
        self._refuse_size(self._total_bytes or 0)
        self._validator = _validator(response)
        for chunk in response.iter_stream():
            self._refuse_size(self.received_bytes + len(chunk))
            self._sink.write(chunk)
            self.received_bytes += len(chunk)
            if self._progress:
                self._progress(self.received_bytes, self._total_bytes)
        if self._total_bytes is not None and self.received_bytes != self._total_bytes:
            raise _Dropped(f"{self.received_bytes} bytes came of {self._total_bytes}")

    def _match_range(self, response: httpcore2.Response) -> None:
        """Check that the part sent is the part missing, of the same file."""
        parts = _CONTENT_RANGE.fullmatch(_header(response, "content-range") or "")
        etag = _header(response, "etag")
        fits = parts is not None and int(parts[1]) == self.received_bytes and int(parts[2]) >= self.received_bytes
        same = etag is None or not (self._validator or "").startswith('"') or etag == self._validator
        if parts is not None and parts[3] != "*":
            same = same and self._total_bytes in {None, int(parts[3])}
            self._total_bytes = int(parts[3])
        if not fits or not same:
            self._restart()
            raise _Dropped("the server sent another part than asked for")

    def _restart(self) -> None:
        self._sink.restart()
        self.received_bytes = 0
        self._total_bytes = self._validator = None

    def _refuse_size(self, size_bytes: int) -> None:
        if size_bytes > self._limits.max_bytes:
            raise FetchFailed(FetchProblem.TOO_BIG, f"the file has more than {self._limits.max_bytes} bytes")


def _header(response: httpcore2.Response, name: str) -> str | None:
    wanted = name.encode("ascii")
    for key, value in response.headers:
        if key.lower() == wanted:
            return value.decode("latin-1").strip()
    return None


def _validator(response: httpcore2.Response) -> str | None:
    """What If-Range may name: a strong ETag, else the date of the last change."""
    etag = _header(response, "etag")
    if etag is not None:
        return etag if etag.startswith('"') else None
    return _header(response, "last-modified")
