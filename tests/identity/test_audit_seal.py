"""Seals: whoever changes the audit trail in the database is noticed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.fernet import Fernet
from sqlmodel import col, select

from gateway.identity import audit_seal
from gateway.identity.audit_seal import AuditSeal
from gateway.kernel.secretbox import Sealed
from tests.identity.conftest import second_process, together
from tests.world import World

VERDICT = """query($first: Int, $after: BigInt) {
  auditVerify(first: $first, after: $after) { intact checked cursor newest reason } }"""


def _tenants(world: World, *names: str) -> None:
    for name in names:
        world.admin.do("tenantCreate", "tenant { id }", name=name)


def _verdict(world: World, **given: Any) -> dict[str, Any]:
    found: dict[str, Any] = world.admin.ok(VERDICT, **given)["auditVerify"]
    return found


def _by_hand(world: World, statement: str) -> None:
    """What somebody with the database's password does."""
    with world.db.engine.begin() as connection:
        connection.exec_driver_sql(statement)


def test_every_record_is_sealed_once(world: World) -> None:
    _tenants(world, "a", "b", "c")
    assert audit_seal.seal(world.db) == 3
    assert audit_seal.seal(world.db) == 0
    found = _verdict(world)
    with world.db.read() as session:
        links = session.exec(select(AuditSeal).order_by(col(AuditSeal.id))).all()
    assert [each.previous for each in links] == ["0" * 64, links[0].digest, links[1].digest]
    assert found == {
        "intact": True, "checked": 3, "cursor": links[2].id, "newest": links[2].digest, "reason": None,
    }  # fmt: skip


def test_the_reconciler_seals(world: World) -> None:
    _tenants(world, "a")
    world.reconcile("audit.seal")
    assert _verdict(world)["checked"] == 1


@pytest.mark.parametrize(
    ("statement", "checked", "reason"),
    [
        ("UPDATE audit_record SET result = 'FORBIDDEN' WHERE id = 2", 1, "The record was changed."),
        ("UPDATE audit_record SET address = '198.51.100.1' WHERE id = 3", 2, "The record was changed."),
        ("UPDATE audit_record SET user_id = NULL WHERE id = 1", 0, "The record was changed."),
        ("DELETE FROM audit_record WHERE id = 2", 1, "The record is missing."),
        ("DELETE FROM audit_seal WHERE record_id = 2", 1, "A seal before this record is missing or was changed."),
        ("UPDATE audit_seal SET digest = previous WHERE record_id = 2", 1, "The record was changed."),
    ],
)
def test_tampering_is_found_where_it_is(world: World, statement: str, checked: int, reason: str) -> None:
    _tenants(world, "a", "b", "c", "d")
    audit_seal.seal(world.db)
    assert _verdict(world)["intact"]
    _by_hand(world, statement)
    found = _verdict(world)
    assert (found["intact"], found["checked"], found["reason"]) == (False, checked, reason)


def test_whoever_lacks_the_key_cannot_seal_anew(world: World) -> None:
    _tenants(world, "a", "b")
    audit_seal.seal(world.db)
    _by_hand(world, "UPDATE audit_record SET result = 'FORBIDDEN' WHERE id = 1")
    _by_hand(world, "DELETE FROM audit_seal")
    forger = second_process(world)

    forger.db.provide("sealed", Sealed([Fernet.generate_key()]))
    assert audit_seal.seal(forger.db) == 2
    forger.db.close()
    assert _verdict(world)["reason"] == "The record was changed."


def test_a_long_trail_is_checked_in_parts(world: World) -> None:
    _tenants(world, "a", "b", "c", "d", "e")
    audit_seal.seal(world.db)
    first = _verdict(world, first=2)
    second = _verdict(world, first=2, after=first["cursor"])
    third = _verdict(world, first=2, after=second["cursor"])
    assert [each["checked"] for each in (first, second, third)] == [2, 2, 1]
    assert third["newest"] == _verdict(world)["newest"]
    assert world.admin.run(VERDICT, first=0).codes == ["INVALID"]
    assert world.admin.run(VERDICT, first=10_001).codes == ["INVALID"]
    assert world.member(world.tenant()).run(VERDICT).codes == ["FORBIDDEN"]


def test_processes_that_seal_at_once_make_one_chain(both: World) -> None:
    _tenants(both, *"abcdefgh")
    others = [second_process(both) for _ in range(4)]
    sealed = together(4, lambda number: audit_seal.seal(others[number].db))
    for each in others:
        each.db.close()
    assert sum(sealed) == 8
    found = _verdict(both)
    assert (found["intact"], found["checked"]) == (True, 8)


def test_the_trail_as_json_lines(world: World) -> None:
    _tenants(world, "a", "b")
    told = [json.loads(each) for each in audit_seal.lines(world.db)]
    assert [(each["operation"], each["asked"]["name"], each["user_name"]) for each in told] == [
        ("tenantCreate", "a", "root"),
        ("tenantCreate", "b", "root"),
    ]
    assert list(audit_seal.lines(world.db, after=told[-1]["id"])) == []
