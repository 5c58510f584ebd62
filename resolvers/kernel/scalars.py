"""Scalars and how Python types appear in the schema.

Enums are described where they are defined: the string beneath a member is its description, so the domain's word and
the schema's are one.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from ipaddress import ip_address, ip_network
from typing import Any, NewType
from uuid import UUID

import strawberry
from strawberry.types.enum import EnumValueDefinition

BigInt = NewType("BigInt", int)
IPAddress = NewType("IPAddress", str)
CIDR = NewType("CIDR", str)
MacAddress = NewType("MacAddress", str)
Decimal = NewType("Decimal", str)
JSON = NewType("JSON", object)

_LARGEST = 2**63


def _moment(value: object) -> datetime:
    if not isinstance(value, str) or len(value) > 64:  # noqa: PLR2004 - longer than any RFC 3339 moment
        raise ValueError("a DateTime is an RFC 3339 text")
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError("a DateTime needs a zone, such as Z or +02:00")
    return moment.astimezone(UTC)


def show_moment(value: datetime) -> str:
    """RFC 3339 in UTC, microseconds always, so that both read paths print the same."""
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _big(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("a BigInt is an integer")  # noqa: TRY004 - graphql-core turns ValueError into a clean error
    if isinstance(value, str) and len(value) > 20:  # noqa: PLR2004 - longer than any 64-bit integer
        raise ValueError("a BigInt has at most 64 bits")
    number = int(value)
    if not -_LARGEST <= number < _LARGEST:
        raise ValueError("a BigInt has at most 64 bits")
    return number


def _text(parse: Any, what: str) -> Any:
    def read(value: object) -> str:
        if not isinstance(value, str) or len(value) > 64:  # noqa: PLR2004 - longer than any of them
            raise ValueError(f"{what} is a text")
        return str(parse(value))

    return read


def _mac(value: str) -> str:
    parts = value.lower().split(":")
    if len(parts) != 6 or not all(len(p) == 2 and int(p, 16) >= 0 for p in parts):  # noqa: PLR2004 - a MAC's shape
        raise ValueError("a MacAddress has six pairs of hexadecimal digits")
    return ":".join(parts)


_DECIMAL = re.compile(r"[0-9]{1,30}(\.[0-9]{1,30})?", re.ASCII)


def _decimal(value: object) -> str:
    if not isinstance(value, str) or not _DECIMAL.fullmatch(value):
        raise ValueError("a Decimal is a text of digits with at most one point, such as `0.25`")
    return value


def _json(_value: object) -> str:
    raise ValueError("no input takes JSON")


SCALARS: dict[object, Any] = {
    datetime: strawberry.scalar(
        name="DateTime",
        description="A moment: RFC 3339, always with a zone.",
        specified_by_url="https://scalars.graphql.org/andimarek/date-time.html",
        serialize=show_moment,
        parse_value=_moment,
    ),
    BigInt: strawberry.scalar(
        name="BigInt",
        description="An integer of up to 64 bits, as a JSON number.",
        specified_by_url="https://json-schema.org/draft/2020-12/json-schema-core#section-4.2.1",
        serialize=int,
        parse_value=_big,
    ),
    IPAddress: strawberry.scalar(
        name="IPAddress",
        description="An IPv4 or IPv6 address in its canonical spelling.",
        specified_by_url="https://www.rfc-editor.org/rfc/rfc5952",
        serialize=str,
        parse_value=_text(ip_address, "an IPAddress"),
    ),
    CIDR: strawberry.scalar(
        name="CIDR",
        description="An IPv4 or IPv6 range such as `10.0.0.0/24`, without host bits.",
        specified_by_url="https://www.rfc-editor.org/rfc/rfc4632",
        serialize=str,
        parse_value=_text(ip_network, "a CIDR"),
    ),
    MacAddress: strawberry.scalar(
        name="MacAddress",
        description="Six pairs of hexadecimal digits with colons, in lower case.",
        specified_by_url="https://www.rfc-editor.org/rfc/rfc9542",
        serialize=str,
        parse_value=_text(_mac, "a MacAddress"),
    ),
    Decimal: strawberry.scalar(
        name="Decimal",
        description="An exact decimal number as a text; never a float.",
        specified_by_url="https://www.rfc-editor.org/rfc/rfc8259#section-6",
        serialize=str,
        parse_value=_decimal,
    ),
    JSON: strawberry.scalar(
        name="JSON",
        description="Any JSON value whose shape the field's description tells.",
        specified_by_url="https://www.rfc-editor.org/rfc/rfc8259",
        serialize=lambda value: value,
        parse_value=_json,
    ),
    UUID: strawberry.scalar(
        name="UUID",
        description="A UUID in its canonical spelling.",
        specified_by_url="https://www.rfc-editor.org/rfc/rfc9562",
        serialize=str,
        parse_value=UUID,
    ),
}


OPEN = "More values may be added."
"""Stands in the description of every enum."""


@cache
def enum(kind: type[Enum]) -> Any:
    """A domain enum as a GraphQL enum: called like it (or by its ``__graphql_name__``), described by its docstring and
    the strings beneath its members. It says that it is open: a later version may know more words.
    """
    told = _docs(kind)
    missing = [member.name for member in kind if member.name not in told]
    if missing or not kind.__doc__:
        raise TypeError(f"{kind.__qualname__}: describe {missing or 'the enum'} by a string beneath")
    description = f"{flat(kind.__doc__)} {OPEN}"
    found: Any = strawberry.enum(kind, name=getattr(kind, "__graphql_name__", kind.__name__), description=description)
    for value in found.__strawberry_definition__.values:
        value.description = told[value.name]
    return found


def _docs(kind: type[Enum]) -> dict[str, str]:
    """The strings beneath the members of an enum. Only its own lines are parsed: ``inspect.getsource`` of a class would
    parse its whole module each time.
    """
    lines = _source(kind.__module__)
    own = re.search(rf"^class {kind.__name__}\b.*\n(?:[ \t].*\n|\s*\n|\)?:?\n)*", lines, re.MULTILINE)
    if own is None:
        raise TypeError(f"{kind.__qualname__} is no class of its module")
    (body,) = ast.parse(own[0]).body
    return _member_docs(body) if isinstance(body, ast.ClassDef) else {}


@cache
def _source(module: str) -> str:
    return inspect.getsource(sys.modules[module])


def _member_docs(body: ast.ClassDef) -> dict[str, str]:
    told: dict[str, str] = {}
    name: str | None = None
    for node in body.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and name is not None:
            told[name] = flat(str(node.value.value))
            name = None
    return told


def flat(text: str) -> str:
    """A docstring as one line."""
    return " ".join(text.split())


__all__ = ["CIDR", "JSON", "OPEN", "SCALARS", "BigInt", "Decimal", "EnumValueDefinition", "IPAddress", "MacAddress",
           "enum", "show_moment"]  # fmt: skip
