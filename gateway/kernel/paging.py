"""Keyset pages: any list, in any offered order, in time that does not grow with depth.

A page continues behind a row's key, never at an offset. The tie-break is the public uid, which (being UUIDv7) is also
the default order: time of creation. Cursors are opaque, name the order they belong to, and a bad one is Invalid.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import Session, col, func, select
from sqlmodel.sql.expression import SelectOfScalar

from gateway.kernel.errors import Invalid
from gateway.kernel.row import Row

R = TypeVar("R", bound=Row)

DEFAULT_SIZE = 20
MAX_SIZE = 100
CREATED_AT = "CREATED_AT"


@dataclass(frozen=True, slots=True)
class Want:
    """What a client asks of a list: Relay's four arguments, and an order by the name of a key in ``orders``."""

    first: int | None = None
    after: str | None = None
    last: int | None = None
    before: str | None = None
    order: str = CREATED_AT
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Page(Generic[R]):
    """Rows in the asked order, and how to go on from them."""

    rows: Sequence[R]
    has_next: bool
    has_previous: bool
    cursor: Callable[[R], str]


Orders = Mapping[str, Any]
"""Name of an order to its column (never null). CREATED_AT is always there."""


def fetch(session: Session, rows: SelectOfScalar[R], table: type[R], orders: Orders, want: Want) -> Page[R]:
    """One page of ``rows``. Raises Invalid at ``first``, ``last``, ``after`` or ``before``."""
    size, backwards = extent(want)
    column = _column(orders, want)
    keys: list[Any] = [col(table.uid)] if column is None else [column, col(table.uid)]
    descending = want.descending != backwards
    statement = rows
    for cursor, behind, name in ((want.after, True, "after"), (want.before, False, "before")):
        if cursor is not None:
            bound = [sa.literal(value, key.type) for value, key in zip(decoded(cursor, want, name), keys, strict=True)]
            left, right = sa.tuple_(*keys), sa.tuple_(*bound)
            statement = statement.where(left > right if behind != want.descending else left < right)
    statement = statement.order_by(*(key.desc() if descending else key.asc() for key in keys)).limit(size + 1)
    found = list(session.exec(statement))
    more = len(found) > size
    found = found[:size]
    if backwards:
        found.reverse()
    has_next = want.before is not None if backwards else more
    has_previous = more if backwards else want.after is not None
    return Page(found, has_next, has_previous, lambda row: _encode(row, want, column))


def count(session: Session, rows: SelectOfScalar[Any]) -> int:
    """How many rows the whole list has; only asked for when a client wants it."""
    return session.exec(select(func.count()).select_from(rows.order_by(None).subquery())).one()


def extent(want: Want) -> tuple[int, bool]:
    """The page's size, and whether it is counted from the end. Raises Invalid at ``first`` or ``last``."""
    if want.first is not None and want.last is not None:
        raise Invalid("Give first or last, not both.", path=("last",))
    backwards = want.last is not None
    size = want.last if want.last is not None else want.first if want.first is not None else DEFAULT_SIZE
    if not 0 <= size <= MAX_SIZE:
        raise Invalid(f"A page has 0 to {MAX_SIZE} items.", path=("last" if backwards else "first",))
    return size, backwards


def _column(orders: Orders, want: Want) -> Any:
    if want.order == CREATED_AT:
        return None
    return orders[want.order]


def _encode(row: Row, want: Want, column: Any) -> str:
    return encoded(order_name(want), row.uid.hex, *([] if column is None else [getattr(row, column.key)]))


def encoded(order: str, uid: str, *values: Any) -> str:
    """A cursor: the order's name, the uid in hexadecimal, and the value of the order's column if it has one."""
    kept = [order, uid, *({"t": each.isoformat()} if isinstance(each, datetime) else each for each in values)]
    return base64.urlsafe_b64encode(json.dumps(kept, separators=(",", ":")).encode()).decode().rstrip("=")


def decoded(cursor: str, want: Want, name: str) -> list[Any]:
    """What a cursor holds: the value of the order's column if it has one, and the uid. Raises Invalid at ``name``."""
    try:
        kept = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        order, uid, *values = kept
        keys: list[Any] = [datetime.fromisoformat(v["t"]) if isinstance(v, dict) else v for v in values]
        keys.append(UUID(hex=uid))
    except (ValueError, TypeError, KeyError, AttributeError, binascii.Error, RecursionError):
        raise Invalid("This cursor is not one of ours.", path=(name,)) from None
    if order != order_name(want) or len(keys) != (1 if want.order == CREATED_AT else 2):
        raise Invalid("This cursor belongs to another order of the list.", path=(name,))
    if any(isinstance(key, bool) or not isinstance(key, str | int | datetime | UUID) for key in keys):
        raise Invalid("This cursor is not one of ours.", path=(name,))
    return keys


def order_name(want: Want) -> str:
    """The name of an order in cursors."""
    return f"{want.order}-" if want.descending else want.order
