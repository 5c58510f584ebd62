"""The in-process world: real schema, real database, sim hosts, hand-cranked queue, fake clock.

A test says what people ask (GraphQL documents), turns the crank (``world.work()``) and looks at what people see. Time
moves only when told, or when ``work`` has to wait for a job's next try.
"""

from __future__ import annotations

import asyncio
import atexit
import copy
import itertools
import shutil
import tempfile
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

from cryptography.fernet import Fernet
from sqlmodel import Session, col, select
from strawberry import Schema
from strawberry.extensions import ParserCache, ValidationCache

from drivers.sim import DataCentre, data_centre
from gateway import migrations
from gateway.compute.host import Host
from gateway.identity import tenant as tenants
from gateway.identity.role import Membership
from gateway.identity.tenant import Tenant
from gateway.identity.user import User
from gateway.jobs import job as jobs
from gateway.jobs.job import Bell, Job
from gateway.kernel import ids, noun
from gateway.kernel.access import CLOUD, NOBODY, Role, Subject
from gateway.kernel.db import Database
from gateway.kernel.secretbox import Sealed
from gateway.kernel.settings import Settings
from resolvers.kernel.context import Context, Services
from resolvers.schema import schema
from workers.hypervisor import Hosts
from workers.main import load_all
from workers.runner import Runner
from workers.sweep import RECONCILERS
from workers.sweep import Context as SweepContext

START = datetime(2026, 1, 1, tzinfo=UTC)
KEY = Fernet.generate_key()
_numbers = itertools.count(1)


