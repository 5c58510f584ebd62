"""How JSON is spelt in SQL: SQLite's JSON functions, and plain text for PostgreSQL.

SQLite prints compact JSON from ``json_object`` at little cost; PostgreSQL's own prints blanks and costs twice as much
as ``concat`` of ready pieces (measured, shared speed notes), so there every value is the text of its JSON. Both leave
to Python what they would print otherwise than Python does, as marked holes (:mod:`gateway.reads.holes`): TypeIDs,
floats, and JSON columns on PostgreSQL.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from gateway.kernel.ids import ALPHABET, DIGITS
from gateway.reads.holes import ID_MARK, MARK, POISON
from gateway.reads.tree import Kind

Sql = Any
_MOST_ARGUMENTS = 90
_INT32 = "-2147483648 AND 2147483647"


class Words(Protocol):
    """A database's words. Values of columns come from :meth:`value`; all else is made of those."""

    most_fields: int

    def value(self, column: Sql, kind: Kind, *, null: bool) -> Sql:
        """A column."""

    def constant(self, text: str) -> Sql:
        """Ready JSON."""

    def typeid(self, prefix: str, uid: Sql) -> Sql:
        """A TypeID, as JSON."""

    def typeid_text(self, prefix: str, uid: Sql) -> Sql:
        """A TypeID as plain text, to compare with."""

    def uid_of(self, text: Sql) -> Sql:
        """The uid in a TypeID, as uids are stored."""

    def digest(self, text: Sql) -> Sql:
        """The SHA-256 of a text in UTF-8, in hexadecimal."""

    def choice(self, text: Sql, found: Sequence[tuple[Sql, Sql]]) -> Sql:
        """The value of the first condition that holds about a text, null if it is null. It is broken if none holds."""

    def names(self, text: Sql) -> sa.Select[Any]:
        """The names in a JSON array (:class:`gateway.reads.tree.Several`), in their order: ``prefix`` and ``uid``, as
        uids are stored.
        """

    def sequence(self, values: Sequence[Sql]) -> Sql:
        """An array of these values."""

    def object(self, pairs: Sequence[tuple[str, Sql]]) -> Sql:
        """An object."""

    def array(self, item: Sql, only: Sql | None = None) -> Sql:
        """The array of an aggregate's rows, of those where ``only`` holds."""

    def nested(self, select: sa.Select[Any]) -> Sql:
        """The value of a subselect of one row or none."""

    def number(self, value: Sql) -> Sql:
        """A computed number."""

    def beside(self, condition: Sql) -> Sql:
        """A condition on rows that are found by another one's index."""

    def finished(self, value: Sql) -> Sql:
        """A value as the statement's own column."""


class Literal(sa.sql.elements.ColumnClause[str]):
    """A text of our own as an SQL literal: names of the answer, marks. Never what a client sent."""

    inherit_cache = False

    def __init__(self, said: str) -> None:
        quoted = said.replace("'", "''")
        super().__init__(f"'{quoted}'", sa.Text(), is_literal=True)
        self.said = said


def literal(text: str) -> Literal:
    """A text of our own in SQL."""
    return Literal(text)


def plain(column: Sql) -> Sql:
    """A column without the rules of its Python type."""
    return sa.type_coerce(column, sa.Text)


def is_of(text: Sql, prefix: str) -> Sql:
    """Whether a text is a TypeID with this prefix."""
    begin, size = len(prefix) + 1, len(prefix) + 1 + DIGITS
    of_size = sa.func.length(plain(text)) == sa.literal_column(str(size))
    begun = sa.func.substr(plain(text), sa.literal_column("1"), sa.literal_column(str(begin)))
    return sa.and_(of_size, begun == literal(f"{prefix}_"))


def hole(words: Words, number: int, columns: Sequence[Sql]) -> Sql:
    """A hole: an array of its number, its columns, and the end mark."""
    first, last = words.constant(json.dumps(f"{MARK}{number}")), words.constant(json.dumps(MARK))
    return words.sequence([first, *columns, last])


