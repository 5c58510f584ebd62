"""From a tree to one SQL statement: scopes in every subselect, children in the order of their keys, pages by row value.

Built with SQLAlchemy Core, so that names are quoted and values bound by the same hands as in the ordinary path, and
compiled once to text; what a request adds are its inputs and its subject's keys, bound by position.

Invariant: every row of a noun is read through the noun's scope. A tree that cannot be spelt raises Unspelt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql.visitors import replacement_traverse

from gateway.kernel.access import Subject
from gateway.reads import words as spelling
from gateway.reads.errors import Unspelt
from gateway.reads.holes import POISON, Holes, fill_float, fill_json
from gateway.reads.subjects import Slot
from gateway.reads.tree import (
    Column,
    Const,
    Cursor,
    Given,
    Hole,
    Id,
    Kind,
    Kindred,
    Named,
    Node,
    Object,
    One,
    Page,
    Part,
    PartOf,
    Rendering,
    Root,
    Rows,
    Several,
    Sums,
    Value,
)
from gateway.reads.words import PostgresWords, SqliteWords, Words

Sql = Any
Process = Callable[[Any], Any]
PLACE = "place_in_page"
"""The column that numbers a page's rows; no table may have one of that name."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A compiled statement: one row, one text for each root."""

    text: str
    parameters: Parameters
    holes: Holes

    def bound(self, inputs: Sequence[Any], keys: Sequence[Any]) -> Sequence[Any]:
        """The parameters of one request."""
        return self.parameters.bound(inputs, keys)


class Dialect:
    """A database's words, and SQLAlchemy's dialect with parameters by position."""

    def __init__(self, *, on_sqlite: bool) -> None:
        self.words: Words = SqliteWords() if on_sqlite else PostgresWords()
        self.on_sqlite = on_sqlite
        if on_sqlite:
            self.sql: Any = sqlite.dialect(paramstyle="qmark")
        else:
            from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

            self.sql = PGDialect_psycopg(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]  # SQLAlchemy's


def compiled(roots: Sequence[Root], subject: Subject, dialect: Dialect) -> Statement:
    """The statement of these roots, for subjects of the symbolic one's shape. Raises Unspelt."""
    holes = Holes()
    made = _Builder(dialect.words, subject, holes)
    columns = [made.root(root).label(f"r{number}") for number, root in enumerate(roots)]
    found = sa.select(*columns).compile(dialect=dialect.sql, compile_kwargs={"render_postcompile": True})
    processors = found._bind_processors  # noqa: SLF001 - how SQLAlchemy itself binds; there is no public way
    parameters = Parameters()
    for name in found.positiontup or []:
        parameters.add(found.params[name], processors.get(name))  # type: ignore[arg-type]  # only tuples have several
    text = str(found)
    holes.guarded = POISON in text
    return Statement(text, parameters, holes)


class Parameters:
    """A statement's parameters in their order. Each value that is needed is made once: of an input, or from the start;
    the subject's keys stand before them, and where a parameter stands among all of these is looked up in one go.
    """

    def __init__(self) -> None:
        self._places: list[tuple[bool, int]] = []
        self._made: list[Callable[[Sequence[Any]], Any]] = []
        self._numbers: dict[Any, int] = {}

    def add(self, value: Any, process: Process | None) -> None:
        """One more parameter, by what the statement was built with."""
        if isinstance(value, Slot):
            self._places.append((True, value.index))
            return
        key = (value.number, value.part, process) if isinstance(value, Given) else (len(self._places),)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._made)
            self._made.append(_making(value, process))
        self._places.append((False, number))

    def bound(self, inputs: Sequence[Any], keys: Sequence[Any]) -> Sequence[Any]:
        """The parameters of one request."""
        made = [make(inputs) for make in self._made]
        return [keys[number] if own else made[number] for own, number in self._places]


def _making(value: Any, process: Process | None) -> Callable[[Sequence[Any]], Any]:
    if not isinstance(value, Given):
        fixed = value if process is None else process(value)
        return lambda _inputs: fixed
    number, part = value.number, value.part
    if part is None:
        if process is None:
            return itemgetter(number)
        return lambda inputs: process(inputs[number])
    if process is None:
        return lambda inputs: inputs[number][part]
    return lambda inputs: process(inputs[number][part])


