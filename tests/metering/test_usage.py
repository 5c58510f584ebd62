from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlmodel import col, select

from gateway.metering.usage import Interval, Metered
from tests.compute.scene import Scene
from tests.world import START, World

USAGE = """query($input: UsageInput!) { usage(input: $input) {
  totals { resource amountSeconds } lines { resource objectId amountSeconds } } }"""


@pytest.fixture
def scene(world: World) -> Scene:
    return Scene.make(world)


def used(scene: Scene) -> dict[str, Decimal]:
    period = {"start": START.isoformat(), "end": (scene.world.clock.at + timedelta(days=1)).isoformat()}
    report = scene.alice.ok(USAGE, input=period)["usage"]
    return {each["resource"]: Decimal(each["amountSeconds"]) for each in report["totals"]}


def grown(scene: Scene, act: Any) -> dict[str, Decimal]:
    """What exactly an hour costs, after ``act``."""
    act()
    scene.world.clock.tick = timedelta(0)
    before = used(scene)
    scene.world.clock.advance(hours=1)
    after = used(scene)
    scene.world.clock.tick = timedelta(milliseconds=1)
    return {name: after[name] - before.get(name, Decimal(0)) for name in after}


def test_an_hour_counts_what_runs_and_what_is_kept(scene: Scene) -> None:
    server = scene.server(networks=[{"networkId": scene.network}], volumes=[{"sizeGib": 3}])
    hour = grown(scene, lambda: None)
    assert {k: hour[k] for k in ("VCPU", "RAM_MIB", "DISK_GIB", "VOLUME_GIB", "ADDRESS")} == {
        "VCPU": 3600, "RAM_MIB": 3600 * 512, "DISK_GIB": 3600 * 2, "VOLUME_GIB": 3600 * 3, "ADDRESS": 3600,
    }  # fmt: skip
    hour = grown(scene, lambda: scene.do_and_work("serverStop", id=server))
    assert [hour[name] for name in ("VCPU", "RAM_MIB", "DISK_GIB")] == [0, 0, 7200]
    hour = grown(scene, lambda: scene.do_and_work("serverDelete", id=server))
    assert [hour[name] for name in ("VCPU", "DISK_GIB", "VOLUME_GIB", "ADDRESS")] == [0, 0, 3 * 3600, 0]


def test_stopped_behind_our_back_counts_until_it_is_seen(scene: Scene) -> None:
    server = scene.server()
    scene.centre.stop(scene.world.uid(server))
    assert grown(scene, lambda: scene.world.reconcile("servers"))["VCPU"] == 0


def test_the_future_counts_nothing_and_a_bad_period_is_refused(scene: Scene) -> None:
    scene.server()
    ahead = {"start": "2030-01-01T00:00:00Z", "end": "2031-01-01T00:00:00Z"}
    assert scene.alice.ok(USAGE, input=ahead)["usage"] == {"totals": [], "lines": []}
    assert scene.alice.run(USAGE, input={"start": ahead["end"], "end": ahead["start"]}).errors
    other = scene.world.member(scene.world.tenant())
    assert other.run(USAGE, input={**ahead, "tenantId": scene.tenant}).codes == ["NOT_FOUND"]


def test_samples_are_kept_and_rolled_up(scene: Scene) -> None:
    server = scene.server()
    ask = "query($id: ID!) { server(id: $id) { metrics { at cpuTimeNs cpuPercent vcpus ramMib quality } } }"
    assert scene.alice.ok(ask, id=server)["server"]["metrics"] is None
    totals = []
    for _ in range(4):
        scene.world.clock.advance(seconds=60)
        scene.world.reconcile("samples")
        told = scene.alice.ok(ask, id=server)["server"]["metrics"]
        assert told["quality"] == "EXACT"
        totals.append(told["cpuTimeNs"])
    assert totals == sorted(set(totals))
    hours = scene.alice.ok(
        """query($id: ID!) { server(id: $id) {
             metricsByHour(start: "2026-01-01T00:00:00Z", end: "2026-01-02T00:00:00Z") { samples cpuTimeNs } } }""",
        id=server,
    )["server"]["metricsByHour"]
    assert sum(each["samples"] for each in hours) == 4
    assert sum(each["cpuTimeNs"] for each in hours) == totals[-1]


def test_nothing_is_sampled_while_off(scene: Scene) -> None:
    server = scene.server()
    scene.do_and_work("serverStop", id=server)
    scene.world.clock.advance(seconds=60)
    scene.world.reconcile("samples")
    ask = "query($id: ID!) { server(id: $id) { metrics { at } } }"
    assert scene.alice.ok(ask, id=server)["server"]["metrics"] is None


def test_all_of_one_change_begins_and_ends_at_one_moment(scene: Scene) -> None:
    """The clock moves with each look at it: memory over vCPUs is exactly the server's size all the same."""
    server = scene.server()
    scene.do_and_work("serverStop", id=server)
    scene.do_and_work("serverStart", id=server)
    scene.do_and_work("serverDelete", id=server)
    with scene.world.db.read() as session:
        found = session.exec(select(Interval).order_by(col(Interval.started_at))).all()
    periods = {
        kind: [(each.started_at, each.ended_at) for each in found if each.resource is kind]
        for kind in (Metered.VCPU, Metered.RAM_MIB)
    }
    assert len(periods[Metered.VCPU]) == 2
    assert periods[Metered.VCPU] == periods[Metered.RAM_MIB]
    report = used(scene)
    assert report["RAM_MIB"] == 512 * report["VCPU"]
