from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlmodel import select

from gateway.compute import host as hosts
from gateway.compute.host import Amount, Host
from gateway.compute.placement import (
    Candidate,
    Constraint,
    Decision,
    GroupPolicy,
    Request,
    Together,
    decide,
    judge,
)
from tests.compute.scene import Scene
from tests.world import World

sizes = st.integers(0, 64)
unhurried = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)


@st.composite
def candidates(draw: st.DrawFn) -> list[Candidate]:
    def one(index: int) -> Candidate:
        vcpus, ram, disk = draw(st.integers(1, 64)), draw(st.integers(1, 64)), draw(st.integers(1, 64))
        return Candidate(
            id=index, uid=f"host_{index}", name=f"h{index}", hypervisor=draw(st.sampled_from(["KVM", "ESXI"])),
            availability_zone=draw(st.sampled_from(["a", "b"])),
            enabled=draw(st.booleans()), online=draw(st.booleans()),
            vcpus=vcpus, ram_mib=ram, disk_gib=disk, free_vcpus=draw(st.integers(-2, vcpus)),
            free_ram_mib=draw(st.integers(-2, ram)), free_disk_gib=draw(st.integers(-2, disk)),
            capabilities=draw(st.frozensets(st.sampled_from(["VOLUMES", "NETWORKS", "OVERLAPPING_SUBNETS"]))),
        )  # fmt: skip

    return [one(index) for index in range(draw(st.integers(0, 8)))]


@st.composite
def requests(draw: st.DrawFn) -> Request:
    return Request(
        vcpus=draw(sizes), ram_mib=draw(sizes), disk_gib=draw(sizes),
        hypervisor=draw(st.sampled_from([None, "KVM", "ESXI"])),
        availability_zone=draw(st.sampled_from([None, "a", "b"])),
        needs=draw(st.frozensets(st.sampled_from(["VOLUMES", "NETWORKS"]))),
        only=draw(st.none() | st.frozensets(st.integers(0, 7))), colliding=draw(st.frozensets(st.integers(0, 7))),
        avoid=draw(st.frozensets(st.integers(0, 7), max_size=2)), together=draw(st.none() | groups()),
    )  # fmt: skip


def groups() -> st.SearchStrategy[Together]:
    members = st.dictionaries(st.integers(0, 7), st.integers(1, 3), max_size=3)
    return st.builds(Together, st.sampled_from(GroupPolicy), st.just("g"), members, st.integers(1, 2))


def allows(group: Together | None, host_id: int) -> bool:
    if group is None:
        return True
    if group.policy is GroupPolicy.AFFINITY:
        return not group.members or host_id in group.members
    return group.policy is not GroupPolicy.ANTI_AFFINITY or group.members.get(host_id, 0) < group.most


def fits_by_brute_force(request: Request, host: Candidate) -> bool:
    return (
        host.enabled and host.online
        and request.hypervisor in (None, host.hypervisor)
        and request.availability_zone in (None, host.availability_zone)
        and request.vcpus <= max(host.free_vcpus, 0)
        and request.ram_mib <= max(host.free_ram_mib, 0)
        and request.disk_gib <= max(host.free_disk_gib, 0)
        and request.needs <= host.capabilities
        and (request.only is None or host.id in request.only)
        and (host.id not in request.colliding or "OVERLAPPING_SUBNETS" in host.capabilities)
        and host.id not in request.avoid
        and allows(request.together, host.id)
    )  # fmt: skip


@unhurried
@given(requests(), candidates())
def test_the_decision_equals_brute_force_and_names_every_host(request: Request, found: list[Candidate]) -> None:
    decision = decide(request, found)
    fitting = [host for host in found if fits_by_brute_force(request, host)]
    assert {verdict.host_uid for verdict in decision.verdicts} == {host.uid for host in found}
    assert {verdict.host_uid for verdict in decision.verdicts if verdict.fits} == {host.uid for host in fitting}
    assert (decision.chosen is None) == (not fitting)
    assert all(verdict.reasons for verdict in decision.verdicts if not verdict.fits)
    if fitting:
        best = max(judge(request, host).weight for host in fitting)
        (chosen,) = [verdict for verdict in decision.verdicts if verdict.host_uid == decision.chosen]
        assert chosen.weight == best


@unhurried
@given(requests(), candidates())
def test_counts_are_the_sum_of_the_reasons(request: Request, found: list[Candidate]) -> None:
    decision = decide(request, found)
    counted: dict[str, int] = {}
    for host in found:
        for reason in judge(request, host).reasons:
            counted[reason.constraint.value] = counted.get(reason.constraint.value, 0) + 1
    assert decision.counts == counted


