"""A vSphere session that stays alive: verified TLS, a deadline on each call, one login for all threads.

It sits on pyVmomi's SoapStubAdapter and on nothing above it (SmartConnect can hang, VimSessionOrientedStub sends lost
writes twice). ``NotAuthenticated`` is said before a host acts, so any call may go once more after a new login; one
whose answer was lost only if it reads. A refused password is never tried again: accounts lock after a few.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from datetime import datetime
from http.client import HTTPException, HTTPSConnection
from threading import Event, Lock, Thread, local
from typing import Any, TypeVar
from weakref import ReferenceType, ref

from pyVmomi import vim
from pyVmomi.SoapAdapter import SoapResponseDeserializer, SoapStubAdapter
from pyVmomi.VmomiSupport import GetServiceVersions, versionIdMap

from drivers.api import Deadline, HostAtFault, Transient
from drivers.esxi.errors import as_driver_errors, driver_error
from drivers.esxi.trust import Endpoint

T = TypeVar("T")
VERSIONS_BYTES_MOST = 65_536
NAMESPACE = re.compile(rb"<namespace>(.*?)</namespace>", re.DOTALL)
VERSION = re.compile(rb"<version>\s*([0-9.]{1,20})\s*</version>")
HTTP_OK, HTTP_FAULT = 200, 500
KEEP_ALIVE_S = 300.0
ANSWER_S = 20.0
BROKEN = (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError, ssl.SSLZeroReturnError, HTTPException)


class LostAnswerError(Transient):
    """A call that may have been carried out, or not: look before asking again."""


class _DeadlineStub(SoapStubAdapter):
    """Gives each HTTP connection the time that its caller has left. Nothing is written by a call without time."""

    def __init__(self, at: Endpoint, version: str) -> None:
        where = {"host": at.host, "port": at.port, "path": at.path}
        super().__init__(**where, version=version, sslContext=at.trust)  # type: ignore[no-untyped-call]  # pyVmomi
        self._at = at
        self._thread = local()

    def use(self, deadline: Deadline) -> None:
        """The deadline of what this thread calls from now on."""
        self._thread.deadline = deadline

    def GetConnection(self) -> HTTPSConnection:  # noqa: N802 - pyVmomi's name
        """A connection whose socket waits no longer than the caller may."""
        deadline: Deadline = self._thread.deadline
        deadline.check("calling the host")
        with self.lock:
            self._CloseIdleConnections()  # type: ignore[no-untyped-call]  # pyVmomi's
            kept: HTTPSConnection | None = self.pool.pop(0)[0] if self.pool else None
        if kept is not None and kept.sock is not None:
            kept.timeout = deadline.remaining
            kept.sock.settimeout(deadline.remaining)
            return kept
        fresh = HTTPSConnection(self._at.host, self._at.port, timeout=deadline.remaining, context=self._at.trust)
        fresh.connect()
        return fresh

    def answer(self, managed: Any, method: str, *arguments: object) -> bytes:
        """What the host answers, as it came. Raises what the SDK would raise: a fault, or HTTPException."""
        info = type(managed)._GetMethodInfo(method)  # noqa: SLF001 - pyVmomi's only way to a method's description
        request = self.SerializeRequest(managed, info, arguments)  # type: ignore[no-untyped-call]  # pyVmomi's
        connection = self.GetConnection()
        headers = {"Cookie": self.cookie, "SOAPAction": self.versionId, "Content-Type": "text/xml; charset=utf-8"}
        try:
            connection.request("POST", self._at.path, request, headers)
            came = connection.getresponse()
            body = came.read()
        except (OSError, HTTPException):
            connection.close()
            self.DropConnections()  # type: ignore[no-untyped-call]  # pyVmomi's
            raise
        if came.status == HTTP_OK:
            self.ReturnConnection(connection)  # type: ignore[no-untyped-call]  # pyVmomi's
            return body
        connection.close()
        if came.status == HTTP_FAULT:
            fault = SoapResponseDeserializer(self).Deserialize(body, info.result)
            if isinstance(fault, Exception):
                raise fault
        raise HTTPException(f"{came.status} {came.reason}")


class Session:
    """One login to one endpoint, shared by threads."""

    def __init__(self, at: Endpoint, deadline: Deadline, *, keep_alive_s: float = KEEP_ALIVE_S) -> None:
        self._at = at
        self._login = Lock()
        self._closing = Event()
        self._epoch = 0
        self._refused: HostAtFault | None = None
        self._open = True
        with as_driver_errors():
            self._stub = _DeadlineStub(at, _version(at, deadline))
            self._stub.use(deadline)
            self.content: Any = vim.ServiceInstance("ServiceInstance", self._stub).RetrieveContent()
        self._renew(0, deadline)
        Thread(
            target=_keep_alive, args=(ref(self), self._closing, keep_alive_s), name="esxi-alive", daemon=True
        ).start()

    def read(self, ask: Callable[[], T], deadline: Deadline) -> T:
        """What ``ask`` answers, which only reads. Raises the four errors.

        It is asked once more after a new login when the session had ended, and when a connection broke that may have
        been idle for too long.
        """
        with as_driver_errors():
            return self.look(ask, deadline)

    def look(self, ask: Callable[[], T], deadline: Deadline) -> T:
        """As :meth:`read`, but raises what the SDK raises, for who wants to know which fault it was."""
        epoch = self._begin(deadline)
        try:
            return ask()
        except vim.fault.NotAuthenticated:
            self._renew(epoch, deadline)
        except BROKEN:
            deadline.check("calling the host again")
        return ask()

    def send(self, ask: Callable[[], T], deadline: Deadline) -> T:
        """What ``ask`` answers, which may change something: never sent again once it may have arrived.

        Raises what the SDK raises, and LostAnswerError when nobody knows whether it was carried out.
        """
        epoch = self._begin(deadline)
        try:
            try:
                return ask()
            except vim.fault.NotAuthenticated:
                self._renew(epoch, deadline)
            return ask()
        except BROKEN as error:
            raise LostAnswerError("the host's answer was lost", vendor_code=type(error).__name__) from error

    def once(self, ask: Callable[[], T], deadline: Deadline) -> T:
        """What ``ask`` answers, sent once and to this very session."""
        self._begin(deadline)
        return ask()

    def answer(self, managed: Any, method: str, *arguments: object) -> bytes:
        """A call's answer as it came, for who reads it himself. As :meth:`once`, within a call of :meth:`look`."""
        return self._stub.answer(managed, method, *arguments)

    def check(self) -> None:
        """Raise NotAuthenticated when the session has ended; for requests beside the SOAP service."""
        if self.content.sessionManager.currentSession is None:
            raise vim.fault.NotAuthenticated

    def now(self) -> datetime:
        """The host's clock."""
        found: datetime = vim.ServiceInstance("ServiceInstance", self._stub).CurrentTime()
        return found

    @property
    def cookie(self) -> str:
        """What names this session in other requests to the host, its files among them."""
        return str(self._stub.cookie or "").partition(";")[0]

    @property
    def endpoint(self) -> Endpoint:
        """Where the host listens and whom we trust."""
        return self._at

    def _begin(self, deadline: Deadline) -> int:
        if not self._open:
            raise Transient("this connection to the host is closed")
        deadline.check("calling the host")
        self._stub.use(deadline)
        return self._epoch

    def managed(self, kind: type[T], reference: str) -> T:
        """The object of that reference, on this session."""
        return kind(reference, self._stub)  # type: ignore[call-arg]  # pyVmomi's classes take id and stub

    @property
    def is_open(self) -> bool:
        """Whether it was not closed; what has ended on the host's side is renewed."""
        return self._open

    def close(self) -> None:
        """Log out as far as the host listens, and drop the connections."""
        if self._open:
            self._open = False
            self._closing.set()
            self._stub.use(Deadline(2))
            try:
                self.content.sessionManager.Logout()
            except Exception as error:  # noqa: BLE001 - the host may be gone; there is nobody left to tell
                driver_error(error)
            self._stub.DropConnections()  # type: ignore[no-untyped-call]  # pyVmomi's

    def _renew(self, seen_epoch: int, deadline: Deadline) -> None:
        """Log in, unless another thread did since ``seen_epoch``."""
        if not self._login.acquire(timeout=deadline.remaining):
            raise Transient("another call is logging in to the host")
        try:
            if self._refused is not None:
                raise self._refused
            if self._epoch != seen_epoch:
                return
            self._stub.cookie = ""  # a host answers InvalidLogin to a login within a session, and that must not stick
            with as_driver_errors():
                self.content.sessionManager.Login(self._at.username, self._at.secret)
            self._epoch += 1
        except HostAtFault as error:
            if error.vendor_code in {"InvalidLogin", "PasswordExpired"}:
                self._refused = error
            raise
        finally:
            self._login.release()