class _Builder:
    """Builds one statement; counts its aliases."""

    def __init__(self, words: Words, subject: Subject, holes: Holes) -> None:
        self._words = words
        self._subject = subject
        self._holes = holes
        self._count = 0

    def root(self, root: Root) -> Sql:
        """A root field's value."""
        if isinstance(root, Const):
            return spelling.literal(root.text)
        if isinstance(root, Several):
            return self._several(root)
        if not isinstance(root, One):
            return self._words.finished(self._value(root, None))
        at = self._alias(root.table)
        uid = sa.literal(root.uid, at.c.uid.type)
        found = sa.select(self._words.finished(self._object(root.item, at)))
        where = self._words.beside(self._adapted(root.scope(self._subject), root.table, at))
        return self._words.nested(found.select_from(at).where(at.c.uid == uid, where))

    def _alias(self, table: type[Any]) -> Any:
        self._count += 1
        return table.__table__.alias(f"t{self._count}")

    @staticmethod
    def _adapted(clause: Any, kind: type[Any], at: Any) -> Any:
        """The clause about an alias in place of its table. SQLAlchemy's own adapter looks for what corresponds in a
        hundred ways, and costs half of compiling a plan.
        """
        table = kind.__table__

        def replaced(element: Any, **_: Any) -> Any:
            if isinstance(element, sa.Column) and element.table is not None and _is(element.table, table):
                return at.c[element.key]
            return None

        return replacement_traverse(clause, {}, replaced)

    def _object(self, item: Object, at: Any, row: _Row | None = None) -> Sql:
        if len(item.fields) > self._words.most_fields:
            raise Unspelt("too many fields in one object")
        return self._words.object([(name, self._value(value, at, row)) for name, value in item.fields])

    def _value(self, value: Value, at: Any, row: _Row | None = None) -> Sql:  # noqa: C901, PLR0911, PLR0912 - one kind of value a line
        match value:
            case Const():
                return self._words.constant(value.text)
            case Id():
                return self._words.typeid(value.prefix, at.c.uid)
            case Column():
                return self._column(value, at)
            case Hole():
                return self._hole([self._known(each, at) for each in value.columns], value.fill, keep=value.keep)
            case Rendering():
                columns = [self._known(each, at) for each in value.columns]
                return spelling.hole(self._words, self._holes.render(value.render), columns)
            case Rows():
                return self._rows(value, at)
            case Page():
                return self._page(value, at)
            case Node():
                return self._object(value.item, at)
            case Named():
                return self._named(value, at)
            case Object():
                return self._object(value, at)
            case Cursor():
                if row is None:
                    raise Unspelt("a cursor outside a page")
                return self._hole(row.keys, value.fill, keep=False)
            case _:
                raise Unspelt(type(value).__name__)

    def _hole(self, columns: Sequence[Sql], fill: Any, *, keep: bool) -> Sql:
        return spelling.hole(self._words, self._holes.add(fill, keep=keep), columns)

    def _known(self, value: Column | Sums, at: Any) -> Sql:
        """What a hole is made of."""
        if isinstance(value, Column):
            return self._words.value(at.c[value.name], value.kind, null=True)
        inner = self._alias(value.table)
        parts = self._words.sequence([self._words.number(part) for part in value.parts(inner.c)])
        found = sa.select(self._words.finished(parts)).select_from(inner).where(inner.c[value.key] == at.c.id)
        return self._words.nested(found.correlate(at))

    def _named(self, value: Named, at: Any) -> Sql:
        text = at.c[value.name]
        uid = self._words.uid_of(text)
        found = [(spelling.is_of(text, each.prefix), self._kindred(each, uid, at)) for each in value.kinds]
        return self._words.choice(text, found)

    def _several(self, value: Several) -> Sql:
        self._count += 1
        names = self._words.names(sa.literal(value.ids, sa.Text)).subquery(f"t{self._count}")
        prefix = names.c.prefix
        found = [
            (prefix == spelling.literal(each.prefix), self._kindred(each, names.c.uid, names)) for each in value.kinds
        ]
        item = self._words.array(self._words.choice(prefix, found))
        return self._words.nested(sa.select(self._words.finished(item)).select_from(names))

    def _kindred(self, value: Kindred, uid: Sql, at: Any) -> Sql:
        """The object of a noun by its uid; null when it may not be seen."""
        inner = self._alias(value.table)
        scope = self._words.beside(self._adapted(value.scope(self._subject), value.table, inner))
        item = sa.select(self._words.finished(self._object(value.item, inner))).select_from(inner)
        return self._words.nested(item.where(spelling.plain(inner.c.uid) == uid, scope).correlate(at))

    def _column(self, value: Column, at: Any) -> Sql:
        shown = self._words.value(at.c[value.name], value.kind, null=value.null)
        if value.kind is Kind.FLOAT:
            return self._hole([shown], fill_float, keep=True)
        if value.kind is Kind.JSON and isinstance(self._words, PostgresWords):
            return self._hole([shown], fill_json, keep=True)
        return shown

    # ------------------------------------------------------------------------------------ rows beside ours

    def _rows(self, rows: Rows, at: Any) -> Sql:
        inner = self._alias(rows.table)
        order = [_ordered(inner, name) for name in rows.order]
        source: Any = inner
        if rows.link is None:
            condition = inner.c[rows.key] == self._own(rows, at)
        else:
            link = self._alias(rows.link.table)
            source = link.join(inner, inner.c[rows.key] == link.c[rows.link.far])
            condition = link.c[rows.link.near] == self._own(rows, at)
            order = [*(_ordered(link, name) for name in rows.link.order), *order]
        where = [condition]
        if rows.scope is not None:
            where.append(self._words.beside(self._adapted(rows.scope(self._subject), rows.table, inner)))
        if rows.where is not None:
            where.append(rows.where(inner.c))
        where += [each.compare(inner.c[each.column], sa.literal(each.given, inner.c[each.column].type)) for each in
                  rows.bounds]  # fmt: skip
        if rows.one and rows.key == "id":
            found = sa.select(self._words.finished(self._item(rows.item, inner)))
            found = found.select_from(source).where(*where)
            return self._words.nested(found if at is None else found.correlate(at))
        found = sa.select(*self._needed(rows.item, inner)).select_from(source).where(*where).order_by(*order)
        found = found.limit(sa.literal_column("1")) if rows.one else found
        self._count += 1
        outer = (found if at is None else found.correlate(at)).subquery(f"t{self._count}")
        item = self._item(rows.item, outer)
        value = item if rows.one else self._words.array(item)
        return self._words.nested(sa.select(self._words.finished(value)).select_from(outer))

    def _own(self, rows: Rows | Page, at: Any) -> Sql:
        if isinstance(rows, Rows) and rows.subject is not None:
            return sa.literal(getattr(self._subject, rows.subject), sa.BigInteger)
        if rows.own_prefix is not None:
            return self._words.typeid_text(rows.own_prefix, at.c.uid)
        if isinstance(rows, Rows) and rows.own_digest:
            return self._words.digest(at.c[rows.own])
        return at.c[rows.own if isinstance(rows, Rows) else "id"]

    def _item(self, item: Object | Column | Id, at: Any) -> Sql:
        return self._object(item, at) if isinstance(item, Object) else self._value(item, at)

    def _needed(self, item: Value, at: Any) -> list[Any]:
        return [at.c[name] for name in sorted(_columns(item))] or list(at.primary_key)

    # ------------------------------------------------------------------------------------ pages

    def _page(self, page: Page, at: Any) -> Sql:
        found = page.where(self._subject)
        table = page.table.__table__
        if found.get_final_froms() != [table] or found._distinct or found._group_by_clauses:  # noqa: SLF001 - read only
            raise Unspelt("the list is no plain select of its table")
        pairs: list[tuple[str, Sql]] = []
        source, row = self._source(page, found.whereclause, at)
        for name, part in page.fields:
            if isinstance(part, Const):
                pairs.append((name, self._words.constant(part.text)))
            elif part.part is Part.TOTAL:
                pairs.append((name, self._total(page, found.whereclause, at)))
            elif source is not None:
                pairs.append((name, self._part(part, source, row)))
        if source is None:
            return self._words.object(pairs)
        return self._words.nested(sa.select(self._words.finished(self._words.object(pairs))).select_from(source))

    def _condition(self, page: Page, where: Any, inner: Any, at: Any) -> list[Any]:
        conditions = [] if where is None else [self._adapted(where, page.table, inner)]
        if page.key is not None:
            conditions = [inner.c[page.key] == self._own(page, at), *map(self._words.beside, conditions)]
        return conditions

    def _total(self, page: Page, where: Any, at: Any) -> Sql:
        inner = self._alias(page.table)
        counted = sa.select(sa.func.count()).select_from(inner).where(*self._condition(page, where, inner, at))
        counted = counted if at is None else counted.correlate(at)
        return self._words.number(counted.scalar_subquery())

    def _source(self, page: Page, where: Any, at: Any) -> tuple[Any, _Row]:
        """The page's rows as a subselect in the order they are shown; None when nothing of them is asked for."""
        parts = [part for _, part in page.fields if isinstance(part, PartOf) and part.part is not Part.TOTAL]
        if not parts:
            return None, _Row(())
        numbered = page.backwards or any(part.part is Part.INFO for part in parts)
        inner = self._alias(page.table)
        names = ([page.order] if page.order is not None else []) + ["uid"]
        keys = [inner.c[name] for name in names]
        conditions = self._condition(page, where, inner, at)
        for cursor, behind in ((page.after, True), (page.before, False)):
            if cursor is not None:
                bound = [sa.literal(Given(cursor.number, part), key.type) for part, key in enumerate(keys)]
                left, right = sa.tuple_(*keys), sa.tuple_(*bound)
                conditions.append(left > right if behind != page.descending else left < right)
        falling = page.descending != page.backwards
        wanted = {name: inner.c[name] for name in names}
        for part in parts:
            wanted |= {name: inner.c[name] for name in _columns(part.item)} if part.item is not None else {}
        limit = sa.literal(Given(page.size.number, int(numbered)), sa.Integer)
        found = sa.select(*wanted.values()).where(*conditions).limit(limit)
        found = found.order_by(*(key.desc() if falling else key.asc() for key in keys))
        found = found if at is None else found.correlate(at)
        self._count += 1
        rows: Any = found.subquery(f"t{self._count}")
        size = sa.literal(Given(page.size.number, 0), sa.Integer)
        if numbered:
            rows = self._numbered(rows, names, falling=falling, backwards=page.backwards)
        shown = [self._key(rows.c[name], inner.c[name]) for name in reversed(names)]
        return rows, _Row(tuple(shown), rows.c[PLACE] <= size if numbered else None, size)

    def _numbered(self, rows: Any, names: Sequence[str], *, falling: bool, backwards: bool) -> Any:
        """The rows with their places in the order they were found, in the order they are shown."""
        keys = [rows.c[name] for name in names]
        place = sa.func.row_number().over(order_by=[key.desc() if falling else key.asc() for key in keys])
        self._count += 1
        placed = sa.select(*rows.c, place.label(PLACE)).subquery(f"t{self._count}")
        self._count += 1
        order = placed.c[PLACE].desc() if backwards else placed.c[PLACE].asc()
        return sa.select(*placed.c).order_by(order).subquery(f"t{self._count}")

    def _key(self, column: Any, stored: Any) -> Sql:
        """A key of the order, as JSON for the cursor."""
        kind = Kind.UUID if stored.name == "uid" else _kind_of_key(stored.type)
        return self._words.value(column, kind, null=True)

    def _part(self, part: PartOf, source: Any, row: _Row) -> Sql:
        if part.part is Part.INFO:
            if part.fill is None:
                raise Unspelt("a pageInfo without its filling")
            keys = self._words.array(self._words.sequence(row.keys))
            return self._hole([keys, self._words.number(row.size)], part.fill, keep=False)
        if part.item is None:
            raise Unspelt("a part without its object")
        return self._words.array(self._object(part.item, source, row), row.only)


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of a page: its keys for cursors (the uid first), whether it is shown, and the page's size."""

    keys: tuple[Sql, ...]
    only: Any = None
    size: Any = None


def _is(found: Any, table: sa.Table) -> bool:
    """Whether it is that table itself, whatever annotations it carries, and no alias of it."""
    return found is table or (isinstance(found, sa.Table) and found.name == table.name)


def _ordered(at: Any, name: str) -> Any:
    return at.c[name[1:]].desc() if name.startswith("-") else at.c[name]


def _kind_of_key(kind: Any) -> Kind:
    if isinstance(kind, sa.Integer):
        return Kind.NUMBER
    return Kind.MOMENT if isinstance(getattr(kind, "impl", kind), sa.DateTime) else Kind.TEXT


def _columns(value: Value | None) -> set[str]:  # noqa: PLR0911 - one kind of value a line
    """The columns of its own row that a value reads."""
    match value:
        case Id():
            return {"uid"}
        case Column() | Named():
            return {value.name}
        case Rendering():
            return {each.name for each in value.columns}
        case Hole():
            return {each.name if isinstance(each, Column) else "id" for each in value.columns}
        case Object():
            return {name for _, each in value.fields for name in _columns(each)}
        case Node():
            return _columns(value.item)
        case Rows():
            return {"uid" if value.own_prefix is not None else value.own}
        case Page():
            return {"uid" if value.own_prefix is not None else "id"}
        case _:
            return set()
