"""The stream of changes: libvirt's lifecycle events, told as the state seen just after.

The event loop's thread only puts ids into a queue; a thread of the watch looks at the machine and calls back, so a
slow call-back delays nobody else. There is such a thread only while something is in the queue: thousands of quiet hosts
cost none. Several events of one machine in a row become one call. A lost connection ends the watch: what happened
meanwhile is unknown, so the caller must list anew.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from uuid import UUID

from drivers.api import Deadline, DriverError, Machine, MachineChanged
from drivers.kvm.link import Link

_LOOK_SECONDS = 30.0
_LOOK_AGAIN_SECONDS = 1.0

_Heard = tuple[str, UUID]
"""A domain's name and UUID: whether it is ours is looked up by the watch's own thread."""


class LifecycleWatch:
    """The :class:`drivers.api.Watch` of one caller."""

    def __init__(
        self,
        link: Link,
        identify: Callable[[str, UUID, Deadline], UUID | None],
        inspect: Callable[[UUID, Deadline], Machine | None],
        on_change: Callable[[MachineChanged], None],
    ) -> None:
        self._link = link
        self._identify = identify
        self._inspect = inspect
        self._on_change = on_change
        self._queue: SimpleQueue[_Heard] = SimpleQueue()
        self._alive = True
        self._at_work = threading.Lock()
        self._thread: threading.Thread | None = None
        link.listen(self._hear)

    @property
    def alive(self) -> bool:
        """Whether changes are still told."""
        return self._alive

    def close(self) -> None:
        """End the stream; no call-back comes after this returned."""
        self._end()
        with self._at_work:
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _end(self) -> None:
        self._alive = False
        self._link.ignore(self._hear)

    def _hear(self, machine_id: UUID | None, name: str | None) -> None:
        if machine_id is None or name is None:
            self._end()
        else:
            self._put((name, machine_id))

    def _put(self, heard: _Heard) -> None:
        with self._at_work:
            self._queue.put(heard)
            if self._thread is None and self._alive:
                name = f"kvm-watch-{self._link.config.name}"
                self._thread = threading.Thread(target=self._run, name=name, daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            for heard in self._waiting():
                if self._alive:
                    self._tell(heard)
            with self._at_work:
                if self._queue.empty() or not self._alive:
                    self._thread = None
                    return

    def _waiting(self) -> dict[_Heard, None]:
        found: dict[_Heard, None] = {}
        with suppress(Empty):
            while True:
                found[self._queue.get_nowait()] = None
        return found

    def _tell(self, heard: _Heard) -> None:
        try:
            machine_id = self._identify(*heard, Deadline(_LOOK_SECONDS))
            if machine_id is None:
                return
            seen = self._inspect(machine_id, Deadline(_LOOK_SECONDS))
        except DriverError:
            if self._alive:  # the host is slow: look again rather than lose the change
                threading.Timer(_LOOK_AGAIN_SECONDS, self._put, (heard,)).start()
            return
        if self._alive:
            self._on_change(MachineChanged(machine_id, seen))
