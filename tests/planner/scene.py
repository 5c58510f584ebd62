"""A cloud that is small and odd: rows of every table, with what real data has and examples have not.

Two tenants and more people, edges that are null, that lead to other tenants' objects and to what was deleted; texts
with quotes, emoji and control characters, numbers at the ends of their ranges, moments with zeros where printers
differ, ties in every order, and public ids that sort otherwise than the internal keys. The rows are data: equal on
every database and in every run. Columns that nobody thought of here are filled by their type, so a new one takes part.
"""

from __future__ import annotations

import hashlib
import typing
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from random import Random
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import SQLModel

from gateway.compute.flavor import Flavor
from gateway.compute.host import Host
from gateway.compute.keypair import Keypair
from gateway.compute.server import Server
from gateway.identity.api_key import ApiKey
from gateway.identity.audit import AuditRecord
from gateway.identity.lockout import WrongPassword
from gateway.identity.quota import Quota, Resource
from gateway.identity.role import Membership
from gateway.identity.session import Session
from gateway.identity.tenant import Tenant
from gateway.identity.user import User
from gateway.image.image import Image, ImageMember
from gateway.integration.export import Export
from gateway.integration.webhook import Webhook, WebhookDelivery
from gateway.jobs.job import Job
from gateway.kernel import ids, noun
from gateway.kernel.access import NOBODY, Role, Subject
from gateway.kernel.db import Database
from gateway.metering.sample import Sample, SampleHour
from gateway.metering.usage import Interval
from gateway.network.address import FreeRange, PortAddress
from gateway.network.network import Network
from gateway.network.port import Port
from gateway.network.security_group import PortSecurityGroup, SecurityGroup, SecurityGroupRule
from gateway.network.subnet import Subnet
from gateway.volume.snapshot import Snapshot
from gateway.volume.volume import Volume

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
OURS, THEIRS, GONE, SECOND = 1, 2, 3, 4
"""Keys of tenants: the one most people work in, a stranger's, one that was deleted, and one with a few of ours."""

TEXTS = (
    "web-1", "", "WEB-1", 'say "hi"', "it's", "back\\slash \\n \\u0041", "tab\tline\nreturn\r",
    "\x01\x08\x0b\x0c\x1f\x7f",
    "emoji 😀 👩‍🚀", "e\u0301 \u00e9", "\u2028 and \u2029", "</script><!-- -->", "100%_of\\%", "İstanbul ß \u017f",
    "\u202e\u05e2\u05d1\u05e8\u05d9\u05ea العربية",
    "null", "true", "0", "  spaces  ", '{"a": [1]}', "[", "\ufeffmark", "\uffff\ufdd0", "a/b",
    "x" * 4000, "\U0001d518" * 300, "-", "NaN", "1e5", "naïve", "zz",
)  # fmt: skip
MOMENTS = tuple(
    NOW + timedelta(days=day, microseconds=micros)
    for day, micros in (
        (-40, 0), (-30, 1), (-20, 250_000), (-20, 250_000), (-10, 123_456), (-5, 100_000), (-2, 999_999),
        (-1, 10), (0, -500_000), (0, 0), (1, 120_000), (30, 654_320),
    )
)  # fmt: skip
FLOATS = (0.0, 1.0, 0.1, 1 / 3, 2 / 3, 1e-7, 123456789.123456789, 1e16, 99.99, 5e-324, 0.30000000000000004)
BIG = (0, 1, 2**31, 2**53 - 1, 2**53 + 1, 2**63 - 1)
SMALL = (0, 1, 2, 7, 1024, 2**31 - 1)

Rows = dict[type[SQLModel], list[dict[str, Any]]]


