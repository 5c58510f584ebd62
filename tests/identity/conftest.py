"""A world in which people sign in: cheap hashing, and clients that are recognised by their token alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from gateway.identity import authentication, bootstrap
from gateway.identity.keys import Keyring
from gateway.identity.password import Passwords
from gateway.identity.recognised import Recognised
from gateway.kernel.access import NOBODY, Role, Subject
from gateway.kernel.db import Database
from gateway.kernel.secretbox import Sealed
from tests.world import Client, World

PASSWORD = "correct-horse-7"
CHEAP = {"time_cost": 1, "memory_kib": 8, "parallelism": 1}


@dataclass(slots=True)
class Person:
    """Somebody with a user of their own, made by userCreate."""

    world: World
    id: str
    name: str
    password: str = PASSWORD

    def sign_in(self) -> str:
        """A new session's token."""
        return sign_in(self.world, self.name, self.password)

    def client(self) -> Client:
        """This person, signed in anew."""
        return with_token(self.world, self.sign_in())


def with_token(world: World, token: str) -> Client:
    """Whoever shows this token, as recognised now."""
    found = authentication.authenticate(world.db, token)
    return Client(world, authentication.told(found, address="", request_id="request-1", user_agent="pytest"))


def from_address(world: World, address: str, user_agent: str = "") -> Client:
    """Somebody who is not signed in, at an address."""
    return Client(world, Subject(address=address, user_agent=user_agent))


def sign_in(world: World, name: str, password: str) -> str:
    """The token of a sign-in that must work."""
    payload = Client(world, NOBODY).do("sessionCreate", "token", username=name, password=password)
    token: str = payload["token"]
    return token


def equip(world: World) -> Sealed:
    """What a composition root gives, with cheap hashing; the box that the signing keys are sealed in."""
    box = Sealed([Fernet.generate_key()])
    bootstrap.equip(world.db, box)
    world.db.provide("passwords", Passwords(**CHEAP, at_once=4, waiting=200))
    world.db.provide("sealed", box)
    return box


@pytest.fixture
def world(world: World) -> World:
    """The world, equipped for signing in."""
    equip(world)
    return world


@pytest.fixture
def person(world: World) -> Callable[..., Person]:
    """Makes users: ``person("ada", admin=True)``."""

    def make(name: str, **given: Any) -> Person:
        made = world.admin.do("userCreate", "user { id }", name=name, password=PASSWORD, **given)
        return Person(world, made["user"]["id"], name)

    return make


@pytest.fixture
def place(world: World) -> Callable[..., str]:
    """Makes tenants with members: ``place("lab", {ada: "MEMBER"})``; the tenant's id."""

    def make(name: str, members: dict[str, str] | None = None) -> str:
        made: str = world.admin.do("tenantCreate", "tenant { id }", name=name)["tenant"]["id"]
        for user_name, role in (members or {}).items():
            world.admin.do(
                "memberAdd", "membership { id }", tenantId=made, user={"name": user_name}, role=Role(role).value
            )
        return made

    return make


@pytest.fixture(params=["sqlite", "postgresql"])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """The equipped world on each database: for what must be exact when many act at once."""
    postgres = request.param == "postgresql"
    url = request.getfixturevalue("migrated_url") if postgres else f"sqlite:///{tmp_path / 'both.db'}"
    made = World.open(url, tmp_path)
    equip(made)
    yield made
    made.close()


def second_process(world: World) -> World:
    """The same cloud as another API process has it: its own connections, keys and memory."""
    with world.db.read() as session:
        box = session.info["sealed"]
    db = Database(world.db.url.render_as_string(hide_password=False), now=world.clock)
    db.provide("sealed", box)
    db.provide("keyring", Keyring(db, box))
    db.provide("recognised", Recognised())
    return replace(world, db=db, services=replace(world.services, db=db), centres=[])


def together(count: int, act: Callable[[int], Any]) -> list[Any]:
    """What ``act(0) ... act(count - 1)`` answer, all begun at the same moment."""
    gate = threading.Barrier(count)

    def one(number: int) -> Any:
        gate.wait(timeout=60)
        return act(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))
