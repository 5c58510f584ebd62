"""How types of the graph are declared: each field once, with its column or edge and its description.

The declarations below become ordinary strawberry resolvers; they are kept on the type (``DECLARED``), so that a
compiled read plan can be made from the very same lines. A GraphQL type is called like its table and lives at the same
path as its noun, which is how edges find it without an import.
"""

import inspect
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from functools import cache
from typing import Annotated, Any, ForwardRef, Optional, TypeVar, Union

import strawberry
from strawberry.types import Info

from gateway.kernel import noun as nouns
from gateway.kernel.noun import Noun
from gateway.kernel.row import Row
from resolvers.kernel import scalars
from resolvers.kernel.context import on_thread

R = TypeVar("R", bound=Callable[..., Any])

TYPES: dict[str, type] = {}
"""GraphQL types of nouns by id prefix."""

DECLARED: dict[type, dict[str, Any]] = {}
"""Each node type's declarations by Python field name."""

TABLES: dict[type, type[Any]] = {}
"""Each declared type's table."""


@strawberry.interface(description="Anything with an id of its own.")
class Node:
    """The root of all nouns' types; wraps the noun's row."""

    row: strawberry.Private[Any]

    @strawberry.field(description="The object's id: a TypeID, which sorts by time of creation.")
    def id(self) -> strawberry.ID:
        """The row's TypeID."""
        return strawberry.ID(nouns.public(self.row))


@dataclass(frozen=True, slots=True)
class Column:
    """A stored column; the GraphQL type follows from the table's annotation unless ``shown_as`` says otherwise."""

    description: str
    of: str | None = None
    shown_as: Any = None


@dataclass(frozen=True, slots=True)
class Computed:
    """A pure function of the row. ``uses`` names the columns it reads."""

    shown_as: Any
    compute: Callable[[Any], Any]
    description: str
    uses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rendered:
    """A function of the row and of who asks and when: it gets the operation's context, and asks no database. ``uses``
    names the columns it reads; ``files`` says that it looks at files, so that no event loop should wait for it.
    """

    shown_as: Any
    render: Callable[[Any, Any], Any]
    description: str
    uses: tuple[str, ...]
    files: bool = False


@dataclass(frozen=True, slots=True)
class Edge:
    """The object whose key this row holds in ``key``; null when there is none or it may not be seen."""

    noun: Noun[Any]
    key: str
    description: str


@dataclass(frozen=True, slots=True)
class Children:
    """The few objects whose ``column`` holds this row's key, oldest first."""

    noun: Noun[Any]
    column: str
    description: str


@dataclass(frozen=True, slots=True)
class Between:
    """Rows whose ``column`` lies from the argument ``start`` until just before the argument ``end``, once ``checked``
    has raised nothing about the two.
    """

    column: str
    start: str
    end: str
    checked: Callable[[Any, Any], None]


@dataclass(frozen=True, slots=True)
class Rows:
    """How a read plan reads rows beside a row: those of ``table`` whose ``key`` is the row's ``own`` column (its TypeID
    when ``by_public``), in order (``-name`` falls). ``column`` reads that alone instead of an object, ``public`` the
    TypeID of that prefix; ``link`` is a table between with its two keys and its order; ``one`` the first or null. A
    ``scope`` of None: who sees the row sees them. ``by_digest``: the key is the SHA-256 of the ``own`` column.
    ``ahead`` names a column whose moment must be yet to come, ``period`` the two arguments between which one must lie.
    """

    table: type[Any]
    key: str
    column: str | None = None
    public: str | None = None
    own: str = "id"
    by_public: bool = False
    scope: Callable[[Any], Any] | None = None
    link: tuple[type[Any], str, str, tuple[str, ...]] | None = None
    where: Callable[[Any], Any] | None = None
    order: tuple[str, ...] = ("id",)
    one: bool = False
    by_digest: bool = False
    ahead: str | None = None
    period: Between | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """How a read plan makes what figures tell: ``compute`` of the figures of each of ``sums``, which are a table, the
    column that holds this row's key, and a function of that table's columns to aggregates, whole numbers never null.
    """

    compute: Callable[..., Any]
    sums: tuple[tuple[type[Any], str, Callable[[Any], Any]], ...]