def _keep_alive(session: ReferenceType[Session], closing: Event, every_s: float) -> None:
    """Ask for the time now and then, so that an idle session does not end. One that ended all the same is renewed by
    whoever calls next: who does nothing needs none.
    """
    while not closing.wait(every_s):
        kept = session()
        if kept is None:
            return
        try:
            kept.once(kept.now, Deadline(ANSWER_S))
        except Exception as error:  # noqa: BLE001 - whoever calls next is told what is wrong
            driver_error(error)
        del kept


def _version(at: Endpoint, deadline: Deadline) -> str:
    """The newest API version that the host and the SDK both know, asked with the same trust and deadline."""
    deadline.check("asking the host for its versions")
    connection = HTTPSConnection(at.host, at.port, timeout=deadline.remaining, context=at.trust)
    try:
        connection.request("GET", f"{at.path}/vimServiceVersions.xml")
        answer = connection.getresponse()
        text = answer.read(VERSIONS_BYTES_MOST)
    finally:
        connection.close()
    vim25 = [each for each in NAMESPACE.findall(text) if b"<name>urn:vim25</name>" in each]
    known = {number.decode() for each in vim25 for number in VERSION.findall(each)}
    for version in GetServiceVersions("vim25"):
        if answer.status == HTTP_OK and versionIdMap[version] in known:
            return str(version)
    raise HostAtFault("the host is no vSphere host, or of a version that the SDK does not know")