class Laying:
    """The rows under way, in the order in which tables can be filled."""

    def __init__(self) -> None:
        self.rows: Rows = {}
        self._random = Random(20260301)  # noqa: S311 - the same odd cloud each time, nothing secret
        self._uids = [
            UUID(int=(0x0190 << 112) | (7 << 76) | (2 << 62) | n * 0x9E3779B97F4A7C15 % 2**62) for n in range(2000)
        ]

    def add(self, table: type[SQLModel], count: int = 1, **given: Any) -> list[int]:
        """So many rows; what is given is a value, or a function of the row's number. Their keys."""
        made = self.rows.setdefault(table, [])
        columns: sa.Table = table.__table__  # type: ignore[attr-defined]  # every table model has one
        kinds = typing.get_type_hints(table)
        keys = []
        for _ in range(count):
            number = len(made) + 1
            row: dict[str, Any] = {}
            for column in columns.c:
                value = given.get(column.name, given)
                if value is given:
                    value = number if column.name == "id" else self._value(column, kinds[column.name], number)
                row[column.name] = value(number) if callable(value) else value
            made.append(row)
            keys.append(number)
        return keys

    def pick(self, *values: Any) -> Callable[[int], Any]:
        """A function that chooses one of these."""
        return lambda _number: self._random.choice(values)

    def key(self, table: type[SQLModel], *, null: bool = True) -> Callable[[int], int | None]:
        """A function that chooses the key of a row that is there, of any tenant; sometimes none."""
        return lambda _n: None if null and self._random.random() < 0.3 else self._random.choice(self.rows[table])["id"]

    def public(self, *prefixes: str) -> str:
        """The public id of some row that is there, sometimes of one that is not."""
        prefix = self._random.choice(prefixes)
        rows = self.rows.get(noun.BY_PREFIX[prefix].table, [])
        gone = UUID(int=self._random.getrandbits(128))
        return ids.encode(prefix, self._random.choice(rows)["uid"] if rows and self._random.random() < 0.9 else gone)

    def _value(self, column: sa.Column[Any], kind: Any, number: int) -> Any:
        """Any value of the column's type."""
        if column.name in ("id", "uid"):
            return number if column.name == "id" else self._uids.pop()
        if column.nullable and self._random.random() < 0.3:
            return sa.null() if isinstance(column.type, sa.JSON) and self._random.random() < 0.5 else None
        for there in column.foreign_keys:
            return self._random.choice(self._of(there.column.table))["id"]
        if isinstance(column.type, sa.JSON):
            return self._texts() if typing.get_origin(kind) is list else {self._random.choice(TEXTS[:20]): "é"}
        inner = [each for each in (kind, *typing.get_args(kind)) if isinstance(each, type)]
        return self._plain(inner[0] if inner else str, column.type)

    def _of(self, table: sa.Table) -> list[dict[str, Any]]:
        """The rows of a table, some of any kind when it has none yet."""
        for mapper in SQLModel._sa_registry.mappers:
            if mapper.local_table is table:
                if mapper.class_ not in self.rows:
                    self.add(mapper.class_, 3)
                return self.rows[mapper.class_]
        raise LookupError(table.name)

    def _plain(self, kind: type, stored: Any) -> Any:
        if issubclass(kind, StrEnum):
            return self._random.choice(list(kind))
        if kind is UUID:
            return UUID(int=self._random.getrandbits(128))
        pools: dict[type, tuple[Any, ...]] = {
            bool: (True, False), float: FLOATS, datetime: MOMENTS,
            int: BIG if isinstance(stored, sa.BigInteger) else SMALL,
        }  # fmt: skip
        found = self._random.choice(pools.get(kind, TEXTS))
        return found[: getattr(stored, "length", None) or 1000] if isinstance(found, str) else found

    def _texts(self) -> list[str]:
        return [each[:60] for each in self._random.sample(TEXTS, self._random.randrange(4))]


def rows() -> Rows:
    """Everything, by table."""
    noun.load_all()
    lay = Laying()
    _people(lay)
    _places(lay)
    _networks(lay)
    _servers(lay)
    _history(lay)
    for each in noun.BY_PREFIX.values():
        if each.table not in lay.rows:  # a noun that came after this file; what its JSON may hold is not known here
            made: sa.Table = each.table.__table__
            empty: dict[str, Any] = {column.name: [] for column in made.c if isinstance(column.type, sa.JSON)}
            lay.add(each.table, 6, **empty)
    return lay.rows