class SqliteWords:
    """SQLite: values stay SQL values until ``json_object`` prints them."""

    most_fields = 60

    def __init__(self) -> None:
        connection = sqlite3.connect(":memory:")
        try:
            nested = connection.execute("SELECT json_object('a', (SELECT json_object()))").fetchone()[0]
        finally:
            connection.close()
        self._keeps_subtypes = nested == '{"a":{}}'

    def value(self, column: Sql, kind: Kind, *, null: bool) -> Sql:
        """A column."""
        shown = self._shown(column, kind)
        return shown if null or not column.nullable else sa.func.coalesce(shown, literal(POISON))

    def _shown(self, column: Sql, kind: Kind) -> Sql:
        match kind:
            case Kind.FLAG:  # true and false are 1 and 0 here; null stays null
                return sa.func.json(_Case(plain(column), literal("true"), literal("false")))
            case Kind.MOMENT:
                return sa.func.replace(plain(column), literal(" "), literal("T")).concat(literal("Z"))
            case Kind.JSON:
                return sa.func.json(plain(column))
            case Kind.FLOAT:  # as text: json_object prints 15 digits only; printf takes null for 0
                return sa.case((column.is_not(None), sa.func.printf(literal("%!.17g"), plain(column))))
            case Kind.INT32:
                return _Fitting(plain(column), plain(column), literal(POISON))
            case _:
                return plain(column)

    def constant(self, text: str) -> Sql:
        """Ready JSON."""
        found = json.loads(text)
        if isinstance(found, str):
            return literal(found)
        return sa.func.json(literal(text))

    def typeid(self, prefix: str, uid: Sql) -> Sql:
        """A TypeID, as JSON."""
        return self.typeid_text(prefix, uid)

    def typeid_text(self, prefix: str, uid: Sql) -> Sql:
        """The prefix before the digits, which are what is stored."""
        return literal(f"{prefix}_").concat(plain(uid))

    def uid_of(self, text: Sql) -> Sql:
        """The digits behind the prefix, as they are stored."""
        return sa.func.substr(plain(text), sa.literal_column(str(-DIGITS)))

    def digest(self, text: Sql) -> Sql:
        """By the function that :mod:`gateway.reads.reader` gives its connections."""
        return sa.func.stratograph_digest(plain(text))

    def choice(self, text: Sql, found: Sequence[tuple[Sql, Sql]]) -> Sql:
        """What is broken is no JSON, so the statement fails."""
        return sa.func.json(sa.case(*found, (text.is_not(None), literal(POISON))))

    def names(self, text: Sql) -> sa.Select[Any]:
        """The names in a JSON array."""
        each = sa.func.json_each(text).table_valued("key", "value")
        parts = [sa.func.json_extract(each.c.value, literal(f"$[{number}]")) for number in (0, 2)]
        return sa.select(parts[0].label("prefix"), parts[1].label("uid")).order_by(each.c.key)

    def sequence(self, values: Sequence[Sql]) -> Sql:
        """An array of these values."""
        return sa.func.json_array(*values)

    def object(self, pairs: Sequence[tuple[str, Sql]]) -> Sql:
        """An object."""
        return sa.func.json_object(*(each for name, value in pairs for each in (literal(name), value)))

    def array(self, item: Sql, only: Sql | None = None) -> Sql:
        """The array of an aggregate's rows, of those where ``only`` holds."""
        found = sa.func.json_group_array(item)
        return found if only is None else found.filter(only)

    def nested(self, select: sa.Select[Any]) -> Sql:
        """The value of a subselect; newer versions forget that it is JSON."""
        found = select.scalar_subquery()
        return found if self._keeps_subtypes else sa.func.json(found)

    def number(self, value: Sql) -> Sql:
        """A computed number."""
        return value

    def beside(self, condition: Sql) -> Sql:
        """Out of the optimizer's sight: without statistics it takes a tenant's index for as good as a parent's, and
        reads all that the tenant has for each parent.
        """
        return sa.case((condition, sa.literal_column("1")))

    def finished(self, value: Sql) -> Sql:
        """A value as the statement's own column."""
        return value


