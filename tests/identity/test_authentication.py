"""The transport's side: tokens become identities, and identities stay as good as the database says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from gateway.kernel.errors import Unauthenticated
from resolvers.identity.authentication import Anonymous, Known, Recogniser
from resolvers.transport.caller import Caller, Identity, Transport
from tests.identity.conftest import Person, with_token
from tests.world import World

People = Callable[..., Person]
Places = Callable[..., str]


def _caller(token: str | None) -> Caller:
    return Caller(token, "198.51.100.7", "curl/8", "request-of-caller", Transport.HTTP)


def test_no_token_is_somebody_at_an_address(world: World) -> None:
    async def act() -> None:
        found: Identity = await Recogniser(world.db).authenticate(_caller(None))
        assert isinstance(found, Anonymous)
        assert (found.key, found.expires_at, await found.valid()) == ("address 198.51.100.7", None, True)
        subject = await found.current(_caller(None))
        assert (subject.signed_in, subject.address, subject.user_agent) == (False, "198.51.100.7", "curl/8")

    asyncio.run(act())


def test_a_bad_token_is_refused_and_never_nobody(world: World) -> None:
    for token in ("", "x", "a.b.c", "sgk_x"):
        with pytest.raises(Unauthenticated) as refused:
            asyncio.run(Recogniser(world.db).authenticate(_caller(token)))
        assert refused.value.code.value == "UNAUTHENTICATED"


def test_a_socket_sees_roles_change_and_the_session_end(world: World, person: People, place: Places) -> None:
    ada = person("ada")
    token = ada.sign_in()

    async def act() -> None:
        found = await Recogniser(world.db).authenticate(_caller(token))
        assert isinstance(found, Known)
        assert found.key.startswith("session_")
        assert found.expires_at is not None
        subject = await found.current(_caller(token), "request-of-operation")
        assert (subject.user_name, subject.request_id, dict(subject.roles)) == ("ada", "request-of-operation", {})
        lab = await asyncio.to_thread(place, "lab", {"ada": "MEMBER"})
        assert len((await found.current(_caller(token))).roles) == 1
        assert lab.startswith("tenant_")
        assert await found.valid()
        await asyncio.to_thread(lambda: with_token(world, token).do("sessionRevoke", "sessions { id }"))
        assert not await found.valid()
        with pytest.raises(Unauthenticated):
            await found.current(_caller(token))

    asyncio.run(act())


def test_a_key_is_counted_by_itself(world: World, person: People, place: Places) -> None:
    ada = person("ada")
    lab = place("lab", {"ada": "MANAGER"})
    made = ada.client().do("apiKeyCreate", "apiKey { id } token", name="ci", tenantId=lab, role="READER")
    found = asyncio.run(Recogniser(world.db).authenticate(_caller(made["token"])))
    assert (found.key, found.expires_at) == (made["apiKey"]["id"], None)
