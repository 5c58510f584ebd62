"""Examines the services of a scaled-out cloud: the database and the broker that the settings name, if they name any.

A connection is opened and closed, nothing is read or written. Passwords never reach a finding: only scheme, host and
port do.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy

from gateway.doctor.report import Finding, broken, missing, ok

SECONDS = 5


def place(url: str) -> str:
    """The part of an address that may be shown."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"


def reason(error: BaseException, url: str) -> str:
    """An error's first line, without the password of that address."""
    text = str(error).strip().splitlines()
    secret = urlsplit(url).password
    line = text[0] if text else type(error).__name__
    return line.replace(secret, "***") if secret else line


def database(url: str) -> Finding:
    """A database other than SQLite."""
    parsed = sqlalchemy.make_url(url)
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    engine: sqlalchemy.Engine | None = None
    try:
        arguments: dict[str, Any] = {"connect_timeout": SECONDS} if parsed.drivername.startswith("postgresql") else {}
        engine = sqlalchemy.create_engine(parsed, connect_args=arguments)
        with engine.connect() as connection:
            version = ".".join(map(str, connection.dialect.server_version_info or ()))
        return ok("database", f"{place(url)}, version {version}", required=True)
    except ImportError as error:
        return missing("database", reason(error, url), "pip install 'stratograph[postgres]'", required=True)
    except sqlalchemy.exc.SQLAlchemyError as error:
        remedy = "start it, or correct STRATOGRAPH_DATABASE_URL"
        return broken("database", f"{place(url)}: {reason(error, url)}", remedy, required=True)
    finally:
        if engine is not None:
            engine.dispose()


def ask_rabbitmq(pika: Any, url: str) -> str:
    """The version of the RabbitMQ at that address."""
    parameters = pika.URLParameters(url)
    parameters.socket_timeout = parameters.blocked_connection_timeout = parameters.stack_timeout = SECONDS
    parameters.connection_attempts = 1
    connection = pika.BlockingConnection(parameters)
    properties = connection._impl.server_properties  # noqa: SLF001 - pika offers no other way to the version
    connection.close()
    return f"RabbitMQ {properties.get('version', b'?')}"


def ask_redis(redis: Any, url: str) -> str:
    """The version of the Redis at that address."""
    with redis.Redis.from_url(url, socket_timeout=SECONDS, socket_connect_timeout=SECONDS) as client:
        return f"Redis {client.info('server')['redis_version']}"


BROKERS: dict[str, tuple[str, str, Callable[[Any, str], str]]] = {
    "amqp": ("pika", "rabbitmq", ask_rabbitmq),
    "amqps": ("pika", "rabbitmq", ask_rabbitmq),
    "redis": ("redis", "redis", ask_redis),
    "rediss": ("redis", "redis", ask_redis),
}


def broker(url: str) -> Finding:
    """RabbitMQ or Redis."""
    scheme = urlsplit(url).scheme
    if scheme not in BROKERS:
        return broken("broker", place(url), "STRATOGRAPH_BROKER_URL must begin with amqp:// or redis://", required=True)
    module, extra, ask = BROKERS[scheme]
    try:
        client = importlib.import_module(module)
    except ImportError as error:
        return missing("broker", str(error), f"pip install 'stratograph[{extra}]'", required=True)
    try:
        return ok("broker", f"{place(url)}, {ask(client, url)}", required=True)
    except Exception as error:  # noqa: BLE001 - each client library has its own errors, and all mean the same here
        remedy = "start it, or correct STRATOGRAPH_BROKER_URL"
        return broken("broker", f"{place(url)}: {reason(error, url) or type(error).__name__}", remedy, required=True)