class PostgresWords:
    """PostgreSQL: every value is the text of its JSON, and an object is one ``concat``."""

    most_fields = 100_000

    def value(self, column: Sql, kind: Kind, *, null: bool) -> Sql:
        """A column."""
        shown = self._shown(column, kind)
        if not column.nullable:
            return shown
        return sa.func.coalesce(sa.cast(shown, sa.Text), literal("null" if null else json.dumps(POISON)))

    def _shown(self, column: Sql, kind: Kind) -> Sql:
        text = sa.cast(plain(column), sa.Text)
        match kind:
            case Kind.TEXT:
                return sa.func.to_json(plain(column))
            case Kind.MOMENT:
                form = literal(r'\"YYYY-MM-DD"T"HH24:MI:SS.US"Z"\"')
                return sa.func.to_char(sa.func.timezone(literal("UTC"), column), form)
            case Kind.WORD | Kind.UUID:
                return literal('"').concat(text).concat(literal('"'))
            case Kind.INT32:
                return _Fitting(plain(column), text, literal(json.dumps(POISON)))
            case _:
                return text

    def constant(self, text: str) -> Sql:
        """Ready JSON."""
        return literal(text)

    def typeid(self, prefix: str, uid: Sql) -> Sql:
        """A TypeID, as JSON."""
        return _Pieces([literal(f'"{prefix}_{ID_MARK}'), plain(uid), literal(f'{ID_MARK}"')])

    def typeid_text(self, prefix: str, uid: Sql) -> Sql:
        """A TypeID as plain text, to compare with."""
        return literal(f"{prefix}_").concat(_Base32(plain(uid)))

    def uid_of(self, text: Sql) -> Sql:
        """The uid in a TypeID."""
        return _Uid(plain(text))

    def digest(self, text: Sql) -> Sql:
        """The SHA-256 of a text."""
        return sa.func.encode(sa.func.sha256(sa.func.convert_to(plain(text), literal("UTF8"))), literal("hex"))

    def choice(self, text: Sql, found: Sequence[tuple[Sql, Sql]]) -> Sql:
        """The value of the first condition that holds."""
        return sa.case(*found, (text.is_not(None), literal(json.dumps(POISON))), else_=literal("null"))

    def names(self, text: Sql) -> sa.Select[Any]:
        """The names in a JSON array."""
        array = sa.func.jsonb_array_elements(sa.cast(text, JSONB))
        each = array.table_valued(sa.column("value", JSONB), with_ordinality="place").render_derived()
        parts = [each.c.value.op("->>")(sa.literal_column(str(number))) for number in range(2)]
        found = sa.select(parts[0].label("prefix"), sa.cast(parts[1], sa.Uuid).label("uid"))
        return found.order_by(each.c.place)

    def sequence(self, values: Sequence[Sql]) -> Sql:
        """An array of these values."""
        pieces: list[Sql] = [literal("[")]
        for number, value in enumerate(values):
            pieces += [literal(",")] * bool(number) + [value]
        return _Pieces([*pieces, literal("]")])

    def object(self, pairs: Sequence[tuple[str, Sql]]) -> Sql:
        """An object."""
        pieces: list[Sql] = []
        for number, (name, value) in enumerate(pairs):
            pieces += [literal(("," if number else "{") + json.dumps(name) + ":"), value]
        return _Pieces([*pieces, literal("}")] if pieces else [literal("{}")])

    def array(self, item: Sql, only: Sql | None = None) -> Sql:
        """The array of an aggregate's rows, of those where ``only`` holds."""
        found = sa.func.string_agg(sa.cast(self.finished(item), sa.Text), literal(","))
        return _Pieces([literal("["), found if only is None else found.filter(only), literal("]")])

    def nested(self, select: sa.Select[Any]) -> Sql:
        """The value of a subselect of one row or none."""
        return sa.func.coalesce(select.scalar_subquery(), literal("null"))

    def number(self, value: Sql) -> Sql:
        """A computed number."""
        return sa.cast(value, sa.Text)

    def beside(self, condition: Sql) -> Sql:
        """As it stands: PostgreSQL has statistics."""
        return condition

    def finished(self, value: Sql) -> Sql:
        """A value as the statement's own column: its pieces in one ``concat``, which takes null for nothing."""
        if not isinstance(value, _Pieces):
            return value
        pieces = value.flat()
        while len(pieces) > _MOST_ARGUMENTS:
            pieces = [
                sa.func.concat(*pieces[start : start + _MOST_ARGUMENTS])
                for start in range(0, len(pieces), _MOST_ARGUMENTS)
            ]
        return sa.func.concat(*pieces)


