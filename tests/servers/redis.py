"""A Redis of the tests' own, on the loopback address with its own port; nothing is written to the disk.

`RedisServer.create()` gives a running server; `new_url()` gives each test an empty numbered database. A killed Redis
comes back empty: that is what an outage of this broker means.
"""

from __future__ import annotations

import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from tests.servers.counter import next_number
from tests.servers.daemon import Daemon, PackageMissingError, ServerError, free_port, make_folder

DATABASES = 1000


def answers(port: int) -> bool:
    """Whether Redis answers PING on that port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(5) == b"+PONG"
    except OSError:
        return False


@dataclass
class RedisServer:
    """A running Redis."""

    port: int
    daemon: Daemon

    @classmethod
    def create(cls) -> RedisServer:
        """Start a new, empty server; a tenth of a second."""
        if shutil.which("redis-server") is None:
            raise PackageMissingError("Redis is not installed: apt-get install redis-server")
        folder = make_folder("redis")
        try:
            server = cls.attached(free_port(), folder)
            server.daemon.start()
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return server

    @classmethod
    def attached(cls, port: int, folder: Path, guard_pid: int = 0) -> RedisServer:
        """The server of that port and folder, started here or in another process of this test run."""
        options = {"port": port, "bind": "127.0.0.1", "dir": folder, "databases": DATABASES, "appendonly": "no"}
        arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        daemon = Daemon(
            command=["redis-server", *arguments, "--save", ""],
            folder=folder,
            answers=lambda: answers(port),
            guard_pid=guard_pid,
        )
        return cls(port, daemon)

    @property
    def url(self) -> str:
        """The address of database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    def new_url(self) -> str:
        """The address of a database that no other test has had. Raises ServerError after DATABASES of them."""
        number = next_number(self.daemon.folder, "databases") + 1
        if number >= DATABASES:
            raise ServerError(f"more than {DATABASES} databases were asked for: raise DATABASES")
        return f"redis://127.0.0.1:{self.port}/{number}"

    def pause(self) -> None:
        """Freeze the server: connections hang."""
        self.daemon.pause()

    def resume(self) -> None:
        """Let a paused server go on."""
        self.daemon.resume()

    def kill(self) -> None:
        """End it at once; everything it held is gone."""
        self.daemon.kill()

    def restart(self) -> None:
        """Start a killed server again on the same port."""
        self.daemon.start()

    def stop(self) -> None:
        """End it."""
        self.daemon.stop()
