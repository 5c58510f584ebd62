"""How a stored column can be printed: by its SQL type, for a GraphQL type named by the caller.

A pair that is not listed has no spelling in SQL; the caller then leaves the field to the executor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from gateway.reads.tree import Kind

_TEXTS = frozenset({"String", "ID", "IPAddress", "CIDR", "MacAddress"})


@dataclass(frozen=True, slots=True)
class Shown:
    """What a column is shown as: a GraphQL type's name, or a list of it."""

    name: str
    listed: bool = False


@dataclass(frozen=True, slots=True)
class Stored:
    """A column's SQL type."""

    kind: Any

    @property
    def moment(self) -> bool:
        """Whether it is a moment."""
        return isinstance(self._bare, sa.DateTime)

    @property
    def _bare(self) -> Any:
        return getattr(self.kind, "impl", self.kind)

    @property
    def plain(self) -> Kind:
        """How it is handed to Python."""
        bare = self._bare
        for known, kind in (
            (sa.Enum, Kind.WORD), (sa.Boolean, Kind.FLAG), (sa.Integer, Kind.NUMBER), (sa.Float, Kind.FLOAT),
            (sa.DateTime, Kind.MOMENT), (sa.Uuid, Kind.UUID), (sa.JSON, Kind.JSON),
        ):  # fmt: skip
            if isinstance(bare, known):
                return kind
        return Kind.TEXT

    def printed(self, shown: Shown) -> Kind | None:
        """How it is printed; None when there is no way in SQL."""
        plain = self.plain
        if shown.listed:
            return Kind.JSON if plain is Kind.JSON and shown.name in _TEXTS else None
        match plain:
            case Kind.NUMBER if shown.name == "Int":
                return Kind.INT32 if isinstance(self._bare, sa.BigInteger) else Kind.NUMBER
            case Kind.NUMBER:
                return Kind.NUMBER if shown.name == "BigInt" else None
            case Kind.TEXT:
                return Kind.TEXT if shown.name in _TEXTS else None
            case Kind.WORD:
                return Kind.WORD if shown.name not in _TEXTS else None
            case _:
                named = {Kind.FLAG: "Boolean", Kind.FLOAT: "Float", Kind.MOMENT: "DateTime", Kind.JSON: "JSON"}
                return plain if named.get(plain) == shown.name else None


def kind_of(table: type[Any], name: str) -> Stored:
    """A column's SQL type."""
    return Stored(table.__table__.c[name].type)