@dataclass(frozen=True, slots=True)
class Named:
    """How a read plan reads the object, of whatever noun, whose TypeID a column holds."""

    column: str


@dataclass(frozen=True, slots=True)
class OperatorsOnly:
    """What is null for everybody but operators, for whom a read plan reads ``reads``."""

    reads: Rows


@dataclass(frozen=True, slots=True)
class OwnRows:
    """How a read plan reads what is the subject's own: the row (``key`` is ``id``) or rows of a noun whose ``key`` is
    the subject's ``subject``; ``column`` alone of it instead of the object. ``where`` and ``ahead`` are those of
    :class:`Rows`.
    """

    noun: Noun[Any]
    key: str
    subject: str
    column: str | None = None
    where: Callable[[Any], Any] | None = None
    ahead: str | None = None


@dataclass(frozen=True, slots=True)
class Own:
    """How a read plan reads an object that is no row: by field name, :class:`OwnRows` or a constant. The functions get
    a subject of the caller's shape, whose keys say only whether they are there.
    """

    fields: dict[str, Callable[[Any], Any]]


@dataclass(frozen=True, slots=True)
class Resolved:
    """How a read plan answers a root that reads no rows as they are: by its resolver, which must need nothing of
    ``info`` but the context and do nothing but read. What it answers is printed without the executor.
    """


@dataclass(frozen=True, slots=True)
class Spelt:
    """A field with a resolver of its own, and beside it how a read plan reads the same."""

    field: Any
    reads: Any


def column(description: str, *, of: str | None = None, shown_as: Any = None) -> Any:
    """Declare a :class:`Column`; ``of`` names the table's column when the field is called otherwise."""
    return Column(description, of, shown_as)


def computed(shown_as: Any, compute: Callable[[Any], Any], description: str, *uses: str) -> Any:
    """Declare a :class:`Computed`."""
    return Computed(shown_as, compute, description, uses)


def rendered(
    shown_as: Any, render: Callable[[Any, Any], Any], description: str, *uses: str, files: bool = False
) -> Any:
    """Declare a :class:`Rendered`: ``render(context, row)``."""
    return Rendered(shown_as, render, description, uses, files)


def edge(noun: Noun[Any], key: str, description: str) -> Any:
    """Declare an :class:`Edge`."""
    return Edge(noun, key, description)


def children(noun: Noun[Any], column: str, description: str) -> Any:
    """Declare :class:`Children`."""
    return Children(noun, column, description)


def spelt(reads: Any) -> Callable[[Any], Any]:
    """Declare :class:`Spelt`: above ``@strawberry.field``, with what :mod:`resolvers.planner` understands."""
    return lambda field: Spelt(field, reads)


@cache
def lazy(noun: Noun[Any]) -> Any:
    """The GraphQL type of a noun, by its place in the tree."""
    module = noun.table.__module__.replace("gateway.", "resolvers.", 1)
    return Annotated[ForwardRef(noun.table.__name__), strawberry.lazy(module)]


@cache
def many(noun: Noun[Any]) -> Any:
    """The GraphQL type of a list of a noun."""
    return list[lazy(noun)]  # type: ignore[misc]  # made at run time


def wrap(row: Row | None) -> Any:
    """A row as its GraphQL object."""
    return None if row is None else TYPES[nouns.of(row).prefix](row=row)


def node(noun: Noun[Any]) -> Callable[[type], type]:
    """Make a class of declarations the GraphQL type of a noun."""

    def make(cls: type) -> type:
        declared = {name: value for name, value in vars(cls).items() if isinstance(value, _DECLARATIONS)}
        made = _made(cls, noun.table, noun.table.__name__, declared)
        TYPES[noun.prefix] = made
        return made

    return make


@typing.dataclass_transform(kw_only_default=True)
def record(table: type[Any]) -> Callable[[type], type]:
    """Make a class of declarations with a private ``row`` the GraphQL type of a table that is no noun's."""

    def make(cls: type) -> type:
        declared = {name: value for name, value in vars(cls).items() if isinstance(value, _DECLARATIONS)}
        return _made(cls, table, cls.__name__, declared)

    return make


