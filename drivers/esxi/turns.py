"""One at a time on a datastore, whichever host, process or worker it is: locks that are folders.

Making a folder is the one step that a host does for exactly one of many who ask. Its holder says in it until when it
holds (by the host's clock; hosts on one datastore are taken to agree within a minute) and says so again and again while
it is at work; what a worker that died left is moved aside by exactly one of those who wait, and they try again. Who
waits longer than its deadline is told Transient.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from uuid import uuid4

from pyVmomi import vim, vmodl

from drivers.api import Deadline, DriverError, Transient
from drivers.esxi.errors import as_driver_errors
from drivers.esxi.session import LostAnswerError
from drivers.esxi.site import Site
from drivers.esxi.store import Store

LOCKS = "locks"
UNTIL, BY, DEAD = "until_", "by_", "dead_"
HOLD_S = 120
RENEW_S = 30.0
UNSIGNED_S = 15.0
"""How long a lock without a name in it is left to its maker to sign."""
LOOK_AGAIN_S = 0.5
CLEAN_S = 30.0


class Turn:
    """A lock that is held."""

    def __init__(self, site: Site, store: Store, name: str) -> None:
        self._site, self._store = site, store
        self._folder = f"{LOCKS}/{name}"
        self._mine = f"{BY}{uuid4().hex}"
        self._told: str | None = None
        self._over = Event()

    def take(self, deadline: Deadline) -> None:
        """Get it. Raises Transient when others have it until the deadline."""
        self._store.make_folder(LOCKS, deadline)
        unsigned_since: float | None = None
        while not self._made(deadline):
            found = self._store.search(self._folder, deadline).get("")
            marks = found.marks if found is not None else set()
            ends = [each.removeprefix(UNTIL) for each in marks if each.startswith(UNTIL)]
            untils = [int(each) for each in ends if each.isdecimal()]
            if found is not None and not untils and unsigned_since is None:
                unsigned_since = time.monotonic()
            stale = bool(untils) and max(untils) < self._now_s(deadline)
            unsigned = not untils and unsigned_since is not None and time.monotonic() - unsigned_since > UNSIGNED_S
            if found is not None and (stale or unsigned):
                self._move_aside(deadline)
                unsigned_since = None
                continue
            if deadline.remaining <= LOOK_AGAIN_S:
                raise Transient("another worker is at work on the same on this datastore")
            time.sleep(LOOK_AGAIN_S)
        self._sign(deadline)

    def check(self, deadline: Deadline) -> None:
        """Raise Transient when it was taken from us, since we were away for too long."""
        found = self._store.search(self._folder, deadline).get("")
        if found is None or self._mine not in found.marks:
            raise Transient("another worker took over on this datastore")

    def keep(self) -> None:
        """Say again and again that we are at work, until :meth:`give_back`."""
        Thread(target=self._keep, name="esxi-turn", daemon=True).start()

    def give_back(self, deadline: Deadline) -> None:
        """Let the next one have it."""
        self._over.set()
        left = deadline if deadline.remaining > CLEAN_S else Deadline(CLEAN_S)
        with suppress(DriverError), as_driver_errors():  # what stays is moved aside when its time is over
            self._store.delete(self._folder, left)

    def _made(self, deadline: Deadline) -> bool:
        try:
            return self._store.make_only(self._folder, deadline)
        except LostAnswerError:
            return False  # it is ours, unsigned, or another's: it is waited for as any other

    def _sign(self, deadline: Deadline) -> None:
        try:
            self._store.make_only(f"{self._folder}/{self._mine}", deadline)
            self._renew(deadline)
        except vim.fault.FileNotFound as error:
            raise Transient("another worker took over on this datastore") from error

    def _renew(self, deadline: Deadline) -> None:
        told = f"{self._folder}/{UNTIL}{self._now_s(deadline) + HOLD_S}"
        if told != self._told:
            self._store.make_only(told, deadline)  # in a lock that is there, or one given back would come to life
            self._told = told

    def _keep(self) -> None:
        while not self._over.wait(RENEW_S):
            with suppress(DriverError), as_driver_errors():  # the next one may get through
                self._renew(Deadline(RENEW_S))

    def _move_aside(self, deadline: Deadline) -> None:
        aside = f"{LOCKS}/{DEAD}{uuid4().hex}"
        with suppress(vim.fault.FileNotFound, vim.fault.CannotAccessFile, vmodl.fault.ManagedObjectNotFound):
            self._store.move_folder(self._folder, aside, deadline)
            self._store.delete(aside, deadline)

    def _now_s(self, deadline: Deadline) -> int:
        return int(self._site.look(self._site.session.now, deadline).timestamp())


@contextmanager
def turn(site: Site, store: Store, name: str, deadline: Deadline) -> Iterator[Turn]:
    """Hold a lock on the store's datastore for what happens inside."""
    with site.only(deadline, "turn", name):  # the threads of this process need not ask the host
        held = Turn(site, store, name)
        held.take(deadline)
        held.keep()
        try:
            yield held
        finally:
            held.give_back(deadline)


def collect(store: Store, deadline: Deadline) -> None:
    """Delete locks that were moved aside by somebody who died before he could."""
    for name in store.search(LOCKS, deadline):
        if name.startswith(DEAD) and "/" not in name:
            store.delete(f"{LOCKS}/{name}", deadline)
