"""The RabbitMQ and Redis of the tests: apart from each other, out and back again, and nothing left behind."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pika
import pytest
import redis

from gateway.doctor import Status
from gateway.doctor.services import broker
from tests.servers.daemon import wait_until
from tests.servers.guard import descendants
from tests.servers.rabbitmq import RabbitServer
from tests.servers.rabbitmq import answers as rabbit_answers
from tests.servers.redis import RedisServer
from tests.servers.redis import answers as redis_answers


def publish(url: str, body: bytes) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare("bells", durable=True)
        channel.basic_publish("", "bells", body, pika.BasicProperties(delivery_mode=2))


def take(url: str) -> bytes | None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.queue_declare("bells", durable=True)
        _, _, body = channel.basic_get("bells", auto_ack=True)
        taken: bytes | None = body
        return taken


def test_virtual_hosts_are_apart(rabbit_server: RabbitServer, rabbit_url: str) -> None:
    publish(rabbit_url, b"one")
    assert take(rabbit_server.new_url()) is None
    assert take(rabbit_url) == b"one"


def test_the_doctor_reaches_both(rabbit_url: str, redis_url: str) -> None:
    for url, product in ((rabbit_url, "RabbitMQ 3"), (redis_url, "Redis ")):
        found = broker(url)
        assert found.status is Status.OK, found.detail
        assert product in found.detail


@pytest.mark.timeout(300)
def test_messages_outlive_a_kill_of_rabbitmq_and_nothing_outlives_stop() -> None:
    server = RabbitServer.create()
    publish(server.url, b"kept")
    server.kill()
    assert not rabbit_answers(server.port)
    server.restart()
    wait_until(lambda: take(server.url) == b"kept", 30, "the queue is there before its messages are")
    server.pause()
    assert not rabbit_answers(server.port)
    server.resume()
    assert rabbit_answers(server.port)

    processes = [server.daemon.guard_pid, *descendants(server.daemon.guard_pid)]
    names = []
    for pid in processes:
        with suppress(FileNotFoundError):  # helpers of the broker's come and go
            names.append(Path(f"/proc/{pid}/comm").read_text().strip())
    assert "epmd" in names
    server.stop()
    assert [pid for pid in processes if Path(f"/proc/{pid}").exists()] == []
    assert not server.daemon.folder.exists()


def test_redis_databases_are_apart(redis_server: RedisServer, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as here, redis.Redis.from_url(redis_server.new_url()) as there:
        here.set("bell", os.getpid())
        assert there.get("bell") is None
        assert here.get("bell") == str(os.getpid()).encode()


def test_redis_comes_back_empty_after_a_kill(private_redis: RedisServer) -> None:
    with redis.Redis.from_url(private_redis.url) as client:
        client.set("bell", 1)
    private_redis.pause()
    assert not redis_answers(private_redis.port)
    private_redis.resume()
    private_redis.kill()
    private_redis.restart()
    with redis.Redis.from_url(private_redis.url) as client:
        assert client.get("bell") is None
