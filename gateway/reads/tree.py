"""What one statement is to read, as a tree: objects with their columns, the rows beside them, and pages of lists.

The tree is the whole language between the planner, which knows GraphQL and no SQL, and
:mod:`gateway.reads.statement`, which knows SQL and no GraphQL. Names in it are JSON names of the answer; whatever a
client sent is a :class:`Given`, a number of an input, and never part of the tree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from gateway.kernel.access import Subject

Scope = Callable[[Subject], Any]
"""The predicate of the rows that a subject may see."""


class Kind(Enum):
    """How a column is printed."""

    TEXT = auto()
    WORD = auto()
    """Text that needs no escapes: a name of an enum."""
    NUMBER = auto()
    INT32 = auto()
    """A wide column shown as a GraphQL Int: what does not fit is an error, so the plan gives up."""
    FLAG = auto()
    MOMENT = auto()
    JSON = auto()
    FLOAT = auto()
    UUID = auto()


@dataclass(frozen=True, slots=True)
class Const:
    """Ready JSON."""

    text: str


@dataclass(frozen=True, slots=True)
class Id:
    """The row's own TypeID."""

    prefix: str


@dataclass(frozen=True, slots=True)
class Column:
    """A stored column. ``null`` False: the schema promises that it never is."""

    name: str
    kind: Kind
    null: bool = True


Fill = Callable[[list[Any]], bytes]
"""Columns as JSON values to JSON text."""

Render = Callable[[list[Any], Any], bytes]
"""The same for whoever asks: the second argument is what the reader of the statement says of the request."""


@dataclass(frozen=True, slots=True)
class Sums:
    """Figures of the rows of a table whose ``key`` is our own: ``parts`` of their columns, aggregates of whole numbers
    that are never null.
    """

    table: type[Any]
    key: str
    parts: Callable[[Any], Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Hole:
    """What SQL cannot spell: ``fill`` makes it of some columns, in Python. ``keep`` says that few values recur."""

    columns: tuple[Column | Sums, ...]
    fill: Fill
    keep: bool = True


@dataclass(frozen=True, slots=True)
class Rendering:
    """A :class:`Hole` whose filling depends on who asks and when, too; nothing of it is remembered."""

    columns: tuple[Column, ...]
    render: Render


@dataclass(frozen=True, slots=True)
class Object:
    """A JSON object of one row."""

    fields: tuple[tuple[str, Value], ...]


@dataclass(frozen=True, slots=True)
class Link:
    """A table between two: ``near`` is the column that holds the key of the row we come from, ``far`` the one that the
    ``key`` of the rows we want is equal to; they come in its ``order`` first.
    """

    table: type[Any]
    near: str
    far: str
    order: tuple[str, ...] = ("id",)


@dataclass(frozen=True, slots=True)
class Bound:
    """A condition on rows: ``compare(their column, an input)``."""

    column: str
    compare: Callable[[Any, Any], Any]
    given: Given


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a table whose ``key`` is the ``own`` column of the row we come from, in the order of ``order``.

    ``subject`` names the subject's key that takes the place of the row we come from. ``one`` makes it the first of them
    or null. ``own_prefix`` says that the key holds our TypeID as text, ``own_digest`` that it holds the SHA-256 of our
    column. ``bounds`` are conditions by inputs. A ``scope`` of None is for rows that belong to
    ours, such as a port's addresses.
    """

    table: type[Any]
    key: str
    item: Object | Column | Id
    own: str = "id"
    subject: str | None = None
    own_prefix: str | None = None
    own_digest: bool = False
    scope: Scope | None = None
    link: Link | None = None
    where: Callable[[Any], Any] | None = None
    bounds: tuple[Bound, ...] = ()
    order: tuple[str, ...] = ("id",)
    one: bool = False


@dataclass(frozen=True, slots=True)
class Kindred:
    """What is shown of an object if it is of this noun."""

    prefix: str
    table: type[Any]
    item: Object
    scope: Scope


@dataclass(frozen=True, slots=True)
class Named:
    """The object that column ``name`` holds the TypeID of, whichever of ``kinds`` it is; null if it may not be seen."""

    name: str
    kinds: tuple[Kindred, ...]


@dataclass(frozen=True, slots=True)
class Given:
    """An input of a request: the ``number``-th, or one ``part`` of it where it is a tuple."""

    number: int
    part: int | None = None


class Part(Enum):
    """What a page is asked for."""

    NODES = auto()
    EDGES = auto()
    INFO = auto()
    TOTAL = auto()


CURSOR = "cursor"
NODE = "node"


@dataclass(frozen=True, slots=True)
class PartOf:
    """One field of a page. ``item`` is the node's object (NODES), or an object with the pseudo columns ``cursor`` and
    ``node`` (EDGES); ``fill`` renders a pageInfo from the keys of the page's rows, one too many where more follow.
    """

    part: Part
    item: Object | None = None
    fill: Fill | None = None


@dataclass(frozen=True, slots=True)
class Cursor:
    """The item's place, as an opaque text made by ``fill`` from the row's keys."""

    fill: Fill


@dataclass(frozen=True, slots=True)
class Node:
    """The item of an edge."""

    item: Object


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a list. ``where(subject)`` is the list's select; ``order`` names the column before the tie-break.

    ``size``, ``after`` and ``before`` are inputs: a number, and the tuples that a cursor holds.
    """

    table: type[Any]
    where: Callable[[Subject], Any]
    fields: tuple[tuple[str, PartOf | Const], ...]
    size: Given
    order: str | None = None
    descending: bool = False
    backwards: bool = False
    after: Given | None = None
    before: Given | None = None
    key: str | None = None
    own_prefix: str | None = None


@dataclass(frozen=True, slots=True)
class One:
    """One row of a table by its uid, or null."""

    table: type[Any]
    uid: Given
    item: Object
    scope: Scope


@dataclass(frozen=True, slots=True)
class Several:
    """Objects in the order of an input: JSON of the prefix of each, its uid in hexadecimal and in digits; nulls for
    what is no id. Null stands for each that there is none of or that may not be seen.
    """

    ids: Given
    kinds: tuple[Kindred, ...]


Value = Const | Id | Column | Hole | Rendering | Object | Rows | Page | Cursor | Node | Named
Root = One | Page | Object | Const | Several
