"""Reading, by real processes over HTTP, in interleaved rounds on the same database: the gateway with its read planner
and without, the limit server, and on request a peer. Counts of SQL statements are taken in this process, with the real
schema.

Three questions: the dashboard's page of 100 servers with flavor, image, ports with network, and volumes; one server
with the same; 1,000 servers with three fields (ten pages in one operation, since a page has at most 100).
"CPU of both" is that of the process and of the database's processes, where it has any.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gateway.compute.server import Server
from gateway.identity.tenant import Tenant
from gateway.kernel import noun
from gateway.kernel.access import Role, Subject
from resolvers.kernel.context import Context, Services
from resolvers.schema import schema
from tests.bench import peer, process
from tests.bench.client import PASSWORD_OF_BENCH, USER_OF_BENCH, Caller, body, sign_in
from tests.bench.counting import counted
from tests.bench.rounds import CLIENTS, Candidate, interleaved
from tests.bench.scene import Ground
from tests.bench.table import Report
from tests.servers.daemon import free_port
from tests.servers.postgres import PostgresServer

FIELDS = """id name status createdAt flavor { name vcpus ramMib } image { id name }
  ports { macAddress ipAddresses network { id name } } volumes { id name sizeGib device }"""
PAGE = f"query($first: Int!) {{ servers(first: $first) {{ nodes {{ {FIELDS} }} }} }}"
ONE = f"query($id: ID!) {{ server(id: $id) {{ {FIELDS} }} }}"
PAGES = 10
MANY = "query({declared}) {{ {pages} }}".format(
    declared=", ".join(f"$a{n}: String" for n in range(PAGES)),
    pages=" ".join(f"p{n}: servers(first: 100, after: $a{n}) {{ nodes {{ id name status }} }}" for n in range(PAGES)),
)
SERVERS, TIMES = 1000, 10
"""Servers of the tenant at first, and how many times as many there are for the figures of growth."""
NAMES = {
    "page": "page of 100",
    "one": "one server",
    "many": "1,000 servers",
}
ON, OFF, LIMIT, PEER = "planner on", "planner off", "limit", "PostGraphile 5"
Pair = dict[str, Candidate]


@dataclass(frozen=True, slots=True)
class Course:
    """How long it is measured. ``peers``: also PostGraphile, on PostgreSQL."""

    rounds: int
    seconds: float
    peers: bool


def measure(report: Report, folder: Path, postgres: PostgresServer | None, *, quick: bool, peers: bool) -> None:
    """Add the figures of both databases."""
    course = Course(3, 0.5, peers=False) if quick else Course(4, 0.6, peers=peers)
    for kind, server in (("SQLite", None), ("PostgreSQL", postgres)):
        if kind == "PostgreSQL" and server is None:
            continue
        own = folder / f"reads-{kind.lower()}"
        own.mkdir()
        ground = Ground.lay(own, server.create_database() if server else None)
        ground.servers(SERVERS, first=100, host=ground.hosts(1, "old")[0])
        _settled(ground)
        with ExitStack() as stack:
            stack.callback(ground.db.close)
            asked = _candidates(stack, ground, server, course)
            for name, pair in asked.items():
                interleaved(list(pair.values()), course.rounds, course.seconds)
                _tell(report, f"reads, {kind}", NAMES[name], pair)
            if not quick:
                _growth(report, f"reads, {kind}", ground, asked["page"], course)
            _statements(report, ground, kind)


def _settled(ground: Ground) -> None:
    """Have the database know its own data, as one that has run for a while does."""
    with ground.db.engine.connect() as connection:
        connection.exec_driver_sql("COMMIT" if ground.db.sqlite else "SELECT 1")
        if ground.db.sqlite:
            connection.exec_driver_sql("ANALYZE")
            return
    with ground.db.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")


# ------------------------------------------------------------------------------------------ candidates


def _candidates(stack: ExitStack, ground: Ground, server: PostgresServer | None, course: Course) -> dict[str, Pair]:
    """Each question's candidates, all of which were seen to give the same number of servers."""
    log = ground.settings.state_dir / "serve.log"
    started: dict[str, tuple[process.Measured, Callable[[], Caller]]] = {}
    for name, planner in ((ON, "true"), (OFF, "false")):
        port = free_port()
        found = process.serve(
            process.settings(ground.settings, port, workers=False, read_planner=planner, rate_limit=10**12), log
        )
        stack.callback(found.stop)
        address = f"127.0.0.1:{port}"
        started[name] = found, partial(Caller, address, sign_in(address, USER_OF_BENCH, PASSWORD_OF_BENCH))
    bare = free_port()
    limit = process.start(("-m", "tests.bench.limit", ground.settings.database, str(bare)), {}, log)
    stack.callback(limit.stop)
    process.await_url(limit, f"http://127.0.0.1:{bare}/")
    started[LIMIT] = limit, partial(Caller, f"127.0.0.1:{bare}")
    if course.peers and server is not None:
        other, address = peer.serve(ground.settings.database, log)
        stack.callback(other.stop)
        started[PEER] = other, partial(Caller, address)
    bodies = _bodies(ground, started[ON][1])
    database = server.daemon.guard_pid if server else None
    asked: dict[str, Pair] = {}
    for question in NAMES:
        pair = {}
        for name, (running, caller) in started.items():
            text, path = bodies[question, name if name in (LIMIT, PEER) else ON]
            pair[name] = Candidate(name, running, caller, text, path, database)
        _agree(question, pair)
        asked[question] = pair
    return asked


