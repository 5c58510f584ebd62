"""The first start, and every later one."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlmodel import func, select

from gateway.identity.bootstrap import Bootstrap, ensure_admin
from gateway.identity.quota import Resource
from gateway.identity.user import User
from gateway.kernel.access import NOBODY
from gateway.kernel.command import parse
from tests.identity.conftest import sign_in, together, with_token
from tests.world import Client, World

VIEWER = "{ viewer { admin user { name } memberships { role tenant { name quotas { used } } } } }"


def _refused(world: World, password: str) -> bool:
    refused = Client(world, NOBODY).refused("sessionCreate", username="admin", password=password)
    return refused == [("UNAUTHENTICATED", None)]


def test_the_first_start_makes_an_operator_with_a_generated_password(world: World, tmp_path: Path) -> None:
    state = tmp_path / "state"
    done = ensure_admin(world.db, state, None)
    file = state / "admin-password"
    assert done == Bootstrap(created=True, password_changed=False, password_file=file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in state.iterdir()] == ["admin-password"]
    password = file.read_text().strip()
    assert len(password) >= 24
    told = with_token(world, sign_in(world, "admin", password)).ok(VIEWER)["viewer"]
    assert (told["admin"], told["user"]) == (True, {"name": "admin"})
    assert [(each["role"], each["tenant"]["name"]) for each in told["memberships"]] == [("MANAGER", "default")]
    assert len(told["memberships"][0]["tenant"]["quotas"]) == len(Resource)


def test_a_second_start_changes_nothing(world: World, tmp_path: Path) -> None:
    ensure_admin(world.db, tmp_path, None)
    password = (tmp_path / "admin-password").read_text()
    again = ensure_admin(world.db, tmp_path, None)
    assert again == Bootstrap(created=False, password_changed=False, password_file=tmp_path / "admin-password")
    assert (tmp_path / "admin-password").read_text() == password
    with world.db.read() as session:
        assert session.exec(select(func.count()).select_from(User)).one() == 1


def test_a_given_password_is_applied_when_it_changes_and_only_then(world: World, tmp_path: Path) -> None:
    assert ensure_admin(world.db, tmp_path, "given-one").created
    assert not (tmp_path / "admin-password").exists()
    token = sign_in(world, "admin", "given-one")
    assert ensure_admin(world.db, tmp_path, "given-one") == Bootstrap(
        created=False, password_changed=False, password_file=None
    )
    client = with_token(world, token)
    client.do("userPasswordSet", "user { id }", currentPassword="given-one", newPassword="chosen-later-1")
    assert not ensure_admin(world.db, tmp_path, "given-one").password_changed, "the old setting undoes nothing"
    assert sign_in(world, "admin", "chosen-later-1")
    assert ensure_admin(world.db, tmp_path, "given-two").password_changed
    assert sign_in(world, "admin", "given-two")
    assert _refused(world, "chosen-later-1")


def test_a_password_given_later_replaces_the_generated_one(world: World, tmp_path: Path) -> None:
    ensure_admin(world.db, tmp_path, None)
    generated = (tmp_path / "admin-password").read_text().strip()
    assert ensure_admin(world.db, tmp_path, "given-one").password_changed
    assert not (tmp_path / "admin-password").exists()
    assert sign_in(world, "admin", "given-one")
    assert _refused(world, generated)


def test_an_interrupted_first_start_is_taken_up(world: World, tmp_path: Path) -> None:
    (tmp_path / "admin-password").write_text("left-by-a-crash-1\n")
    assert ensure_admin(world.db, tmp_path, None).created
    assert sign_in(world, "admin", "left-by-a-crash-1")


@pytest.mark.parametrize("shared", [True, False])
def test_processes_that_start_together_make_one_operator(both: World, tmp_path: Path, shared: bool) -> None:  # noqa: FBT001 - a parameter of the test
    folders = [tmp_path / ("state" if shared else f"state-{number}") for number in range(6)]
    done = together(6, lambda number: ensure_admin(both.db, folders[number], None))
    assert sum(each.created for each in done) == 1
    with both.db.read() as session:
        assert session.exec(select(func.count()).select_from(User)).one() == 1
    files = {each.password_file for each in done if each.password_file}
    assert len({file for file in files if file.exists()}) == 1
    (left,) = {file for file in (folder / "admin-password" for folder in folders) if file.exists()}
    assert sign_in(both, "admin", left.read_text().strip())


def test_commands_hide_their_secrets_when_printed() -> None:
    from gateway.identity.session import SessionCreate

    made = parse(SessionCreate, {"username": "ada", "password": "never-to-be-seen"})
    assert "never-to-be-seen" not in repr(made)
