"""Sagas: what a kind of job consists of, step by step, so that it ends either done or undone.

A saga is a tuple of steps in one file. A step's ``do`` meets the outside world first (always by ``ensure``/``remove``
verbs, so doing it twice equals doing it once) and then returns its row changes, which are committed together with the
record that the step is done. ``undo`` takes it back and accepts that nothing may have happened. Nothing external
happens inside an open transaction, and every commit is fenced by the job's attempt. How a saga is gone through, and
what follows from what a step raises, is in workers/course.py.

A step has no way out but its :class:`Run`: to hosts, to the database other than to read, to files by the settings'
folders. Before the first of these is taken the job's row is looked at, if it is due (``guard``); so no step can forget.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlmodel import Session

from gateway.jobs import job as jobs
from gateway.jobs.job import Job
from gateway.kernel.db import Database
from gateway.kernel.errors import Refusal
from gateway.kernel.prepared import Prepared

TRIES = 6
"""How often a step is begun before Transient counts as failed."""

Change = Callable[[Session, Job], None]
"""Row changes, committed with the step's record."""


@dataclass(frozen=True, slots=True)
class Step:
    """``do`` and ``undo`` get the :class:`Run`; each may return a :data:`Change`. A step without ``undo`` says in
    ``kept`` why nothing needs to be taken back. ``name`` is shown to people and never changes. ``rows`` says that
    ``do`` meets nothing outside and reads nothing before its change: then, as the first of a saga, it is carried out in
    the commit by which the job is claimed.
    """

    name: str
    do: Callable[[Run], Change | None]
    undo: Callable[[Run], Change | None] | None = None
    kept: str | None = None
    rows: bool = False

    def __post_init__(self) -> None:
        if (self.undo is None) == (self.kept is None):
            raise TypeError(f"step {self.name}: give undo, or say in kept why there is none")


@dataclass(frozen=True, slots=True)
class Saga:
    """A kind of job. ``failed`` changes rows when the job has ended FAILED or CANCELLED (after unwinding), with the
    reason. A saga with ``forward`` set never unwinds: what it began (a deletion) it ends, trying again as long as it
    takes; it then must only consist of steps with ``kept``.
    """

    kind: str
    steps: tuple[Step, ...]
    failed: Callable[[Session, Job, Refusal], None] | None = None
    forward: bool = False


SAGAS: dict[str, Saga] = {}


def saga(
    kind: str,
    *steps: Step,
    failed: Callable[[Session, Job, Refusal], None] | None = None,
    forward: bool = False,
) -> Saga:
    """Register a saga."""
    if kind in SAGAS:
        raise TypeError(f"two sagas are called {kind}")
    SAGAS[kind] = Saga(kind, steps, failed, forward)
    return SAGAS[kind]


class ChangedError(Exception):
    """The job's row is not as this claim knows it: the step goes no further. For the course; a step lets it pass."""


Guard = Callable[[Callable[[], int | None]], None]
"""Takes what reads the version of the job's row, and raises ChangedError if that is not the one known."""


@dataclass(frozen=True, slots=True)
class Outside:
    """Where a step may have effects: the database, ``hosts`` (the way to hypervisors, see workers.hypervisor), and
    files, which lie in folders that the settings name.
    """

    db: Database
    hosts: Any
    settings: Any = None


@dataclass(slots=True)
class Run:
    """What a step may use: the job's arguments, what earlier steps kept in ``memory``, and the ways out: ``db``,
    ``hosts`` and ``settings``. What only reads uses :meth:`read`. ``say`` sets the step's message.
    """

    outside: Outside = field(repr=False)
    job_id: int
    uid: str
    arguments: dict[str, Any]
    memory: dict[str, Any]
    message: str | None = None
    guard: Guard | None = None
    """Set where the step follows a record that is held back, until the job's row was looked at."""
    addresses: dict[int, Any] = field(default_factory=dict)
    """How hosts are reached, as this claim of the job found out (see workers.reach)."""
    known: dict[str, Any] = field(default_factory=dict)
    """What this claim of the job read already and need not read again; another claim begins without."""

    @property
    def db(self) -> Database:
        """The database, to change rows beside the step's record."""
        self.look()
        return self.outside.db

    @property
    def hosts(self) -> Any:
        """The way to hypervisors."""
        self.look()
        return self.outside.hosts

    @property
    def settings(self) -> Any:
        """The settings, with the folders of this worker."""
        self.look()
        return self.outside.settings

    def look(self, read: Callable[[], int | None] | None = None) -> None:
        """Before anything outside is begun: find out whether the job's row is as this claim knows it, if that is due.
        ``read`` is for those who find out the row's version along with something else. Raises ChangedError.
        """
        if self.guard is not None:
            self.guard(read or (lambda: jobs.version(self.outside.db, self.job_id)))
            self.guard = None

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that only reads."""
        with self.outside.db.read() as session:
            yield session

    def value(self, statement: Prepared, **given: Any) -> Any:
        """The first value that a statement finds which only reads, None when there is none."""
        return self.outside.db.value(statement, given)

    def say(self, message: str) -> None:
        """What people are told about this step."""
        self.message = message[:500]

    @property
    def avoid(self) -> list[int]:
        """Keys of hosts that failed in earlier rounds."""
        return list(self.memory.get("avoid", []))