def _bodies(ground: Ground, caller: Callable[[], Caller]) -> dict[tuple[str, str], tuple[bytes, str]]:
    """What each candidate is asked, by question and its name: the body and the path."""
    with ground.db.read() as session:
        row = session.get_one(Server, 150)
        one, uid = noun.public(row), str(row.uid)
    cursors: list[str | None] = [None]
    asking = caller()
    for _ in range(PAGES - 1):
        query = "query($a: String) { servers(first: 100, after: $a) { pageInfo { endCursor } } }"
        cursors.append(asking.ask(query, a=cursors[-1])["servers"]["pageInfo"]["endCursor"])
    asking.close()
    key = ground.tenant
    return {
        ("page", ON): (body(PAGE, first=100), "/graphql"),
        ("page", LIMIT): (f"{key} 100".encode(), "/page"),
        ("page", PEER): (body(peer.PAGE, tenant=key), "/graphql"),
        ("one", ON): (body(ONE, id=one), "/graphql"),
        ("one", LIMIT): (uid.encode(), "/one"),
        ("one", PEER): (body(peer.ONE, uid=uid), "/graphql"),
        ("many", ON): (body(MANY, **{f"a{n}": each for n, each in enumerate(cursors)}), "/graphql"),
        ("many", LIMIT): (f"{key} 1000".encode(), "/many"),
        ("many", PEER): (body(peer.MANY, tenant=key), "/graphql"),
    }


def _agree(question: str, pair: Pair) -> None:
    """Raise unless both ways of the gateway answer alike, and all candidates tell as many names as the limit does."""
    answers = {name: each.once() for name, each in pair.items()}
    if json.loads(answers[ON]) != json.loads(answers[OFF]):
        raise AssertionError(f"{question}: the planner's answer differs")
    names = {name: answer.count(b'"name"') for name, answer in answers.items()}
    if len(set(names.values())) != 1:
        raise AssertionError(f"{question}: the answers differ: {names} {answers}"[:4000])


# ------------------------------------------------------------------------------------------ figures


def _tell(report: Report, section: str, name: str, pair: Pair) -> None:
    limit, on = pair[LIMIT], pair[ON]
    target = "at most 2 (issue 5)" if name == NAMES["one"] else "at most 1.5 (issue 5)"
    for each in (on, pair[OFF], *([pair[PEER]] if PEER in pair else [])):
        report.add(
            section, f"{name}: CPU a request, {each.name}", each.cost_ms, "ms", baseline=limit.cost_ms,
            against="limit: one raw statement, bare ASGI", target=target if each is on else "",
        )  # fmt: skip
        if each.database:
            report.add(
                section, f"{name}: CPU of PostgreSQL, {each.name}", each.database_ms, "ms",
                baseline=limit.database_ms, against="limit",
            )  # fmt: skip
    if PEER in pair:
        both = {key: each.cost_ms + each.database_ms for key, each in pair.items()}
        report.add(
            section, f"{name}: CPU of both, {PEER}", both[PEER], "ms", baseline=both[ON],
            against="of both, planner on", target="at least 1.5 (issue 5)",
        )  # fmt: skip
    for share in (0.5, 0.99):
        report.add(
            section, f"{name}: p{share * 100:.0f}, {CLIENTS} clients", on.latency_ms(share), "ms",
            baseline=limit.latency_ms(share), against="limit",
        )  # fmt: skip
    report.add(section, f"{name}: {CLIENTS} clients", on.rate, "requests/s", baseline=limit.rate, against="limit")


def _growth(report: Report, section: str, ground: Ground, pair: Pair, course: Course) -> None:
    """The page once more, with ten times as many servers of the tenant."""
    host = ground.hosts(1, "more")[0]
    before = {name: each.cost_ms + each.database_ms for name, each in pair.items()}
    ground.servers(SERVERS * (TIMES - 1), first=100 + SERVERS, host=host, history=False)
    _settled(ground)
    for name in (ON, LIMIT):
        again = Candidate(name, pair[name].process, pair[name].caller, pair[name].body, pair[name].path)
        again.database = pair[name].database
        pair[name] = again
    interleaved([pair[ON], pair[LIMIT]], course.rounds, course.seconds)
    for name in (ON, LIMIT):
        report.add(
            section, f"{NAMES['page']} of {SERVERS * TIMES:,}: CPU of both, {name}",
            pair[name].cost_ms + pair[name].database_ms, "ms", baseline=before[name], target="1.00",
            against=f"of {SERVERS:,}",
        )  # fmt: skip


def _statements(report: Report, ground: Ground, kind: str) -> None:
    """How many SQL statements a page takes without the planner, by its size. With it, an operation takes one."""
    with ground.db.read() as session:
        one = noun.public(session.get_one(Server, 150))
        uid = session.get_one(Tenant, ground.tenant).uid
    subject = Subject(user_id=ground.user, user_uid=uid, user_name="bench", roles={ground.tenant: Role.MANAGER})
    services = Services(db=ground.db, feed=None, settings=ground.settings)

    def ask(query: str, **variables: object) -> int:
        async def run() -> object:
            context = Context(subject=subject, services=services)
            return await schema().execute(query, variable_values=dict(variables), context_value=context)

        with counted(ground.db) as count:
            found = asyncio.run(run())
        if getattr(found, "errors", None):
            raise AssertionError(found)
        return count.statements

    sizes = {first: ask(PAGE, first=first) for first in (1, 20, 100)}
    told = ", ".join(f"{count} for {first}" for first, count in sizes.items())
    report.add(
        f"reads, {kind}", f"page of 100: SQL statements, {OFF}", sizes[100], "", baseline=sizes[1],
        against="a page of 1", target="1.00", note=told,
    )  # fmt: skip
    report.add(f"reads, {kind}", f"one server: SQL statements, {OFF}", ask(ONE, id=one), "")
