"""The one private property collector of a session: what a host pushes, tasks and machines alike, waited on by a thread.

Two filters hang on it: a list of the tasks in flight, and all machines while somebody watches them. Whoever waits for a
task that lasts asks for it here and looks by himself now and then, so that a push which never comes costs seconds and
not the task. When the session ends, the collector is gone with it: it is built anew on the next session, and its first
set is taken as the truth. Only when that fails again and again does it give up, and then those who watch are told.
The thread lives as long as there is something to wait for.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from http.client import HTTPException
from typing import Any, Protocol
from xml.parsers.expat import ExpatError

from pyVmomi import vim, vmodl

from drivers.api import Deadline, DriverError
from drivers.esxi.errors import UNREADABLE
from drivers.esxi.session import Session

log = logging.getLogger(__name__)
WAIT_S = 10
ANSWER_S = 30.0
STEP_S = 2.0
IDLE_S = 20.0
GIVE_UP_AFTER, PAUSE_S = 3, 0.5
MOST_OBJECTS = 500
TASK = ("info.state", "info.error", "info.result")
ENDED = frozenset({"success", "error"})
BROKEN = (vmodl.MethodFault, OSError, HTTPException, ExpatError, DriverError, *UNREADABLE)


class Watcher(Protocol):
    """Who is told of machines."""

    names: tuple[str, ...]

    def begin(self) -> None:
        """A first set comes now: what is not in it is gone."""

    def change(self, change: Any) -> None:
        """One machine entered, changed or left."""

    def settled(self) -> None:
        """The first set is whole."""

    def end(self) -> None:
        """Nothing comes any more."""


class Errand:
    """A task that somebody waits for. ``ended`` is set when ``found`` tells its end, or when he had better look."""

    def __init__(self, task: Any) -> None:
        self.task = task
        self.found: dict[str, Any] = {}
        self.ended = threading.Event()


class _Post:
    """The collector as it was built once. ``fresh`` until its first set was whole; ``listed`` are the tasks on it."""

    def __init__(self, collector: Any, tasks: Any, machines: Any, watchers: tuple[Watcher, ...]) -> None:
        self.collector, self.tasks, self.machines, self.watchers = collector, tasks, machines, watchers
        self.listed: set[str] = set()
        self.version = ""
        self.fresh = True


class Lookout:
    """See the module. One for each session; shared by threads."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.Condition()
        self._errands: dict[str, Errand] = {}
        self._watchers: list[Watcher] = []
        self._post: _Post | None = None
        self._thread: threading.Thread | None = None
        self._failures = 0

    # ------------------------------------------------------------------------------------- for those who wait

    def expect(self, task: Any, deadline: Deadline) -> Errand:
        """Have the end of a task pushed."""
        errand = Errand(task)
        with self._lock:
            self._errands[_reference(task)] = errand
            post = self._post
            self._awake()
        if post is not None:  # it is being waited on already, and hears of more at once
            with suppress(*BROKEN):
                self._list(post, errand, deadline)
        return errand

    def dismiss(self, errand: Errand) -> None:
        """Nobody waits for that task any more."""
        with self._lock:
            self._errands.pop(_reference(errand.task), None)

    def watch(self, watcher: Watcher) -> None:
        """Tell of machines from now on; the first set comes soon."""
        with self._lock:
            self._watchers.append(watcher)
            self._awake()
        self._interrupt()

    def ignore(self, watcher: Watcher) -> None:
        """Stop telling it."""
        with self._lock:
            if watcher in self._watchers:
                self._watchers.remove(watcher)
        self._interrupt()

    def _awake(self) -> None:
        if self._thread is None:
            self._failures = 0
            self._thread = threading.Thread(target=self._run, name="esxi-lookout", daemon=True)
            self._thread.start()
        self._lock.notify_all()

    def hurry(self) -> None:
        """Interrupt a wait that does not fit what is wanted: one that began just after it was to be interrupted."""
        with self._lock:
            misfit = self._post is not None and self._post.watchers != tuple(self._watchers)
        if misfit:
            self._interrupt()

    def _interrupt(self) -> None:
        """End a wait early, since what is wanted has changed. A host that is not asked to wait yet does nothing."""
        with self._lock:
            post = self._post
        if post is not None:
            with suppress(*BROKEN):
                self._session.once(post.collector.CancelWaitForUpdates, Deadline(STEP_S))

    # ------------------------------------------------------------------------------------- the thread

    def _run(self) -> None:
        while self._is_wanted():
            try:
                self._turn()
                self._failures = 0
            except vmodl.fault.RequestCanceled:
                continue
            except BROKEN as error:
                self._let_go()
                self._failures += 1
                log.info("looking out for an ESXi host broke off: %s", type(error).__name__)
                if self._failures >= GIVE_UP_AFTER or not self._session.is_open:
                    self._give_up()
                    return
                with self._lock:
                    self._lock.wait(PAUSE_S * self._failures)

    def _is_wanted(self) -> bool:
        with self._lock:
            if not self._errands and not self._watchers:
                self._lock.wait(IDLE_S)
            if self._session.is_open and (self._errands or self._watchers):
                return True
            self._thread = None
            post, self._post = self._post, None
        self._destroy(post)
        return False

    def _turn(self) -> None:
        """One wait, on a collector that fits what is wanted."""
        post = self._fitting()
        with self._lock:
            late = [each for key, each in self._errands.items() if key not in post.listed]
            stale = [key for key in post.listed if key not in self._errands]
        for errand in late:
            self._list(post, errand, Deadline(ANSWER_S))
        if stale:
            tasks = [self._session.managed(vim.Task, key) for key in stale]
            self._session.once(lambda: post.tasks.ModifyListView(remove=tasks), Deadline(ANSWER_S))
            post.listed.difference_update(stale)
        self._take(post, self._session.once(lambda: self._wait(post), Deadline(WAIT_S + ANSWER_S)))

    def _fitting(self) -> _Post:
        with self._lock:
            watchers, post = tuple(self._watchers), self._post
        if post is None or post.watchers != watchers:
            self._let_go()
            post = self._session.send(lambda: self._build(watchers), Deadline(ANSWER_S))
            for each in watchers:
                each.begin()
            with self._lock:
                self._post = post
        return post

    def _build(self, watchers: tuple[Watcher, ...]) -> _Post:
        content = self._session.content
        collector = content.propertyCollector.CreatePropertyCollector()
        tasks = content.viewManager.CreateListView(obj=[])
        collector.CreateFilter(_filter(tasks, vim.Task, TASK), False)
        machines = None
        if watchers:
            machines = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)
            names = tuple(dict.fromkeys(name for each in watchers for name in each.names))
            collector.CreateFilter(_filter(machines, vim.VirtualMachine, names), False)
        return _Post(collector, tasks, machines, watchers)

    def _list(self, post: _Post, errand: Errand, deadline: Deadline) -> None:
        """Put a task on the list. One that the host has forgotten is for its waiter to look at."""
        try:
            self._session.once(lambda: post.tasks.ModifyListView(add=[errand.task]), deadline)
        except vmodl.fault.ManagedObjectNotFound as error:
            if error.obj is not None and _reference(error.obj) != _reference(errand.task):
                raise  # the list itself is gone, and its session with it
            errand.ended.set()
        post.listed.add(_reference(errand.task))

    def _wait(self, post: _Post) -> Any:
        seconds = 0 if post.fresh and not post.version else WAIT_S
        options = vmodl.query.PropertyCollector.WaitOptions(maxWaitSeconds=seconds, maxObjectUpdates=MOST_OBJECTS)
        return post.collector.WaitForUpdatesEx(post.version, options)

    def _take(self, post: _Post, update: Any) -> None:
        if update is not None:
            for filtered in update.filterSet or ():
                for change in filtered.objectSet or ():
                    self._tell(post, change)
            post.version = str(update.version)
        if post.fresh and not (update is not None and update.truncated):
            post.fresh = False
            for each in post.watchers:
                each.settled()

    def _tell(self, post: _Post, change: Any) -> None:
        if not isinstance(change.obj, vim.Task):
            for each in post.watchers:
                each.change(change)
            return
        with self._lock:
            errand = self._errands.get(_reference(change.obj))
        if errand is not None:
            errand.found |= {str(each.name): each.val for each in change.changeSet or ()}
            if str(errand.found.get("info.state")) in ENDED or str(change.kind) == "leave":
                errand.ended.set()

    def _let_go(self) -> None:
        with self._lock:
            post, self._post = self._post, None
        self._destroy(post)

    def _destroy(self, post: _Post | None) -> None:
        if post is None or not self._session.is_open:
            return
        for each in (post.collector.DestroyPropertyCollector, post.tasks.DestroyView):
            with suppress(*BROKEN):
                self._session.once(each, Deadline(STEP_S))
        if post.machines is not None:
            with suppress(*BROKEN):
                self._session.once(post.machines.DestroyView, Deadline(STEP_S))

    def _give_up(self) -> None:
        with self._lock:
            watchers, self._watchers = self._watchers, []
            self._thread = None
        for each in watchers:
            each.end()


def _filter(view: Any, kind: type, names: tuple[str, ...]) -> Any:
    kinds = vmodl.query.PropertyCollector
    way = kinds.TraversalSpec(name="way", type=type(view), path="view", skip=False)
    objects = kinds.ObjectSpec(obj=view, skip=True, selectSet=[way])
    wish = kinds.PropertySpec(type=kind, all=False, pathSet=list(names))
    return kinds.FilterSpec(objectSet=[objects], propSet=[wish])


def _reference(managed: Any) -> str:
    return str(managed._moId)  # noqa: SLF001 - pyVmomi's only name for an object's reference
