"""What many ask for in the same moment is made once, and nobody suffers from the others."""

from __future__ import annotations

import asyncio

import pytest

from resolvers.transport.once import Once

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_it_is_made_once_for_all_who_ask_meanwhile_and_kept_for_a_while() -> None:
    once: Once[int] = Once()
    made: list[str] = []
    gate = asyncio.Event()

    async def make(name: str) -> int:
        made.append(name)
        await gate.wait()
        return len(name)

    asked = [asyncio.create_task(once.get(key, lambda key=key: make(key))) for key in ("a", "bb", "a", "bb", "a")]  # type: ignore[misc]  # mypy cannot infer a defaulted lambda
    await asyncio.sleep(0)
    gate.set()
    assert await asyncio.gather(*asked) == [1, 2, 1, 2, 1]
    assert await once.get("a", lambda: make("never")) == 1
    assert made == ["a", "bb"]


async def test_nothing_is_kept_that_is_only_shared_while_it_is_made() -> None:
    once: Once[int] = Once(0)
    made: list[int] = []

    async def make() -> int:
        made.append(1)
        await asyncio.sleep(0)
        return len(made)

    assert await asyncio.gather(*(once.get("a", make) for _ in range(3))) == [1, 1, 1]
    assert await once.get("a", make) == 2


async def test_whoever_asked_first_may_leave() -> None:
    once: Once[str] = Once()
    gate = asyncio.Event()

    async def make() -> str:
        await gate.wait()
        return "there"

    first = asyncio.create_task(once.get("a", make))
    second = asyncio.create_task(once.get("a", make))
    await asyncio.sleep(0)
    first.cancel()
    gate.set()
    assert await second == "there"
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_failure_is_told_to_all_and_tried_again_by_the_next() -> None:
    once: Once[int] = Once()
    made: list[int] = []

    async def make() -> int:
        made.append(1)
        await asyncio.sleep(0)
        if len(made) == 1:
            raise ValueError("the first time")
        return 2

    told = await asyncio.gather(once.get("a", make), once.get("a", make), return_exceptions=True)
    assert [str(each) for each in told] == ["the first time"] * 2
    assert await once.get("a", make) == 2


async def test_no_more_is_kept_than_it_may() -> None:
    once: Once[int] = Once(most=2)
    made: list[int] = []

    async def make(number: int) -> int:
        made.append(number)
        return number

    for number in (1, 2, 3, 3, 1):
        assert await once.get(number, lambda number=number: make(number)) == number  # type: ignore[misc]  # mypy cannot infer a defaulted lambda
    assert made == [1, 2, 3, 1]
