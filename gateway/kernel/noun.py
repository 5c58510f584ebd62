"""The nouns of the cloud: what has a public id, who may see it and how it is announced.

A domain module registers its table once; ids, ``node(id)``, loaders, events and audit all read this registry. Presence
is registration: importing a module of :mod:`gateway` is enough.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Generic, TypeVar
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import Session, col

from gateway.kernel import ids
from gateway.kernel.access import Standing, Subject
from gateway.kernel.errors import NotFound
from gateway.kernel.prepared import Rows, later, rows_of
from gateway.kernel.row import Row
from gateway.kernel.typical import Typical

R = TypeVar("R", bound=Row)
Scope = Callable[[Subject], sa.ColumnElement[bool]]

_MOST_KEYS = 64
"""Statements are kept for so many keys at most."""


@dataclass(frozen=True, slots=True)
class Noun(Generic[R]):
    """``prefix`` starts the ids and never changes; ``scope`` is the predicate of the rows a subject may see;
    ``announce`` False keeps a table out of the event log.
    """

    prefix: str
    table: type[R]
    scope: Scope
    announce: bool = True

    def public(self, row: Row) -> str:
        """The row's TypeID."""
        return ids.encode(self.prefix, row.uid)

    def uid(self, text: str, *path: str) -> UUID:
        """The uid in a TypeID of this noun; any other text names nothing: NotFound."""
        prefix, _, _ = text.rpartition("_")
        if prefix != self.prefix:
            raise NotFound(f"There is no such {self.prefix}.", path=path)
        try:
            return ids.decode(text)[1]
        except Exception:  # noqa: BLE001 - whatever is wrong with the text, it names nothing
            raise NotFound(f"There is no such {self.prefix}.", path=path) from None

    def get(self, session: Session, subject: Subject, text: str, *path: str) -> R:
        """The row of a TypeID which the subject may see. Raises NotFound at ``path``."""
        found = self._among(session, subject, "uid", [self.uid(text, *path)])
        if not found:
            raise NotFound(f"There is no such {self.prefix}.", path=path)
        return found[0]

    def find(self, session: Session, subject: Subject, uids: Sequence[UUID]) -> dict[UUID, R]:
        """The visible rows among these uids."""
        return {row.uid: row for row in self._among(session, subject, "uid", uids)}

    def by_key(self, session: Session, subject: Subject, column: str, keys: Iterable[Any]) -> list[R]:
        """The visible rows whose ``column`` is one of these keys, oldest first: what edges are loaded by."""
        return self._among(session, subject, column, list(keys))

    def _among(self, session: Session, subject: Subject, column: str, keys: Sequence[Any]) -> list[R]:
        """The visible rows whose ``column`` is one of these keys, oldest first."""
        if not keys:
            return []
        count = 1 << (len(keys) - 1).bit_length()
        if count <= _MOST_KEYS:
            rows: Rows[R] | None = _visible(self.prefix, column, subject.standing, count)
            if rows is not None:
                padded = [*keys, *[keys[-1]] * (count - len(keys))]
                return rows.all(session, **{f"key_{at}": key for at, key in enumerate(padded)})
        wanted = getattr(self.table, column).in_(list(keys))
        return rows_of(self.table).where(session, wanted, self.scope(subject), order_by=col(self.table.id))


@lru_cache(maxsize=1024)
def _visible(prefix: str, column: str, standing: Standing, count: int) -> Rows[Any] | None:
    """The rows of a noun by so many keys that everybody of a standing may see; None when what they may see depends on
    who they are. Building and compiling the statement costs ten times its running.
    """
    noun = BY_PREFIX[prefix]
    signed_in, admin, roles = standing
    anybody = Typical(user_id=int(signed_in), admin=admin, roles=dict(roles))
    seen = noun.scope(anybody)
    if anybody.asked:
        return None
    wanted: Any = getattr(noun.table, column)
    keys = [later(f"key_{at}", wanted.type) for at in range(count)]
    named = wanted == keys[0] if count == 1 else wanted.in_(keys)
    return Rows(noun.table, lambda rows: rows.where(named, seen).order_by(col(noun.table.id)))


BY_PREFIX: dict[str, Noun[Any]] = {}
BY_TABLE: dict[type[Row], Noun[Any]] = {}


def register(noun: Noun[R]) -> Noun[R]:
    """Make a noun known. Two with one prefix are a bug."""
    if noun.prefix in BY_PREFIX:
        raise TypeError(f"two nouns are called {noun.prefix}")
    BY_PREFIX[noun.prefix] = noun
    BY_TABLE[noun.table] = noun
    return noun


def of(row: Row) -> Noun[Any]:
    """The noun of a row."""
    return BY_TABLE[type(row)]


def public(row: Row) -> str:
    """The TypeID of a row."""
    return of(row).public(row)


SERVICES = ("jobs", "identity", "image", "network", "volume", "compute", "metering", "integration")


@cache
def load_all() -> None:
    """Import every module of every service, so that all tables and nouns are registered; the folders are read once."""
    for service in SERVICES:
        package = importlib.import_module(f"gateway.{service}")
        for module in pkgutil.iter_modules(package.__path__, f"gateway.{service}."):
            importlib.import_module(module.name)
