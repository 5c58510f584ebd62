"""Who sees and uses an image, and the tenants it is shared with."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from gateway.kernel import noun
from gateway.kernel.access import Role
from tests.image.cloud import Images


@pytest.mark.parametrize(
    ("visibility", "seen"),
    [
        ("PRIVATE", {"member", "reader"}),
        ("SHARED", {"member", "reader", "friend"}),
        ("PUBLIC", {"member", "reader", "friend", "stranger"}),
    ],
)
def test_who_sees_and_uses_an_image(folk: Images, qcow2: bytes, visibility: str, seen: set[str]) -> None:
    world = folk.world
    friends, strangers = world.tenant(), world.tenant()
    people = {
        "member": folk.alice,
        "reader": world.member(folk.tenant_row, Role.READER),
        "friend": world.member(friends),
        "stranger": world.member(strangers),
    }
    image = folk.active(qcow2, visibility="SHARED")
    folk.alice.do("imageMemberAdd", "__typename", imageId=image, tenantId=noun.public(friends))
    world.admin.do("imageUpdate", "__typename", id=image, visibility=visibility)
    for name, person in people.items():
        found = folk.get(image, person)
        listed = person.ok("{ images { nodes { id } } }")["images"]["nodes"]
        assert (found is not None, listed) == (name in seen, [{"id": image}] if name in seen else [])
        made = person.ask("volumeCreate", "volume { image { id } }", name="v", imageId=image)
        if name == "reader":
            assert [each["code"] for each in made["userErrors"]] == ["FORBIDDEN"]
        elif name in seen:
            assert made["volume"] == {"image": {"id": image}}
        else:
            assert [each["code"] for each in made["userErrors"]] == ["NOT_FOUND"]
        if found is not None:
            assert folk.web.get(found["downloadUrl"]).content == qcow2
        if name in ("friend", "stranger"):
            code = "FORBIDDEN" if name in seen else "NOT_FOUND"
            assert person.refused("imageUpdate", id=image, name="mine") == [(code, ["id"])]
            assert person.refused("imageDelete", id=image) == [(code, ["id"])]
    assert folk.get(image)["name"] == "disk"


def test_the_other_tenant_sees_nothing(folk: Images) -> None:
    eve = folk.world.member(folk.world.tenant())
    made = folk.create()
    before = folk.get(made["id"])
    assert folk.get(made["id"], eve) is None
    assert eve.ok("query($id: ID!) { node(id: $id) { id } }", id=made["id"])["node"] is None
    other = noun.public(folk.world.tenant())
    for mutation, given in {
        "imageUpdate": {"id": made["id"], "name": "x"},
        "imageDelete": {"id": made["id"]},
    }.items():
        assert eve.refused(mutation, **given) == [("NOT_FOUND", ["id"])]
    for mutation in ("imageMemberAdd", "imageMemberRemove"):
        assert eve.refused(mutation, imageId=made["id"], tenantId=other) == [("NOT_FOUND", ["imageId"])]
    assert eve.refused("imageCreate", name="x", tenantId=folk.tenant) == [("NOT_FOUND", ["tenantId"])]
    after = folk.get(made["id"])
    assert before | {"upload": None} == after | {"upload": None}


def test_readers_and_others_get_no_upload_link(folk: Images) -> None:
    made = folk.create(visibility="SHARED")
    reader = folk.world.member(folk.tenant_row, Role.READER)
    assert folk.get(made["id"], reader)["upload"] is None
    friends = folk.world.tenant()
    friend = folk.world.member(friends)
    folk.alice.do("imageMemberAdd", "__typename", imageId=made["id"], tenantId=noun.public(friends))
    assert folk.get(made["id"], friend)["upload"] is None
    assert folk.get(made["id"], folk.world.admin)["upload"] is not None
    assert reader.refused("imageDelete", id=made["id"]) == [("FORBIDDEN", None)]


def test_members_come_and_go(folk: Images, qcow2: bytes) -> None:
    world = folk.world
    friends = world.tenant()
    friend, boss = world.member(friends), world.member(friends, Role.MANAGER)
    tenant = noun.public(friends)
    image = folk.active(qcow2)
    assert folk.alice.refused("imageMemberAdd", imageId=image, tenantId=tenant) == [("INVALID_STATE", ["imageId"])]
    folk.alice.do("imageUpdate", "__typename", id=image, visibility="SHARED")
    assert folk.alice.refused("imageMemberAdd", imageId=image, tenantId=folk.tenant) == [("INVALID", ["tenantId"])]
    assert folk.alice.refused("imageMemberAdd", imageId=image, tenantId=image) == [("NOT_FOUND", ["tenantId"])]
    wanted = "imageMember { id tenantId tenant { id } image { id } }"
    first, again = (
        folk.alice.do("imageMemberAdd", wanted, imageId=image, tenantId=tenant)["imageMember"] for _ in range(2)
    )
    assert first == again
    assert (first["tenantId"], first["tenant"], first["image"]) == (tenant, None, {"id": image})
    members = "query($id: ID!) { image(id: $id) { members { tenantId } } }"
    assert folk.alice.ok(members, id=image)["image"]["members"] == [{"tenantId": tenant}]
    assert friend.ok(members, id=image)["image"]["members"] == [{"tenantId": tenant}]
    asked = "query($id: ID!) { imageMember(id: $id) { tenantId } }"
    assert friend.ok(asked, id=first["id"])["imageMember"] == {"tenantId": tenant}
    assert world.member(world.tenant()).ok(asked, id=first["id"])["imageMember"] is None
    assert friend.refused("imageMemberRemove", imageId=image, tenantId=tenant) == [("FORBIDDEN", ["imageId"])]
    boss.do("imageMemberRemove", "__typename", imageId=image, tenantId=tenant)
    assert folk.get(image, friend) is None
    folk.alice.do("imageMemberAdd", "__typename", imageId=image, tenantId=tenant)
    folk.alice.do("imageMemberRemove", "__typename", imageId=image, tenantId=tenant)
    folk.alice.do("imageMemberRemove", "__typename", imageId=image, tenantId=tenant)
    assert folk.get(image, friend) is None


def test_a_tenant_with_shared_images_can_be_deleted(folk: Images) -> None:
    made, friends = folk.create(visibility="SHARED"), folk.world.tenant()
    folk.alice.do("imageMemberAdd", "__typename", imageId=made["id"], tenantId=noun.public(friends))
    folk.world.admin.do("tenantDelete", "__typename", id=noun.public(friends))
    found = folk.alice.ok("query($id: ID!) { image(id: $id) { members { id } } }", id=made["id"])
    assert found["image"]["members"] == []


def test_members_are_loaded_with_one_statement(folk: Images) -> None:
    for _ in range(3):
        made = folk.create(visibility="SHARED")
        for _ in range(2):
            folk.alice.do("imageMemberAdd", "__typename", imageId=made["id"], tenantId=noun.public(folk.world.tenant()))
    sent: list[str] = []
    sa.event.listen(folk.world.db._read, "before_cursor_execute", lambda *given: sent.append(given[2]))
    found = folk.alice.ok("{ images { nodes { members { tenantId tenant { name } } } } }")["images"]["nodes"]
    assert [len(each["members"]) for each in found] == [2, 2, 2]
    assert len([each for each in sent if each.startswith("SELECT")]) == 4