def _unique(text: str) -> Callable[[int], str]:
    return lambda number: f"{text}-{number}{TEXTS[number % 14]}"


def _people(lay: Laying) -> None:
    lay.add(Tenant, 4, name=_unique("tenant"), deleted_at=lambda n: NOW if n == GONE else None)
    lay.add(User, 9, name=lambda n: f"user-{n}", admin=lambda n: n == 1, deleted_at=lambda n: NOW if n == 8 else None)
    held = [
        (2, OURS, Role.MANAGER), (3, OURS, Role.MEMBER), (3, SECOND, Role.READER), (4, OURS, Role.READER),
        (5, THEIRS, Role.MANAGER), (6, OURS, Role.MEMBER), (6, THEIRS, Role.READER), (8, OURS, Role.MEMBER),
        (1, SECOND, Role.READER),
    ]  # fmt: skip
    for user, tenant, role in held:
        lay.add(Membership, user_id=user, tenant_id=tenant, role=role)
    for tenant in (OURS, THEIRS, GONE, SECOND):
        for resource in Resource:
            lay.add(
                Quota,
                tenant_id=tenant,
                resource=resource,
                limit=lay.pick(-1, 0, 2**31 - 1),
                used=2**40 if tenant == GONE else lay.pick(0, 7),
            )  # more than the schema's Int holds
    for tenant in (OURS, OURS, OURS, THEIRS, SECOND):
        lay.add(ApiKey, 2, user_id=lay.pick(2, 3, 5), tenant_id=tenant, digest=_digest)
    lay.add(Session, 12, user_id=lay.pick(1, 2, 3, 4, 5), revoked_at=lay.pick(None, None, MOMENTS[3]))
    lay.add(Keypair, 10, user_id=lay.pick(1, 2, 3, 5), name=_unique("key"), fingerprint=_digest)
    lay.add(WrongPassword, digest=hashlib.sha256(b"user-4").hexdigest(), locked_until=MOMENTS[-1])
    lay.add(WrongPassword, digest=hashlib.sha256(b"user-5").hexdigest(), locked_until=MOMENTS[-4])


