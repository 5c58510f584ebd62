"""State changes as the host pushes them: a private property collector over all machines, waited on by one thread.

The first set is what is, and says nothing; after it each change of a machine of ours is told with the state just
after. When the session ends, the collector went with it: then the watch is over (not alive) and its owner lists and
watches anew, as the contract says, so nothing that happened in between is lost.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException
from typing import Any
from uuid import UUID
from xml.parsers.expat import ExpatError

from pyVmomi import vim, vmodl

from drivers.api import Deadline, DriverError, Machine, MachineChanged
from drivers.esxi import reading
from drivers.esxi.errors import as_driver_errors
from drivers.esxi.site import Site, reference

log = logging.getLogger(__name__)
WAIT_S = 10
ANSWER_S = 30.0
NAMES = (*reading.MACHINE, "runtime.host")
BROKEN = (vmodl.MethodFault, OSError, HTTPException, ExpatError, DriverError, AttributeError, TypeError, ValueError)


class EsxiWatch:
    """See :class:`drivers.api.Watch`."""

    def __init__(self, site: Site, on_change: Callable[[MachineChanged], None], deadline: Deadline) -> None:
        self._site = site
        self._tell = on_change
        self._closed = threading.Event()
        self._known: dict[str, dict[str, Any]] = {}
        with as_driver_errors():
            self._collector = site.send(self._begin, deadline)
            self._version = self._take(site.look(lambda: self._wait("", 0), deadline), told=False)
        self._thread = threading.Thread(target=self._run, name="esxi-watch", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """See :attr:`drivers.api.Watch.alive`."""
        return self._thread.is_alive() and not self._closed.is_set()

    def close(self) -> None:
        """See :meth:`drivers.api.Watch.close`."""
        if self._closed.is_set():
            return
        self._closed.set()
        with suppress(*BROKEN):
            self._site.send(self._collector.CancelWaitForUpdates, Deadline(2))
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=WAIT_S + 2)
        with suppress(*BROKEN):
            self._site.send(self._collector.DestroyPropertyCollector, Deadline(2))

    # ------------------------------------------------------------------------------------- the thread

    def _begin(self) -> Any:
        content = self._site.content
        kinds = vmodl.query.PropertyCollector
        view = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)
        way = kinds.TraversalSpec(name="way", type=type(view), path="view", skip=False)
        objects = kinds.ObjectSpec(obj=view, skip=True, selectSet=[way])
        wish = kinds.PropertySpec(type=vim.VirtualMachine, all=False, pathSet=list(NAMES))
        collector = content.propertyCollector.CreatePropertyCollector()
        collector.CreateFilter(kinds.FilterSpec(objectSet=[objects], propSet=[wish]), False)
        return collector

    def _wait(self, version: str, seconds: int) -> Any:
        options = vmodl.query.PropertyCollector.WaitOptions(maxWaitSeconds=seconds)
        return self._collector.WaitForUpdatesEx(version, options)

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                update = self._once()
                if update is not None:
                    self._version = self._take(update, told=True)
            except BROKEN as error:
                if not self._closed.is_set():
                    log.info("a watch of an ESXi host ended: %s", type(error).__name__)
                return

    def _once(self) -> Any:
        """One wait. It is not asked again by the session: a new session does not know this collector."""
        return self._site.session.once(lambda: self._wait(self._version, WAIT_S), Deadline(WAIT_S + ANSWER_S))

    def _take(self, update: Any, *, told: bool) -> str:
        if update is None:
            return ""
        for filtered in update.filterSet or ():
            for change in filtered.objectSet or ():
                self._change(change, told=told)
        return str(update.version)

    def _change(self, change: Any, *, told: bool) -> None:
        key = reference(change.obj)
        before = self._known.get(key)
        if str(change.kind) == "leave":
            self._known.pop(key, None)
            after = None
        else:
            after = self._known[key] = dict(before or {})
            for each in change.changeSet or ():
                after[str(each.name)] = each.val if str(each.op) in {"assign", "add"} else None
        was, now = self._ours(before), self._ours(after)
        machine_id = self._id(now or was)
        if told and machine_id is not None and was != now and not self._closed.is_set():
            self._say(MachineChanged(machine_id, now))

    def _ours(self, found: dict[str, Any] | None) -> Machine | None:
        if found is None or found.get("runtime.host") is None:
            return None
        here = reference(found["runtime.host"]) == self._site.host_id
        return reading.our_machine(found) if here else None

    def _id(self, machine: Machine | None) -> UUID | None:
        return None if machine is None else machine.id

    def _say(self, change: MachineChanged) -> None:
        try:
            self._tell(change)
        except Exception:
            log.exception("who watches an ESXi host failed")
