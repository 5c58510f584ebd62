"""The connection to one libvirtd: opened with a deadline, watched by keepalive, opened again when it was lost.

Every other module asks the :class:`Link` for the connection at each call and never keeps a libvirt object between
calls, so a libvirtd that restarts costs one Transient answer and nothing else. One daemon thread per process runs
libvirt's event loop; it only wakes waiters and hands events to queues, and never calls back into libvirt.
Calls into libvirt cannot be interrupted: deadlines are looked at between them, and keepalive bounds a dead peer.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import UUID
from weakref import WeakValueDictionary

import libvirt

from drivers.api import Deadline, HostConfig, Transient
from drivers.kvm import options, xml
from drivers.kvm.errors import found, told, translate

_KEEPALIVE_SECONDS = 5
_KEEPALIVE_COUNT = 3
_LOOK_AGAIN_SECONDS = 0.5

#: Told of every lifecycle event: the machine's UUID and libvirt's name of the domain; None, None: connection lost.
Listener = Callable[[UUID | None, str | None], None]

_loop_lock = threading.Lock()
_loop_pid: int | None = None


class Link:
    """One host's connection, shared by all threads that use the driver."""

    def __init__(self, config: HostConfig) -> None:
        self.config = config
        self.options = options.read(config)
        self._lock = threading.Lock()
        #: Whether this libvirtd offers KVM; None: not asked yet on this connection.
        self.offers_kvm: bool | None = None
        self._connection: Any = None
        self._closed = False
        self._listeners: list[Listener] = []
        self._changed = threading.Condition()
        self._changes = 0

    # ------------------------------------------------------------------------------------- opening and closing

    def open(self, deadline: Deadline) -> Any:
        """The live libvirt connection; opens one when there is none. Raises Transient once closed."""
        deadline.check("reaching the host")
        if not self._lock.acquire(timeout=deadline.remaining):
            raise Transient("the deadline passed while another thread was opening the connection")
        try:
            if self._closed:
                raise Transient("the connection to this host was closed")
            if self._connection is None or not self._connection.isAlive():
                self._connection = self.offers_kvm = None
                self._connection = self._dial(deadline)
            return self._connection
        finally:
            self._lock.release()

    def close(self) -> None:
        """Let go of the connection; what waits or listens is told."""
        with self._lock:
            self._closed = True
            connection, self._connection = self._connection, None
        if connection is not None:
            _hang_up(connection)
        self._tell(None, None)

    def _dial(self, deadline: Deadline) -> Any:
        _start_event_loop()
        answer: list[Any] = []
        late = threading.Event()

        def dial() -> None:  # in a thread of its own: connecting to a dead address blocks for minutes
            try:
                connection = self._open_now()
            except libvirt.libvirtError as error:
                answer.append(error)
                return
            answer.append(connection)
            if late.is_set():
                _hang_up(connection)

        thread = threading.Thread(target=dial, name=f"kvm-open-{self.config.name}", daemon=True)
        thread.start()
        thread.join(deadline.remaining)
        if not answer:
            late.set()
            raise Transient(f"{self.config.name} did not answer within the deadline")
        if isinstance(answer[0], libvirt.libvirtError):
            raise translate(answer[0], "opening the connection")
        with told("setting up the connection"):
            self._subscribe(answer[0])
            self._start_pool(answer[0])
        return answer[0]

    def _open_now(self) -> Any:
        if self.config.username is None:
            return libvirt.open(self.config.endpoint)
        user, secret = self.config.username, self.config.secret or ""

        def fill(credentials: list[list[Any]], _data: object) -> int:
            for each in credentials:
                each[4] = user if each[0] == libvirt.VIR_CRED_AUTHNAME else secret
            return 0

        kinds = [libvirt.VIR_CRED_AUTHNAME, libvirt.VIR_CRED_PASSPHRASE]
        return libvirt.openAuth(self.config.endpoint, [kinds, fill, None], 0)

    def _subscribe(self, connection: Any) -> None:
        connection.setKeepAlive(_KEEPALIVE_SECONDS, _KEEPALIVE_COUNT)
        connection.registerCloseCallback(lambda *_: self._tell(None, None), None)
        for event in (
            libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED,
            libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED,
            libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED,
        ):
            connection.domainEventRegisterAny(None, event, lambda *_: self._wake(), None)

        def lifecycle(_connection: Any, domain: Any, *_: object) -> None:
            self._tell(UUID(bytes=domain.UUID()), domain.name())

        connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle, None)

    def _start_pool(self, connection: Any) -> None:
        pool = found(lambda: connection.storagePoolLookupByName(self.options.pool), "NO_STORAGE_POOL")
        if pool is None:
            wanted = xml.text(xml.pool(self.options.pool, self.options.pool_path))
            pool = connection.storagePoolDefineXML(wanted, 0)
            pool.setAutostart(1)
        if not pool.isActive():
            found(lambda: pool.build(0), "OPERATION_INVALID")  # another process is starting it
            found(lambda: pool.create(0), "OPERATION_INVALID")

    # ------------------------------------------------------------------------------------- events

    def listen(self, listener: Listener) -> None:
        """Tell ``listener`` of every lifecycle event, from the event loop's thread: it must neither block nor call
        libvirt. Listeners outlive a lost connection.
        """
        with self._changed:
            self._listeners.append(listener)

    def ignore(self, listener: Listener) -> None:
        """Stop telling it."""
        with self._changed:
            if listener in self._listeners:
                self._listeners.remove(listener)

    def _tell(self, machine_id: UUID | None, name: str | None) -> None:
        with self._changed:
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener(machine_id, name)
        self._wake()

    def _wake(self) -> None:
        with self._changed:
            self._changes += 1
            self._changed.notify_all()

    def wait_until(self, holds: Callable[[], bool], deadline: Deadline) -> bool:
        """Look whether it holds now, after every event and twice a second, until the deadline. False: it never did.
        An event only makes us look sooner; the truth is what is seen.
        """
        while True:
            with self._changed:
                seen = self._changes
            if holds():
                return True
            if not deadline.remaining:
                return False
            with self._changed:
                if self._changes == seen:
                    self._changed.wait(min(_LOOK_AGAIN_SECONDS, deadline.remaining))

    # ------------------------------------------------------------------------------------- locks

    @contextmanager
    def only(self, deadline: Deadline, *key: str) -> Iterator[None]:
        """One thread of this process at a time for this key of this host."""
        with _loop_lock:
            lock = _locks.setdefault((self.config.endpoint, *key), threading.Lock())
        if not lock.acquire(timeout=deadline.remaining):
            raise Transient("the deadline passed while another thread was at work on the same")
        try:
            yield
        finally:
            lock.release()


#: Weak: a lock nobody holds or waits for is forgotten.
_locks: WeakValueDictionary[tuple[str, ...], Any] = WeakValueDictionary()


def _start_event_loop() -> None:
    """Run libvirt's event loop in a daemon thread, once per process: it must be there before a connection is."""
    global _loop_pid  # noqa: PLW0603 - libvirt's event loop is one per process, and a forked child has lost the thread
    with _loop_lock:
        if _loop_pid == os.getpid():
            return
        libvirt.registerErrorHandler(lambda *_: None, None)  # else libvirt prints each error to stderr
        libvirt.virEventRegisterDefaultImpl()
        threading.Thread(target=_run_event_loop, name="kvm-events", daemon=True).start()
        _loop_pid = os.getpid()


def _run_event_loop() -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError:  # an interrupted poll: the next round sees to it
            time.sleep(0.05)


def _hang_up(connection: Any) -> None:
    for step in (connection.unregisterCloseCallback, connection.close):
        with suppress(libvirt.libvirtError):  # no call-back yet, or dead already: there is nothing left to undo
            step()
