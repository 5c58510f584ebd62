"""Users: people and programs that sign in by name and password (argon2id)."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Field

from gateway.kernel.row import Row


class User(Row, table=True):
    """Somebody. ``password`` is an argon2id hash; ``admin`` operates the whole cloud."""

    __tablename__ = "user_account"

    name: str = Field(max_length=255, unique=True)
    full_name: str = Field(default="", max_length=255)
    email: str = Field(default="", max_length=320)
    password: str = Field(max_length=255, repr=False)
    admin: bool = False
    enabled: bool = True
    failed_logins: int = 0
    locked_until: datetime | None = None
    password_changed_at: datetime | None = None
