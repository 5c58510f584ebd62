"""One host of an endpoint as the facets use it: where it keeps things, calls that look or change, tasks, locks.

The rule for writes: a call whose answer was lost is never sent again blindly. :meth:`Site.settled` waits until the
host has no task of ours running, and then lets the whole verb begin anew; every verb looks before it makes, so what the
lost call did is found. A task is looked at soon and then ever less often; one that lasts is put on the lookout's list.
Locks order the threads of this process; other processes meet the host's own refusals (a file that is there already).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial, wraps
from threading import Lock, RLock
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast
from uuid import UUID
from weakref import WeakValueDictionary

from pyVmomi import vim, vmodl

from drivers.api import Deadline, DriverError, HostAtFault, Refused, Transient
from drivers.esxi import bulk, reading
from drivers.esxi.errors import as_driver_errors, driver_error
from drivers.esxi.lookout import ENDED, TASK, Errand, Lookout
from drivers.esxi.options import Options
from drivers.esxi.session import LostAnswerError, Session

T = TypeVar("T")
P = ParamSpec("P")
SOON_S, SELDOM_S, SLOWER = 0.01, 0.5, 1.5
LASTS_S = 0.2
FALLBACK_S = 2.0
LICENCE = (vim.fault.RestrictedVersion, vmodl.fault.NotEnoughLicenses)
log = logging.getLogger(__name__)


class _Lock:
    """A lock that a dictionary of weak references can hold."""

    __slots__ = ("__weakref__", "lock")

    def __init__(self) -> None:
        self.lock = RLock()


_locks: WeakValueDictionary[tuple[str, ...], _Lock] = WeakValueDictionary()
_locks_lock = Lock()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a host keeps things. ``folder`` is ours on the datastore: of this physical host alone, or of all hosts with
    the same option ``shared``. ``own_prefix`` leads from it to what is of this host in any case.
    """

    datacenter: Any
    dc_path: str
    vm_folder: Any
    pool: Any
    network_system: Any
    datastore: Any
    datastore_name: str
    browser: Any
    folder: str
    hardware_uuid: str
    own_prefix: str

    @property
    def root(self) -> str:
        """The folder as a datastore path."""
        return f"[{self.datastore_name}] {self.folder}"


