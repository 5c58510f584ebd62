"""The first start: a user ``admin`` who operates the cloud, and a tenant ``default`` that admin manages.

Invariant: it happens once, whatever number of processes start at once. Without a given password one is generated into
a 0600 file of the state directory before the user is committed. A given password is applied when it differs from the
one that was given before, so a changed setting takes effect and an unchanged one never undoes what admin chose since.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sqlmodel import Session

from gateway.identity import password as passwords
from gateway.identity import policy, session, tenant, user
from gateway.identity.keys import Keyring
from gateway.identity.lockout import Tries
from gateway.identity.recognised import Recognised
from gateway.identity.role import Membership
from gateway.identity.tenant import TenantCreate
from gateway.identity.user import User
from gateway.kernel import clock
from gateway.kernel.access import CLOUD, Role
from gateway.kernel.db import Database
from gateway.kernel.secretbox import Sealed
from gateway.kernel.settings import Settings

ADMIN = "admin"
FILE = "admin-password"
DEFAULT_TENANT = "default"
_GENERATED_BYTES = 18


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """What was done. ``password_file`` holds admin's generated password; None when it was given."""

    created: bool
    password_changed: bool
    password_file: Path | None


def ensure_admin(db: Database, state_dir: Path, password: str | None) -> Bootstrap:
    """Make sure that there is somebody who can sign in."""
    file = state_dir / FILE
    with db.read() as reading:
        found, hashing = user.by_name(reading, ADMIN), passwords.of(reading)
    if found is not None:
        changed = password is not None and not hashing.matches(found.given_password or None, password)
        if changed and password is not None:
            kept, key = hashing.hash(password), found.id
            db.run(lambda writing: _apply(writing, key, kept))
            file.unlink(missing_ok=True)
        return Bootstrap(created=False, password_changed=changed, password_file=file if file.exists() else None)
    chosen = password if password is not None else _generated(file)
    kept = hashing.hash(chosen)
    created = db.run(lambda writing: _create(writing, kept, given=password is not None))
    if password is not None or (not created and not _current(db, chosen)):
        file.unlink(missing_ok=True)
    return Bootstrap(created=created, password_changed=False, password_file=file if file.exists() else None)


def _current(db: Database, password: str) -> bool:
    """Whether admin has this password: it was another process that made admin, perhaps from the same file."""
    with db.read() as reading:
        found, hashing = user.by_name(reading, ADMIN), passwords.of(reading)
    return found is not None and hashing.matches(found.password, password)


def _create(writing: Session, kept: str, *, given: bool) -> bool:
    if user.by_name(writing, ADMIN) is not None:
        return False
    admin = User(
        name=ADMIN,
        password=kept,
        admin=True,
        given_password=kept if given else "",
        password_changed_at=clock.now(writing),
    )
    writing.add(admin)
    writing.flush()
    passwords.remember(writing, admin.id, kept, policy.of(writing).password_history)
    place = tenant.create(writing, CLOUD, TenantCreate(name=DEFAULT_TENANT, description="The first tenant."))
    writing.add(Membership(user_id=admin.id, tenant_id=place.id, role=Role.MANAGER))
    return True


def _apply(writing: Session, admin_id: int, kept: str) -> None:
    admin = writing.get_one(User, admin_id)
    admin.password = kept
    admin.given_password = kept
    admin.password_changed_at = clock.now(writing)
    passwords.remember(writing, admin.id, kept, policy.of(writing).password_history)
    session.revoke_all(writing, admin.id)


def _generated(file: Path) -> str:
    """A password in the file: a new one, or the one that an interrupted first start left there."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    written = file.with_name(f".{FILE}.{secrets.token_hex(4)}")
    descriptor = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as opened:
            opened.write(secrets.token_urlsafe(_GENERATED_BYTES) + "\n")
            opened.flush()
            os.fsync(opened.fileno())
        with suppress(FileExistsError):
            os.link(written, file)  # all or nothing, and never over a file that is there
    finally:
        written.unlink()
    return file.read_text().strip()


def equip(db: Database, box: Sealed, rules: policy.Policy | None = None) -> None:
    """Give a database's sessions what identity needs: the policy (by default that of the settings they were provided
    with), the hashing, the keys, the memory of tokens.
    """
    db.provide("identity", rules or _from_settings(db))
    db.provide("passwords", passwords.Passwords())
    db.provide("tries", Tries())
    db.provide("recognised", Recognised())
    db.provide("keyring", Keyring(db, box))


def _from_settings(db: Database) -> policy.Policy:
    with db.read() as reading:
        settings: Settings | None = reading.info.get("settings")
    return policy.DEFAULT if settings is None else policy.Policy(session_ttl_s=settings.session_ttl_s)
