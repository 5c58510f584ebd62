"""The PostgreSQL of the tests: separate databases, templates, outages, and nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from tests.servers.daemon import ROOT, wait_until
from tests.servers.guard import descendants
from tests.servers.postgres import PostgresServer, answers


def connect(url: str) -> psycopg.Connection:
    return psycopg.connect(url.replace("postgresql+psycopg", "postgresql"), connect_timeout=2)


def test_each_database_is_its_own(postgres_server: PostgresServer, postgres_url: str) -> None:
    other = postgres_server.create_database()
    with connect(postgres_url) as here, connect(other) as there:
        here.execute("CREATE TABLE thing (id int)")
        assert here.execute("SELECT to_regclass('thing') IS NULL").fetchone() == (False,)
        assert there.execute("SELECT to_regclass('thing') IS NULL").fetchone() == (True,)
    postgres_server.drop_database(other)


def test_a_template_is_prepared_once_and_copied(postgres_server: PostgresServer) -> None:
    name = f"template_{os.getpid()}"
    prepared = []

    def prepare(url: str) -> None:
        prepared.append(url)
        with connect(url) as connection:
            connection.execute("CREATE TABLE thing (id int)")
            connection.execute("INSERT INTO thing VALUES (7)")

    def copy(_: int) -> str:
        return postgres_server.create_database(template=postgres_server.template(name, prepare))

    with ThreadPoolExecutor(6) as pool:
        copies = list(pool.map(copy, range(6)))
    assert len(prepared) == 1
    assert len(set(copies)) == 6
    for url in copies:
        with connect(url) as connection:
            assert connection.execute("SELECT id FROM thing").fetchall() == [(7,)]
        postgres_server.drop_database(url)


def test_a_half_made_template_is_made_again(postgres_server: PostgresServer) -> None:
    name = f"broken_{os.getpid()}"

    def fail(url: str) -> None:
        with connect(url) as connection:
            connection.execute("CREATE TABLE half (id int)")
        raise RuntimeError("the migration broke")

    with pytest.raises(RuntimeError, match="the migration broke"):
        postgres_server.template(name, fail)
    postgres_server.template(name, lambda _: None)
    with connect(postgres_server.create_database(template=name)) as connection:
        assert connection.execute("SELECT to_regclass('half') IS NULL").fetchone() == (True,)


def test_data_outlives_a_kill_and_a_pause_only_delays(private_postgres: PostgresServer) -> None:
    server = private_postgres
    url = server.create_database()
    with connect(url) as connection:
        connection.execute("CREATE TABLE thing (id int)")
        connection.execute("INSERT INTO thing VALUES (1)")
    before = server.port
    server.kill()
    assert not answers(before)
    server.restart()
    assert server.port == before

    server.pause()
    rows: list[object] = []
    with ThreadPoolExecutor(1) as pool:
        asked = threading.Event()

        def ask() -> None:
            asked.set()
            with psycopg.connect(url.replace("+psycopg", "")) as connection:
                rows.extend(connection.execute("SELECT id FROM thing").fetchall())

        future = pool.submit(ask)
        asked.wait(5)
        assert not answers(before)  # a fresh connection finds nobody within its two seconds
        assert not future.done()
        server.resume()
        future.result(timeout=20)
    assert rows == [(1,)]


def test_nothing_is_left_after_stop() -> None:
    server = PostgresServer.create()
    guard, folder = server.daemon.guard_pid, server.daemon.folder
    processes = descendants(guard)
    assert server.daemon.pid in processes
    server.stop()
    assert [pid for pid in [guard, *processes] if Path(f"/proc/{pid}").exists()] == []
    assert not folder.exists()


def test_the_server_ends_with_the_run_that_started_it() -> None:
    script = (
        "from tests.servers.postgres import PostgresServer\n"
        "server = PostgresServer.create()\n"
        "print(server.daemon.guard_pid, server.daemon.folder, flush=True)\n"
        "input()\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_XDIST_WORKER"}
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None
        guard, folder = run.stdout.readline().split()
        processes = [int(guard), *descendants(int(guard))]
        run.kill()
    wait_until(
        lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes), 20, "the server of a killed run ended"
    )
    wait_until(lambda: not Path(folder).exists(), 5, "its folder was deleted")
