"""What the commands know of each noun: what to ask for, and what to show of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
Column = Callable[[Row], object]


@dataclass(frozen=True, slots=True)
class Noun:
    """``fields`` is the selection that ``--json`` prints; ``columns`` are the table's, by their headings."""

    name: str
    fields: str
    columns: Mapping[str, Column]

    @property
    def plural(self) -> str:
        """As the connection at the root is called."""
        return f"{self.name}s"

    @property
    def owned(self) -> bool:
        """Whether it tells which tenant it belongs to."""
        return "tenant {" in self.fields

    @property
    def filter_type(self) -> str:
        """The type of its filter."""
        return f"{self.name[0].upper()}{self.name[1:]}Filter"


def field(name: str) -> Column:
    """A column that shows a field as it is."""
    return lambda row: row[name]


def inner(name: str, part: str = "name") -> Column:
    """A column that shows a field of a linked thing."""
    return lambda row: (row[name] or {}).get(part)


def moment(name: str) -> Column:
    """A column that shows a moment, to the second."""
    return lambda row: re.sub(r"\.\d+", "", row[name] or "").replace("T", " ")


SERVER = Noun(
    "server",
    """id name status statusReason description hypervisor availabilityZone vcpus ramMib diskGib addresses tags version
    createdAt updatedAt launchedAt tenant { id name } flavor { id name } image { id name } host { id name }
    keypair { id name } activeJob { id kind } metadata { key value } volumes { id name device sizeGib status }
    ports { id macAddress ipAddresses network { id name } }""",
    {
        "id": field("id"), "name": field("name"), "status": field("status"), "addresses": field("addresses"),
        "flavor": inner("flavor"), "image": inner("image"), "host": inner("host"), "created": moment("createdAt"),
    },
)  # fmt: skip
VOLUME = Noun(
    "volume",
    """id name status statusReason description sizeGib device deleteWithServer tags version createdAt updatedAt
    tenant { id name } server { id name } image { id name } snapshot { id name }""",
    {
        "id": field("id"), "name": field("name"), "status": field("status"), "GiB": field("sizeGib"),
        "server": inner("server"), "device": field("device"), "created": moment("createdAt"),
    },
)  # fmt: skip
IMAGE = Noun(
    "image",
    """id name status statusReason description format visibility sizeBytes virtualSizeBytes receivedBytes sha256
    minDiskGib minRamMib protected tags version createdAt updatedAt tenant { id name } activeJob { id kind }""",
    {
        "id": field("id"), "name": field("name"), "status": field("status"), "format": field("format"),
        "bytes": field("sizeBytes"), "visibility": field("visibility"), "created": moment("createdAt"),
    },
)  # fmt: skip
NETWORK = Noun(
    "network",
    """id name description mtu shared deleting tags version createdAt updatedAt tenant { id name }
    subnets { id name cidr gateway dhcp usedAddresses }""",
    {
        "id": field("id"), "name": field("name"), "subnets": lambda row: [each["cidr"] for each in row["subnets"]],
        "shared": lambda row: "yes" if row["shared"] else "no", "MTU": field("mtu"), "created": moment("createdAt"),
    },
)  # fmt: skip
FLAVOR = Noun(
    "flavor",
    "id name description vcpus ramMib diskGib createdAt",
    {
        "id": field("id"), "name": field("name"), "vCPUs": field("vcpus"), "RAM MiB": field("ramMib"),
        "disk GiB": field("diskGib"), "description": field("description"),
    },
)  # fmt: skip
JOB = Noun(
    "job",
    """id kind status progress attempt cancellable requestId createdAt startedAt finishedAt tenant { id name }
    target { id } steps { name status attempt startedAt finishedAt message } error { code message path }""",
    {
        "id": field("id"), "kind": field("kind"), "status": field("status"),
        "progress": lambda row: f"{row['progress']:.0%}", "target": inner("target", "id"),
        "error": inner("error", "code"), "created": moment("createdAt"),
    },
)  # fmt: skip
TENANT = Noun("tenant", "id name", {})
KEYPAIR = Noun("keypair", "id name", {})