class Site:
    """One host, shared by threads."""

    def __init__(self, session: Session, host: str, options: Options) -> None:
        self.session = session
        self.host: Any = session.managed(vim.HostSystem, host)
        self.host_id = host
        self.options = options
        self._place: Place | None = None
        self._running: dict[str, Any] = {}
        self.lookout = Lookout(session)
        self.holdings: Mapping[str, tuple[str, frozenset[UUID]]] = {}  # see holders.py
        self.restriction: str | None = None
        self._probed = False

    @property
    def content(self) -> Any:
        """The service content: the host's managers."""
        return self.session.content

    # ------------------------------------------------------------------------------------- calls

    def look(self, ask: Callable[[], T], deadline: Deadline) -> T:
        """A call that only reads."""
        return self.session.look(ask, deadline)

    def send(self, ask: Callable[[], T], deadline: Deadline) -> T:
        """A call that changes something and answers at once."""
        return self.session.send(ask, deadline)

    def carry_out(self, start: Callable[[], Any], deadline: Deadline, *, key: str | None = None) -> Any:
        """Start a task and wait for its end; its result. Raises the task's own fault, Transient when time is over.

        A task with a ``key`` that outlives its deadline is waited for by the next call with that key, not started
        again: a long copy goes on while its caller asks again and again.
        """
        task = self._running.get(key) if key is not None else None
        if task is None:
            task = self.session.send(start, deadline)
        if key is None:
            return self._end_of(task, deadline)
        self._running[key] = task
        try:
            found = self._end_of(task, deadline)
        except (vmodl.MethodFault, LostAnswerError):
            self._running.pop(key, None)
            raise
        self._running.pop(key, None)
        return found

    def goes_on(self, key: str) -> bool:
        """Whether a task with that key was started and its end not seen yet."""
        return key in self._running

    def _end_of(self, task: Any, deadline: Deadline) -> Any:
        """Most tasks are short, and looking is soonest then; what lasts is pushed, and looked at now and then."""
        pause = SOON_S
        errand: Errand | None = None
        try:
            while True:
                pushed = errand is not None and str(errand.found.get("info.state")) in ENDED
                found = errand.found if errand is not None and pushed else self._look_at_task(task, deadline)
                state = str(found.get("info.state"))
                if state == "success":
                    return found.get("info.result")
                if state == "error":
                    raise found.get("info.error") or HostAtFault("a task failed without a reason")
                deadline.check("the host was at work")
                if pause > LASTS_S and errand is None:
                    errand = self.lookout.expect(task, deadline)
                if errand is None or errand.ended.is_set():
                    time.sleep(min(pause, deadline.remaining))
                    pause = min(pause * SLOWER, SELDOM_S)
                else:
                    errand.ended.wait(min(FALLBACK_S, deadline.remaining))
        finally:
            if errand is not None:
                self.lookout.dismiss(errand)

    def _look_at_task(self, task: Any, deadline: Deadline) -> Any:
        try:
            return self.look(lambda: reading.one(self.content, task, TASK), deadline)
        except vmodl.fault.ManagedObjectNotFound as error:
            raise LostAnswerError("the host forgot a task", vendor_code="ManagedObjectNotFound") from error

    def settled(self, verb: Callable[[], T], deadline: Deadline) -> T:
        """What the verb answers; begun anew, once, when an answer was lost and the host is at rest again."""
        try:
            return verb()
        except LostAnswerError:
            self.rest(deadline)
            return verb()

    def rest(self, deadline: Deadline) -> None:
        """Wait until no task that the host had when we looked is queued or running."""
        found = self.look(lambda: reading.one(self.content, self.content.taskManager, ("recentTask",)), deadline)
        waiting = list(found.get("recentTask") or ())
        pause = SOON_S
        while waiting := [each for each in waiting if self._runs(each, deadline)]:
            deadline.check("a task whose answer was lost went on")
            time.sleep(min(pause, deadline.remaining))
            pause = min(pause * SLOWER, SELDOM_S)

    def _runs(self, task: Any, deadline: Deadline) -> bool:
        try:
            found = self.look(lambda: reading.one(self.content, task, ("info.state",)), deadline)
        except vmodl.fault.ManagedObjectNotFound:
            return False
        return str(found.get("info.state")) in {"queued", "running"}

    def every_machine(self, names: tuple[str, ...], page: int, deadline: Deadline) -> list[bulk.Found]:
        """All machines that could hold a disk of ours, whoever made them: the host's, or the whole vCenter's."""
        if self.options.shared is None:
            return self.look(lambda: bulk.related(self.session, self.host, "vm", names, page), deadline)
        return self.look(lambda: bulk.everywhere(self.session, names, page), deadline)

    # ------------------------------------------------------------------------------------- locks

    @contextmanager
    def only(self, deadline: Deadline, *what: str) -> Iterator[None]:
        """Hold that no other thread of this process does the same to this host, or to those that it shares disks with.
        May be held twice by one thread.
        """
        at, shared = self.session.endpoint, self.options.shared
        scope = self.host_id if shared is None else f"pool-{shared}"
        with _locks_lock:
            held = _locks.setdefault((at.host, str(at.port), scope, *what), _Lock())
        if not held.lock.acquire(timeout=deadline.remaining):
            raise Transient(f"another call is at work on this {what[0]}")
        try:
            yield
        finally:
            held.lock.release()

    @contextmanager
    def claim(self, deadline: Deadline, *resources: UUID) -> Iterator[None]:
        """Hold volumes, networks or ports for who checks that they are free and takes them, or changes who has them."""
        with ExitStack() as held:
            for each in sorted(set(resources)):  # in one order, so that two who want the same never wait for each other
                held.enter_context(self.only(deadline, "resource", str(each)))
            yield

    # ------------------------------------------------------------------------------------- licence

    def probe(self, deadline: Deadline) -> None:
        """Find out whether the host takes changes at all, by one that changes nothing: a free licence answers questions
        and refuses all else. Asked once, and again while it is refused. What else goes wrong is told where it matters.
        """
        if self._probed and self.restriction is None:
            return
        with suppress(DriverError, vmodl.MethodFault):
            place = self.place(deadline)
            files = self.content.fileManager
            try:
                self.send(lambda: files.MakeDirectory(place.root, place.datacenter, True), deadline)
            except LICENCE as error:
                self.restrict(error)
                return
            except (vim.fault.FileAlreadyExists, vim.fault.AlreadyExists):
                pass
            self._probed, self.restriction = True, None

    def restrict(self, error: vmodl.MethodFault) -> None:
        """Note that the host takes no changes."""
        if self.restriction is None:
            log.warning("an ESXi host takes no changes: %s", type(error).__name__)
        self.restriction = f"The host can be looked at and not changed: {driver_error(error).reason}."

    # ------------------------------------------------------------------------------------- place

    def place(self, deadline: Deadline) -> Place:
        """Where the host keeps things; asked once. Raises Refused when the datastore has to be named."""
        if self._place is None:
            self._place = self._find(deadline)
        return self._place

    def _find(self, deadline: Deadline) -> Place:
        names = ("parent", "configManager.networkSystem", "summary.hardware.uuid")
        host = self._one(self.host, names, deadline)
        pool = self._one(host["parent"], ("resourcePool",), deadline)["resourcePool"]
        pool = self._below(pool, "resourcePool", self.options.resource_pool, "resource_pool", deadline)
        datacenter, path = self._datacenter(host["parent"], deadline)
        told = self._one(datacenter, ("vmFolder",), deadline)
        vm_folder = self._below(told["vmFolder"], "childEntity", self.options.vm_folder, "folder", deadline)
        store, found = self._datastore(deadline)
        hardware_uuid, shared = str(host["summary.hardware.uuid"]).lower(), self.options.shared
        return Place(
            datacenter=datacenter,
            dc_path=path,
            vm_folder=vm_folder,
            pool=pool,
            network_system=host["configManager.networkSystem"],
            datastore=store,
            datastore_name=str(found["name"]),
            browser=found["browser"],
            folder=f"stratograph/{hardware_uuid if shared is None else f'pool-{shared}'}",
            hardware_uuid=hardware_uuid,
            own_prefix="" if shared is None else f"hosts/{hardware_uuid}/",
        )

    def _below(self, start: Any, path: str, names: tuple[str, ...], option: str, deadline: Deadline) -> Any:
        """The folder or pool that names lead to, from the outermost one. Raises Refused when one is not there."""
        at, kind = start, type(start)
        for name in names:
            found = self.look(partial(reading.related, self.content, at, path, kind, ("name",)), deadline)
            inner = next((each for each, properties in found if properties.get("name") == name), None)
            if inner is None:
                raise Refused(f"option {option!r}: there is no {name!r}")
            at = inner
        return at

    def _datacenter(self, start: Any, deadline: Deadline) -> tuple[Any, str]:
        """The data centre above an object, and its path of names for requests of files."""
        above: list[str] = []
        datacenter: Any = None
        at = start
        while at is not None:
            found = self._one(at, ("name", "parent"), deadline)
            if isinstance(at, vim.Datacenter):
                datacenter = at
            if datacenter is not None and found.get("parent") is not None:
                above.insert(0, str(found["name"]))
            at = found.get("parent")
        if datacenter is None:
            raise HostAtFault("the host is in no data centre")
        return datacenter, "/".join(above)

    def _datastore(self, deadline: Deadline) -> tuple[Any, Any]:
        names = ("name", "browser", "summary.accessible", "summary.maintenanceMode")
        every = self.look(lambda: reading.related(self.content, self.host, "datastore", vim.Datastore, names), deadline)
        usable = [
            (store, each)
            for store, each in every
            if each.get("summary.accessible") and each.get("summary.maintenanceMode", "normal") == "normal"
        ]
        fitting = [(s, e) for s, e in usable if self.options.datastore in {None, e["name"]}]
        if len(fitting) != 1:
            there = ", ".join(sorted(str(each["name"]) for _, each in usable)) or "none"
            raise Refused(f"option 'datastore' has to name one of the host's usable datastores: {there}")
        return fitting[0]

    def _one(self, target: Any, names: tuple[str, ...], deadline: Deadline) -> Any:
        return self.look(lambda: reading.one(self.content, target, names), deadline)


class HasSite(Protocol):
    """What :func:`verb` needs of the facet it stands on."""

    @property
    def site(self) -> Site:
        """The host."""


S = TypeVar("S", bound=HasSite)


def verb(function: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """A verb of a facet: begun anew after a lost answer, and raising only the four errors. The deadline comes last."""

    @wraps(function)
    def run(self: S, *args: P.args, **kwargs: P.kwargs) -> T:
        deadline = kwargs.get("deadline", args[-1] if args else None)
        if not isinstance(deadline, Deadline):
            raise TypeError("a verb's last argument is its deadline")
        with as_driver_errors():
            deadline.check("calling the host")
            try:
                return self.site.settled(lambda: function(self, *args, **kwargs), deadline)
            except vim.fault.RestrictedVersion as error:
                self.site.restrict(error)
                raise

    return cast("Callable[Concatenate[S, P], T]", run)


def reference(managed: Any) -> str:
    """An object's reference as text."""
    return str(managed._moId)  # noqa: SLF001 - pyVmomi's only name for an object's reference
