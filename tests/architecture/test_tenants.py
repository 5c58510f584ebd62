"""What belongs to one tenant is invisible to every other, whatever noun it is: by id, by node, in every list."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from graphql import GraphQLObjectType, build_schema
from sqlmodel import select

from gateway.kernel import noun
from gateway.kernel.access import Role
from resolvers.kernel.roots import ROOTS
from resolvers.schema import schema, sdl
from tests.compute.scene import Scene, active_image
from tests.world import Client, World

schema()
OWNED = sorted(prefix for prefix, each in noun.BY_PREFIX.items() if "tenant_id" in each.table.model_fields)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("tenants")
    world = World.open(f"sqlite:///{folder / 'world.db'}", folder)
    made = Scene.make(world)
    server = made.server(networks=[{"networkId": made.network}], volumes=[{"sizeGib": 1}])
    made.alice.do("serverMigrate", "__typename", serverId=server, toHypervisor="KVM")  # there is no such host
    volume = made.alice.do("volumeCreate", "volume { id }", name="v", sizeGib=1)["volume"]["id"]
    world.work()
    size = {"name": "large", "vcpus": 2, "ramMib": 768, "diskGib": 3}
    large = world.admin.do("flavorCreate", "flavor { id }", **size)["flavor"]["id"]
    made.do_and_work("serverResize", serverId=server, flavorId=large)
    made.do_and_work("serverResizeConfirm", serverId=server)
    made.do_and_work("serverSnapshotCreate", serverId=server, name="n")
    made.do_and_work("volumeExtend", id=volume, sizeGib=2)
    made.do_and_work("snapshotCreate", volumeId=volume, name="n")
    group = made.alice.do("securityGroupCreate", "securityGroup { id }", name="web")["securityGroup"]["id"]
    made.alice.do("securityGroupRuleAdd", "__typename", securityGroupId=group, direction="INGRESS")
    made.alice.do("serverGroupCreate", "__typename", name="apart", policy="ANTI_AFFINITY")
    boss = world.member(made.tenant_row, Role.MANAGER)
    boss.do("apiKeyCreate", "__typename", name="k", role="READER", tenantId=made.tenant)
    boss.do("webhookCreate", "__typename", name="w", url="http://127.0.0.1:9/hook", nouns=["network"])
    boss.do("networkCreate", "__typename", name="told")
    boss.do("bulkExport", "__typename", kind="INVENTORY")
    world.work()
    world.reconcile("webhooks")  # a delivery that failed, for nobody allowed that address
    _share_an_image_with(made)
    yield made
    world.close()


def _share_an_image_with(made: Scene) -> None:
    """Somebody else's image, shared with the scene's tenant: that it is shared belongs to the tenant, too."""
    owner = made.world.tenant()
    image = active_image(made.world, owner)
    giver = made.world.member(owner)
    giver.do("imageUpdate", "__typename", id=image, visibility="SHARED")
    giver.do("imageMemberAdd", "__typename", imageId=image, tenantId=made.tenant)


@pytest.fixture(scope="module")
def stranger(scene: Scene) -> Client:
    return scene.world.member(scene.world.tenant(), Role.MANAGER)


def _public(scene: Scene, prefix: str) -> list[str]:
    kind = noun.BY_PREFIX[prefix]
    with scene.world.db.read() as session:
        rows = session.exec(select(kind.table).where(kind.table.tenant_id == scene.tenant_row.id)).all()
    return [kind.public(row) for row in rows]


def test_the_scene_has_something_of_every_noun(scene: Scene) -> None:
    assert [prefix for prefix in OWNED if not _public(scene, prefix)] == []


@pytest.mark.parametrize("prefix", OWNED)
def test_a_stranger_finds_nothing_by_node(scene: Scene, stranger: Client, prefix: str) -> None:
    for public in _public(scene, prefix):
        found = stranger.run("query($id: ID!) { node(id: $id) { id } }", id=public)
        assert (found.data or {}).get("node") is None, public


def test_a_stranger_finds_nothing_in_any_list(scene: Scene, stranger: Client) -> None:
    theirs = {public for prefix in OWNED for public in _public(scene, prefix)}
    query = build_schema(sdl()).query_type
    assert query is not None
    asked = 0
    for (operation, name), root in ROOTS.items():
        field = query.fields.get(name)
        kind: Any = getattr(getattr(field, "type", None), "of_type", None) or getattr(field, "type", None)
        if operation != "Query" or not str(kind).endswith("Connection") or root.need.value == "ADMIN":
            continue
        assert isinstance(kind, GraphQLObjectType)
        found = stranger.run(f"{{ {name}(first: 100) {{ totalCount nodes {{ id }} }} }}")
        seen = {each["id"] for each in (found.data or {}).get(name, {}).get("nodes", [])} if found.data else set()
        assert seen & theirs == set(), name
        asked += 1
    assert asked >= 10
