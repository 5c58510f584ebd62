"""Statements of the hot paths: compiled once for each database, and run straight on the driver's cursor.

SQLAlchemy spends five to twenty times as long on sending a small statement as SQLite does on carrying it out: building
it, looking for its compiled form, an execution context, a result, the unit of work's books. A :class:`Prepared` is made
once, where it is written, of an ordinary Core statement with named parameters; its types convert what goes in and comes
out, so both databases are told and answer the same. What it does is part of the session's transaction, errors are
SQLAlchemy's own, and listeners for statements hear of it.

It deliberately does little: no lists of varying length as parameters, no defaults of columns (an insert names all
values), no flush of what the session has pending. :class:`Rows` is for objects of the unit of work, and flushes first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session as OrmSession
from sqlalchemy.orm.attributes import instance_dict, instance_state, manager_of_class, set_committed_value
from sqlmodel import Session, SQLModel

R = TypeVar("R", bound=SQLModel)
Values = Mapping[str, Any]


_LATER = object()


def later(name: str, kind: Any) -> Any:
    """A parameter of a prepared statement that also has lists of fixed values: SQLAlchemy spells those out only when
    every parameter has a value.
    """
    return sa.bindparam(name, _LATER, type_=kind)


class _Compiled:
    """A statement in the words of one dialect; ``straight`` for those that go past psycopg's cursors."""

    def __init__(self, statement: Any, dialect: Any, *, straight: bool) -> None:
        self.straight = straight
        if straight:
            from gateway.kernel.straight import numbered  # psycopg is only there where PostgreSQL is

            dialect = numbered()
        found = statement.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
        self.text = str(found)
        processors = found._bind_processors  # noqa: SLF001 - how SQLAlchemy itself binds; there is no public way
        names = found.positiontup if found.positional else list(found.params)
        self._named = None if found.positional else names
        self._takes = [_take(found, name, processors.get(name)) for name in names]
        self._types = [each.type for each in getattr(found, "_result_columns", ())]
        self._dialect = dialect
        self._gives: list[tuple[int, Callable[[Any], Any]]] | None = None

    def bound(self, given: Values) -> Any:
        """The parameters as the driver takes them."""
        values = [take(given) for take in self._takes]
        return values if self._named is None else dict(zip(self._named, values, strict=True))

    def told(self, cursor: Any, rows: Sequence[Any]) -> list[Any]:
        """Rows of the driver with values of Python's types."""
        gives = self._gives
        if gives is None:  # the first cursor says what the database calls the types
            codes = [each[1] for each in cursor.description]
            gives = self._gives = _gives(self._types, codes, self._dialect)
        if not gives:
            return list(rows)
        found = []
        for row in rows:
            values = list(row)
            for at, process in gives:
                values[at] = process(values[at])
            found.append(tuple(values))
        return found


def _take(compiled: Any, name: str, process: Callable[[Any], Any] | None) -> Callable[[Values], Any]:
    """How one parameter comes from the values given; those that the statement itself holds are converted once."""
    bound = compiled.binds.get(name)  # not one of a list of fixed values, which is spelt out
    if bound is not None and (bound.required or bound.value is _LATER):
        return itemgetter(name) if process is None else lambda given: process(given[name])
    value = compiled.params[name]
    fixed = value if process is None else process(value)
    return lambda _given: fixed


def _gives(types: Sequence[Any], codes: Sequence[Any], dialect: Any) -> list[tuple[int, Callable[[Any], Any]]]:
    """How columns are converted, by their place; those that come as they are wanted are left out."""
    found = []
    for at, (kind, code) in enumerate(zip(types, codes, strict=True)):
        process = kind._cached_result_processor(dialect, code)  # noqa: SLF001 - how SQLAlchemy itself reads
        if process is not None:
            found.append((at, process))
    return found


_FEW = 8
"""So many times at most a statement is sent one by one; more of them go to the driver together."""