def _digest(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def _places(lay: Laying) -> None:
    lay.add(Flavor, 7, name=_unique("flavor"), deleted_at=lambda n: MOMENTS[2] if n > 5 else None)
    lay.add(
        Host, 5, name=_unique("host"), endpoint=lambda n: f"sim://host-{n}", options={"store": "memory"},
        sealed_secret=None, username=None,
        facts=lay.pick({}, {"version": TEXTS[3], "cpu_model": None}, {"accelerator": "TCG", "cpu_model": TEXTS[8]}),
    )  # fmt: skip
    lay.add(
        Image, 14, tenant_id=lay.pick(OURS, OURS, THEIRS, SECOND),
        deleted_at=lambda n: MOMENTS[4] if n % 6 == 0 else None,
    )  # fmt: skip
    for image in range(1, 13):
        for tenant in {OURS, THEIRS, SECOND} - {image % 3 + 1}:
            lay.add(ImageMember, image_id=image, tenant_id=tenant)


def _networks(lay: Laying) -> None:
    lay.add(Network, 8, tenant_id=lay.pick(OURS, OURS, THEIRS, SECOND), shared=lambda n: n % 4 == 0)
    for number in range(1, 12):
        four = number % 3 != 0
        cidr = f"10.{number}.0.0/24" if four else f"fd00:{number:x}::/64"
        lay.add(
            Subnet, tenant_id=lay.pick(OURS, OURS, THEIRS), network_id=lay.key(Network, null=False), cidr=cidr,
            place=f"{4 if four else 6}{number:032x}", gateway=lay.pick(None, f"10.{number}.0.1"),
            dns_servers=lay.pick([], ["192.0.2.53", "2001:db8::53"]),
            pools=lay.pick([], [{"first": f"10.{number}.0.2", "last": f"10.{number}.0.200"}]),
        )  # fmt: skip
        last = number * 10 + 5 if four else 2**62
        lay.add(FreeRange, subnet_id=number, first=number * 10, last=last)
        if number == 9:  # one /64 of which nearly all is free: sums of its ends are beyond 64 bits
            lay.add(FreeRange, subnet_id=number, first=2**62 + 5, last=2**63 - 1)
            lay.add(FreeRange, subnet_id=number, first=-(2**63), last=7)
    lay.add(
        SecurityGroup, 7, tenant_id=lay.pick(OURS, OURS, THEIRS), name=lambda n: "default" if n < 2 else f"group-{n}"
    )
    lay.add(
        SecurityGroupRule, 16, tenant_id=lay.pick(OURS, THEIRS), security_group_id=lay.key(SecurityGroup, null=False),
        remote_group_id=lay.key(SecurityGroup), remote_cidr=lay.pick(None, "0.0.0.0/0", "2001:db8::/32"),
        fingerprint=_digest,
    )  # fmt: skip


def _servers(lay: Laying) -> None:
    lay.add(
        Server, 26, tenant_id=lay.pick(OURS, OURS, OURS, THEIRS, SECOND), flavor_id=lay.key(Flavor, null=False),
        image_id=lay.key(Image), keypair_id=lay.pick(None, 1, 2, 3, 4, 99), host_id=lay.key(Host), creator_id=None,
        properties=lay.pick({}, {TEXTS[3]: TEXTS[7], "b": TEXTS[8], "a": ""}, {"z": "1", "Z": "2", "é": TEXTS[5]}),
    )  # fmt: skip
    lay.add(
        Port, 24, tenant_id=lay.pick(OURS, OURS, THEIRS), network_id=lay.key(Network, null=False), host_id=None,
        mac=lambda n: f"02:00:00:00:00:{n:02x}", server_id=lay.key(Server),
    )  # fmt: skip
    for port in range(1, 23):
        for subnet in sorted({port % 11 + 1, port * 7 % 11 + 1}):
            text = f"10.{subnet}.0.{port}" if subnet % 3 else f"fd00:{subnet:x}::{port:x}"
            lay.add(PortAddress, port_id=port, subnet_id=subnet, address=text, position=port)
        for group in {port % 7 + 1, port % 5 + 1}:
            lay.add(PortSecurityGroup, port_id=port, security_group_id=group, network_id=1)
    tenants = lay.pick(OURS, OURS, THEIRS, SECOND)
    lay.add(Snapshot, 9, tenant_id=tenants, volume_id=lay.pick(None, 1, 2, 3, 99), host_id=None)
    lay.add(
        Volume, 22, tenant_id=tenants, host_id=None, image_id=lay.key(Image), snapshot_id=lay.key(Snapshot),
        server_id=lay.key(Server), device=lay.pick(None, "vdb"),
    )  # fmt: skip


def _history(lay: Laying) -> None:
    tenants = lay.pick(OURS, OURS, THEIRS, SECOND)
    lay.add(Export, 6, tenant_id=tenants, sha256=_digest)
    lay.add(
        Webhook,
        5,
        tenant_id=tenants,
        url=lambda n: f"https://hook-{n}.example/{TEXTS[3]}",
        nouns=lay.pick([], ["server"]),
    )
    lay.add(WebhookDelivery, 12, tenant_id=tenants, webhook_id=lay.key(Webhook, null=False), event_id=lambda n: n)
    errors: tuple[Any, ...] = (
        None, sa.null(),
        {"code": "INVALID", "message": TEXTS[3], "path": [], "data": {}},
        {"code": "HYPERVISOR_ERROR", "message": TEXTS[8], "path": ["input", "name"], "data": {"reason": TEXTS[6]}},
        {"code": "IN_USE", "message": "", "path": ["id"], "data": {"blockers": [lay.public("server")]}},
    )  # fmt: skip
    steps: tuple[Any, ...] = (
        [],
        [
            {
                "name": "place",
                "status": "DONE",
                "started_at": "2026-03-01T12:00:00.5Z",
                "attempt": 1,
                "message": TEXTS[3],
            }
        ],
        [{"name": "a", "status": "FAILED"}, {"name": TEXTS[8], "status": "PENDING", "message": None}],
    )
    targets = ("server", "volume", "image", "export", "network", "user")
    lay.add(
        Job, 70, tenant_id=lay.pick(OURS, OURS, OURS, THEIRS, None), actor_id=lay.pick(None, 2, 3, 5, 8),
        kind=lay.pick("server.create", "server.delete", "volume.create", "image.remove"),
        target=lambda n: None if n % 9 == 0 else lay.public(*targets), resource=lambda _n: lay.public(*targets),
        arguments={}, memory={}, steps=lay.pick(*steps), error=lay.pick(*errors),
        progress=lay.pick(0.0, 1.0, 1 / 3, 0.1),
    )  # fmt: skip
    lay.add(
        AuditRecord, 30, tenant_id=lay.pick(None, OURS, THEIRS, 99), user_id=lay.pick(None, 2, 3, 8, 99),
        operation=lay.pick("serverCreate", "volumeDelete"), result=lay.pick("OK", "INVALID"), api_key_id=None,
        asked=lay.pick({}, {"z": 1.0, "a": [None, True, {"é": TEXTS[8]}], "n": 1e-7, "b": 2**60}, {"q": TEXTS[3]}),
        objects=lambda _n: [lay.public("server"), "x"][: _n % 3],
    )  # fmt: skip
    servers = [row["uid"] for row in lay.rows[Server]]
    for number in range(20):
        at = NOW - timedelta(hours=number, microseconds=number * 250_000)
        lay.add(Sample, server_uid=servers[number % 9], at=at)
        lay.add(
            SampleHour,
            server_uid=servers[number % 5],
            hour=NOW - timedelta(hours=number),
            ram_used_mib_sum=number * 333,
        )
    for number in range(12):
        lay.add(
            Interval, tenant_id=OURS, object_uid=servers[number], amount=lay.pick(1, 2**40),
            started_at=NOW - timedelta(days=number), ended_at=lay.pick(None, NOW),
        )  # fmt: skip


def fill(db: Database, laid: Mapping[type[SQLModel], list[dict[str, Any]]]) -> None:
    """Make all tables in an empty database, and put the rows there. Migrations make the same, their tests say."""
    with db.engine.begin() as connection:
        SQLModel.metadata.create_all(connection)
        for table in SQLModel.metadata.sorted_tables:
            for model, some in laid.items():
                if model.__table__ is table:  # type: ignore[attr-defined]  # every table model has one
                    connection.execute(sa.insert(table), some)


def people(laid: Rows) -> dict[str, Subject]:
    """Who asks, by name."""

    def subject(user: int, *roles: tuple[int, Role], **more: Any) -> Subject:
        row = laid[User][user - 1]
        return Subject(user_id=user, user_uid=row["uid"], user_name=row["name"], roles=dict(roles), **more)

    return {
        "nobody": NOBODY,
        "admin": subject(1, (SECOND, Role.READER), admin=True, session_id=1),
        "manager": subject(2, (OURS, Role.MANAGER), session_id=2),
        "member": subject(3, (OURS, Role.MEMBER), (SECOND, Role.READER), session_id=3),
        "reader": subject(4, (OURS, Role.READER), session_id=4),
        "stranger": subject(5, (THEIRS, Role.MANAGER), session_id=5),
        "homeless": subject(7),
        "key": subject(3, (OURS, Role.READER), api_key_id=1),
    }
