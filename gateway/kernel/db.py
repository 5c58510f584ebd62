"""The database: one synchronous data layer on SQLite and PostgreSQL.

Reads and writes have sessions of their own. A write is one unit of work: :meth:`Database.run` calls a function with a
session, commits, and only then rings the bells which the work asked for (:func:`after_commit`). Work that meets a
concurrent change (a stale version, a deadlock, a unique key taken in the same instant) is run again from its start, so
it must do nothing but read and change rows.

SQLite needs ``BEGIN IMMEDIATE`` for writes: with a deferred BEGIN it loses updates without an error (measured, see
decision 0003). One lock per process makes its writers queue in order instead of polling each other.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import sqlalchemy as sa
import structlog
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import make_transient_to_detached
from sqlalchemy.orm.attributes import instance_dict, manager_of_class
from sqlalchemy.orm.exc import StaleDataError
from sqlmodel import Session, SQLModel

from gateway.kernel import clock, ids
from gateway.kernel.errors import Conflict, Unavailable
from gateway.kernel.prepared import Prepared

T = TypeVar("T")
R = TypeVar("R", bound=SQLModel)

ATTEMPTS = 20
"""How often work is run when concurrent changes are in its way."""

_ATTEMPTS_ON_A_TAKEN_KEY = 4

_RETRYABLE_SQLSTATES = frozenset({"40001", "40P01", "55P03"})

log = structlog.get_logger(__name__)


class Database:
    """Two engines on one database, and the only place that commits."""

    def __init__(self, url: str, *, now: clock.Clock = clock.system, uids: ids.UidSource = ids.system) -> None:
        self.url = sa.make_url(url)
        self.sqlite = self.url.get_backend_name() == "sqlite"
        if not self.sqlite and self.url.drivername == "postgresql":
            self.url = self.url.set(drivername="postgresql+psycopg")
        self._info: dict[Any, Any] = {"clock": now, "uids": uids}
        self.clock = now
        self._writers: threading.RLock | _NoLock = threading.RLock() if self.sqlite else _NoLock()
        self.token = secrets.token_hex(8)
        """Tells this object apart from those of other processes."""
        self.announced: list[Callable[[], None]] = []
        """Called after every commit that wrote events (from the thread that wrote)."""
        if self.sqlite:
            self._read = _one_compiler(_sqlite_engine(self.url, write=False))
            self._write = _one_compiler(_sqlite_engine(self.url, write=True))
        else:
            self._write = _one_compiler(_postgresql_engine(self.url))
            _ping_idle(self._write)
            self._read = self._write.execution_options(isolation_level="AUTOCOMMIT")

    @property
    def engine(self) -> sa.Engine:
        """The engine for migrations and the like."""
        return self._write

    def provide(self, name: str, value: object) -> None:
        """Have every later session carry ``value`` in its ``info`` (the bell, quotas' defaults ...)."""
        self._info[name] = value

    @property
    def info(self) -> dict[Any, Any]:
        """What sessions find in their ``info``: for what needs no rows, and so no session. Not to be changed."""
        return self._info

    def provided(self, name: str) -> Any:
        """What sessions find under that name in their ``info``; None when nothing was provided."""
        return self._info.get(name)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that only reads. Objects stay usable after it."""
        try:
            with Session(self._read, expire_on_commit=False, autoflush=False, info=dict(self._info)) as session:
                yield session
        except (OperationalError, InterfaceError, PoolTimeout) as error:
            raise _away(error) from error

    def look(self, work: Callable[[Session], T]) -> T:
        """Run ``work``, which only reads, in a session; once more when the connection it got turned out to be cut."""
        try:
            with self.read() as session:
                return work(session)
        except Unavailable as error:
            if not _was_cut(error.__cause__):
                raise
        with self.read() as session:
            return work(session)

    def value(self, statement: Prepared | sa.Executable, parameters: dict[str, Any]) -> Any:
        """The first value that a statement finds, None when there is none: for looks at one column of one row, of
        which a session would be most of the cost. Like :meth:`look`, it does not mind a connection that was cut.
        """
        try:
            return self._value(statement, parameters)
        except (OperationalError, InterfaceError, PoolTimeout) as error:
            if not _was_cut(error):
                raise _away(error) from error
        try:
            return self._value(statement, parameters)
        except (OperationalError, InterfaceError, PoolTimeout) as error:
            raise _away(error) from error

    def _value(self, statement: Prepared | sa.Executable, parameters: dict[str, Any]) -> Any:
        with self._read.connect() as connection:
            if isinstance(statement, Prepared):
                return statement.value(connection, **parameters)
            return connection.execute(statement, parameters).scalar()

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One unit of work without retries: for callers that hold their own loop. Prefer :meth:`run`."""
        with self._writers, Session(self._write, expire_on_commit=False, info=dict(self._info)) as session:
            session.info["after_commit"] = []
            yield session
            session.commit()
        for call in session.info["after_commit"]:
            call()
        if session.info.get("announced"):
            for call in self.announced:
                call()

    def run(self, work: Callable[[Session], T]) -> T:
        """Run ``work`` in one transaction and commit; again from its start when others were in the way."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with self.write() as session:
                    return work(session)
            except (StaleDataError, IntegrityError, OperationalError, InterfaceError, PoolTimeout) as error:
                if not _concurrent(error):
                    raise _away(error) from error
                if attempt >= (_ATTEMPTS_ON_A_TAKEN_KEY if isinstance(error, IntegrityError) else ATTEMPTS):
                    raise
                log.info("transaction tried again", attempt=attempt, error=type(error).__name__)
                time.sleep(min(0.001 * 2**attempt, 0.25))
        raise AssertionError("unreachable")

    def rehearse(self, work: Callable[[Session], T]) -> T:
        """Run ``work`` as :meth:`run` would, answer what it found, and take everything back."""
        with self._writers, Session(self._write, expire_on_commit=False, info=dict(self._info)) as session:
            session.info["after_commit"] = []
            try:
                return work(session)
            finally:
                session.rollback()

    def close(self) -> None:
        """Drop all connections."""
        self._read.dispose()
        self._write.dispose()


def after_commit(session: Session, call: Callable[[], None]) -> None:
    """Have ``call`` made once this unit of work is committed, and never when it is not."""
    session.info["after_commit"].append(call)


def unread(session: Session, known: R) -> R:
    """A copy of a row that was committed, in this session, as if it had just been loaded. Whoever changes it finds out
    by its version if it was not the newest; whoever does not may be reading what is no more.
    """
    values = instance_dict(known)
    kind = type(known)
    copy: R = manager_of_class(kind).new_instance()
    instance_dict(copy).update({each.key: values[each.key] for each in sa.inspect(kind).column_attrs})
    make_transient_to_detached(copy)
    session.add(copy)
    return copy


@contextmanager
def unique(session: Session, message: str, *path: str) -> Iterator[None]:
    """Flush in a savepoint; a unique key that is taken becomes a Conflict at that path of the input."""
    try:
        with session.begin_nested():
            yield
            session.flush()
    except IntegrityError as error:
        raise Conflict(message, path=path) from error


class _NoLock:
    """PostgreSQL has its own queue."""

    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


def _away(error: Exception) -> Unavailable:
    log.warning("the database cannot be used", error=repr(error))
    return Unavailable("The database cannot be used right now. Nothing was changed; try again.")


def _was_cut(error: BaseException | None) -> bool:
    """Whether the database had ended the connection; SQLAlchemy then drops all that are older than this moment."""
    return isinstance(error, DBAPIError) and error.connection_invalidated


def _concurrent(error: Exception) -> bool:
    if isinstance(error, StaleDataError | IntegrityError):
        return True
    if not isinstance(error, DBAPIError) or error.orig is None:
        return False
    state = getattr(error.orig, "sqlstate", None)
    return state in _RETRYABLE_SQLSTATES or "database is locked" in str(error.orig)


_COMPILERS: dict[str, sa.Engine] = {}
"""The engine of each driver in this process whose compiled statements the others use."""


def _one_compiler(engine: sa.Engine) -> sa.Engine:
    """Have all engines of one driver share their dialect and its compiled statements: compiling a statement costs many
    times its running, and SQLite's two engines are asked much the same. Nothing else of the first engine is used.
    """
    name = engine.url.drivername
    if name == "sqlite" and name not in _COMPILERS:
        _COMPILERS[name] = sa.create_engine("sqlite://")
        _COMPILERS[name].connect().close()  # a dialect learns what its library can do from a first connection
    first = _COMPILERS.setdefault(name, engine)
    if getattr(first.dialect, "server_version_info", None) is not None:
        engine.dialect = first.dialect
        engine._compiled_cache = first._compiled_cache  # noqa: SLF001 - its keys hold the dialect: no option shares it
    return engine


def _postgresql_engine(url: sa.URL) -> sa.Engine:
    """Its connections are those that send several statements at a time."""
    from gateway.kernel.straight import Straight  # psycopg is only there where PostgreSQL is

    engine = sa.create_engine(url, pool_size=16, max_overflow=16, pool_use_lifo=True)

    @sa.event.listens_for(engine, "do_connect")
    def _connect(_dialect: Any, _record: object, _arguments: object, options: dict[str, Any]) -> Any:
        return Straight.connect(**options)

    return engine


PING_AFTER_S = 1.0
"""A connection that was used more lately than that is taken to be alive: a ping costs as much as a small read."""


def _ping_idle(engine: sa.Engine) -> None:
    """Have connections that were idle for a while checked before they are used, and replaced when they are dead."""

    @sa.event.listens_for(engine, "checkin")
    def _checkin(_connection: Any, record: Any) -> None:
        record.info["used"] = time.monotonic()

    @sa.event.listens_for(engine, "checkout")
    def _checkout(connection: Any, record: Any, _proxy: object) -> None:
        if time.monotonic() - record.info.get("used", time.monotonic()) < PING_AFTER_S:
            return
        try:
            engine.dialect.do_ping(connection)
        except Exception as error:
            raise sa.exc.DisconnectionError from error


def _sqlite_engine(url: sa.URL, *, write: bool) -> sa.Engine:
    engine = sa.create_engine(
        url, connect_args={"check_same_thread": False, "timeout": 10}, pool_size=1 if write else 8, max_overflow=8
    )

    @sa.event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver's own BEGIN is deferred; ours below is not
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=10000"):
            connection.execute(f"PRAGMA {pragma}")
        if not write:
            connection.execute("PRAGMA query_only=ON")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        if write:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:  # a deferred BEGIN asks for no lock, so it cannot fail; SQLAlchemy's way would cost as much as a read
            connection.connection.driver_connection.execute("BEGIN")  # type: ignore[union-attr]  # sqlite3's own

    return engine