class Prepared:
    """See the module. Parameters are those that the statement names with ``bindparam``."""

    def __init__(self, statement: Any, *, strict: bool = False) -> None:
        self._statement = statement
        self._strict = strict
        self._of: dict[tuple[Any, bool], _Compiled] = {}

    def all(self, session: OrmSession | sa.Connection, **given: Any) -> list[Any]:
        """All rows, as tuples."""
        compiled, cursor = self._run(session, given)
        return compiled.told(cursor, cursor.fetchall())

    def first(self, session: OrmSession | sa.Connection, **given: Any) -> Any:
        """The first row, None when there is none."""
        compiled, cursor = self._run(session, given)
        found = cursor.fetchone()
        return None if found is None else compiled.told(cursor, (found,))[0]

    def value(self, session: OrmSession | sa.Connection, **given: Any) -> Any:
        """The first row's first value, None when there is none."""
        found = self.first(session, **given)
        return None if found is None else found[0]

    def run(self, session: OrmSession | sa.Connection, **given: Any) -> int:
        """Carry it out; how many rows it changed."""
        count: int = self._run(session, given)[1].rowcount
        return count

    def later(self, session: OrmSession | sa.Connection, **given: Any) -> None:
        """Carry it out with the transaction's next statement or its commit, which then also raises what goes wrong;
        at once where that spares nothing (:func:`owing`).
        """
        connection, compiled = self._on(session)
        way = "run" if not owing(connection) else "owe_strictly" if self._strict else "owe"
        _send(connection, compiled, compiled.bound(given), way=way)

    def afterwards(self, session: OrmSession, **given: Any) -> None:
        """On PostgreSQL: carry it out after this transaction's commit, if there is one, on its own. Nobody hears if it
        fails.
        """
        connection, compiled = self._on(session)
        _send(connection, compiled, compiled.bound(given), way="follow")

    def each(self, session: OrmSession | sa.Connection, given: Sequence[Values]) -> None:
        """Carry it out with each of these."""
        if len(given) <= _FEW:
            for each in given:
                self._run(session, each)
        else:
            connection, compiled = self._on(session, many=True)
            _send(connection, compiled, [compiled.bound(each) for each in given], many=True)

    def _run(self, session: OrmSession | sa.Connection, given: Values) -> tuple[_Compiled, Any]:
        connection, compiled = self._on(session)
        return compiled, _send(connection, compiled, compiled.bound(given))

    def _on(self, session: OrmSession | sa.Connection, *, many: bool = False) -> tuple[sa.Connection, _Compiled]:
        connection = session if isinstance(session, sa.Connection) else session.connection()
        dialect = connection.dialect
        key = (dialect, many)
        compiled = self._of.get(key)
        if compiled is None:
            straight = dialect.driver == "psycopg" and not many
            compiled = self._of[key] = _Compiled(self._statement, dialect, straight=straight)
        return connection, compiled


class Inserted:
    """Rows of a kind, written past the unit of work: a few of them by one statement, in their order. ``names`` are the
    columns that are given, each for every row; none of the others may need a value.
    """

    def __init__(self, kind: type[SQLModel], names: Sequence[str]) -> None:
        table: Any = sa.inspect(kind).local_table
        self._columns = table.columns
        self._insert = sa.insert(table).inline()
        self._names = tuple(names)
        self._of: dict[int, Prepared] = {}

    def each(self, session: OrmSession | sa.Connection, given: Sequence[Values]) -> None:
        """Write these rows."""
        if len(given) > _FEW:
            self._prepared(1).each(session, [self._bound([row]) for row in given])
        elif given:
            self._prepared(len(given)).later(session, **self._bound(given))

    def _bound(self, given: Sequence[Values]) -> dict[str, Any]:
        return {f"{name}_{at}": row[name] for at, row in enumerate(given) for name in self._names}

    def _prepared(self, count: int) -> Prepared:
        found = self._of.get(count)
        if found is None:
            rows = [
                {name: sa.bindparam(f"{name}_{at}", type_=self._columns[name].type) for name in self._names}
                for at in range(count)
            ]
            found = self._of[count] = Prepared(self._insert.values(rows if count > 1 else rows[0]))
        return found


def owing(connection: sa.Connection) -> bool:
    """Whether a statement can be sent with a later one: on PostgreSQL, and not where there is a savepoint that it would
    have to be taken back to.
    """
    return connection.dialect.driver == "psycopg" and not connection.in_nested_transaction()


