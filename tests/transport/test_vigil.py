"""One watch over a token for all its sockets: whoever comes right after the last one left is watched anew."""

from __future__ import annotations

import asyncio

import pytest

from resolvers.transport.vigil import Vigil
from tests.transport.toy_identity import Desk, ToyIdentity

POLL_S = 0.01
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def _turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_who_comes_as_the_last_one_leaves_is_not_told_of_an_end() -> None:
    vigil, identity = Vigil(POLL_S), ToyIdentity("ann", Desk())
    for _ in range(20):
        with vigil.over(identity) as before:
            await _turns()
            assert not before.done()
        with vigil.over(identity) as after:  # before the watch of the one who left has ended
            await _turns()
            assert not after.done()
    await _turns()
    assert len(vigil) == 0


async def test_all_who_showed_a_token_are_told_of_its_end() -> None:
    desk = Desk()
    vigil, ann, bob = Vigil(POLL_S), ToyIdentity("ann", desk), ToyIdentity("bob", desk)
    with vigil.over(ann) as gone, vigil.over(ann) as gone_too, vigil.over(bob) as stays:
        desk.revoked.add("ann")
        await asyncio.wait_for(asyncio.gather(gone, gone_too), 5)
        assert not stays.done()
    assert len(vigil) == 0
