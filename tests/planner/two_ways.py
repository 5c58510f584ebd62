"""One cloud, read in two ways: with the read planner and without, each by an ASGI application of its own around the
real schema and the real transport, in this process.

Answers without errors are compared byte for byte. With errors both come from the executor (the planner gives none), and
it leaves to chance which of several is told: the first that comes up ends the fields beside it. So status, data and
cost must be equal then, and that there are errors. What a caller spent is counted on each side and shown by
``rateLimit``: it takes part.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from starlette.applications import Starlette

from gateway.kernel import noun
from gateway.kernel.access import Subject
from gateway.kernel.db import Database
from gateway.kernel.secretbox import Sealed
from gateway.kernel.settings import Settings
from resolvers.cloud import Known
from resolvers.kernel.context import Context, Services
from resolvers.schema import schema
from resolvers.transport.app import Caller, OperationInfo, TransportSettings, routes
from resolvers.transport.rates import Budget
from resolvers.transport.settings import Mixed, Plan
from tests.planner import scene
from tests.world import KEY
from workers.compute.live import Live
from workers.hypervisor import Hosts

SECONDS = 30.0
"""An operation's deadline."""
REQUEST_ID = "request-of-the-test"
DRIVERS = (
    Known("sim", "A data centre that is not there.", ("machines", "console"), None),
    Known("esxi", 'Says "hi" \u2028 \U0001f600.', ("machines",), 'pip install "x"'),
)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody whom the application recognised; the token is the name."""

    key: str
    subject: Subject
    expires_at: datetime | None = None

    async def valid(self) -> bool:
        """Always."""
        return True


class Meter:
    """A rate limiter that counts, and never says no."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()

    async def spend(self, key: str, cost: int) -> Budget:
        """Count the cost."""
        self.spent[key] += cost
        return Budget(True, 10**9, 10**9 - self.spent[key], scene.NOW.timestamp(), 60)


@dataclass(slots=True)
class Answer:
    """What came back: the body as text, and its members."""

    status: int
    text: str

    @property
    def told(self) -> dict[str, Any]:
        """The body as one would compare it."""
        body = _strictly(self.text)
        if not isinstance(body, list):
            return {"what": body}
        found: dict[str, Any] = {str(key): value for key, value in body}
        found["errors"] = bool(found.get("errors"))
        return {"status": self.status, "members": sorted(found), **found}

    @property
    def data(self) -> Any:
        """The data, as one would read it."""
        return json.loads(self.text).get("data")

    @property
    def codes(self) -> list[str]:
        """The codes of its errors."""
        return sorted(each["extensions"]["code"] for each in self._body.get("errors", []))

    @property
    def _body(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(self.text)
        except ValueError:
            return {}
        return found


def _strictly(text: str) -> Any:
    """JSON with objects as lists of pairs, in order, and numbers that keep their kind."""
    try:
        return json.loads(text, object_pairs_hook=list, parse_float=lambda each: ("float", float(each)))
    except ValueError:
        return f"no JSON: {text}"


@dataclass(slots=True)
class Way:
    """One application. ``planned`` counts the queries that the planner answered, ``mixed`` those of which it answered
    some roots, ``asked`` those it was asked.
    """

    app: Starlette
    meter: Meter
    counts: Counter[str]

    async def ask(self, who: str, document: str, variables: Mapping[str, Any] | None = None) -> Answer:
        """Send one operation."""
        body = json.dumps({"query": document, "variables": variables or {}}).encode()
        headers = [(b"content-type", b"application/json"), (b"x-request-id", REQUEST_ID.encode())]
        if who != "nobody":
            headers.append((b"authorization", f"Bearer {who}".encode()))
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
            "path": "/graphql", "raw_path": b"/graphql", "root_path": "", "query_string": b"", "headers": headers,
            "client": ("192.0.2.9", 1), "server": ("192.0.2.1", 80),
        }  # fmt: skip
        incoming = [{"type": "http.request", "body": body, "more_body": False}]
        sent: list[Any] = []

        async def receive() -> Any:
            if incoming:
                return incoming.pop()
            return await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)

        try:
            await self.app(scope, receive, send)
        except asyncio.CancelledError as error:  # nobody cancelled it
            raise AssertionError(f"the request was cancelled:\n{document}\nwith {json.dumps(variables)}") from error
        text = b"".join(each.get("body", b"") for each in sent[1:]).decode()
        return Answer(sent[0]["status"], text)