def _send(connection: Any, compiled: _Compiled, parameters: Any, *, many: bool = False, way: str = "run") -> Any:
    """Run a statement on the connection's driver, told to listeners, with SQLAlchemy's errors and what follows from
    them for the connection; the cursor, or what stands for it. ``way`` is the method of Straight that takes it.
    """
    text, raw = compiled.text, connection.connection
    cursor: Any = None if compiled.straight else raw.cursor()
    if connection._has_events or connection.engine._has_events:  # noqa: SLF001 - as SQLAlchemy asks
        connection.dispatch.before_cursor_execute(connection, cursor, text, parameters, None, many)
    try:
        if compiled.straight:
            return getattr(raw.dbapi_connection, way)(text, parameters)
        (cursor.executemany if many else cursor.execute)(text, parameters)
    except Exception as error:  # noqa: BLE001 - SQLAlchemy tells apart which it is
        connection._handle_dbapi_exception(error, text, parameters, cursor, None)  # noqa: SLF001 - the only way to its errors
    return cursor


class Rows(Generic[R]):
    """A statement that finds rows of one table, as objects of the session; ``make`` says which, by its columns.

    A row that the session knows already is answered as it is there, unless ``fresh``: then it becomes what was read.
    """

    def __init__(self, kind: type[R], make: Callable[[Any], Any], *, fresh: bool = False) -> None:
        self._fresh = fresh
        mapper = sa.inspect(kind)
        attributes = list(mapper.column_attrs)
        self._keys = tuple(each.key for each in attributes)
        self._key_at = self._keys.index("id")
        self._manager = manager_of_class(kind)
        self._class: Any = mapper.class_
        self._every = sa.select(*(each.columns[0] for each in attributes))
        self._found = Prepared(make(self._every))

    def all(self, session: Session, **given: Any) -> list[R]:
        """All of them."""
        if session.autoflush:
            session.flush()
        return [self.object(session, row) for row in self._found.all(session, **given)]

    def first(self, session: Session, **given: Any) -> R | None:
        """The first one."""
        if session.autoflush:
            session.flush()
        row = self._found.first(session, **given)
        return None if row is None else self.object(session, row)

    def where(self, session: Session, *conditions: Any, order_by: Any = None, limit: int | None = None) -> list[R]:
        """All for which these hold, whatever the statement says: for conditions that differ from time to time. It is
        built and compiled as ever, but read without the unit of work's detours.
        """
        if session.autoflush:
            session.flush()
        statement = self._every.where(*conditions)
        if order_by is not None:
            statement = statement.order_by(order_by)
        if limit is not None:
            statement = statement.limit(limit)
        return [self.object(session, row) for row in session.connection().execute(statement)]

    def known(self, session: Session, key: Any) -> R | None:
        """The row of this key, if the session has it."""
        found: R | None = session.identity_map.get((self._class, (key,), None))
        return None if found is None or instance_state(found).expired else found

    @property
    def columns(self) -> Sequence[Any]:
        """What :meth:`object` makes an object of, for statements that ask for more beside it."""
        return tuple(self._every.selected_columns)

    def object(self, session: Session, row: Sequence[Any]) -> R:
        """The object of a row that has :attr:`columns`."""
        identity = (self._class, (row[self._key_at],), None)
        known = session.identity_map.get(identity)
        if known is not None:
            if self._fresh or instance_state(known).expired:
                for key, value in zip(self._keys, row, strict=True):
                    set_committed_value(known, key, value)
            return known  # type: ignore[no-any-return]  # the map has objects of the mapper's class
        made: R = self._manager.new_instance()
        instance_dict(made).update(zip(self._keys, row, strict=True))
        state = instance_state(made)  # it joins the session as the ORM's own loading has it do, without further ado
        state.key = identity
        state.session_id = session.hash_key
        session.identity_map._add_unpresent(state, identity)  # noqa: SLF001 - there is no public way
        return made


_BY_KEY: dict[type[Any], Rows[Any]] = {}


def rows_of(kind: type[R]) -> Rows[R]:
    """The rows of a table by their key, ``:key``."""
    found: Rows[R] | None = _BY_KEY.get(kind)
    if found is None:
        found = _BY_KEY[kind] = Rows(kind, lambda rows: rows.where(sa.inspect(kind).columns.id == sa.bindparam("key")))
    return found


def get(session: Session, kind: type[R], key: Any) -> R | None:
    """``session.get`` for a row that is read often."""
    if key is None:
        return None
    found = rows_of(kind)
    known = found.known(session, key)
    return found.first(session, key=key) if known is None else known
