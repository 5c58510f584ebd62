"""The mixin of every table, and the column types that behave alike on SQLite and PostgreSQL.

Each row has an integer key for joins, a unique UUIDv7 that is public as TypeID, and a ``version`` which SQLAlchemy
compares and raises with every update: a change made on a stale copy fails instead of overwriting (StaleDataError, or
on PostgreSQL a failure to serialize, with the next statement or the commit), and
:meth:`gateway.kernel.db.Database.run` tries again on fresh rows. So every change of state is compare-and-set.

Tables carry no ORM relationships; JSON columns are reassigned, never changed in place.
"""

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from functools import partial
from ipaddress import ip_address, ip_network
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import declared_attr
from sqlalchemy.orm.attributes import instance_dict
from sqlalchemy.sql.functions import FunctionElement
from sqlmodel import Field, SQLModel

from gateway.kernel import ids
from gateway.kernel.errors import StaleVersion

SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

Key = sa.BigInteger().with_variant(sa.Integer, "sqlite")
Json = sa.JSON().with_variant(JSONB, "postgresql")


class Uid(sa.Uuid[UUID]):
    """A uid. PostgreSQL has a type for it; SQLite keeps the digits of its TypeID, which are fewer than hexadecimal ones
    and sort alike, so that it prints public ids by itself: they are what is read most. (SQLAlchemy puts its own type in
    this one's place where the database has one, so all here is SQLite's.)
    """

    def bind_processor(self, dialect: sa.Dialect) -> Any:  # noqa: ARG002 - SQLAlchemy gives it
        """From UUID to what is kept."""
        return _kept

    def result_processor(self, dialect: sa.Dialect, coltype: object) -> Any:  # noqa: ARG002 - SQLAlchemy gives it
        """From what is kept to UUID."""
        return _read

    def literal_processor(self, dialect: sa.Dialect) -> Any:  # noqa: ARG002 - SQLAlchemy gives it
        """From UUID to a literal in SQL."""
        return lambda uid: f"'{_kept(uid)}'"


def _kept(uid: UUID | None) -> str | None:
    return None if uid is None else ids.digits(uid)


def _read(text: str | None) -> UUID | None:
    return None if text is None else ids.of_digits(text)


class Record(SQLModel):
    """Makes and changes rows at a fraction of what SQLModel spends: it asks for each field's default by inspecting it
    anew, and sets each attribute twice (a server took 0.8 ms to make, and takes 0.02). Nothing is validated, as ever
    with tables.
    """

    model_config = {"defer_build": True}  # a validator that nobody asks for: start without building it

    def __init__(self, **given: Any) -> None:
        kind = type(self)
        defaults = _DEFAULTS.get(kind)
        if defaults is None:
            defaults = _DEFAULTS[kind] = _defaults(kind)
        values = {name: make() for name, make in defaults.items() if name not in given}
        fields = kind.model_fields
        values.update((name, value) for name, value in given.items() if name in fields)
        instance_dict(self).update(values)

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # a column's descriptor tells the unit of work


_DEFAULTS: dict[type[SQLModel], dict[str, Callable[[], Any]]] = {}


def _defaults(kind: type[SQLModel]) -> dict[str, Callable[[], Any]]:
    """How to make each field's default; those that must be given are left out."""
    found: dict[str, Callable[[], Any]] = {}
    for name, field in kind.model_fields.items():
        if field.is_required():
            continue
        factory: Any = field.default_factory
        found[name] = factory if factory is not None else partial(field.get_default)
    return found


class Row(Record):
    """What every table has: ``id`` (internal), ``uid`` (public as TypeID), ``version``, and when it was made and
    changed.
    """

    id: int = Field(default=None, primary_key=True, sa_type=Key)
    uid: UUID = Field(default=None, unique=True, nullable=False, sa_type=Uid)
    version: int = Field(default=1)
    created_at: datetime = Field(default=None, nullable=False)
    updated_at: datetime = Field(default=None, nullable=False)

    @declared_attr.directive
    def __mapper_args__(cls) -> dict[str, Any]:  # noqa: N805 - SQLAlchemy hands over the class
        table = getattr(cls, "__table__", None)
        return {} if table is None else {"version_id_col": table.c.version}


def expect(row: Row, version: int | None) -> None:
    """Refuse when the caller has seen another version of the row; None has seen none. Raises StaleVersion."""
    if version is not None and row.version != version:
        raise StaleVersion(
            "It was changed since you read it.", path=("expectedVersion",), expected=version, actual=row.version
        )


def ref(target: str, *, null: bool = False, index: bool = True, **options: Any) -> Any:
    """A foreign key column (``ref("tenant.id")``); indexed, since children are looked up by parent."""
    default = None if null else ...
    return Field(default=default, foreign_key=target, index=index, nullable=null, sa_type=Key, **options)


def enum(values: type[StrEnum], **options: Any) -> Any:
    """A column of a closed set of words, kept as text."""
    return Field(sa_type=sa.Enum(values, native_enum=False, length=32, create_constraint=False), **options)


def json(**options: Any) -> Any:
    """A column of JSON; give ``default_factory``."""
    return Field(sa_type=Json, **options)


def big(**options: Any) -> Any:
    """A 64-bit integer column."""
    return Field(sa_type=sa.BigInteger, **options)


class json_has(FunctionElement[bool]):  # noqa: N801 - reads as the SQL function it stands for
    """Whether a JSON array column holds a text: ``json_has(column, text)``."""

    inherit_cache = True
    type = sa.Boolean()

    def __init__(self, column: Any, text: str) -> None:
        super().__init__(column, sa.literal(text, sa.Text))


@compiles(json_has, "postgresql")
def _postgresql_has(element: Any, compiler: Any, **options: Any) -> str:
    column, text = element.clauses
    return f"({compiler.process(column, **options)} @> jsonb_build_array({compiler.process(text, **options)}::text))"


@compiles(json_has)
def _sqlite_has(element: Any, compiler: Any, **options: Any) -> str:
    column, text = element.clauses
    inner, value = compiler.process(column, **options), compiler.process(text, **options)
    return f"EXISTS (SELECT 1 FROM json_each({inner}) WHERE json_each.value = {value})"  # noqa: S608 - compiled SQL, no values


def canonical_ip(text: str) -> str:
    """An address in its one canonical spelling. Raises ValueError."""
    return str(ip_address(text))


def canonical_cidr(text: str) -> str:
    """A range in its one canonical spelling. Raises ValueError when host bits are set."""
    return str(ip_network(text))
