"""A PostgreSQL server of the tests' own: loopback only, own port and data folder, nothing forced to the disk.

`PostgresServer.create()` gives a running server; `create_database()` gives each test its own database,
`template(...)` prepares one once (migrations, say) which further databases are copied from in some 50 ms. Trust
authentication: whoever reaches the loopback address of this machine may use it, as fits a server that lives for one
test run. PostgreSQL refuses to run as root, so root starts it as the package's user `postgres`. Committed data
outlives a kill of the server (the operating system has it), not of the machine.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from tests.servers.daemon import Daemon, PackageMissingError, ServerError, free_port, make_folder

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "autovacuum": "off",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "log_min_messages": "fatal",
}


def program(name: str) -> str:
    """The path of a PostgreSQL server program, of the newest installed version."""
    versions = sorted(
        Path("/usr/lib/postgresql").glob(f"*/bin/{name}"),
        key=lambda path: [int(part) for part in re.findall(r"\d+", path.parts[4])],
    )
    found = str(versions[-1]) if versions else shutil.which(name)
    if found is None:
        raise PackageMissingError(f"{name} is not installed: apt-get install postgresql")
    return found


def unprivileged() -> str | None:
    """The user to run PostgreSQL as, where this process is root."""
    return "postgres" if os.geteuid() == 0 else None


def initialise(folder: Path) -> None:
    """Make the cluster's files in `folder`/data."""
    options = [
        "--username=postgres",
        "--auth=trust",
        "--encoding=UTF8",
        "--no-locale",
        "--no-sync",
        "--no-instructions",
    ]
    user = unprivileged()
    done = subprocess.run(
        [program("initdb"), "--pgdata=data", *options],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        user=user,
        group=user,
        extra_groups=[] if user else None,
    )
    if done.returncode != 0:
        raise ServerError(f"initdb failed: {done.stderr[-2000:]}")


@dataclass
class PostgresServer:
    """A running PostgreSQL."""

    port: int
    daemon: Daemon

    @classmethod
    def create(cls) -> PostgresServer:
        """Make a new cluster and start it; about 1.5 s."""
        folder = make_folder("postgres", unprivileged())
        try:
            initialise(folder)
            server = cls.attached(free_port(), folder)
            server.daemon.start()
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return server

    @classmethod
    def attached(cls, port: int, folder: Path, guard_pid: int = 0) -> PostgresServer:
        """The server of that port and folder, started here or in another process of this test run."""
        settings = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        daemon = Daemon(
            command=[program("postgres"), "-D", "data", "-p", str(port), "-k", str(folder), *settings],
            folder=folder,
            user=unprivileged(),
            stop_signal=signal.SIGINT,  # PostgreSQL's fast shutdown: SIGTERM would wait for clients
            answers=lambda: answers(port),
            guard_pid=guard_pid,
        )
        return cls(port, daemon)

    @property
    def url(self) -> str:
        """SQLAlchemy's address of the database `postgres`."""
        return self.database_url("postgres")

    def database_url(self, name: str) -> str:
        """SQLAlchemy's address of a database."""
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{name}"

    def over_socket(self, url: str) -> str:
        """The same database by the server's Unix socket, which costs both less than loopback does (decision 0040)."""
        return f"postgresql+psycopg://postgres@/{url.rpartition('/')[2]}?host={self.daemon.folder}&port={self.port}"

    def _execute(self, *statements: sql.SQL | sql.Composed) -> None:
        with psycopg.connect(
            host="127.0.0.1", port=self.port, user="postgres", dbname="postgres", autocommit=True
        ) as connection:
            for each in statements:
                connection.execute(each)

    def create_database(self, *, template: str | None = None) -> str:
        """A new empty database, or a copy of that template; returns its address."""
        name = f"test_{uuid.uuid4().hex}"
        source = sql.SQL(" TEMPLATE {}").format(sql.Identifier(template or "template0"))
        self._execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)) + source)
        return self.database_url(name)

    def drop_database(self, url: str) -> None:
        """Delete a database, ending whatever connections it has."""
        name = url.rpartition("/")[2]
        self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def template(self, name: str, prepare: Callable[[str], None]) -> str:
        """The template of that name, made by `prepare(url)` unless it is there; returns the name.

        Several workers may ask at once: one prepares, the others wait. `prepare` must close its connections.
        """
        with psycopg.connect(
            host="127.0.0.1", port=self.port, user="postgres", dbname="postgres", autocommit=True
        ) as connection:
            connection.execute("SELECT pg_advisory_lock(hashtext(%s))", [name])  # released with the connection
            found = connection.execute("SELECT datistemplate FROM pg_database WHERE datname = %s", [name]).fetchone()
            if found != (True,):  # absent, or left half-made by a worker that died
                identifier = sql.Identifier(name)
                connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(identifier))
                connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(identifier))
                prepare(self.database_url(name))
                connection.execute(
                    sql.SQL("ALTER DATABASE {} IS_TEMPLATE true ALLOW_CONNECTIONS false").format(identifier)
                )
        return name

    def pause(self) -> None:
        """Freeze the server: connections hang."""
        self.daemon.pause()

    def resume(self) -> None:
        """Let a paused server go on."""
        self.daemon.resume()

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self.daemon.kill()

    def restart(self) -> None:
        """Start a killed server again on the same port with the same data."""
        (self.daemon.folder / "data" / "postmaster.pid").unlink(missing_ok=True)
        self.daemon.start()

    def stop(self) -> None:
        """End it and delete its data."""
        self.daemon.stop()


def answers(port: int) -> bool:
    """Whether PostgreSQL takes connections on that port."""
    try:
        psycopg.connect(host="127.0.0.1", port=port, user="postgres", dbname="postgres", connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True
