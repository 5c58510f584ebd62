"""Figures about this process and the cloud for Prometheus: what operators alarm on.

Counts of the cloud (jobs, servers, hosts by state) are read from the database when asked for, so every replica tells
the same; process figures are the client library's own.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlmodel import col, func, select

from gateway.compute.host import Host
from gateway.compute.server import Server
from gateway.jobs import job as jobs
from gateway.jobs.job import Job
from gateway.kernel.db import Database

CONTENT_TYPE = CONTENT_TYPE_LATEST


class CloudCollector(Collector):
    """Reads the cloud's counts."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The counts, in a few statements."""
        live = (*jobs.LIVE, jobs.Status.STUCK)
        told = (
            ("stratograph_jobs", "Jobs that have not ended, by status.", Job.status, col(Job.status).in_(live)),
            ("stratograph_servers", "Servers, by status.", Server.status, None),
            ("stratograph_hosts", "Hosts, by status.", Host.status, None),
        )
        with self._db.read() as session:
            for name, text, column, where in told:
                family = GaugeMetricFamily(name, text, labels=["status"])
                statement = select(column, func.count()).group_by(col(column))
                for status, count in session.exec(statement if where is None else statement.where(where)):
                    family.add_metric([str(status)], count)
                yield family


def render(db: Database) -> bytes:
    """The exposition text."""
    registry = CollectorRegistry()
    for make in (ProcessCollector, PlatformCollector, GCCollector):
        make(registry=registry)
    registry.register(CloudCollector(db))
    return generate_latest(registry)
