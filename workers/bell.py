"""The doorbell: a Dramatiq message that holds a job's key and nothing else.

Lost, late or doubled messages do no harm: the sweep rings again, and the claim in the job's row decides who runs it.
Dramatiq gives processes, threads and delivery; it never retries (``max_retries=0``), since the sweep is the retry.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import dramatiq
import structlog
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import AgeLimit, CurrentMessage, Retries, ShutdownNotifications

from gateway.jobs.job import Bell

if TYPE_CHECKING:
    from dramatiq import Actor, Broker

QUEUE = "stratograph"
ACTOR = "run_job"
MAX_AGE_MS = 3_600_000

log = structlog.get_logger(__name__)


class _Forgetful(list[Any]):
    """A list that keeps nothing."""

    def append(self, _item: Any) -> None:
        """Let it go."""


class Embedded(StubBroker):
    """A broker inside this process. Unlike the StubBroker for tests it keeps no dead letters, which would grow for ever
    and hold every exception: rows are the truth.
    """

    def __init__(self, middleware: list[Any]) -> None:
        super().__init__(middleware)
        self.dead_letters_by_queue = defaultdict(_Forgetful)


def open_broker(url: str | None) -> Broker:
    """The broker of a URL: None is the one inside this process, ``amqp://`` RabbitMQ, ``redis://`` Redis."""
    middleware = [AgeLimit(max_age=MAX_AGE_MS), ShutdownNotifications(), CurrentMessage(), Retries(max_retries=0)]
    if url is None:
        return Embedded(middleware=middleware)
    if url.startswith(("amqp://", "amqps://")):
        from dramatiq.brokers.rabbitmq import RabbitmqBroker

        return RabbitmqBroker(url=url, middleware=middleware)
    if url.startswith(("redis://", "rediss://")):
        from dramatiq.brokers.redis import RedisBroker

        return RedisBroker(url=url, middleware=middleware)  # type: ignore[no-untyped-call]  # dramatiq's is untyped
    raise ValueError("BROKER_URL must begin with amqp://, amqps://, redis:// or rediss://")


def declare(broker: Broker, run: Callable[[int], None]) -> Actor[..., None]:
    """The one actor."""
    make: Any = dramatiq.actor
    actor: Actor[..., None] = make(run, broker=broker, actor_name=ACTOR, queue_name=QUEUE, max_retries=0)
    return actor


class Doorbell(Bell):
    """Rings through a broker. A broker that is down costs latency, never a job."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.healthy = True

    def ring(self, job_id: int) -> None:
        """Enqueue the key; if the broker is away, say so once and leave it to the sweep."""
        message: dramatiq.Message[None] = dramatiq.Message(
            queue_name=QUEUE, actor_name=ACTOR, args=(job_id,), kwargs={}, options={}
        )
        try:
            self._broker.enqueue(message)
        except Exception as error:  # noqa: BLE001 - any fault of a broker's client library means the same to us
            if self.healthy:
                log.warning("the broker does not take messages; the sweep will deliver", error=str(error))
            self.healthy = False
        else:
            self.healthy = True
