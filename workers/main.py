"""Composition root of the asynchronous side: broker, one actor, runner, sweep. Embedded in the gateway's process, or as
many ``stratograph worker`` processes as wanted; the code is the same.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import socket
import threading
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
from dramatiq import Worker

import workers
from gateway.jobs import job as jobs
from gateway.jobs import worker as living
from gateway.kernel.db import Database
from gateway.kernel.news import tell_of_commits
from gateway.kernel.settings import Settings
from workers import shares
from workers.bell import Doorbell, declare, open_broker
from workers.compute import watch
from workers.hypervisor import Hosts
from workers.runner import Runner
from workers.sweep import Context, Direct, Sweep

log = structlog.get_logger(__name__)


def load_all() -> None:
    """Import every module of workers, so that all sagas and reconcilers are registered."""
    for module in pkgutil.walk_packages(workers.__path__, "workers."):
        if not module.ispkg and module.name != __name__:
            importlib.import_module(module.name)


@dataclass(slots=True)
class Plant:
    """A running asynchronous side."""

    bell: Doorbell
    hosts: Hosts
    runner: Runner
    sweep: Sweep
    worker: Worker | None

    @property
    def healthy(self) -> bool:
        """Whether the broker took the last message."""
        return self.bell.healthy

    def stop(self, seconds: float = 10.0) -> None:
        """End gracefully: take nothing new, let steps under way end within ``seconds``, leave the rest to the next
        claim.
        """
        self.runner.stopping.set()
        self.sweep.stop(seconds)
        watch.close_all()
        if self.worker is not None:
            shares.leave(self.sweep.context.db, self.sweep.context.worker)
        if self.worker is not None:
            self.worker.stop(timeout=int(seconds * 1000))
        self.bell.close()
        self.hosts.close()


def start(db: Database, settings: Settings, *, work: bool = True) -> Plant:
    """Open the broker and, if ``work``, carry jobs out. With ``work`` False jobs are only rung for."""
    load_all()
    broker = open_broker(settings.broker_url)
    bell = Doorbell(broker)
    db.provide("bell", bell)
    tell_of_commits(db)
    hosts = Hosts(settings.state_dir / "scratch")
    name = runner_name(os.getpid())
    disown_the_dead(db)
    runner = Runner(db, hosts, name, settings=settings)
    declare(broker, runner.run)
    direct = Direct(runner.run, settings.worker_threads)
    if work:
        bell.otherwise = direct
    sweep = Sweep(Context(db, hosts, settings, name), bell, direct=direct, beat=runner.renew_leases, tell=runner.tell)
    worker = None
    if work:
        worker = Worker(broker, worker_threads=settings.worker_threads, worker_timeout=100)
        worker.start()
        shares.show(sweep.context)
        sweep.start()
    log.info("workers are ready", threads=settings.worker_threads if work else 0, broker=_kind(settings))
    return Plant(bell, hosts, runner, sweep, worker)


def runner_name(pid: int) -> str:
    """How a process of this machine signs its leases."""
    return f"{socket.gethostname()[:48]}-{pid}"


def disown_the_dead(db: Database) -> None:
    """Take the leases and the share of hosts of this machine's processes that are no more: after a crash both go on at
    once instead of when the leases have ended.
    """
    with db.read() as session:
        held = {*jobs.holders(session), *living.known(session)}
    for name in held:
        pid = name.rpartition("-")[2]
        if pid.isdigit() and name == runner_name(int(pid)) and not _alive(int(pid)):
            taken = db.run(partial(jobs.disown, name=name))
            shares.leave(db, name)
            log.info("leases of a dead process were taken", runner=name, jobs=taken)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def run_forever(db: Database, settings: Settings, stop: threading.Event) -> None:
    """What ``stratograph worker`` does: work until ``stop`` is set."""
    plant = start(db, settings)
    try:
        stop.wait()
    finally:
        plant.stop()


def _kind(settings: Settings) -> Any:
    return "embedded" if settings.broker_url is None else settings.broker_url.split(":", 1)[0]
