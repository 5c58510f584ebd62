"""What the commands know of each noun: what to ask for, what to show of it, and how to find it by its name.

A name stands for one thing or for none: where several bear it, the command is refused with the candidates' ids, never
settled by a guess. An id is never looked up: the API says itself whether it is there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gateway.client.problem import Problem

if TYPE_CHECKING:
    from gateway.client.client import Client

PAGE: Final = 100
_CANDIDATES: Final = 20

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


def find(client: Client, noun: Noun, text: str, *, tenant: str | None = None) -> str:
    """The id of what is named. Raises Problem: NOT_FOUND, or AMBIGUOUS with the candidates."""
    if re.fullmatch(rf"{noun.name}_[0-9a-hjkmnp-tv-z]{{26}}", text):
        return text
    owner = " tenant { name }" if noun not in (FLAVOR, TENANT, KEYPAIR) else ""
    document = f"""query($filter: {noun.filter_type}, $first: Int) {{
        {noun.plural}(filter: $filter, first: $first) {{ nodes {{ id name{owner} }} }} }}"""
    wanted = {"name": text, **({"tenantId": tenant} if tenant is not None and owner else {})}
    found = client.run(document, filter=wanted, first=_CANDIDATES)[noun.plural]["nodes"]
    if not found:
        raise Problem("NOT_FOUND", f"There is no {noun.name} called {text}.")
    if len(found) > 1:
        candidates = [
            f"{each['id']}" + (f" (tenant {each['tenant']['name']})" if each.get("tenant") else "") for each in found
        ]
        message = f"Several {noun.plural} are called {text}: give an id."
        raise Problem("AMBIGUOUS", message, data={"candidates": candidates})
    return str(found[0]["id"])


def get(client: Client, noun: Noun, public_id: str) -> dict[str, Any]:
    """The thing with an id. Raises Problem NOT_FOUND."""
    document = f"query($id: ID!) {{ {noun.name}(id: $id) {{ {noun.fields} }} }}"
    found: dict[str, Any] | None = client.run(document, id=public_id)[noun.name]
    if found is None:
        raise Problem("NOT_FOUND", f"There is no {noun.name} {public_id}.")
    return found


def pages(client: Client, noun: Noun, wanted: Mapping[str, Any], limit: int) -> Iterator[dict[str, Any]]:
    """The things that a filter asks for, page by page; at most ``limit``, 0 for all."""
    document = f"""query($filter: {noun.filter_type}, $first: Int, $after: String) {{
        {noun.plural}(filter: $filter, first: $first, after: $after) {{
        nodes {{ {noun.fields} }} pageInfo {{ hasNextPage endCursor }} }} }}"""
    given, after = 0, None
    while True:
        first = PAGE if not limit else min(PAGE, limit - given)
        page = client.run(document, filter=dict(wanted), first=first, after=after)[noun.plural]
        yield from page["nodes"]
        given += len(page["nodes"])
        if not page["pageInfo"]["hasNextPage"] or (limit and given >= limit):
            return
        after = page["pageInfo"]["endCursor"]
