"""What exports hold: lines of an inventory, of usage, of events, read in batches that fit memory.

Each batch is read in a session of its own, so an export never holds a snapshot of the database open: a line is true of
the moment it was read. Only the columns named here leave the cloud, which are those that a reader of the tenant sees by
GraphQL; a noun that belongs to tenants and is named nowhere here fails a test. Keys become public ids, names become
those of the schema.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from pydantic.alias_generators import to_camel
from sqlmodel import Session, col, or_, select

from gateway.integration.export import Export, ExportKind
from gateway.jobs import event as events
from gateway.jobs.event import Cursor, Event
from gateway.kernel import ids, noun
from gateway.kernel.access import CLOUD, Role
from gateway.kernel.row import Row
from gateway.metering.usage import Interval
from gateway.network.address import PortAddress

BATCH: Final = 500
Line = dict[str, Any]
Reading = Callable[[], AbstractContextManager[Session]]

INVENTORY: Final[Mapping[str, tuple[str, ...]]] = {
    "membership": ("user_id", "role"),
    "quota": ("resource", "limit", "used"),
    "image": (
        "name", "description", "status", "status_reason", "visibility", "format", "size_bytes", "virtual_size_bytes",
        "sha256", "min_disk_gib", "min_ram_mib", "protected", "tags",
    ),
    "image_member": ("image_id",),
    "network": ("name", "description", "mtu", "shared", "tags", "deleting"),
    "subnet": ("name", "network_id", "cidr", "gateway", "dhcp", "dns_servers"),
    "security_group": ("name", "description"),
    "security_group_rule": (
        "security_group_id", "direction", "ether_type", "protocol", "port_min", "port_max", "remote_cidr",
        "remote_group_id", "description",
    ),
    "volume": (
        "name", "description", "status", "status_reason", "size_gib", "image_id", "snapshot_id", "server_id", "device",
        "delete_with_server", "tags",
    ),
    "snapshot": ("name", "description", "status", "status_reason", "size_gib", "volume_id"),
    "server": (
        "name", "description", "status", "status_reason", "flavor_id", "vcpus", "ram_mib", "disk_gib", "image_id",
        "hypervisor", "availability_zone", "properties", "tags", "launched_at",
    ),
    "server_snapshot": ("name", "description", "status", "status_reason", "size_gib", "with_memory", "server_id"),
    "port": ("name", "network_id", "mac", "port_security", "server_id"),
    "server_group": ("name", "policy", "max_per_host"),
    "webhook": ("name", "url", "nouns", "enabled", "disabled_reason"),
}  # fmt: skip
"""Nouns in the order of an inventory, each with the columns that are told."""

LEFT_OUT: Final = frozenset({"apikey", "audit", "delivery", "export", "job", "migration", "resize"})
"""Nouns of tenants that are no inventory: what lets people in, and trails of what happened."""

_LINKS: Final = {
    "user_id": "user", "image_id": "image", "network_id": "network", "security_group_id": "security_group",
    "remote_group_id": "security_group", "snapshot_id": "snapshot", "server_id": "server", "volume_id": "volume",
    "flavor_id": "flavor",
}  # fmt: skip
_RENAMED: Final = {"properties": "metadata", "mac": "macAddress"}
_MICROSECOND: Final = timedelta(microseconds=1)
_US: Final = 1_000_000


def lines(read: Reading, export: Export) -> Iterator[list[Line]]:
    """The batches of an export, in an order that does not change."""
    match export.kind:
        case ExportKind.INVENTORY:
            yield from _inventory(read, export)
        case ExportKind.USAGE:
            yield from _usage(read, export)
        case ExportKind.EVENTS:
            yield from _events(read, export)


# ------------------------------------------------------------------------------------------------ inventory


def _inventory(read: Reading, export: Export) -> Iterator[list[Line]]:
    # As any reader of the tenant, whoever asked: who may see the export may see what is in it.
    reader = replace(CLOUD, admin=False, roles={export.tenant_id: Role.READER})
    for prefix, columns in INVENTORY.items():
        kind = noun.BY_PREFIX[prefix]
        table: Any = kind.table
        after = 0
        while True:
            statement = select(table).where(table.tenant_id == export.tenant_id, table.id > after, kind.scope(reader))
            with read() as session:
                rows = session.exec(statement.order_by(table.id).limit(BATCH)).all()
                told = [_object(prefix, each, columns) for each in rows]
                _link(session, rows, told, columns)
                if prefix == "port":
                    _address(session, rows, told)
            if told:
                yield told
            if len(rows) < BATCH:
                break
            after = rows[-1].id


def _object(prefix: str, found: Row, columns: Sequence[str]) -> Line:
    line: Line = {"type": prefix, "id": ids.encode(prefix, found.uid)}
    for name in columns:
        if name not in _LINKS:
            line[_RENAMED.get(name, to_camel(name))] = _plain(getattr(found, name))
    line["version"] = found.version
    line["createdAt"], line["updatedAt"] = _plain(found.created_at), _plain(found.updated_at)
    return line


def _link(session: Session, rows: Sequence[Row], told: Sequence[Line], columns: Sequence[str]) -> None:
    """Put public ids where the rows hold keys."""
    for name in columns:
        prefix = _LINKS.get(name)
        if prefix is None:
            continue
        table: Any = noun.BY_PREFIX[prefix].table
        keys = {getattr(each, name) for each in rows} - {None}
        found = session.exec(select(table.id, table.uid).where(table.id.in_(keys))).all() if keys else []
        public = {key: ids.encode(prefix, uid) for key, uid in found}
        for each, line in zip(rows, told, strict=True):
            line[to_camel(name)] = public.get(getattr(each, name))


def _address(session: Session, rows: Sequence[Row], told: Sequence[Line]) -> None:
    held: dict[int, list[str]] = defaultdict(list)
    statement = select(PortAddress).where(col(PortAddress.port_id).in_([each.id for each in rows]))
    for each in session.exec(statement.order_by(col(PortAddress.id))):
        held[each.port_id].append(each.address)
    for found, line in zip(rows, told, strict=True):
        line["ipAddresses"] = held[found.id]


# ------------------------------------------------------------------------------------------------ usage


def _usage(read: Reading, export: Export) -> Iterator[list[Line]]:
    start, end = export.start_at, export.until
    if start is None:
        raise AssertionError("an export of usage has a start")
    wanted = select(Interval).where(
        Interval.tenant_id == export.tenant_id,
        col(Interval.started_at) < end,
        or_(col(Interval.ended_at).is_(None), col(Interval.ended_at) > start),
    )
    place = sa.tuple_(col(Interval.started_at), col(Interval.id))
    after: tuple[datetime, int] | None = None
    while True:
        statement = wanted if after is None else wanted.where(place > sa.tuple_(*after))
        statement = statement.order_by(col(Interval.started_at), col(Interval.id)).limit(BATCH)
        with read() as session:
            rows = session.exec(statement).all()
        if rows:
            yield [_interval(each, start, end) for each in rows]
        if len(rows) < BATCH:
            return
        after = (rows[-1].started_at, rows[-1].id)


def _interval(each: Interval, start: datetime, end: datetime) -> Line:
    begin, close = max(each.started_at, start), min(each.ended_at or end, end)
    amount_us = each.amount * max(0, (close - begin) // _MICROSECOND)
    return {
        "type": "usage",
        "resource": each.resource.value,
        "objectUuid": str(each.object_uid),
        "amount": each.amount,
        "start": _plain(begin),
        "end": _plain(close),
        "amountSeconds": f"{amount_us // _US}.{amount_us % _US:06d}",
    }


# ------------------------------------------------------------------------------------------------ events


def _events(read: Reading, export: Export) -> Iterator[list[Line]]:
    wanted = select(Event).where(Event.tenant_id == export.tenant_id, col(Event.at) < export.until)
    if export.start_at is not None:
        wanted = wanted.where(col(Event.at) >= export.start_at)
    place = sa.tuple_(col(Event.transaction), col(Event.id))
    after = Cursor(0, 0)
    while True:
        with read() as session:
            statement = events.settled(session, wanted.where(place > sa.tuple_(*after)))
            rows = session.exec(statement.order_by(col(Event.transaction), col(Event.id)).limit(BATCH)).all()
        if rows:
            yield [_event(each) for each in rows]
        if len(rows) < BATCH:
            return
        after = rows[-1].cursor


def _event(each: Event) -> Line:
    return {
        "type": "event",
        "cursor": each.cursor.encode(),
        "kind": each.kind,
        "at": _plain(each.at),
        "objectId": ids.encode(each.noun, each.object_uid),
        "version": each.version,
        "changed": list(each.changed),
    }


def _plain(value: Any) -> Any:
    """A value as JSON has it; moments as the schema writes them."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return value