@dataclass(slots=True, repr=False)
class TwoWays:
    """The cloud, who is there, and both ways."""

    db: Database
    rows: scene.Rows
    people: dict[str, Subject]
    on: Way
    off: Way
    make: Callable[[bool, float], Way]
    loop: asyncio.Runner = field(default_factory=asyncio.Runner)

    @classmethod
    def open(cls, url: str, folder: Path, plan: Callable[[Database], Plan | None]) -> TwoWays:
        """On an empty database. ``plan`` makes the planner of the first way."""
        noun.load_all()
        db = Database(url, now=lambda: scene.NOW)
        db.provide("sealed", Sealed([KEY]))
        settings = Settings(state_dir=folder, drivers=["sim"])
        db.provide("settings", settings)
        laid = scene.rows()
        scene.fill(db, laid)
        people = scene.people(laid)
        services = Services(
            db=db,
            feed=None,
            settings=settings,
            extras={"live": Live(db, Hosts(folder / "scratch")), "drivers": DRIVERS},
        )
        planner = plan(db)

        def make(planned: bool, seconds: float) -> Way:  # noqa: FBT001 - within this module, by two callers
            return _way(services, people, planner if planned else None, seconds)

        return cls(db, laid, people, make(True, SECONDS), make(False, SECONDS), make)

    def hurried(self, seconds: float) -> TwoWays:
        """The same cloud in the same two ways, with so long for an operation."""
        return replace(self, on=self.make(True, seconds), off=self.make(False, seconds))

    def close(self) -> None:
        """Let go of everything."""
        self.loop.close()
        self.db.close()

    def both(self, who: str, document: str, variables: Mapping[str, Any] | None = None) -> tuple[Answer, Answer]:
        """What each way answers: (planner on, planner off)."""

        async def ask() -> tuple[Answer, Answer]:
            on = await self.on.ask(who, document, variables)
            return on, await self.off.ask(who, document, variables)

        return self.loop.run(ask())

    def same(self, who: str, document: str, variables: Mapping[str, Any] | None = None) -> Answer:
        """The answer, which both ways give alike. Raises AssertionError with the difference."""
        on, off = self.both(who, document, variables)
        if on.text != off.text and (not on.codes or on.told != off.told):
            told = (
                f"{who} asks\n{document}\nwith {json.dumps(variables)}\nplanner on:  {on.text}\nplanner off: {off.text}"
            )
            raise AssertionError(told)
        return on

    def planned(self, who: str, document: str, variables: Mapping[str, Any] | None = None) -> Answer:
        """:meth:`same`, for an operation that must not fall back to the executor."""
        before = self.on.counts["planned"]
        found = self.same(who, document, variables)
        assert self.on.counts["planned"] == before + 1, f"the planner left it to the executor:\n{document}"
        return found

    def mixed(self, who: str, document: str, variables: Mapping[str, Any] | None = None) -> Answer:
        """:meth:`same`, for an operation of which the planner answers some roots."""
        before = self.on.counts["mixed"]
        found = self.same(who, document, variables)
        assert self.on.counts["mixed"] == before + 1, f"the planner did not answer a part of it:\n{document}"
        return found


def _way(services: Services, people: Mapping[str, Subject], plan: Plan | None, seconds: float) -> Way:
    counts: Counter[str] = Counter()
    meter = Meter()

    async def authenticate(caller: Caller) -> Person:
        name = caller.token or "nobody"
        return Person(name, people[name])

    def context(identity: Any, _caller: Caller, operation: OperationInfo) -> Context:
        return Context(subject=identity.subject, services=services, limits=operation)

    async def counted(operation: Any, variables: Any, given: Any) -> bytes | Mixed | None:
        assert plan is not None
        found = await plan(operation, variables, given)
        counts["asked"] += 1
        counts["planned"] += isinstance(found, bytes)
        counts["mixed"] += isinstance(found, Mixed)
        return found

    settings = TransportSettings(
        rate_limiter=meter,
        plan=counted if plan is not None else None,
        compression=False,
        cache_entries_max=50,
        operation_deadline_seconds=seconds,
    )
    return Way(Starlette(routes=routes(schema(), settings, authenticate, context)), meter, counts)
