"""Taking snapshots. It stands apart from the noun because it needs the volume, which needs the snapshot."""

from typing import Any

from sqlmodel import Field, Session

from gateway.identity import quota
from gateway.identity.quota import Resource
from gateway.jobs import job as jobs
from gateway.jobs.job import Order
from gateway.kernel.access import Subject
from gateway.kernel.command import AnyId, Name, Retryable, Text
from gateway.kernel.errors import InvalidState
from gateway.metering import usage
from gateway.metering.usage import Metered
from gateway.volume import volume as volumes
from gateway.volume.snapshot import NOUN, Snapshot
from gateway.volume.volume import VolumeStatus

_WHOLE = (VolumeStatus.AVAILABLE, VolumeStatus.IN_USE)


class SnapshotCreate(Retryable):
    """A new snapshot."""

    volume_id: AnyId = Field(description="The volume; it may be in use, the copy is then as after a power cut.")
    name: Name = Field(description="The snapshot's name; need not be unique.")
    description: Text = Field(default="", description="What it is for.")


def create(session: Session, subject: Subject, command: SnapshotCreate) -> dict[str, Any]:
    """Insert the snapshot with its job. Raises InvalidState and QuotaExceeded."""
    volume = volumes.reach(session, subject, command.volume_id, "volumeId")
    if volume.status not in _WHOLE:
        raise InvalidState(
            f"The volume is {volume.status.value}.",
            path=("volumeId",),
            current=volume.status.value,
            allowed=[each.value for each in _WHOLE],
        )
    quota.take(session, volume.tenant_id, {Resource.SNAPSHOTS: 1, Resource.VOLUME_GIB: volume.size_gib})
    snapshot = Snapshot(
        tenant_id=volume.tenant_id,
        name=command.name,
        description=command.description,
        size_gib=volume.size_gib,
        volume_id=volume.id,
    )
    session.add(snapshot)
    session.flush()
    usage.opened(session, volume.tenant_id, Metered.SNAPSHOT_GIB, snapshot.uid, volume.size_gib)
    order = Order(
        "snapshot.create", volume.tenant_id, NOUN.public(snapshot), resource=volumes.queue_of(session, volume),
        arguments={"snapshot_id": snapshot.id, "volume_id": volume.id},
    )  # fmt: skip
    return {"snapshot": snapshot, "job": jobs.submit(session, subject, order)}
