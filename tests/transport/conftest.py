"""A live uvicorn on loopback around the toy schema, one per test that asks, and the npm clients."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette

from resolvers.transport.app import TransportSettings, routes
from resolvers.transport.packets import WholeResponses
from resolvers.transport.prompt import PromptSockets
from tests.transport.toy import Room, toy_schema
from tests.transport.toy_identity import Desk, contexts

NPM = Path(__file__).parent / "npm"
DEADLINE_SECONDS = 30.0


@dataclass
class Server:
    """A running server and what its resolvers share. ``url`` has no trailing slash."""

    url: str
    port: int
    room: Room
    desk: Desk
    settings: TransportSettings
    loop: asyncio.AbstractEventLoop
    uvicorn: uvicorn.Server = field(repr=False)

    @property
    def websocket_url(self) -> str:
        return self.url.replace("http:", "ws:")

    def tasks(self) -> int:
        """How many tasks the server's loop holds."""

        async def count() -> int:
            return len(asyncio.all_tasks())

        return asyncio.run_coroutine_threadsafe(count(), self.loop).result(DEADLINE_SECONDS)

    def in_loop(self, action: Callable[[], Any]) -> None:
        """Runs ``action`` in the server's loop."""
        self.loop.call_soon_threadsafe(action)


Serve = Callable[..., Server]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """``serve(**settings)`` starts one more server; all stop with the test."""
    stops: list[Callable[[], None]] = []

    def start(*, schema_options: dict[str, Any] | None = None, **settings: Any) -> Server:
        server, stop = _started(TransportSettings(**settings), schema_options or {})
        stops.append(stop)
        return server

    yield start
    for stop in stops:
        stop()


@pytest.fixture(scope="session")
def shared_server() -> Iterator[Server]:
    """One server with default settings for all tests of this process."""
    server, stop = _started(TransportSettings(), {})
    yield server
    stop()


@pytest.fixture
def server(shared_server: Server) -> Server:
    """A server with default settings that remembers nothing of the test before."""
    for thing in (shared_server.room, shared_server.desk):
        vars(thing).update(vars(type(thing)()))
    return shared_server


def _started(settings: TransportSettings, schema_options: dict[str, Any]) -> tuple[Server, Callable[[], None]]:
    room, desk = Room(), Desk()
    app = Starlette(routes=routes(toy_schema(**schema_options), settings, desk.authenticate, contexts(room)))
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    port = int(listener.getsockname()[1])
    config = uvicorn.Config(
        app,
        http=WholeResponses,
        ws=PromptSockets,
        log_level="error",
        lifespan="off",
        timeout_graceful_shutdown=2,
        ws_max_size=settings.body_size_max_bytes,
        ws_per_message_deflate=False,
    )
    running = uvicorn.Server(config)
    loops: list[asyncio.AbstractEventLoop] = []
    started = threading.Event()

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        started.set()
        await running.serve(sockets=[listener])

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    assert started.wait(DEADLINE_SECONDS)
    server = Server(f"http://127.0.0.1:{port}/graphql", port, room, desk, settings, loops[0], running)

    def stop() -> None:
        running.should_exit = True
        thread.join(DEADLINE_SECONDS)
        listener.close()
        assert not thread.is_alive()

    return server, stop


@pytest.fixture(scope="session")
def npm() -> Path:
    """The folder with the npm clients, installed from the committed lock file; once, also under xdist."""
    tool = shutil.which("npm")
    if tool is None:
        pytest.fail("npm is missing: apt-get install npm (or Node 20)")
    stamp = NPM / "node_modules" / ".installed"
    wanted = hashlib.sha256((NPM / "package-lock.json").read_bytes()).hexdigest()
    with closing((NPM / ".lock").open("w")) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != wanted:
            command = [tool, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
            subprocess.run(command, cwd=NPM, check=True, timeout=240, capture_output=True)
            stamp.write_text(wanted)
    return NPM


@pytest.fixture
def node(npm: Path) -> Callable[..., Any]:
    """``node(script, *arguments)`` runs a script of the npm folder and gives back the JSON that it prints last."""

    def run(script: str, *arguments: str) -> Any:
        done = subprocess.run(
            ["node", script, *arguments], cwd=npm, timeout=120, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.strip().splitlines()[-1])

    return run
