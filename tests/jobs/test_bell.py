"""The doorbell beside a broker: who commits does not wait for it, and what it does not take is not lost."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pika
import pytest

from tests.jobs.queue import at_once
from tests.servers.daemon import free_port, wait_until
from workers import bell as bells
from workers.bell import QUEUE, Doorbell, declare, open_broker


@pytest.fixture
def hanging() -> Iterator[socket.socket]:
    """A broker that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def doorbell(url: str) -> tuple[Doorbell, list[int]]:
    """A bell, and what it handed over."""
    broker = open_broker(url)
    declare(broker, lambda _job_id: None)
    handed: list[int] = []
    made = Doorbell(broker)
    made.otherwise = handed.append
    return made, handed


def taken(url: str) -> list[int]:
    """The keys in the queue."""
    found = []
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        while (body := channel.basic_get(QUEUE, auto_ack=True)[2]) is not None:
            found.extend(json.loads(body)["args"])
    return found


def test_all_threads_ring_over_one_connection(rabbit_url: str) -> None:
    bell, handed = doorbell(rabbit_url)

    def ring(number: int) -> None:
        for each in range(10):
            bell.ring(number * 10 + each)

    at_once(8, ring)
    bell.close(30)
    assert sorted(taken(rabbit_url)) == list(range(80))
    assert len(bell._broker.connections) == 1  # type: ignore[attr-defined]  # RabbitMQ's
    assert (bell.healthy, handed) == (True, [])


def test_a_connection_that_is_looked_after_goes_on(rabbit_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after one that was found closed."""
    monkeypatch.setattr(bells, "ALIVE_EVERY_S", 0.01)
    bell, handed = doorbell(rabbit_url)
    connections = bell._broker.connections  # type: ignore[attr-defined]  # RabbitMQ's
    bell.ring(1)
    wait_until(lambda: len(connections) == 1 and bell._keys.empty() and bell._since is None, 30, "it did not ring")
    (first,) = connections
    first.add_callback_threadsafe(first.close)
    wait_until(lambda: not connections, 30, "the closed connection was kept")
    bell.ring(2)
    bell.close(30)
    assert (sorted(taken(rabbit_url)), handed) == ([1, 2], [])


def test_what_a_broker_that_is_away_does_not_take_is_handed_over_once() -> None:
    bell, handed = doorbell(f"amqp://127.0.0.1:{free_port()}")
    for key in range(20):
        bell.ring(key)
    bell.close(60)
    assert sorted(handed) == list(range(20))
    assert not bell.healthy


def test_nobody_waits_for_a_broker_that_hangs(hanging: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bells, "HANGS_S", 0.05)
    bell, handed = doorbell(f"amqp://127.0.0.1:{hanging.getsockname()[1]}")
    bell.ring(1)
    wait_until(lambda: not bell.healthy, 30, "it was not found out")
    bell.ring(2)
    assert handed == [2]
    hanging.close()
    bell.close(60)
    assert handed == [2, 1]
