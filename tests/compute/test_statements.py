from __future__ import annotations

from tests.compute.scene import Scene
from tests.statements import counted
from tests.world import World

DASHBOARD = """{ servers(first: 100) { totalCount nodes { id name status statusReason addresses tags
  flavor { name vcpus } image { name } ports { id macAddress network { name } } volumes { name sizeGib }
  activeJob { kind } } } }"""


def test_the_dashboard_costs_the_same_statements_for_one_server_and_for_thirty(world: World) -> None:
    scene = Scene.make(world)
    tenant = [{"resource": each, "limit": -1} for each in ("SERVERS", "VCPUS", "RAM_MIB", "PORTS", "VOLUMES")]
    world.admin.do("quotaSet", "__typename", tenantId=scene.tenant, limits=tenant)
    parts = {"networks": [{"networkId": scene.network}], "volumes": [{"sizeGib": 1}]}
    scene.create(**parts)
    scene.alice.ok(DASHBOARD)
    with counted(world.db) as one:
        assert scene.alice.ok(DASHBOARD)["servers"]["totalCount"] == 1
    for _ in range(29):
        scene.create(**parts)
    with counted(world.db) as many:
        found = scene.alice.ok(DASHBOARD)["servers"]
    assert found["totalCount"] == 30
    assert all(len(each["ports"]) == 1 and len(each["volumes"]) == 1 for each in found["nodes"])
    assert len(many) == len(one), "\n".join(many)
    assert len(one) <= 20
