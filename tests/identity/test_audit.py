"""The audit trail: exactly one record for each mutation, and no secret in any."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable

import pytest
from cryptography.fernet import Fernet
from sqlmodel import Session, select

from gateway.identity.audit import AuditRecord
from gateway.jobs.idempotency import IdempotencyKey
from gateway.kernel.access import NOBODY
from gateway.kernel.secretbox import Sealed
from tests.identity.conftest import PASSWORD, Person
from tests.world import Client, World

People = Callable[..., Person]
Places = Callable[..., str]
LIST = """query($f: AuditRecordFilter) { auditRecords(filter: $f, orderBy: {field: AT}, first: 100) { totalCount nodes {
  operation result userName user { name } tenant { id } address requestId asked objects } } }"""


def _records(client: Client, **wanted: object) -> list[dict[str, object]]:
    found: list[dict[str, object]] = client.ok(LIST, f=wanted)["auditRecords"]["nodes"]
    return found


def test_a_mutation_leaves_one_record_that_says_everything(world: World, person: People) -> None:
    chief = person("chief", admin=True).client()
    made = chief.do("tenantCreate", "tenant { id }", name="lab", description="x" * 300)["tenant"]["id"]
    (record,) = _records(world.admin, operation="tenantCreate")
    assert record == {
        "operation": "tenantCreate",
        "result": "OK",
        "userName": "chief",
        "user": {"name": "chief"},
        "tenant": {"id": made},
        "address": "",
        "requestId": "request-1",
        "asked": {"name": "lab", "description": "x" * 200 + "…"},
        "objects": [made],
    }


@pytest.mark.parametrize(
    ("given", "result"),
    [
        ({"name": "lab"}, "FORBIDDEN"),
        ({"name": ""}, "FORBIDDEN"),
    ],
)
def test_a_denied_mutation_leaves_one_record(
    world: World, person: People, given: dict[str, object], result: str
) -> None:
    ada = person("ada").client()
    before = len(_records(world.admin))
    assert ada.refused("tenantCreate", **given) == [(result, None)]
    records = _records(world.admin)
    assert len(records) == before + 1
    assert (records[-1]["operation"], records[-1]["result"], records[-1]["userName"]) == ("tenantCreate", result, "ada")
    assert records[-1]["objects"] == []


def test_every_way_to_be_refused_leaves_one_record(world: World, place: Places) -> None:
    place("lab")
    ways = [
        ("tenantCreate", {"name": "lab"}, "CONFLICT"),
        ("tenantCreate", {"name": " "}, "INVALID"),
        ("tenantUpdate", {"id": "tenant_x", "name": "y"}, "NOT_FOUND"),
        ("userCreate", {"name": "x", "password": "short"}, "INVALID"),
        ("sessionCreate", {"username": "nobody-at-all", "password": PASSWORD}, "UNAUTHENTICATED"),
    ]
    for operation, given, result in ways:
        before = len(_records(world.admin))
        world.admin.refused(operation, **given)
        records = _records(world.admin)
        assert len(records) == before + 1, operation
        assert (records[-1]["operation"], records[-1]["result"]) == (operation, result)


def test_nobodys_mutations_are_recorded_too(world: World) -> None:
    document = 'mutation { tenantCreate(input: {name: "x"}) { __typename } }'
    assert world.nobody.run(document).codes == ["UNAUTHENTICATED"]
    (record,) = _records(world.admin, operation="tenantCreate")
    assert (record["result"], record["userName"], record["user"]) == ("UNAUTHENTICATED", "", None)


def test_a_sign_in_is_its_users(world: World, person: People) -> None:
    person("ada").sign_in()
    (record,) = _records(world.admin, operation="sessionCreate")
    assert (record["userName"], record["asked"]) == ("ada", {"username": "ada", "password": "***"})


def test_a_retry_that_does_nothing_leaves_no_second_record(world: World) -> None:
    for _ in range(2):
        world.admin.do("tenantCreate", "tenant { id }", name="lab", idempotencyKey="k")
    assert [each["result"] for each in _records(world.admin, operation="tenantCreate")] == ["OK"]


def test_no_password_is_in_the_whole_database(world: World, person: People) -> None:
    ada = person("ada").client()
    ada.do("userPasswordSet", "user { id }", currentPassword=PASSWORD, newPassword="another-good-1")
    Client(world, NOBODY).refused("sessionCreate", username="ada", password="guess-guess-1")
    with world.db.read() as session:
        tables = AuditRecord.metadata.tables
        said = "".join(str(session.connection().execute(each.select()).all()) for each in tables.values())
    for secret in (PASSWORD, "another-good-1", "guess-guess-1"):
        assert secret not in said
    assert re.search("'new_password': '\\*\\*\\*'", said)


def test_managers_see_what_happened_in_their_tenants(world: World, person: People, place: Places) -> None:
    ada, bob, eve = person("ada"), person("bob"), person("eve")
    lab, other = place("lab", {"ada": "MANAGER", "bob": "MEMBER"}), place("other", {"eve": "MANAGER"})
    seen = _records(ada.client())
    assert [(each["operation"], each["result"]) for each in seen] == [
        ("tenantCreate", "OK"),
        *[("memberAdd", "OK")] * 2,
    ]
    assert {each["tenant"]["id"] for each in seen} == {lab}  # type: ignore[index]  # of JSON
    bob.client().refused("memberRemove", tenantId=lab, userId=ada.id)
    assert (_records(ada.client())[-1]["result"], _records(ada.client())[-1]["userName"]) == ("FORBIDDEN", "bob")
    ada.client().refused("memberAdd", tenantId=other, user={"name": "ada"}, role="MANAGER")
    assert {each["operation"] for each in _records(eve.client())} == {"tenantCreate", "memberAdd"}
    assert all(each["userName"] != "ada" for each in _records(eve.client())), "strangers leave no trace to be read"
    assert bob.client().run(LIST).codes == ["FORBIDDEN"]
    assert world.nobody.run(LIST).codes == ["UNAUTHENTICATED"]


def test_the_list_filters(world: World, person: People, place: Places) -> None:
    lab, other = place("lab"), place("other")
    world.admin.refused("tenantCreate", name="lab")
    assert [each["result"] for each in _records(world.admin, tenantId=lab)] == ["OK"]
    assert [each["objects"] for each in _records(world.admin, tenantId=other)] == [[other]]
    assert [each["operation"] for each in _records(world.admin, result="CONFLICT")] == ["tenantCreate"]
    assert _records(world.admin, since="2030-01-01T00:00:00Z") == []
    assert len(_records(world.admin, until="2030-01-01T00:00:00Z", userName="root")) == 3
    assert world.admin.run(LIST, f={"tenantId": "x"}).codes == ["NOT_FOUND"]
    person("ada")


def test_records_cannot_be_changed_or_deleted(world: World, place: Places) -> None:
    place("lab")

    def change(session: Session) -> None:
        session.exec(select(AuditRecord)).one().result = "NOT_FOUND"

    def delete(session: Session) -> None:
        session.delete(session.exec(select(AuditRecord)).one())

    for work in (change, delete):
        with pytest.raises(AssertionError, match="never changed or deleted"):
            world.db.run(work)
    assert [each["result"] for each in _records(world.admin)] == ["OK"]


def test_what_is_kept_for_retries_lets_no_password_be_guessed(world: World) -> None:
    given = {"name": "ada", "password": PASSWORD}
    world.admin.do("userCreate", "user { id }", **given, idempotencyKey="k")
    with world.db.read() as session:
        kept = session.exec(select(IdempotencyKey.digest)).one()
        box = session.info["sealed"]
    whole = {**given, "admin": False, "email": "", "enabled": True, "full_name": ""}
    said = json.dumps(["userCreate", whole], sort_keys=True)
    assert kept == box.fingerprint(said)
    assert kept != hashlib.sha256(said.encode()).hexdigest()
    assert kept != Sealed([Fernet.generate_key()]).fingerprint(said), "it takes the state directory's key"
