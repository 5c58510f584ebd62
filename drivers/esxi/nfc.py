"""Leases: how a host gives out and takes in the disk of a machine, as a stream-optimized VMDK over HTTPS.

A lease dies without HttpNfcLeaseProgress; a thread tells it all the while, whatever the wire does. It is completed only
when all that was promised went over, and aborted otherwise, which on an import takes away what came. A lease that died,
and an answer that was lost, are a LostAnswerError: the verb begins anew with another lease, for none can be taken up.
The URL's ``*`` is the endpoint itself. Another host is spoken to only when its certificate has the thumbprint that the
endpoint told over its own verified connection; the session's cookie is never sent there.
"""

from __future__ import annotations

import hashlib
import http.client
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit
from xml.parsers.expat import ExpatError

from pyVmomi import vmodl

from drivers.api import Deadline, DriverError, HostAtFault, Transient
from drivers.esxi import reading
from drivers.esxi.errors import as_driver_errors
from drivers.esxi.session import BROKEN, LostAnswerError
from drivers.esxi.site import SELDOM_S, SLOWER, SOON_S, Site
from drivers.esxi.store import FOUND, FULL

PROGRESS_S = 30.0
ABORT_S = 20.0
NOT_THERE = 404
VMDK_TYPE = "application/x-vnd.vmware-streamVmdk"
ERRORS = (vmodl.MethodFault, OSError, http.client.HTTPException, ExpatError, DriverError)


