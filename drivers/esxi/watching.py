"""State changes of machines, as the session's lookout hears them from the host.

The first set is what is, and says nothing; after it each change of a machine of ours is told with the state just after.
When the session ends, the lookout begins anew on the next one, and its first set is compared with what was known: what
changed in between is told then. Only when the host stays away does a watch end (not alive); its owner lists and watches
anew, as the contract says.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID

from drivers.api import Deadline, Machine, MachineChanged, Transient
from drivers.esxi import reading
from drivers.esxi.errors import as_driver_errors
from drivers.esxi.site import Site, reference

HURRY_S = 0.2
log = logging.getLogger(__name__)


class EsxiWatch:
    """See :class:`drivers.api.Watch`. Told by the lookout's thread, which also runs the call-backs."""

    names: tuple[str, ...] = (*reading.MACHINE, "runtime.host")

    def __init__(self, site: Site, on_change: Callable[[MachineChanged], None], deadline: Deadline) -> None:
        self._site = site
        self._on_change = on_change
        self._known: dict[str, dict[str, Any]] = {}
        self._told: dict[str, Machine | None] = {}
        self._fresh: set[str] | None = None
        self._begun = threading.Event()
        self._closed = False
        self._telling = threading.RLock()
        with as_driver_errors():
            deadline.check("beginning to watch")
            site.look(site.session.check, deadline)
        site.lookout.watch(self)
        while not self._begun.wait(min(HURRY_S, deadline.remaining)):
            if not deadline.remaining:
                self.close()
                raise Transient("the deadline passed while beginning to watch")
            site.lookout.hurry()
        if not self.alive:
            raise Transient("the host cannot be watched now")

    @property
    def alive(self) -> bool:
        """See :attr:`drivers.api.Watch.alive`."""
        return not self._closed and self._site.session.is_open

    def close(self) -> None:
        """See :meth:`drivers.api.Watch.close`."""
        with self._telling:
            if self._closed:
                return
            self._closed = True
        self._site.lookout.ignore(self)

    # ------------------------------------------------------------------------------------- what the lookout says

    def begin(self) -> None:
        """A first set comes: what is not in it is gone."""
        self._fresh = set()

    def change(self, change: Any) -> None:
        """A machine entered, changed or left."""
        key = reference(change.obj)
        if str(change.kind) == "leave":
            self._known.pop(key, None)
        else:
            entered = str(change.kind) == "enter" or key not in self._known
            found = self._known[key] = {} if entered else dict(self._known[key])
            for each in change.changeSet or ():
                found[str(each.name)] = each.val if str(each.op) in {"assign", "add"} else None
        if self._fresh is not None:
            self._fresh.add(key)
        if self._begun.is_set():
            self._compare(key)
        else:
            self._told[key] = self._ours(key)

    def settled(self) -> None:
        """The first set is whole."""
        fresh, self._fresh = self._fresh, None
        for key in self._known.keys() - (fresh or set()):
            del self._known[key]
            self._compare(key)
        self._begun.set()

    def end(self) -> None:
        """The host stays away."""
        self._closed = True
        self._begun.set()

    # ------------------------------------------------------------------------------------- parts

    def _compare(self, key: str) -> None:
        before, after = self._told.get(key), self._ours(key)
        if before == after:
            return
        self._told[key] = after
        if key not in self._known:
            del self._told[key]
        changed = after or before
        if changed is not None:
            self._say(changed.id, after)

    def _ours(self, key: str) -> Machine | None:
        found = self._known.get(key)
        if found is None or found.get("runtime.host") is None:
            return None
        here = reference(found["runtime.host"]) == self._site.host_id
        return reading.our_machine(found) if here else None

    def _say(self, machine_id: UUID, machine: Machine | None) -> None:
        with self._telling:
            if self._closed:
                return
            try:
                self._on_change(MachineChanged(machine_id, machine))
            except Exception:
                log.exception("who watches an ESXi host failed")