def _made(cls: type, table: type[Any], called: str, declared: dict[str, Any]) -> type:
    for name, value in declared.items():
        setattr(cls, name, _field(table, name, value))
    made: type = strawberry.type(cls, name=called, description=scalars.flat(cls.__doc__ or ""))
    DECLARED[made] = declared
    TABLES[made] = table
    return made


def _field(table: type[Any], name: str, value: Any) -> Any:
    match value:
        case Column():
            key = value.of or name
            shown = value.shown_as if value.shown_as is not None else column_type(table, key)
            return strawberry.field(resolver=_reader(key), graphql_type=shown, description=value.description)
        case Computed():
            shown = output(value.shown_as)
            compute = value.compute
            return strawberry.field(resolver=_computer(compute), graphql_type=shown, description=value.description)
        case Rendered():
            resolve = _patient_renderer(value.render) if value.files else _renderer(value.render)
            return strawberry.field(resolver=resolve, graphql_type=value.shown_as, description=value.description)
        case Spelt():
            return value.field
        case Edge():
            return strawberry.field(
                resolver=_edge(value), graphql_type=Optional[lazy(value.noun)], description=value.description
            )
        case _:
            return strawberry.field(
                resolver=_children(value),
                graphql_type=many(value.noun),
                description=value.description,
            )


def _reader(key: str) -> Callable[[Any], Any]:
    def read(root: Any) -> Any:
        return getattr(root.row, key)

    return signed(read)


def _computer(compute: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def resolve(root: Any) -> Any:
        return compute(root.row)

    return signed(resolve)


def _renderer(render: Callable[[Any, Any], Any]) -> Any:
    def resolve(root: Any, info: Info) -> Any:
        return render(info.context, root.row)

    return signed(resolve, info=Info)


def _patient_renderer(render: Callable[[Any, Any], Any]) -> Any:
    async def resolve(root: Any, info: Info) -> Any:
        return await on_thread(lambda: render(info.context, root.row))

    return signed(resolve, info=Info)


def _edge(value: Edge) -> Any:
    async def resolve(root: Any, info: Info) -> Any:
        return wrap(await info.context.one(value.noun, getattr(root.row, value.key)))

    return signed(resolve, info=Info)


def _children(value: Children) -> Any:
    async def resolve(root: Any, info: Info) -> Any:
        return [wrap(row) for row in await info.context.many(value.noun, value.column, root.row.id)]

    return signed(resolve, info=Info)


def signed(resolve: R, **kinds: Any) -> R:
    """The resolver of a ``root`` and these, with the signature that strawberry reads: it would look for one in each of
    some 350 functions.
    """
    resolve.__annotations__ = kinds
    resolve.__signature__ = _signature(tuple(kinds.items()))  # type: ignore[attr-defined]  # inspect.signature's rule
    return resolve


@cache
def _signature(kinds: tuple[tuple[str, Any], ...]) -> inspect.Signature:
    root = inspect.Parameter("root", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    rest = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=kind) for name, kind in kinds]
    return inspect.Signature([root, *rest])


def column_type(table: type[Row], key: str) -> Any:
    """The GraphQL type of a table's column, from its annotation."""
    return output(_hints(table)[key])


@cache
def _hints(table: type[Row]) -> dict[str, Any]:
    """A table's annotations as types: each is compiled from its text, for all columns at once."""
    return typing.get_type_hints(table)


def output(kind: Any) -> Any:
    """A Python type as strawberry is to show it: enums are registered, everything else is as it stands."""
    origin = typing.get_origin(kind)
    if origin in (Union, types.UnionType):
        inner = [output(each) for each in typing.get_args(kind)]
        return Union[tuple(inner)]  # noqa: UP007 - a tuple can only be spread this way
    if origin is list:
        return list[output(typing.get_args(kind)[0])]  # type: ignore[misc]  # made at run time
    if isinstance(kind, type) and issubclass(kind, Enum):
        return scalars.enum(kind)
    if kind in (str, int, bool, float, datetime) or origin is not None or not isinstance(kind, type):
        return kind
    return kind


_DECLARATIONS = (Column, Computed, Rendered, Edge, Children, Spelt)