class Lease:
    """One lease that is ready. ``percent`` is what the host is told of the progress."""

    def __init__(self, site: Site, lease: Any, info: Any) -> None:
        self.site = site
        self.info = info
        self.percent = 0
        self._lease = lease
        self._over = Event()
        self._died = False
        seconds = min(PROGRESS_S, float(info.leaseTimeout or 0) / 4 or PROGRESS_S)
        self._thread = Thread(target=self._keep, args=(seconds,), name="esxi-lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise LostAnswerError when the lease has died."""
        if self._died:
            raise LostAnswerError("the host ended the transfer", vendor_code="HttpNfcLease")

    def rest(self) -> None:
        """Stop telling the host that we are alive."""
        self._over.set()
        self._thread.join(ABORT_S)

    def complete(self, deadline: Deadline) -> None:
        """Tell the host that all is over there. Raises LostAnswerError when the lease died before."""
        self.check()
        for again in (True, False):
            try:
                self.site.send(self._lease.HttpNfcLeaseComplete, deadline)
            except LostAnswerError:
                if not again:
                    raise
                if _state(self.site, self._lease, deadline) in {"done", None}:  # it was heard: we told it just now
                    return
            except vmodl.fault.ManagedObjectNotFound as error:
                raise LostAnswerError("the host ended the transfer", vendor_code="HttpNfcLease") from error
            else:
                return

    def disk_url(self) -> Any:
        """The one disk's URL."""
        disks = [each for each in self.info.deviceUrl or () if each.disk is not False]
        if len(disks) != 1:
            raise HostAtFault("the host offers another number of disks than one", vendor_code="HttpNfcLease")
        return disks[0]

    def _keep(self, every_s: float) -> None:
        while not self._over.wait(every_s):
            try:
                self.site.look(lambda: self._lease.HttpNfcLeaseProgress(self.percent), Deadline(ABORT_S))
            except vmodl.MethodFault:
                self._died = True
                return
            except ERRORS:
                continue  # the next one may get through, and a lease outlives several


@contextmanager
def leased(site: Site, start: Callable[[], Any], deadline: Deadline) -> Iterator[Lease]:
    """A lease that is ready; it is aborted when what happens inside fails, and left to its user to complete."""
    lease = site.send(start, deadline)
    try:
        opened = Lease(site, lease, _ready(site, lease, deadline))
        try:
            yield opened
        finally:
            opened.rest()
    except BaseException:
        with suppress(DriverError), as_driver_errors():  # the host ends it by itself after some minutes
            site.send(lambda: lease.HttpNfcLeaseAbort(None), Deadline(ABORT_S))
        raise


def _state(site: Site, lease: Any, deadline: Deadline) -> str | None:
    try:
        found = site.look(lambda: reading.one(site.content, lease, ("state",)), deadline)
    except vmodl.fault.ManagedObjectNotFound:
        return None
    return str(found.get("state"))


def _ready(site: Site, lease: Any, deadline: Deadline) -> Any:
    """The lease's info once it is ready. Raises the fault that it ended with."""
    pause = SOON_S
    while True:
        try:
            found = site.look(lambda: reading.one(site.content, lease, ("state", "error", "info")), deadline)
        except vmodl.fault.ManagedObjectNotFound as error:
            raise LostAnswerError("the host forgot a transfer", vendor_code="ManagedObjectNotFound") from error
        state = str(found.get("state"))
        if state == "ready":
            return found["info"]
        if state != "initializing":
            fault = found.get("error")
            raise getattr(fault, "fault", None) or fault or HostAtFault("a transfer failed without a reason")
        deadline.check("the host was making a transfer ready")
        time.sleep(min(pause, deadline.remaining))
        pause = min(pause * SLOWER, SELDOM_S)


# ------------------------------------------------------------------------------------------ the wire


def send(lease: Lease, chunks: Iterable[bytes], size_bytes: int, deadline: Deadline) -> None:
    """Bring a disk of so many bytes to the host."""
    headers = {"Content-Length": str(size_bytes), "Content-Type": VMDK_TYPE}
    with _asked(lease, "POST", deadline, headers, _watched(lease, chunks, deadline)) as answer:
        answer.read()


def fetch(lease: Lease, deadline: Deadline, chunk_bytes: int) -> Iterator[bytes]:
    """A disk of the host in pieces."""
    with _asked(lease, "GET", deadline, {}) as answer:
        while True:
            try:
                chunk = answer.read(chunk_bytes)
            except TimeoutError as error:
                raise Transient("the deadline passed while a disk left the host") from error
            except BROKEN as error:
                raise LostAnswerError("the host broke off a disk", vendor_code=type(error).__name__) from error
            if not chunk:
                return
            lease.check()
            deadline.check("taking a disk out of the host")
            yield chunk


def _watched(lease: Lease, chunks: Iterable[bytes], deadline: Deadline) -> Iterator[bytes]:
    for chunk in chunks:
        lease.check()
        deadline.check("sending a disk to the host")
        yield chunk


@contextmanager
def _asked(
    lease: Lease, method: str, deadline: Deadline, headers: dict[str, str], body: Iterable[bytes] | None = None
) -> Iterator[http.client.HTTPResponse]:
    url = lease.disk_url()
    connection, target, more = connection_to(lease.site, str(url.url), url.sslThumbprint, deadline)
    try:
        try:
            connection.request(method, target, body=body, headers={**headers, **more})
            answer = connection.getresponse()
        except TimeoutError as error:
            raise Transient("the deadline passed while a disk went over") from error
        except BROKEN as error:
            raise LostAnswerError("the host broke off a disk", vendor_code=type(error).__name__) from error
        if answer.status == NOT_THERE:
            raise LostAnswerError("the host ended the transfer", vendor_code=str(answer.status))
        if answer.status not in FOUND:
            kind = HostAtFault if answer.status == FULL else Transient
            raise kind("the host does not carry a disk", vendor_code=str(answer.status))
        yield answer
    finally:
        connection.close()


def connection_to(
    site: Site, url: str, thumbprint: str | None, deadline: Deadline
) -> tuple[http.client.HTTPSConnection, str, dict[str, str]]:
    """An open and verified connection to where a URL points, the path on it, and headers that belong there."""
    at, parts = site.session.endpoint, urlsplit(url.replace("https://*", "https://any", 1))
    if parts.scheme != "https" or not parts.hostname:
        raise HostAtFault("the host names no HTTPS address for a disk")
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    deadline.check("reaching the host for a disk")
    own = url.startswith("https://*") or parts.hostname == at.host
    if own:
        port = parts.port or at.port
        connection = http.client.HTTPSConnection(at.host, port, timeout=deadline.remaining, context=at.trust)
        connection.connect()
        return connection, target, {"Cookie": site.session.cookie}
    # The check is the thumbprint below, before anything is said.
    unnamed = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unnamed.check_hostname = False
    unnamed.verify_mode = ssl.CERT_NONE
    connection = http.client.HTTPSConnection(
        parts.hostname, parts.port, timeout=deadline.remaining, context=unnamed
    )  # fmt: skip
    connection.connect()
    if not _fits(connection.sock, thumbprint):
        connection.close()
        raise HostAtFault("another host of the endpoint has not the certificate that it should have")
    return connection, target, {}


def _fits(sock: Any, thumbprint: str | None) -> bool:
    """Whether the certificate is the one of that thumbprint (SHA-256, or SHA-1 as older hosts tell it)."""
    wanted = (thumbprint or "").replace(":", "").lower()
    found = sock.getpeercert(binary_form=True) or b""
    digests = (hashlib.sha256(found), hashlib.sha1(found))  # noqa: S324 - vSphere's own kind of thumbprint
    return bool(found) and wanted in {each.hexdigest() for each in digests}
