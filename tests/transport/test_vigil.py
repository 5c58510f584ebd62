"""One watch over a token for all its sockets: whoever comes right after the last one left is watched anew."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

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


async def _checked(desk: Desk, times: int) -> None:
    async with asyncio.timeout(5):
        while desk.checks < times:  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(POLL_S)


class Steady(ToyIdentity):
    """One that can tell that nothing has changed."""

    @property
    def steady(self) -> Callable[[], int]:
        return self.desk.revoked.__len__


async def test_nobody_is_checked_again_until_something_changes_and_then_everybody() -> None:
    desk = Desk()
    vigil, ann, bob = Vigil(POLL_S), Steady("ann", desk), Steady("bob", desk)
    with vigil.over(ann) as gone, vigil.over(bob) as stays:
        await _checked(desk, 2)
        await asyncio.sleep(10 * POLL_S)
        assert desk.checks == 2, "once each"
        desk.revoked.add("ann")
        await asyncio.wait_for(gone, 5)
        await _checked(desk, 4)
        assert not stays.done()


async def test_what_expires_ends_though_nothing_changes() -> None:
    ann = Steady("ann", Desk(), datetime.now(UTC) + timedelta(seconds=0.1))
    with Vigil(POLL_S).over(ann) as gone:
        await asyncio.wait_for(gone, 5)
    assert ann.expires_at is not None
    assert datetime.now(UTC) >= ann.expires_at