class _Pieces:
    """Texts that stand one behind the other."""

    def __init__(self, pieces: Sequence[Sql]) -> None:
        self._pieces = pieces

    def flat(self) -> list[Sql]:
        """The pieces, those of pieces among them, with neighbouring literals joined."""
        found: list[Sql] = []
        for piece in self._pieces:
            for each in piece.flat() if isinstance(piece, _Pieces) else [piece]:
                if found and isinstance(each, Literal) and isinstance(found[-1], Literal):
                    found[-1] = literal(found[-1].said + each.said)
                else:
                    found.append(each)
        return found


class _Case(FunctionElement[str]):
    """``CASE column WHEN 0 THEN b WHEN 1 THEN a END``: null stays null."""

    inherit_cache = False
    type = sa.Text()


@compiles(_Case)
def _case(element: Any, compiler: Any, **options: Any) -> str:
    column, true, false = (compiler.process(each, **options) for each in element.clauses)
    return f"CASE {column} WHEN 1 THEN {true} WHEN 0 THEN {false} END"


class _Fitting(FunctionElement[str]):
    """A wide integer where it fits into 32 bits, the poison where it does not."""

    inherit_cache = False
    type = sa.Text()


@compiles(_Fitting)
def _fitting(element: Any, compiler: Any, **options: Any) -> str:
    column, shown, poison = (compiler.process(each, **options) for each in element.clauses)
    return f"CASE WHEN {column} IS NULL THEN NULL WHEN {column} BETWEEN {_INT32} THEN {shown} ELSE {poison} END"


class _Base32(FunctionElement[str]):
    """The 26 digits of a TypeID, five bits at a time."""

    inherit_cache = False
    type = sa.Text()


@compiles(_Base32, "postgresql")
def _base32(element: Any, compiler: Any, **options: Any) -> str:
    (uid,) = (compiler.process(each, **options) for each in element.clauses)
    bits = f"(B'00' || ('x' || replace(CAST({uid} AS text), '-', ''))::bit(128))"
    digit = f"substr('{ALPHABET}', substring({bits} FROM 5 * g + 1 FOR 5)::bit(5)::int + 1, 1)"
    return f"(SELECT string_agg({digit}, '' ORDER BY g) FROM generate_series(0, 25) AS g)"  # noqa: S608 - compiled SQL, no values


class _Uid(FunctionElement[str]):
    """The uid in a TypeID: its digits' bits, four at a time."""

    inherit_cache = False
    type = sa.Text()


@compiles(_Uid, "postgresql")
def _uid(element: Any, compiler: Any, **options: Any) -> str:
    (text,) = (compiler.process(each, **options) for each in element.clauses)
    value = f"(strpos('{ALPHABET}', substr(right({text}, {DIGITS}), k, 1)) - 1)::bit(5)::text"
    bits = f"(SELECT string_agg({value}, '' ORDER BY k)::varbit FROM generate_series(1, {DIGITS}) AS k)"  # noqa: S608 - compiled SQL, no values
    part = "to_hex(substring(held.bits FROM 4 * g + 3 FOR 4)::bit(4)::int)"
    held = f"generate_series(0, 31) AS g, (SELECT {bits} AS bits) AS held"
    return f"(SELECT string_agg({part}, '' ORDER BY g)::uuid FROM {held})"  # noqa: S608 - as above
