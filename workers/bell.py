"""The doorbell: a Dramatiq message that holds a job's key and nothing else.

Lost, late or doubled messages do no harm: the sweep rings again, and the claim in the job's row decides who runs it.
Dramatiq gives processes, threads and delivery; it never retries (``max_retries=0``), since the sweep is the retry.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from queue import Empty, SimpleQueue
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
ALIVE_EVERY_S = 10.0
"""How often a connection that nothing is sent over is looked after; brokers give one up after a minute or so."""
HANGS_S = 2.0
"""A broker that has not taken a message for so long is not waited for by others."""

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
    """Rings through a broker. A broker that is down costs latency, never a job.

    A broker beside this process is spoken to by one thread over one connection, kept alive: nobody who commits waits
    for it, and no connection dies unseen in a thread that rings seldom. What it does not take is handed to
    ``otherwise`` (a worker runs it itself); without one it is left to the workers' sweeps.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._inside = isinstance(broker, StubBroker)
        self._keys: SimpleQueue[int | None] = SimpleQueue()
        self._heard = True
        self._since: float | None = None
        """When the broker was spoken to, while it has not answered."""
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self.otherwise: Callable[[int], object] | None = None

    @property
    def healthy(self) -> bool:  # type: ignore[override]  # read only
        """Whether the broker took the last message, and takes no time over the next."""
        return self._heard and not self._hangs

    @property
    def _hangs(self) -> bool:
        since = self._since
        return since is not None and time.monotonic() - since > HANGS_S

    def ring(self, job_id: int) -> None:
        """Have the key enqueued; if the broker is away, say so once."""
        if self._inside:
            self._enqueue(job_id)
        elif self._hangs and self.otherwise is not None:
            self.otherwise(job_id)
        else:
            self._keys.put(job_id)
            self._start()

    def close(self, seconds: float = 2.0) -> None:
        """Ring for what is still to be rung for, and end."""
        with self._starting:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._keys.put(None)
            thread.join(seconds)

    def _start(self) -> None:
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="doorbell", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                key = self._keys.get(timeout=ALIVE_EVERY_S)
            except Empty:
                self._keep_alive()
                continue
            if key is None:
                return
            if not self._tried(key):
                self._hand_over()

    def _tried(self, job_id: int) -> bool:
        self._since = time.monotonic()
        taken = self._enqueue(job_id)
        self._since = None
        if not taken and self.otherwise is not None:
            self.otherwise(job_id)
        return taken

    def _hand_over(self) -> None:
        """Do not try a broker that is away with each key that waits."""
        while not self._keys.empty():
            key = self._keys.get()
            if key is None:
                self._keys.put(None)
                return
            if self.otherwise is not None:
                self.otherwise(key)

    def _enqueue(self, job_id: int) -> bool:
        message: dramatiq.Message[None] = dramatiq.Message(
            queue_name=QUEUE, actor_name=ACTOR, args=(job_id,), kwargs={}, options={}
        )
        try:
            self._broker.enqueue(message)
        except Exception as error:  # noqa: BLE001 - any fault of a broker's client library means the same to us
            if self._heard:
                log.warning("the broker does not take messages; the sweep will deliver", error=str(error))
            self._heard = False
        else:
            self._heard = True
        return self._heard

    def _keep_alive(self) -> None:
        """Answer RabbitMQ's heartbeats, which it ends a connection without; one that has ended is made anew later."""
        made = getattr(getattr(self._broker, "state", None), "connection", None)
        if made is None:
            return
        try:
            made.process_data_events(0)
        except Exception as error:  # noqa: BLE001 - whatever it is, another connection is the way on
            log.debug("the broker's connection is gone", error=repr(error))
            del self._broker.connection  # type: ignore[attr-defined]  # RabbitMQ's has one for each thread