@cache
def empty_database() -> Path:
    """A SQLite file at the newest revision, made once a process: copying it is fifty times faster."""
    noun.load_all()
    folder = Path(tempfile.mkdtemp(prefix="stratograph-world-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    made = Database(f"sqlite:///{folder / 'empty.db'}")
    migrations.upgrade(made)
    made.close()
    return folder / "empty.db"


@cache
def load() -> None:
    """Every noun and every saga."""
    noun.load_all()
    load_all()


@cache
def remembering() -> Schema:
    """The schema, which does not look again at a document that it found valid: half the work of a short operation."""
    made = copy.copy(schema())
    made.extensions = (lambda: ParserCache(maxsize=512), lambda: ValidationCache(maxsize=512))
    return made


class FakeClock:
    """A clock that moves when told, and by a millisecond each time it is read, so that order is visible."""

    def __init__(self, at: datetime = START) -> None:
        self.at = at
        self.tick = timedelta(milliseconds=1)

    def __call__(self) -> datetime:
        self.at += self.tick
        return self.at

    def advance(self, **by: float) -> None:
        """Move it, by ``timedelta`` arguments."""
        self.at += timedelta(**by)


class Crank(Bell):
    """Keeps what was rung for until the test turns the crank."""

    def __init__(self) -> None:
        self.rung: deque[int] = deque()

    def ring(self, job_id: int) -> None:
        """Keep the key."""
        self.rung.append(job_id)


@dataclass(slots=True)
class Result:
    """A GraphQL answer."""

    data: dict[str, Any] | None
    errors: list[Any]

    @property
    def codes(self) -> list[str]:
        """The codes of the errors."""
        return [str(getattr(each.original_error, "code", "INTERNAL")) for each in self.errors]


@dataclass(slots=True)
class Client:
    """Somebody who sends operations."""

    world: World
    subject: Subject

    def run(self, document: str, **variables: Any) -> Result:
        """Execute one operation."""
        context = Context(subject=self.subject, services=self.world.services)
        found = asyncio.run(remembering().execute(document, variable_values=variables, context_value=context))
        return Result(found.data, list(found.errors or []))

    def ok(self, document: str, **variables: Any) -> dict[str, Any]:
        """Execute one operation that must have no errors; its data."""
        found = self.run(document, **variables)
        if found.errors:
            raise AssertionError(found.errors) from found.errors[0].original_error
        assert found.data is not None
        return found.data

    def do(self, mutation: str, selection: str, **given: Any) -> dict[str, Any]:
        """Send one mutation that must not be refused; its payload. ``given`` is the input."""
        payload = self.ask(mutation, selection, **given)
        assert payload["userErrors"] == [], payload["userErrors"]
        return payload

    def refused(self, mutation: str, **given: Any) -> list[tuple[str, list[str] | None]]:
        """Send one mutation that must be refused; (code, path) of each reason."""
        payload = self.ask(mutation, "__typename", **given)
        assert payload["userErrors"], "it was not refused"
        return [(each["code"], each["path"]) for each in payload["userErrors"]]

    def ask(self, mutation: str, selection: str, **given: Any) -> dict[str, Any]:
        """Send one mutation; its payload with ``userErrors``."""
        kind = f"{mutation[0].upper()}{mutation[1:]}Input!"
        document = (
            f"mutation($input: {kind}) {{ {mutation}(input: $input) "
            f"{{ {selection} userErrors {{ __typename code message path }} }} }}"
        )
        payload: dict[str, Any] = self.ok(document, input=given)[mutation]
        return payload


@dataclass(slots=True)
class World:
    """Everything in one process."""

    db: Database
    clock: FakeClock
    crank: Crank
    hosts: Hosts
    runner: Runner
    services: Services
    settings: Settings
    centres: list[DataCentre] = field(default_factory=list)

    @classmethod
    def open(cls, url: str, folder: Path, *, uids: ids.UidSource = ids.system, **given: Any) -> World:
        """A world on an empty database, or on the SQLite file that an earlier world left. ``given`` are settings."""
        load()
        clock = FakeClock()
        db = Database(url, now=clock, uids=uids)
        if not db.sqlite:
            migrations.upgrade(db)
        elif not Path(db.url.database or "").exists():
            shutil.copyfile(empty_database(), db.url.database or "")
        crank = Crank()
        db.provide("bell", crank)
        db.provide("sealed", Sealed([KEY]))
        settings = Settings(state_dir=folder, **given)
        db.provide("settings", settings)
        hosts = Hosts(folder / "scratch")
        runner = Runner(db, hosts, "world", settings=settings)
        services = Services(db=db, feed=None, settings=settings)
        return cls(db, clock, crank, hosts, runner, services, settings)

    def close(self) -> None:
        """Let go of everything."""
        self.hosts.close()
        for centre in self.centres:
            centre.clear()
        self.db.close()

    # -------------------------------------------------------------------------------------- people

    @property
    def admin(self) -> Client:
        """The operator (with a user row of its own)."""
        with self.db.read() as session:
            found = session.exec(select(User).where(User.name == "root")).first()
        return Client(self, self._subject(found or self._user("root", admin=True)))

    @property
    def nobody(self) -> Client:
        """Somebody who is not signed in."""
        return Client(self, NOBODY)

    def tenant(self, name: str | None = None) -> Tenant:
        """A new tenant with default quotas."""
        command = tenants.TenantCreate(name=name or f"tenant-{next(_numbers)}")
        return self.db.run(lambda session: tenants.create(session, CLOUD, command))

    def member(self, tenant: Tenant, role: Role = Role.MEMBER) -> Client:
        """A new user with that role."""
        user = self._user(f"user-{next(_numbers)}")
        self.db.run(lambda s: s.add(Membership(user_id=user.id, tenant_id=tenant.id, role=role)))
        return Client(self, self._subject(user))

    def _user(self, name: str, *, admin: bool = False) -> User:
        def work(session: Session) -> User:
            user = User(name=name, password="!", admin=admin)
            session.add(user)
            session.flush()
            return user

        return self.db.run(work)

    def _subject(self, user: User) -> Subject:
        with self.db.read() as session:
            held = session.exec(select(Membership).where(Membership.user_id == user.id)).all()
        return Subject(
            user_id=user.id,
            user_uid=user.uid,
            user_name=user.name,
            admin=user.admin,
            roles={each.tenant_id: each.role for each in held},
            request_id="test",
            address="127.0.0.1",
        )

    # -------------------------------------------------------------------------------------- hosts

    def host(self, name: str | None = None, **options: object) -> DataCentre:
        """A sim host that is registered, probed and online. Options are the sim driver's (vcpus=4 ...)."""
        called = name or f"w{next(_numbers)}"
        given = [{"key": key, "value": str(value)} for key, value in {"store": "memory", **options}.items()]
        self.admin.do(
            "hostRegister", "host { id }", name=called, hypervisor="SIM", endpoint=f"sim://{called}", options=given,
            vcpuRatio=1.0,
        )  # fmt: skip
        centre = data_centre(called)
        centre.use_clock(lambda: self.clock.at)
        self.centres.append(centre)
        self.work()
        return centre

    def host_row(self, name: str) -> Host:
        """The host's row."""
        with self.db.read() as session:
            return session.exec(select(Host).where(Host.name == name)).one()

    # -------------------------------------------------------------------------------------- work

    def work(self, *, most: int = 2000) -> None:
        """Run jobs until none is left to run, moving the clock to the next try where all wait."""
        for _ in range(most):
            while self.crank.rung:
                self.runner.run(self.crank.rung.popleft())
            with self.db.read() as session:
                due = jobs.due(session)
                waiting = session.exec(
                    select(Job).where(col(Job.status).in_(jobs.LIVE)).order_by(col(Job.due_at), col(Job.id)).limit(1)
                ).first()
            if due:
                self.crank.rung.extend(due)
            elif waiting is None:
                return
            else:
                later = max(waiting.due_at, waiting.lease_until or waiting.due_at)
                self.clock.at = max(self.clock.at, later + timedelta(milliseconds=1))
        raise AssertionError("the jobs do not come to an end")

    def reconcile(self, *names: str) -> None:
        """Let reconcilers (all by default) have one turn, then do the work they asked for."""
        self.reconcile_only(*names)
        self.work()

    def reconcile_only(self, *names: str) -> None:
        """Let reconcilers (all by default) have one turn, and leave the work to others."""
        context = SweepContext(self.db, self.hosts, self.settings)
        for name in names or sorted(RECONCILERS):
            RECONCILERS[name].look(context)

    def job(self, job_id: str) -> Job:
        """The row of a job."""
        with self.db.read() as session:
            return jobs.NOUN.get(session, CLOUD, job_id)

    def uid(self, public_id: str) -> UUID:
        """The uid of any public id."""
        from gateway.kernel import ids

        return ids.decode(public_id)[1]
