"""The limit: what the data costs when nothing stands between socket and database.

A bare ASGI app sends one hand-written statement with JSON aggregation over the gateway's own tables and passes the
database's bytes through. No authentication, no GraphQL, no rules. ``POST /page`` with a tenant's key and a page size,
``POST /many`` with the same for three fields of each, ``POST /one`` with a server's uid. Run by uvicorn:
``python -m tests.bench.limit URL PORT``.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import psycopg_pool
import sqlalchemy as sa
import uvicorn

from gateway.kernel import ids

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Ask = Callable[[str, tuple[Any, ...]], Awaitable[bytes]]

SERVER = """{object}('id', s.uid, 'name', s.name, 'status', s.status, 'createdAt', s.created_at,
 'flavor', (SELECT {object}('name', f.name, 'vcpus', f.vcpus, 'ramMib', f.ram_mib)
   FROM flavor f WHERE f.id = s.flavor_id),
 'image', (SELECT {object}('id', i.uid, 'name', i.name) FROM image i WHERE i.id = s.image_id),
 'ports', (SELECT {array}({object}('macAddress', p.mac, 'ipAddresses',
    (SELECT {array}(a.address) FROM port_address a WHERE a.port_id = p.id),
    'network', (SELECT {object}('id', n.uid, 'name', n.name) FROM network n WHERE n.id = p.network_id)))
   FROM port p WHERE p.server_id = s.id),
 'volumes', (SELECT {array}({object}('id', v.uid, 'name', v.name, 'sizeGib', v.size_gib, 'device', v.device))
   FROM volume v WHERE v.server_id = s.id))"""
PAGE = "SELECT {array}({server}) FROM (SELECT * FROM server WHERE tenant_id = {mark} ORDER BY uid LIMIT {mark}) s"
MANY = """SELECT {array}({object}('id', s.uid, 'name', s.name, 'status', s.status))
 FROM (SELECT * FROM server WHERE tenant_id = {mark} ORDER BY uid LIMIT {mark}) s"""
ONE = "SELECT {server} FROM server s WHERE s.uid = {mark}"


def statement(shape: str, *, sqlite: bool) -> str:
    """One of the statements, in a database's own words."""
    words = (
        {"object": "json_object", "array": "json_group_array", "mark": "?"}
        if sqlite
        else {"object": "json_build_object", "array": "json_agg", "mark": "%s"}
    )
    return shape.format(server=SERVER.format(**words), **words)


def _sqlite(path: str) -> Ask:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, check_same_thread=False)

    async def ask(text: str, values: tuple[Any, ...]) -> bytes:
        found: str = connection.execute(text, values).fetchone()[0]
        return found.encode()

    return ask


class App:
    """The ASGI application."""

    def __init__(self, url: str) -> None:
        found = sa.make_url(url)
        self.sqlite = found.get_backend_name() == "sqlite"
        self._page, self._many, self._one = (statement(shape, sqlite=self.sqlite) for shape in (PAGE, MANY, ONE))
        self._url = found

    @asynccontextmanager
    async def _database(self) -> Any:
        if self.sqlite:
            yield _sqlite(self._url.database or "")
            return
        plain = self._url.set(drivername="postgresql").render_as_string(hide_password=False)
        async with psycopg_pool.AsyncConnectionPool(plain, min_size=4, kwargs={"autocommit": True}, open=False) as pool:

            async def ask(text: str, values: tuple[Any, ...]) -> bytes:
                async with pool.connection() as connection:
                    row = await (await connection.execute(f"SELECT ({text})::text", values, binary=False)).fetchone()
                    return str(row[0]).encode() if row else b"null"

            yield ask

    _ask: Ask

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or live through one lifespan."""
        if scope["type"] == "lifespan":
            await receive()
            async with self._database() as self._ask:
                await send({"type": "lifespan.startup.complete"})
                await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        given = b""
        more = scope["method"] == "POST"
        while more:
            message = await receive()
            given += message.get("body", b"")
            more = message.get("more_body", False)
        found = await self._answer(scope["path"], given.decode())
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": found})

    async def _answer(self, path: str, given: str) -> bytes:
        if path in ("/page", "/many"):
            tenant, size = given.split()
            return await self._ask(self._page if path == "/page" else self._many, (int(tenant), int(size)))
        if path == "/one":
            return await self._ask(self._one, (ids.digits(UUID(given)) if self.sqlite else UUID(given),))
        return b"{}"


if __name__ == "__main__":
    uvicorn.run(App(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]), access_log=False, log_level="warning")
