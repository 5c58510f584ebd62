"""The runner: claims jobs, sends each on its course, keeps their leases, and lets go of what failed beside its steps.

One per process, used by many threads. A lease is held only while a course is under way: whatever ends one also settles
its job or releases it, so that nobody has to wait for a lease to run out unless the process died.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import structlog
from sqlmodel import Session

from gateway.jobs import job as jobs
from gateway.jobs.job import Fenced, Status
from gateway.kernel import errors
from gateway.kernel.db import Database
from gateway.kernel.errors import Unavailable
from workers.course import BACKOFF_MAX_S, Course
from workers.saga import SAGAS, TRIES, Saga

LEASE = timedelta(seconds=60)
BACKOFF_S = 0.5

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Runner:
    """Carries jobs out. One per process; thread-safe. ``name`` identifies it in leases."""

    db: Database
    hosts: Any
    name: str
    settings: Any = None
    stopping: threading.Event = field(default_factory=threading.Event)
    lease: timedelta = LEASE
    backoff_s: float = BACKOFF_S
    _courses: dict[int, Course] = field(default_factory=dict)

    def run(self, job_id: int) -> None:
        """Claim a job and go on with it until it is settled, has to wait, or another runner took it over."""
        if self.stopping.is_set():
            return  # whoever is left takes it
        course = self._claimed(job_id)
        if course is None:
            return
        job = course.job
        with structlog.contextvars.bound_contextvars(
            job=jobs.NOUN.public(job), kind=job.kind, request_id=job.request_id
        ):
            self._courses[job.id] = course
            try:
                if course.found.steps:
                    course.go()
                else:
                    course.settle(Status.FAILED, errors.Internal("No worker knows this kind of job."))
            except Fenced:
                log.warning("job was taken over by another runner")
            except Unavailable:
                log.warning("job is left until the database is back; the sweep takes it up when its lease has ended")
            except Exception:
                log.exception("a job failed beside its steps")
                self._let_go(job.id, job.attempt)
            finally:
                self._courses.pop(job.id, None)

    def _claimed(self, job_id: int) -> Course | None:
        try:
            return self.db.run(lambda session: self._claim(session, job_id, along=True))
        except Unavailable:
            log.warning("a job cannot be claimed while the database is away", job_id=job_id)
            return None
        except Exception as error:  # noqa: BLE001 - what a first step raises is no reason not to claim
            log.debug("a first step does not go along with the claim", job_id=job_id, error=repr(error))
        try:
            return self.db.run(lambda session: self._claim(session, job_id, along=False))
        except Unavailable:
            return None
        except Exception:
            log.exception("a job cannot be begun", job_id=job_id)
            self._refuse(job_id)
            return None

    def _claim(self, session: Session, job_id: int, *, along: bool) -> Course | None:
        """Take a job, and have it show all its steps and the one it goes on with as begun, in the same commit."""
        job = jobs.claim(session, job_id, self.name, self.lease)
        if job is None:
            return None
        course = Course(self, job, SAGAS.get(job.kind) or Saga(job.kind, ()))
        if course.found.steps:
            course.open(session, along=along)
        return course

    def _refuse(self, job_id: int) -> None:
        """Leave a job STUCK which this version cannot even begin: its steps are others than it knows."""

        def change(session: Session) -> None:
            job = jobs.claim(session, job_id, self.name, self.lease)
            if job is not None:
                job.error = job.error or errors.to_json(errors.Internal("This version does not know the job's steps."))
                jobs.settle(session, job, Status.STUCK)

        self.db.run(change)

    def _let_go(self, job_id: int, attempt: int) -> None:
        """Release a job whose course broke off, to be taken up later; STUCK after some tries."""

        def change(session: Session) -> None:
            job = jobs.held(session, job_id, attempt)
            job.tries += 1
            if job.tries < TRIES:
                pause = min(self.backoff_s * 2**job.tries, BACKOFF_MAX_S)
                jobs.release(session, job, due_in=timedelta(seconds=pause))
                return
            job.error = job.error or errors.to_json(errors.Internal("A fault of ours; the log has it."))
            jobs.settle(session, job, Status.STUCK)

        try:
            self.db.run(change)
        except (Fenced, Unavailable):
            log.warning("the job is somebody else's by now, or the database is away")

    def renew_leases(self) -> None:
        """Lengthen the leases of all jobs at work here; to be called a few times within a lease's length."""
        for job_id, course in list(self._courses.items()):
            attempt = course.attempt
            self.db.run(lambda session, j=job_id, a=attempt: jobs.renew(session, j, a, self.lease))  # type: ignore[misc]  # mypy cannot infer a defaulted lambda

    def tell(self) -> None:
        """Write the records that were held back long enough; to be called ten times a second or so."""
        for course in list(self._courses.values()):
            if course.behind:
                try:
                    course.tell()
                except (Fenced, Unavailable):
                    log.debug("a record held back could not be written; the course finds out itself")