@unhurried
@given(requests(), candidates())
def test_the_smallest_change_makes_it_fit(  # noqa: C901 - one case for each constraint
    request: Request, found: list[Candidate]
) -> None:
    change = decide(request, found).smallest_change
    if change is None:
        return
    mended = request
    for reason in change.changes:
        match reason.constraint:
            case Constraint.VCPUS:
                mended = replace(mended, vcpus=mended.vcpus - (reason.short_by or 0))
            case Constraint.RAM_MIB:
                mended = replace(mended, ram_mib=mended.ram_mib - (reason.short_by or 0))
            case Constraint.DISK_GIB:
                mended = replace(mended, disk_gib=mended.disk_gib - (reason.short_by or 0))
            case Constraint.HYPERVISOR:
                mended = replace(mended, hypervisor=None)
            case Constraint.AVAILABILITY_ZONE:
                mended = replace(mended, availability_zone=None)
            case Constraint.CAPABILITY:
                mended = replace(mended, needs=frozenset())
            case Constraint.VOLUME_LOCALITY:
                mended = replace(mended, only=None)
            case Constraint.AFFINITY | Constraint.ANTI_AFFINITY:
                mended = replace(mended, together=None)
            case Constraint.OVERLAPPING_SUBNET:
                mended = replace(mended, colliding=frozenset())
            case _:
                raise AssertionError(f"no change mends {reason.constraint}")
    mended_decision: Decision = decide(mended, found)
    assert mended_decision.chosen is not None


def test_parallel_claims_are_exact(world: World) -> None:
    world.host("narrow", vcpus=10, ram_mib=10_000, disk_gib=100)
    with world.db.read() as session:
        host_id = session.exec(select(Host.id).where(Host.name == "narrow")).one()
    won: list[bool] = []

    def claim() -> None:
        won.append(world.db.run(lambda session: hosts.claim(session, host_id, Amount(1, 1000, 1))))

    threads = [threading.Thread(target=claim) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 22 + [True] * 10
    row = world.host_row("narrow")
    assert (row.used_vcpus, row.used_ram_mib, row.used_disk_gib, row.free_ram_mib) == (10, 10_000, 10, 0)


@pytest.fixture
def scene(world: World) -> Scene:
    return Scene.make(world)


def test_load_is_spread_and_overcommit_acts_at_once(scene: Scene) -> None:
    scene.world.host("g", vcpus=4, ram_mib=4096, disk_gib=100)
    made = scene.alice.do(
        "serverCreate", "servers { id name } jobs { id }", name="s", flavorId=scene.flavor, imageId=scene.image, count=4
    )
    assert [each["name"] for each in made["servers"]] == ["s-1", "s-2", "s-3", "s-4"]
    assert len(made["jobs"]) == 4
    scene.world.work()
    assert [scene.world.host_row(name).used_vcpus for name in "hg"] == [2, 2]
    more = {"name": "m", "count": 5}
    scene.create(**more)
    scene.world.work()
    states = [each["status"] for each in scene.alice.ok("{ servers { nodes { status } } }")["servers"]["nodes"]]
    assert sorted(states) == ["ACTIVE"] * 8 + ["ERROR"]
    host = scene.world.admin.ok('{ hosts(filter: {name: "h"}) { nodes { id } } }')["hosts"]["nodes"][0]["id"]
    scene.world.admin.do("hostUpdate", "host { vcpuRatio }", id=host, vcpuRatio=2.0)
    scene.server()
    assert scene.world.host_row("h").used_vcpus == 5


def test_a_zone_and_a_hypervisor_are_kept(scene: Scene) -> None:
    made = scene.create(availabilityZone="elsewhere")
    scene.world.work()
    assert scene.status(made["server"]["id"]) == "ERROR"
    made = scene.create(hypervisor="KVM")
    scene.world.work()
    told = scene.alice.ok(
        """query($id: ID!) { job(id: $id) { error { ... on NoValidHost { decision {
          counts { constraint hosts } smallestChange { message } } } } } }""",
        id=made["job"]["id"],
    )["job"]["error"]["decision"]
    assert told == {
        "counts": [{"constraint": "HYPERVISOR", "hosts": 1}],
        "smallestChange": {"message": "leave the hypervisor open"},
    }


def test_a_disabled_host_takes_nothing_new(scene: Scene) -> None:
    host = scene.world.admin.ok("{ hosts { nodes { id version } } }")["hosts"]["nodes"][0]
    scene.world.admin.do(
        "hostUpdate", "host { enabled }", id=host["id"], enabled=False, expectedVersion=host["version"]
    )
    stale = scene.world.admin.refused("hostUpdate", id=host["id"], enabled=True, expectedVersion=host["version"])
    assert stale == [("STALE_VERSION", ["expectedVersion"])]
    made = scene.create()
    scene.world.work()
    assert scene.status(made["server"]["id"]) == "ERROR"
