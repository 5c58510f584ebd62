"""Budgets: what an operation costs is taken from its caller before it runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from time_machine import TimeMachineFixture

from resolvers.transport.rates import Budget, MemoryRateLimiter
from tests.transport.calls import code, post, query, socket
from tests.transport.conftest import Serve

TEXT = "{ rate { limit remaining cost } servers(first: 7) { nodes { name } } }"  # costs 1 + 1 + 7


class Purse:
    """An exact rate limiter: one hundred units for ever."""

    def __init__(self) -> None:
        self.left: dict[str, int] = {}

    async def spend(self, key: str, cost: int) -> Budget:
        left = self.left.setdefault(key, 100)
        allowed = cost <= left
        self.left[key] = left - cost if allowed else left
        return Budget(allowed, 100, self.left[key], datetime(2030, 1, 1, tzinfo=UTC).timestamp(), 60)


def test_the_cost_is_taken_and_the_resolvers_see_the_budget(serve: Serve) -> None:
    server = serve(rate_limiter=Purse())
    for remaining in (90, 81):  # the first use pays for validating the text, too
        answer = query(server, TEXT, authorization="Bearer alice")
        assert answer["data"]["rate"] == {"limit": 100, "remaining": remaining, "cost": 9}
    assert query(server, TEXT, authorization="Bearer bob")["data"]["rate"]["remaining"] == 91


def test_a_spent_budget_refuses_before_anything_runs(serve: Serve) -> None:
    purse = Purse()
    server = serve(rate_limiter=purse)
    text = 'mutation { note(text: "x") }'  # costs 10
    assert post(server, {"query": text}, authorization="Bearer bob").status_code == 200
    purse.left["alice"] = 9
    answer = post(server, {"query": text}, authorization="Bearer alice")
    assert (answer.status_code, code(answer), answer.headers["retry-after"]) == (429, "RATE_LIMITED", "60")
    figures = answer.json()["errors"][0]["extensions"]
    assert (figures["limit"], figures["remaining"], figures["requested"]) == (100, 9, 10)
    assert figures["resetAt"] == "2030-01-01T00:00:00+00:00"
    assert server.room.notes == ["x"]


def test_a_spent_budget_refuses_a_new_text_before_it_is_validated(serve: Serve) -> None:
    purse = Purse()
    server = serve(rate_limiter=purse)
    purse.left["alice"] = 5
    answer = post(server, {"query": "{ nope }" + "#" * 500}, authorization="Bearer alice")
    assert (answer.status_code, code(answer)) == (429, "RATE_LIMITED")


def test_a_refused_document_costs_one_unit_and_a_free_one_too(serve: Serve) -> None:
    purse = Purse()
    server = serve(rate_limiter=purse)
    for text in ("{", "{ nope }", "{ hello }", "query A { hello } query B { hello }"):
        post(server, {"query": text}, authorization="Bearer alice")
    assert purse.left == {"alice": 95}  # five, since the one that ran paid for its text and for running


def test_sockets_pay_for_each_operation(serve: Serve) -> None:
    purse = Purse()
    server = serve(rate_limiter=purse)
    with socket(server, "alice") as opened:
        opened.subscribe("subscription { serials { name } }")
        while opened.receive()["type"] != "complete":
            pass
        assert purse.left == {"alice": 98}
        purse.left["alice"] = 0
        opened.subscribe("{ hello }")
        assert opened.receive()["payload"][0]["extensions"]["code"] == "RATE_LIMITED"


async def _spent(limiter: MemoryRateLimiter) -> list[tuple[bool, int]]:
    budgets = [await limiter.spend("alice", cost) for cost in (60, 40, 1)]
    other = await limiter.spend("bob", 1)
    assert timedelta(0) <= budgets[0].reset_at - datetime.now(UTC) <= timedelta(seconds=7201)
    return [(each.allowed, each.remaining) for each in (*budgets, other)]


def test_the_memory_limiter_counts_units_per_caller() -> None:
    import asyncio

    spent = asyncio.run(_spent(MemoryRateLimiter(100, 3_600)))
    assert spent == [(True, 40), (True, 0), (False, 0), (True, 99)]


def test_what_was_spent_fades_over_the_next_window(time_machine: TimeMachineFixture) -> None:
    import asyncio

    start = datetime(2026, 1, 1, tzinfo=UTC)
    limiter = MemoryRateLimiter(100, 60)

    def spend(after_seconds: float, cost: int) -> tuple[bool, int, float]:
        time_machine.move_to(start + timedelta(seconds=after_seconds), tick=False)
        found = asyncio.run(limiter.spend("alice", cost))
        return found.allowed, found.remaining, (found.reset_at - start).total_seconds()

    assert spend(0, 80) == (True, 20, 120)
    assert spend(59, 30) == (False, 20, 120)
    assert spend(90, 60) == (True, 0, 180)  # half of the eighty has faded
    assert spend(150, 70) == (True, 0, 240)  # and half of the sixty
    assert spend(1000, 100) == (True, 0, 1080)
