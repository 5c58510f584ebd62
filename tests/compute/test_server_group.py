"""Server groups: apart and together, strictly and softly, however many are made at once."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest
from sqlmodel import col, select

from gateway.compute.host import Host
from gateway.compute.server import Server
from gateway.compute.server_state import ServerStatus
from gateway.kernel import noun
from gateway.kernel.access import Role
from tests.compute.scene import Scene
from tests.world import World

FIELDS = "serverGroup { id name policy maxPerHost tenant { id } servers { totalCount } }"
EXPLAINED = """query($id: ID!) { job(id: $id) { error { ... on NoValidHost { decision {
  considered counts { constraint hosts } smallestChange { message } } } } } }"""
PLAN = """query($input: ServerCreateInput!) { serverCreatePlan(input: $input) { possible decision {
  counts { constraint hosts } chosen { name } verdicts { fits host { name } reasons { constraint message } } } } }"""


@pytest.fixture
def scene(world: World) -> Scene:
    """Three hosts, each with room for four servers."""
    made = Scene.make(world)
    for name in ("i", "j"):
        world.host(name, vcpus=4, ram_mib=4096, disk_gib=100)
    return made


def group(scene: Scene, policy: str, **given: Any) -> str:
    made = scene.alice.do("serverGroupCreate", FIELDS, name=policy.lower(), policy=policy, **given)
    found: str = made["serverGroup"]["id"]
    return found


def where(scene: Scene) -> Counter[str]:
    """How many servers each host has."""
    with scene.world.db.read() as session:
        found = session.exec(select(Host.name).join(Server, col(Server.host_id) == col(Host.id))).all()
    return Counter(found)


def test_a_fourth_of_a_strict_group_on_three_hosts_is_refused_with_the_reason(scene: Scene) -> None:
    apart = group(scene, "ANTI_AFFINITY")
    first = scene.server(groupId=apart)
    scene.server(groupId=apart)
    scene.server(groupId=apart)
    assert where(scene) == {"h": 1, "i": 1, "j": 1}
    planned = {"name": "s", "flavorId": scene.flavor, "imageId": scene.image, "groupId": apart}
    plan = scene.world.admin.ok(PLAN, input={**planned, "tenantId": scene.tenant})["serverCreatePlan"]
    assert plan["possible"] is False
    message = "members of group anti_affinity are on the host already: 1"
    assert [each["reasons"] for each in plan["decision"]["verdicts"]] == [
        [{"constraint": "ANTI_AFFINITY", "message": message}]
    ] * 3
    shown = scene.alice.ok(PLAN, input=planned)["serverCreatePlan"]["decision"]
    assert (shown["counts"], shown["verdicts"]) == ([{"constraint": "ANTI_AFFINITY", "hosts": 3}], None)
    fourth = scene.create(groupId=apart)
    scene.world.work()
    assert scene.status(fourth["server"]["id"]) == "ERROR"
    assert scene.alice.ok(EXPLAINED, id=fourth["job"]["id"])["job"]["error"]["decision"] == {
        "considered": 3,
        "counts": [{"constraint": "ANTI_AFFINITY", "hosts": 3}],
        "smallestChange": {"message": "leave out the server group, or use one with soft anti-affinity"},
    }
    scene.do_and_work("serverDelete", id=first)
    scene.server(groupId=apart)
    assert where(scene) == {"h": 1, "i": 1, "j": 1}


def test_as_many_as_it_says_may_share_a_host(scene: Scene) -> None:
    apart = group(scene, "ANTI_AFFINITY", maxPerHost=2)
    scene.create(groupId=apart, count=7)
    scene.world.work()
    assert where(scene) == {"h": 2, "i": 2, "j": 2}
    shown = scene.alice.ok(f"query($id: ID!) {{ serverGroup(id: $id) {{ {FIELDS[14:-2]} }} }}", id=apart)["serverGroup"]
    assert (shown["maxPerHost"], shown["servers"]) == (2, {"totalCount": 7})


def test_all_of_a_strict_group_share_a_host_or_are_not_made(scene: Scene) -> None:
    near = group(scene, "AFFINITY")
    scene.server()
    scene.create(groupId=near, count=4)
    scene.world.work()
    assert sorted(where(scene).values()) == [1, 4]
    fifth = scene.create(groupId=near)
    scene.world.work()
    assert scene.alice.ok(EXPLAINED, id=fifth["job"]["id"])["job"]["error"]["decision"]["counts"] == [
        {"constraint": "AFFINITY", "hosts": 2},
        {"constraint": "VCPUS", "hosts": 1},
    ]


def test_soft_groups_go_as_far_as_there_is_room(scene: Scene) -> None:
    near = group(scene, "SOFT_AFFINITY")
    scene.create(groupId=near, count=5)
    scene.world.work()
    assert sorted(where(scene).values()) == [1, 4]
    apart = group(scene, "SOFT_ANTI_AFFINITY")
    scene.create(groupId=apart, count=7)
    scene.world.work()
    assert sorted(where(scene).values()) == [4, 4, 4]


def test_a_group_is_its_tenants_own(scene: Scene) -> None:
    apart = group(scene, "ANTI_AFFINITY")
    stranger = scene.world.member(scene.world.tenant())
    assert stranger.ok("query($id: ID!) { serverGroup(id: $id) { name } }", id=apart)["serverGroup"] is None
    assert stranger.ok("{ serverGroups { nodes { id } } }")["serverGroups"]["nodes"] == []
    reader = scene.world.member(scene.tenant_row, Role.READER)
    beside = noun.public(scene.world.tenant("beside"))
    before = scene.rows()
    assert stranger.refused("serverGroupDelete", id=apart) == [("NOT_FOUND", ["id"])]
    wish = {"name": "s", "flavorId": scene.flavor, "groupId": apart}
    assert scene.world.admin.refused("serverCreate", **wish, imageId=scene.image, tenantId=beside) == [
        ("INVALID", ["groupId"])
    ]
    assert reader.refused("serverGroupDelete", id=apart) == [("FORBIDDEN", None)]
    assert reader.refused("serverGroupCreate", name="x", policy="AFFINITY") == [("FORBIDDEN", None)]
    assert scene.alice.refused("serverGroupCreate", name="anti_affinity", policy="AFFINITY") == [("CONFLICT", ["name"])]
    wrong = scene.alice.refused("serverGroupCreate", name="x", policy="SOFT_AFFINITY", maxPerHost=2)
    assert [code for code, _path in wrong] == ["INVALID"]
    assert scene.alice.refused("serverCreate", **{**wish, "imageId": scene.image, "groupId": scene.flavor}) == [
        ("NOT_FOUND", ["groupId"])
    ]
    assert scene.rows() == before


def test_a_group_goes_when_nobody_is_in_it(scene: Scene) -> None:
    given = {"name": "g", "policy": "AFFINITY", "idempotencyKey": "once"}
    made = scene.alice.do("serverGroupCreate", FIELDS, **given)["serverGroup"]
    assert scene.alice.do("serverGroupCreate", FIELDS, **given)["serverGroup"] == made
    server = scene.server(groupId=made["id"])
    shown = scene.alice.ok("query($id: ID!) { server(id: $id) { group { name } } }", id=server)["server"]
    assert shown == {"group": {"name": "g"}}
    assert scene.alice.refused("serverGroupDelete", id=made["id"]) == [("IN_USE", ["id"])]
    scene.do_and_work("serverDelete", id=server)
    scene.alice.do("serverGroupDelete", "id", id=made["id"])
    assert scene.alice.ok("{ serverGroups { totalCount } }")["serverGroups"]["totalCount"] == 0
    again = scene.world.admin.do("quotaSet", "__typename", tenantId=scene.tenant, limits=[
        {"resource": "SERVER_GROUPS", "limit": 0}
    ])  # fmt: skip
    assert again
    assert scene.alice.refused("serverGroupCreate", name="h", policy="AFFINITY") == [("QUOTA_EXCEEDED", None)]


def test_members_made_at_once_never_share_a_host(scene: Scene) -> None:
    """Eight runners, three hosts with room for twelve: three of eight are made."""
    apart = group(scene, "ANTI_AFFINITY")
    scene.create(groupId=apart, count=8)
    world = scene.world
    waiting = list(world.crank.rung)
    world.crank.rung.clear()
    threads = [threading.Thread(target=world.runner.run, args=(job_id,)) for job_id in waiting]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    world.work()
    assert where(scene) == {"h": 1, "i": 1, "j": 1}
    with world.db.read() as session:
        found = Counter(session.exec(select(Server.status)))
    assert found == {ServerStatus.ACTIVE: 3, ServerStatus.ERROR: 5}
