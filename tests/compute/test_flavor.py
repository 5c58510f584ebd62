from __future__ import annotations

from gateway.kernel.access import Role
from tests.compute.scene import Scene
from tests.world import World

FIELDS = "flavor { id name vcpus ramMib diskGib deletedAt }"


def test_operator_offers_and_hides_a_flavor(world: World) -> None:
    alice = world.member(world.tenant())
    made = world.admin.do("flavorCreate", FIELDS, name="small", vcpus=1, ramMib=512, diskGib=2)["flavor"]
    listed = alice.ok("{ flavors { nodes { id name } totalCount } }")["flavors"]
    assert listed == {"nodes": [{"id": made["id"], "name": "small"}], "totalCount": 1}
    hidden = world.admin.do("flavorDelete", FIELDS, id=made["id"])["flavor"]
    assert hidden["deletedAt"] is not None
    assert alice.ok("{ flavors { nodes { id } } }")["flavors"]["nodes"] == []
    assert alice.ok("query($id: ID!) { flavor(id: $id) { name } }", id=made["id"])["flavor"] == {"name": "small"}


def test_wrong_input_is_told_by_place_and_changes_nothing(world: World) -> None:
    refused = world.admin.refused("flavorCreate", name="", vcpus=0, ramMib=1, diskGib=1)
    assert sorted(refused) == [("INVALID", ["name"]), ("INVALID", ["ramMib"]), ("INVALID", ["vcpus"])]
    world.admin.do("flavorCreate", FIELDS, name="x", vcpus=1, ramMib=512, diskGib=2)
    again = world.admin.refused("flavorCreate", name="x", vcpus=1, ramMib=512, diskGib=2)
    assert again == [("CONFLICT", ["name"])]
    assert world.admin.ok("{ flavors { totalCount } }")["flavors"]["totalCount"] == 1


def test_only_operators_make_flavors(world: World) -> None:
    manager = world.member(world.tenant(), Role.MANAGER)
    assert manager.refused("flavorCreate", name="x", vcpus=1, ramMib=512, diskGib=2) == [("FORBIDDEN", None)]
    assert world.nobody.run("{ flavors { totalCount } }").codes == ["UNAUTHENTICATED"]
    assert manager.ok("{ flavors { totalCount } }")["flavors"]["totalCount"] == 0


def test_same_key_gives_the_same_flavor(world: World) -> None:
    given = {"name": "x", "vcpus": 1, "ramMib": 512, "diskGib": 2, "idempotencyKey": "k"}
    first = world.admin.do("flavorCreate", FIELDS, **given)
    assert world.admin.do("flavorCreate", FIELDS, **given) == first
    given["vcpus"] = 2
    assert world.admin.refused("flavorCreate", **given) == [("IDEMPOTENCY_KEY_MISMATCH", ["idempotencyKey"])]


def test_pages_keep_their_order_while_flavors_come(world: World) -> None:
    for name in "dbca":
        world.admin.do("flavorCreate", FIELDS, name=name, vcpus=1, ramMib=512, diskGib=2)
    page = """query($after: String, $last: Int, $before: String, $first: Int) {
      flavors(first: $first, after: $after, last: $last, before: $before, orderBy: {field: NAME, direction: DESC}) {
        nodes { name } pageInfo { endCursor startCursor hasNextPage hasPreviousPage } } }"""
    first = world.admin.ok(page, first=2)["flavors"]
    assert [each["name"] for each in first["nodes"]] == ["d", "c"]
    assert (first["pageInfo"]["hasNextPage"], first["pageInfo"]["hasPreviousPage"]) == (True, False)
    world.admin.do("flavorCreate", FIELDS, name="e", vcpus=1, ramMib=512, diskGib=2)
    second = world.admin.ok(page, first=2, after=first["pageInfo"]["endCursor"])["flavors"]
    assert [each["name"] for each in second["nodes"]] == ["b", "a"]
    back = world.admin.ok(page, last=2, before=second["pageInfo"]["startCursor"])["flavors"]
    assert [each["name"] for each in back["nodes"]] == ["d", "c"]
    assert world.admin.run(page, first=2, after="x").codes == ["INVALID"]
    assert world.admin.run("query($a: String) { flavors(after: $a) { totalCount } }",
                           a=first["pageInfo"]["endCursor"]).codes == ["INVALID"]  # fmt: skip


def test_a_price_is_exact_and_told_before_a_server_is_made(world: World) -> None:
    scene = Scene.make(world)
    plan = """query($input: ServerCreateInput!) { serverCreatePlan(input: $input) { possible pricePerHour } }"""
    told = "flavor { id pricePerHour }"
    free = world.admin.do("flavorCreate", told, name="free", vcpus=1, ramMib=64, diskGib=1)["flavor"]
    assert free["pricePerHour"] is None
    dear = world.admin.do(
        "flavorCreate", told, name="dear", vcpus=1, ramMib=64, diskGib=1, pricePerHour="0.000007"
    )["flavor"]  # fmt: skip
    assert dear["pricePerHour"] == "0.000007"
    for flavor, count, price in ((free, 1, None), (dear, 1, "0.000007"), (dear, 3, "0.000021")):
        given = {"name": "s", "flavorId": flavor["id"], "imageId": scene.image, "count": count}
        found = scene.alice.ok(plan, input=given)["serverCreatePlan"]
        assert found == {"possible": True, "pricePerHour": price}
    listed = scene.alice.ok('{ flavors(filter: {name: "dear"}) { nodes { pricePerHour } } cloud { currency } }')
    assert listed == {"flavors": {"nodes": [{"pricePerHour": "0.000007"}]}, "cloud": {"currency": "XXX"}}


def test_a_price_is_a_bounded_decimal(world: World) -> None:
    size = {"name": "x", "vcpus": 1, "ramMib": 64, "diskGib": 1}
    for wrong in ("0.0000001", "1000000000", "123456789012345678901234567890"):
        assert world.admin.refused("flavorCreate", **size, pricePerHour=wrong) == [("INVALID", ["pricePerHour"])]
    create = """mutation($p: Decimal) {
      flavorCreate(input: {name: "x", vcpus: 1, ramMib: 64, diskGib: 1, pricePerHour: $p}) { flavor { id } } }"""
    for malformed in (0.5, 1, "-1", "1e3", "NaN", "", "1.", "٣"):
        (error,) = world.admin.run(create, p=malformed).errors
        assert "Expected value of type 'Decimal'" in error.message
    assert world.admin.ok("{ flavors { totalCount } }")["flavors"]["totalCount"] == 0
