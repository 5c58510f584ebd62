"""Snapshots: point-in-time copies of volumes. A snapshot is whole in itself: deleting its volume leaves it usable."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from sqlmodel import Field, col

from gateway.kernel import row
from gateway.kernel.access import within
from gateway.kernel.noun import Noun, register
from gateway.kernel.row import Row


class SnapshotStatus(StrEnum):
    """Where a snapshot stands."""

    CREATING = "CREATING"
    """Being made."""
    AVAILABLE = "AVAILABLE"
    """Ready: volumes can be made from it."""
    DELETING = "DELETING"
    """On its way out."""
    ERROR = "ERROR"
    """Could not be made; delete it."""


class Snapshot(Row, table=True):
    """A snapshot; ``volume_id`` is null once its volume is gone."""

    __tablename__ = "snapshot"

    tenant_id: int = row.ref("tenant.id")
    name: str = Field(max_length=255)
    description: str = Field(default="", max_length=1024)
    status: SnapshotStatus = row.enum(SnapshotStatus, default=SnapshotStatus.CREATING)
    status_reason: str | None = Field(default=None, max_length=500)
    size_gib: int
    volume_id: int | None = Field(default=None, index=True)
    host_id: int | None = row.ref("host.id", null=True)


NOUN = register(Noun("snapshot", Snapshot, lambda subject: within(col(Snapshot.tenant_id), subject)))

ORDERS: dict[str, Any] = {"NAME": col(Snapshot.name), "SIZE_GIB": col(Snapshot.size_gib)}
